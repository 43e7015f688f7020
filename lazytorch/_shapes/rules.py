"""Shape rules: output shapes of the operators in convolutional networks, computed from the sizes of the inputs.

A rule takes the ``ShapeMode`` that runs it, and then the arguments of its operator. It computes the usual case only:
valid arguments, and contiguous, non-empty tensors of one dtype on one device. Otherwise it returns None, and
FakeTensorMode is used instead.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lazytorch._shapes.shape_tensor import REAL, SHAPES, ShapeTensor, is_plain, require_one_dtype, shape_tensor
from lazytorch._shapes.windows import adaptive_pool, average_pool, convolution, is_bias, pad, pool

if TYPE_CHECKING:
    from lazytorch._shapes.mode import ShapeMode


def linear(shapes: "ShapeMode", input: Any, weight: Any, bias: Any = None) -> ShapeTensor | None:
    require_one_dtype(input, weight)
    if not is_plain(input, weight) or input.dim() < 2 or weight.dim() != 2 or input.size(-1) != weight.size(1):
        return None
    if not is_bias(bias, input, weight.size(0)):
        return None
    shapes.macs += input.numel() * weight.size(0)
    return shapes.like(input, (*input.shape[:-1], weight.size(0)))


def batched_products(shapes: "ShapeMode", input: Any, mat2: Any) -> ShapeTensor | None:
    if not is_plain(input, mat2) or not input.dim() == mat2.dim() == 3:
        return None
    if input.shape[::2] != mat2.shape[:2]:
        return None
    shapes.macs += input.numel() * mat2.size(2)
    return shapes.like(input, (*input.shape[:2], mat2.size(2)))


def softmax(shapes: "ShapeMode", input: Any, dim: Any) -> ShapeTensor | None:
    is_dim = type(dim) is int and is_plain(input) and -input.dim() <= dim < input.dim()
    return shapes.like(input, input.shape) if is_dim else None


def batch_norm(
    shapes: "ShapeMode",
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> ShapeTensor | None:
    vectors = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    if type(input) in REAL and training and not vectors and input.is_contiguous():  # as weight standardization calls it
        return shapes.like(input, input.shape)
    if not is_plain(input, *vectors) or input.dim() < 2 or not (training or running_mean is not None):
        return None
    shape = input.shape
    return shapes.like(input, shape) if {each.shape for each in vectors} <= {shape[1:2]} else None


def group_norm(
    shapes: "ShapeMode", input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> ShapeTensor | None:
    vectors = [each for each in (weight, bias) if each is not None]
    if not is_plain(input, *vectors) or input.dim() < 3 or num_groups < 1 or input.size(1) % num_groups:
        return None
    several = input.numel() // (input.size(0) * num_groups) > 1  # a single value per group is an error
    fits = several and {each.shape for each in vectors} <= {input.shape[1:2]}
    return shapes.like(input, input.shape) if fits else None


def elementwise(shapes: "ShapeMode", input: Any, *args: Any, **kwargs: Any) -> ShapeTensor | None:
    """The rule of an elementwise function; ``inplace``, if it has it, is its last parameter."""
    if not is_plain(input) or "out" in kwargs:
        return None
    inplace = kwargs.get("inplace", bool(args) and args[-1] is True)
    return input if inplace else shapes.like(input, input.shape)


def dropout(
    shapes: "ShapeMode", input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> ShapeTensor | None:
    if not is_plain(input) or not 0 <= p <= 1:
        return None
    unchanged = inplace or not training or p == 0
    return input if unchanged else shapes.like(input, input.shape)


def broadcast(shapes: "ShapeMode", input: Any, other: Any, **kwargs: Any) -> ShapeTensor | None:
    """The rule of ``+``, ``*`` and ``/`` with a number, or a tensor that is broadcast to the shape of the first."""
    if type(other) in (int, float):
        return shapes.like(input, input.shape) if is_plain(input) and not kwargs else None
    if kwargs or not is_plain(input, other) or input.dim() < other.dim():
        return None
    last = input.shape[input.dim() - other.dim() :]
    fits = all(size in (1, whole) for size, whole in zip(other.shape, last, strict=True))
    return shapes.like(input, input.shape) if fits else None


def reduction(shapes: "ShapeMode", input: Any, *, dim: Any, keepdim: bool = False) -> ShapeTensor | None:
    """The rule of a function that reduces some dimensions to 1."""
    dims = (dim,) if type(dim) is int else tuple(dim or ())
    if not keepdim or not dims or not is_plain(input) or {*map(type, dims)} != {int}:
        return None
    if min(dims) < -input.dim() or len({each % input.dim() for each in dims}) < len(dims) or max(dims) >= input.dim():
        return None
    sizes = list(input.shape)
    for each in dims:
        sizes[each] = 1
    return shapes.like(input, sizes)


def layer_norm(
    shapes: "ShapeMode", input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> ShapeTensor | None:
    vectors = [each for each in (weight, bias) if each is not None]
    if not is_plain(input, *vectors) or not isinstance(normalized_shape, (tuple, list)) or not normalized_shape:
        return None
    wanted = tuple(input.shape[-len(normalized_shape) :])
    fits = wanted == tuple(normalized_shape) and {tuple(each.shape) for each in vectors} <= {wanted}
    return shapes.like(input, input.shape) if fits else None


def contiguous(func: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a function that returns views. They are contiguous here, so that the next operators have rules.

    In a real call the next layers of a network run in channels-last memory format; the shapes are the same.
    """

    def rule(shapes: "ShapeMode", input: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_plain(input):
            return None
        result = func(input, *args, **kwargs)
        if isinstance(result, Tensor):
            return shapes.like(input, result.shape)
        return tuple(shapes.like(input, view.shape) for view in result)

    return rule


def in_place(shapes: "ShapeMode", input: Any, *numbers: Any) -> ShapeTensor | None:
    return input if type(input) in SHAPES and {*map(type, numbers)} <= {int, float} else None


def add_in_place(shapes: "ShapeMode", input: Any, *numbers: Any) -> Tensor | None:
    """The rule of ``add_``, with which BatchNorm counts batches."""
    if type(input) in SHAPES or [*map(type, numbers)] != [int] or input.dim() > 0:
        return in_place(shapes, input, *numbers)
    shapes.counted[id(input)] = shapes.counted.get(id(input), 0) + numbers[0]
    return input


def count(shapes: "ShapeMode", input: Any) -> float | None:
    """The rule of ``float`` of a counter tensor, by which BatchNorm divides if its momentum is None."""
    if id(input) not in shapes.counted:
        return None
    return shapes.counted[id(input)] + (0.0 if input.is_meta else float(input))


def on_meta(func: Callable[..., Any]) -> Callable[..., Tensor | None]:
    """The rule of a function whose meta kernel is fast and imports nothing. Views of weights are computed as usual."""

    def rule(shapes: "ShapeMode", input: Any, *args: Any, **kwargs: Any) -> Tensor | None:
        if type(input) in REAL and func in VIEWS:
            return func(input, *args, **kwargs)
        if type(input) is not ShapeTensor or "out" in kwargs:
            return None
        result = func(input, *args, **kwargs)
        return result if result is input or not isinstance(result, Tensor) else shape_tensor(result, input.device)

    return rule


def concatenate(shapes: "ShapeMode", tensors: Any, dim: int = 0) -> ShapeTensor | None:
    if not isinstance(tensors, (tuple, list)) or not tensors or not is_plain(*tensors):
        return None
    first = tensors[0]
    if not {*map(type, tensors)} <= {*SHAPES} or type(dim) is not int or not 0 <= dim < first.dim():
        return None
    before, after = first.shape[:dim], first.shape[dim + 1 :]
    if any(each.shape[:dim] != before or each.shape[dim + 1 :] != after for each in tensors):
        return None
    return shapes.like(first, (*before, sum(each.size(dim) for each in tensors), *after))


def empty(shapes: "ShapeMode", size: Any, *, dtype: torch.dtype, device: torch.device) -> ShapeTensor | None:
    return shapes.of(size, dtype, device) if type(size) is tuple and type(device) is torch.device else None


ELEMENTWISE = [
    *(F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu, F.mish, F.relu, F.relu6, F.silu),
    *(torch.sigmoid, torch.tanh),
]
VIEWS = {Tensor.transpose, Tensor.unflatten, Tensor.unsqueeze, Tensor.view}
ON_META = [torch.flatten, Tensor.flatten, Tensor.view_as, *VIEWS]
RULES: dict[Any, Callable[..., Any]] = {
    **{getattr(torch, f"conv{dims}d"): partial(convolution, dims) for dims in (1, 2, 3)},
    F.linear: linear,
    torch.bmm: batched_products,
    Tensor.softmax: softmax,
    F.batch_norm: batch_norm,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.dropout: dropout,
    F.pad: pad,
    **dict.fromkeys(ELEMENTWISE, elementwise),
    Tensor.add: broadcast,
    Tensor.mul: broadcast,
    Tensor.div: broadcast,
    Tensor.mean: reduction,
    torch.linalg.vector_norm: reduction,
    Tensor.__float__: count,
    Tensor.add_: add_in_place,
    Tensor.bernoulli_: in_place,
    Tensor.div_: in_place,
    **{func: on_meta(func) for func in ON_META},
    **{getattr(F, f"max_pool{dims}d"): partial(pool, dims) for dims in (1, 2, 3)},
    **{getattr(F, f"avg_pool{dims}d"): partial(average_pool, dims) for dims in (1, 2, 3)},
    **{getattr(F, f"adaptive_avg_pool{dims}d"): partial(adaptive_pool, dims) for dims in (1, 2, 3)},
    **{getattr(F, f"adaptive_max_pool{dims}d"): partial(adaptive_pool, dims) for dims in (1, 2, 3)},
    torch.cat: concatenate,
    **{func: contiguous(func) for func in (Tensor.chunk, Tensor.movedim, Tensor.split)},
    torch.empty: empty,
}
