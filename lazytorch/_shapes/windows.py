"""Shape rules of sliding windows, convolutions and poolings, in ``dims`` spatial dimensions, and of padding."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from lazytorch._shapes.shape_tensor import ShapeTensor, is_plain, require_one_dtype

if TYPE_CHECKING:
    from lazytorch._shapes.mode import ShapeMode

Sizes = int | Sequence[int]


def is_bias(bias: Any, input: ShapeTensor, out_channels: int) -> bool:
    return bias is None or (is_plain(input, bias) and bias.shape == (out_channels,))


def each_of(value: Sizes, dims: int) -> Sequence[int] | None:
    """``value`` as one number for each of ``dims`` dimensions; None if it is anything else."""
    if type(value) is int:
        return (value,) * dims
    return value if isinstance(value, (tuple, list)) and len(value) == dims else None


def output_sizes(sizes: Sequence[int], *window: Sizes, ceil_mode: bool = False) -> list[int] | None:
    """The output sizes of a sliding window: ``window`` is its kernel size, stride, padding and dilation."""
    kernel, stride, padding, dilation = [each_of(value, len(sizes)) for value in window]
    if kernel is None or stride is None or padding is None or dilation is None or min(stride) < 1:
        return None
    output = []
    for size, width, step, pad, spacing in zip(sizes, kernel, stride, padding, dilation, strict=True):
        last = size + 2 * pad - spacing * (width - 1) - 1  # the last position at which a window can start
        positions = last // step + 1
        if ceil_mode and last % step and positions * step < size + pad:
            positions += 1  # a window may extend past the end, if it starts before it
        output.append(positions)
    return output if min(output) > 0 and set(map(type, output)) == {int} else None


def convolution(
    dims: int,
    shapes: "ShapeMode",
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> ShapeTensor | None:
    require_one_dtype(input, weight)
    if not is_plain(input, weight) or not input.dim() == weight.dim() == dims + 2:
        return None
    batch, channels, *sizes = input.shape
    out_channels, in_group, *kernel = weight.shape
    if channels != in_group * groups or out_channels % groups or 0 in weight.shape:
        return None
    output = output_sizes(sizes, kernel, stride, padding, dilation)
    if output is None or not is_bias(bias, input, out_channels):
        return None
    shapes.macs += batch * math.prod(output) * weight.numel()
    return shapes.like(input, (batch, out_channels, *output))


def pool(
    dims: int,
    shapes: "ShapeMode",
    input: Any,
    kernel_size: Sizes,
    stride: Any = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> ShapeTensor | None:
    if return_indices or not is_plain(input) or input.dim() != dims + 2:
        return None
    kernel, pads, sizes = each_of(kernel_size, dims), each_of(padding, dims), input.shape[2:]
    if kernel is None or pads is None:
        return None
    if any(2 * pad > width or width > size for pad, width, size in zip(pads, kernel, sizes, strict=True)):
        return None
    output = output_sizes(sizes, kernel, stride or kernel, pads, dilation, ceil_mode=ceil_mode)
    return None if output is None else shapes.like(input, (*input.shape[:2], *output))


def average_pool(
    dims: int,
    shapes: "ShapeMode",
    input: Any,
    kernel_size: Sizes,
    stride: Any = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> ShapeTensor | None:
    return None if divisor_override == 0 else pool(dims, shapes, input, kernel_size, stride, padding, 1, ceil_mode)


def pad(
    shapes: "ShapeMode", input: Any, pad: Any, mode: str = "constant", value: float | None = None
) -> ShapeTensor | None:
    if not is_plain(input):
        return None
    if mode != "constant":
        sides = [size for size in reversed(input.shape[2:]) for _ in range(2)]
        if len(pad) != len(sides) or not all(0 <= count < size for count, size in zip(pad, sides, strict=True)):
            return None
    return shapes.like(input, F.pad(input, pad).shape)  # without the mode: its meta kernel is slow, the shape the same


def adaptive_pool(
    dims: int, shapes: "ShapeMode", input: Any, output_size: Any, return_indices: bool = False
) -> ShapeTensor | None:
    sizes = each_of(output_size, dims)
    if return_indices or sizes is None or not is_plain(input) or input.dim() != dims + 2:
        return None
    return shapes.like(input, (*input.shape[:2], *sizes)) if min(sizes) > 0 else None
