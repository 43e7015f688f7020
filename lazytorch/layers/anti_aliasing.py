"""Anti-aliasing: blur feature maps before they are subsampled."""

from collections.abc import Sequence
from functools import reduce
from math import comb
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, choice, each, odd_number
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@checked(kernel_size=odd_number, padding_mode=choice("constant", "reflect", "replicate", "circular"))
class BlurPool(nn.Module):
    """Convolves each channel with a binomial kernel, and keeps every ``stride``-th pixel.

    Args:
        in_channels: Channels of the input and of the output.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension. Dimensions with a stride
            of 1 are not blurred, unless all strides are 1.
        kernel_size: Size of the kernel, in pixels.
        padding_mode: Kind of padding, as in ``torch.nn.functional.pad``: ``"reflect"`` mirrors the image,
            ``"constant"`` adds zeros.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``, more than ``kernel_size // 2`` pixels along a side
        - Output: ``(N, in_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``kernel_size`` is even.

    Source:
        Zhang 2019, section 3.2, https://arxiv.org/abs/1904.11486.

    Example:
        >>> import torch
        >>> from lazytorch.layers import BlurPool
        >>> BlurPool(8)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        stride: Sizes = 2,
        kernel_size: int = 3,
        *,
        padding_mode: str = "reflect",
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.padding_mode = padding_mode
        self.in_channels = in_channels
        steps = each(stride)
        self.stride = steps[0] if isinstance(stride, int) else steps
        self.kernel_size = kernel_size
        sides = tuple(kernel_size if value > 1 or max(steps) == 1 else 1 for value in steps)
        sides *= spatial_dims // len(sides)
        self.register_buffer("kernel", torch.empty(in_channels, 1, *sides), persistent=False)
        self.reset_parameters()
        self.padding = tuple(side // 2 for side in reversed(sides) for _ in range(2))

    def reset_parameters(self) -> None:
        """Set the values of the kernel."""
        weights = [[comb(side - 1, k) / 2 ** (side - 1) for k in range(side)] for side in self.kernel.shape[2:]]
        lines = [torch.tensor(line, device="cpu") for line in weights]
        self.kernel.copy_(reduce(lambda product, line: product.unsqueeze(-1) * line, lines))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, in_channels, *ceil(spatial / stride))``."""
        padded = F.pad(x, self.padding, mode=self.padding_mode)
        convolve = CONVOLUTIONS[self.kernel.dim() - 2]
        return convolve(padded, self.kernel, stride=self.stride, groups=self.in_channels)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, stride={self.stride}, kernel_size={self.kernel_size}"


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyBlurPool(LazyConvInChannelModule, BlurPool):
    """A ``BlurPool`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBlurPool
        >>> LazyBlurPool()(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 8, 16])
    """

    @without_first(BlurPool.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    has_state = False  # the kernel is a constant


def average_blur(in_channels: int, stride: Sizes = 2, *, ceil_mode: bool = True, spatial_dims: int = 2) -> nn.Module:
    """An average pooling that can replace ``BlurPool``.

    Args:
        in_channels: Channels of the input.
        stride: Kernel size and stride of the pooling, in pixels; one number, or one for each spatial dimension.
        ceil_mode: Whether incomplete windows at the border are averaged too; otherwise their pixels are ignored.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, in_channels, *ceil(spatial / stride))``; ``floor`` without ``ceil_mode``

    Example:
        >>> from lazytorch.layers import average_blur
        >>> average_blur(8)
        AvgPool2d(kernel_size=2, stride=2, padding=0)
    """
    return of_rank(nn.AvgPool2d, spatial_dims)(stride, ceil_mode=ceil_mode, count_include_pad=False)


def average_window(kernel_size: Sizes, stride: Sizes, spatial_dims: int) -> nn.Module:
    """An average pooling with the window of a convolution; zeros of the padding are included in the average."""
    pad = tuple(side // 2 for side in kernel_size) if isinstance(kernel_size, Sequence) else kernel_size // 2
    return of_rank(nn.AvgPool2d, spatial_dims)(kernel_size, stride, pad)
