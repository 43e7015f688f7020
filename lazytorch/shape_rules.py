"""Rules of shapes: what the operators that convolutional networks are made of return, by arithmetic on sizes.

A rule has the parameters of the operator that it stands for, after the ``Shapes`` that asks. It answers only what is
usual: one dtype and device, contiguous, nothing empty, no error. Otherwise it returns None, and PyTorch is asked.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

__all__ = ["ELEMENTWISE", "RULES"]

Sizes = int | Sequence[int]


class Shapes(Protocol):
    """What a rule is given to answer with."""

    macs: int
    counted: dict[int, float]

    def like(self, tensor: FakeTensor, shape: Sequence[int]) -> FakeTensor: ...

    def fake(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> FakeTensor: ...


def is_plain(*tensors: Any) -> bool:
    """Whether all are floating-point tensors of one dtype, on one device and contiguous, the first fake, not empty."""
    first = tensors[0]
    if type(first) is not FakeTensor or not first.is_floating_point() or first.numel() == 0:
        return False
    dtype, device = first.dtype, first.fake_device
    for each in tensors:
        if not isinstance(each, Tensor) or each.dtype is not dtype or each.device != device:
            return False
        # A tensor of one channel, or of one pixel, is contiguous also where its strides ask for channels last.
        if each.stride() != contiguous_strides(each.shape):
            return False
    return True


@functools.lru_cache(maxsize=1024)
def contiguous_strides(shape: torch.Size) -> tuple[int, ...]:
    """The strides of a new tensor."""
    return tuple(math.prod(max(size, 1) for size in shape[place:]) for place in range(1, len(shape) + 1))


def is_bias(bias: Any, input: FakeTensor, out_channels: int) -> bool:
    return bias is None or (is_plain(input, bias) and bias.shape == (out_channels,))


def each_of(value: Sizes, dims: int) -> Sequence[int] | None:
    """One number for each dimension; None for what is no such thing."""
    if type(value) is int:
        return (value,) * dims
    return value if isinstance(value, (tuple, list)) and len(value) == dims else None


def slid(sizes: Sequence[int], *window: Sizes) -> list[int] | None:
    """Places of a window along each side: ``window`` is its sides, steps, paddings and dilations."""
    kernel, stride, padding, dilation = [each_of(value, len(sizes)) for value in window]
    if kernel is None or stride is None or padding is None or dilation is None or min(stride) < 1:
        return None
    places = [
        (size + 2 * pad - apart * (side - 1) - 1) // step + 1
        for size, side, step, pad, apart in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]
    return places if min(places) > 0 and set(map(type, places)) == {int} else None


def convolution(dims: int) -> Callable[..., FakeTensor | None]:
    def rule(
        shapes: Shapes,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> FakeTensor | None:
        if not is_plain(input, weight) or not input.dim() == weight.dim() == dims + 2:
            return None
        batch, channels, *sizes = input.shape
        out_channels, in_group, *kernel = weight.shape
        if channels != in_group * groups or out_channels % groups or 0 in weight.shape:
            return None
        places = slid(sizes, kernel, stride, padding, dilation)
        if places is None or not is_bias(bias, input, out_channels):
            return None
        shapes.macs += batch * math.prod(places) * weight.numel()
        return shapes.like(input, (batch, out_channels, *places))

    return rule


def linear(shapes: Shapes, input: Any, weight: Any, bias: Any = None) -> FakeTensor | None:
    if not is_plain(input, weight) or input.dim() < 2 or weight.dim() != 2 or input.size(-1) != weight.size(1):
        return None
    if not is_bias(bias, input, weight.size(0)):
        return None
    shapes.macs += input.numel() * weight.size(0)
    return shapes.like(input, (*input.shape[:-1], weight.size(0)))


def batch_norm(
    shapes: Shapes,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> FakeTensor | None:
    vectors = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    if not is_plain(input, *vectors) or input.dim() < 2 or not (training or running_mean is not None):
        return None
    shape = input.shape
    return shapes.like(input, shape) if {each.shape for each in vectors} <= {shape[1:2]} else None


def elementwise(func: Callable[..., Any]) -> Callable[..., FakeTensor | None]:
    """The rule of a function of each value; ``inplace`` is the parameter of that name, if there is one."""
    try:
        names = list(inspect.signature(func).parameters)
    except ValueError:  # a built-in function tells nothing, and has no such parameter
        names = []
    place = names.index("inplace") - 1 if "inplace" in names else None

    def rule(shapes: Shapes, input: Any, *args: Any, **kwargs: Any) -> FakeTensor | None:
        if not is_plain(input) or "out" in kwargs:
            return None
        at_place = place is not None and len(args) > place and args[place]
        return input if at_place or kwargs.get("inplace") else shapes.like(input, input.shape)

    return rule


def dropout(
    shapes: Shapes, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> FakeTensor | None:
    if not is_plain(input) or not 0 <= p <= 1:
        return None
    unchanged = inplace or not training or p == 0
    return input if unchanged else shapes.like(input, input.shape)


def broadcast(shapes: Shapes, input: Any, other: Any, **kwargs: Any) -> FakeTensor | None:
    """The rule of ``+`` and ``*``, of one shape or where the second has some sides of 1."""
    if kwargs or not is_plain(input, other) or type(other) is not FakeTensor or input.dim() != other.dim():
        return None
    fits = all(side in (1, whole) for side, whole in zip(other.shape, input.shape, strict=True))
    return shapes.like(input, input.shape) if fits else None


def in_place(shapes: Shapes, input: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    """The rule of what changes values by numbers: parameters and buffers keep theirs, as only shapes are wanted."""
    numbers = not kwargs and {*map(type, args)} <= {int, float}
    return input if numbers and isinstance(input, Tensor) else None


def count(shapes: Shapes, input: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    """The rule of ``+=``: as ``in_place``, but what is counted so can be told."""
    result = in_place(shapes, input, *args, **kwargs)
    if result is not None and len(args) == 1 and type(result) is not FakeTensor and result.dim() == 0:
        shapes.counted[id(result)] = shapes.counted.get(id(result), 0) + args[0]
    return result


def as_number(shapes: Shapes, input: Any) -> float | None:
    """The rule of ``float`` of a count, by which BatchNorm without a momentum divides."""
    if id(input) not in shapes.counted:
        return None
    return shapes.counted[id(input)] + (0.0 if input.is_meta else float(input))


def pool(dims: int) -> Callable[..., FakeTensor | None]:
    def rule(
        shapes: Shapes,
        input: Any,
        kernel_size: Sizes,
        stride: Any = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> FakeTensor | None:
        if ceil_mode or return_indices or not is_plain(input) or input.dim() != dims + 2:
            return None
        kernel = each_of(kernel_size, dims)
        pads = each_of(padding, dims)
        sizes = input.shape[2:]
        if (
            kernel is None
            or pads is None
            or any(2 * pad > side or side > size for pad, side, size in zip(pads, kernel, sizes, strict=True))
        ):
            return None
        places = slid(sizes, kernel, stride or kernel, pads, dilation)
        return None if places is None else shapes.like(input, (*input.shape[:2], *places))

    return rule


def average_pool(dims: int) -> Callable[..., FakeTensor | None]:
    of_dims = pool(dims)

    def rule(
        shapes: Shapes,
        input: Any,
        kernel_size: Sizes,
        stride: Any = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> FakeTensor | None:
        return None if divisor_override == 0 else of_dims(shapes, input, kernel_size, stride, padding, 1, ceil_mode)

    return rule


def adaptive_pool(dims: int) -> Callable[..., FakeTensor | None]:
    def rule(shapes: Shapes, input: Any, output_size: Any, return_indices: bool = False) -> FakeTensor | None:
        sizes = each_of(output_size, dims)
        if return_indices or sizes is None or not is_plain(input) or input.dim() != dims + 2:
            return None
        return shapes.like(input, (*input.shape[:2], *sizes)) if min(sizes) > 0 else None

    return rule


def flatten(shapes: Shapes, input: Any, start_dim: int = 0, end_dim: int = -1) -> FakeTensor | None:
    if (start_dim, end_dim) != (1, -1) or not is_plain(input) or input.dim() < 3:
        return None
    return shapes.like(input, (input.size(0), math.prod(input.shape[1:])))


def empty(shapes: Shapes, size: Any, *, dtype: torch.dtype, device: torch.device) -> FakeTensor | None:
    return shapes.fake(size, dtype, device) if type(size) is tuple and type(device) is torch.device else None


ELEMENTWISE = [
    F.gelu,
    F.hardsigmoid,
    F.hardswish,
    F.hardtanh,
    F.leaky_relu,
    F.mish,
    F.relu,
    F.relu6,
    F.silu,
    torch.sigmoid,
    torch.tanh,
]
RULES: dict[Any, Callable[..., Any]] = {
    torch.conv1d: convolution(1),
    torch.conv2d: convolution(2),
    torch.conv3d: convolution(3),
    F.linear: linear,
    F.batch_norm: batch_norm,
    F.dropout: dropout,
    **{func: elementwise(func) for func in ELEMENTWISE},
    Tensor.add: broadcast,
    Tensor.mul: broadcast,
    Tensor.add_: count,
    Tensor.__float__: as_number,
    Tensor.bernoulli_: in_place,
    Tensor.div_: in_place,
    F.max_pool1d: pool(1),
    F.max_pool2d: pool(2),
    F.max_pool3d: pool(3),
    F.avg_pool1d: average_pool(1),
    F.avg_pool2d: average_pool(2),
    F.avg_pool3d: average_pool(3),
    F.adaptive_avg_pool1d: adaptive_pool(1),
    F.adaptive_avg_pool2d: adaptive_pool(2),
    F.adaptive_avg_pool3d: adaptive_pool(3),
    F.adaptive_max_pool1d: adaptive_pool(1),
    F.adaptive_max_pool2d: adaptive_pool(2),
    F.adaptive_max_pool3d: adaptive_pool(3),
    torch.empty: empty,
    torch.flatten: flatten,
    Tensor.flatten: flatten,
}
