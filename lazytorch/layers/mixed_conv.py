"""Mixed convolutions: the channels are split into parts, each with its own kernel size."""

from collections.abc import Callable, Sequence
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, along, positive_whole
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


def in_parts(channels: int, parts: int) -> list[int]:
    """The channels of each part."""
    return [channels // parts + channels % parts, *[channels // parts] * (parts - 1)]


@checked(parts=positive_whole)
class MixedConv(nn.Module):
    """Splits the channels into parts. The kernel of each part is 2 pixels larger than that of the previous part.

    It has the parameters of ``nn.Conv2d``, so a ``functools.partial`` of it can be a ``conv_layer``. Along a dimension
    in which the first kernel has one pixel, all kernels have one pixel.

    Args:
        in_channels: Channels of the input; if ``parts`` does not divide them, the first part also has the remainder.
        out_channels: Channels of the output, split in the same way.
        kernel_size: Size of the first part's kernel, in pixels; one number, or one for each spatial dimension.
        stride: Stride of all kernels, in pixels; one number, or one for each spatial dimension.
        padding: Pixels that the first part adds on every side, one number or one for each spatial dimension; other
            parts add more, so that their outputs have the same size. Or ``"same"`` or ``"valid"``, as in torch.nn.
        dilation: Spacing between the pixels of all kernels; one number, or one for each spatial dimension.
        groups: Number of groups of each part: 1, or ``in_channels`` for a depthwise convolution.
        bias: Whether a bias is added.
        parts: Number of parts.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3. By default, the length of ``kernel_size`` if it is a
            sequence, otherwise 2.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *floor((spatial + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1))``

    Raises:
        ValueError: If a number is not positive, there are more parts than channels, or ``groups`` is neither 1 nor
            ``in_channels``.

    Source:
        Tan & Le 2019, section 3 and figure 2, https://arxiv.org/abs/1907.09595.

    Example:
        >>> import torch
        >>> from lazytorch.layers import MixedConv
        >>> conv = MixedConv(10, 10, 3, padding=1, groups=10, parts=3)
        >>> [(part.out_channels, part.kernel_size) for part in conv.children()]
        [(4, (3, 3)), (3, (5, 5)), (3, (7, 7))]
        >>> conv(torch.zeros(2, 10, 32, 32)).shape
        torch.Size([2, 10, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        parts: int = 2,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int | None = None,
    ) -> None:
        super().__init__()
        if parts > min(in_channels, out_channels):
            raise ValueError(
                f"MixedConv: parts must be at most the channels, got {parts} for {in_channels} and {out_channels}."
            )
        if groups not in (1, in_channels):
            raise ValueError(f"MixedConv: groups must be 1 or in_channels={in_channels}, got {groups}.")
        self.splits = in_parts(in_channels, parts)
        dims = spatial_dims or (len(kernel_size) if isinstance(kernel_size, Sequence) else 2)
        kernel, spacing = along(self, "kernel_size", kernel_size, dims), along(self, "dilation", dilation, dims)
        pads = along(self, "padding", 0 if isinstance(padding, str) else padding, dims)
        for index, (inputs, outputs) in enumerate(zip(self.splits, in_parts(out_channels, parts), strict=True)):
            wider = [(index if size > 1 else 0) for size in kernel]  # additional pixels on every side
            conv = of_rank(conv_layer, dims)(
                inputs,
                outputs,
                tuple(size + 2 * more for size, more in zip(kernel, wider, strict=True)),
                stride,
                padding if padding == "same" else tuple(map(sum, zip(pads, map(mul, spacing, wider), strict=True))),
                dilation,
                1 if groups == 1 else inputs,
                bias=bias,
            )
            self.add_module(str(index), conv)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *reduced)``."""
        parts = x.split(self.splits, 1)
        return torch.cat([conv(parts[index]) for index, conv in enumerate(self.children())], 1)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyMixedConv(LazyConvInChannelModule, MixedConv):
    """A ``MixedConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyMixedConv
        >>> LazyMixedConv(8, 3, padding=1)(torch.zeros(2, 6, 32)).shape
        torch.Size([2, 8, 32])
    """

    @without_first(MixedConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
