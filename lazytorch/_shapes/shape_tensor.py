"""ShapeTensor: a tensor without values, on which the shape rules compute."""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch import _torch

META = torch.device("meta")
REAL = (Tensor, nn.Parameter)


class ShapeTensor(Tensor):
    """A tensor without values. It is on the meta device, but its ``device`` is that of the tensor in a real call."""

    on_device: torch.device

    if _torch.disabled_torch_function is not None:
        __torch_function__ = _torch.disabled_torch_function

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return vars(self).get("on_device", META)

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"ShapeTensor({tuple(self.shape)}, dtype={self.dtype}, device={str(self.device)!r})"

    def get_device(self) -> int:
        return -1 if self.device.index is None else self.device.index


def shape_tensor(tensor: Tensor, device: torch.device) -> ShapeTensor:
    made = tensor.as_subclass(ShapeTensor)
    made.on_device = device
    return made


SHAPES = (ShapeTensor, *([] if _torch.fake_tensor is None else [_torch.fake_tensor.FakeTensor]))
for _kind in ("cpu", "cuda", "meta", "mps", "xpu"):
    setattr(ShapeTensor, f"is_{_kind}", property(lambda self, kind=_kind: self.device.type == kind))


def is_plain(*tensors: Any) -> bool:
    """Whether all are contiguous floating-point tensors of one dtype and device, the first fake and non-empty."""
    first = tensors[0]
    if type(first) not in SHAPES or not first.is_floating_point() or first.numel() == 0:
        return False
    dtype, device = first.dtype, first.device
    for each in tensors:
        if not isinstance(each, Tensor) or each.dtype is not dtype or not (each.device == device or each.is_meta):
            return False
        # is_contiguous() would also be true for a channels-last tensor of one channel or one pixel.
        if each.stride() != contiguous_strides(each.shape):
            return False
    return True


def require_one_dtype(input: Any, weight: Any) -> None:
    """Raise the error of PyTorch's kernels for different dtypes, which fake tensors do not raise in every version."""
    if isinstance(input, Tensor) and isinstance(weight, Tensor) and input.dtype is not weight.dtype:
        raise RuntimeError(f"Input type ({input.dtype}) and weight type ({weight.dtype}) should be the same")


@functools.lru_cache(maxsize=1024)
def contiguous_strides(shape: torch.Size) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(math.prod(max(size, 1) for size in shape[place:]) for place in range(1, len(shape) + 1))
