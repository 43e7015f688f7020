"""The block of ShuffleNetV2."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, every, largest, numeric, odd, positive_whole
from lazytorch.layers.depthwise import DepthwiseConv
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first

even = every(positive_whole, numeric("even, as each of two branches has half", lambda value: value % 2 == 0))


@checked(out_channels=even, kernel_size=odd)
class ShuffleBlock(nn.Module):
    """Two branches that compute half of the output channels each; the channels of both are then interleaved.

    If the shape does not change, each branch gets half of the input channels: the first branch returns them unchanged,
    the second has a 1x1, a depthwise and a 1x1 convolution. Otherwise both branches get the whole input, and the first
    has a depthwise and a 1x1 convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, an even number.
        kernel_size: Size of the depthwise kernels, in pixels.
        stride: Stride of the depthwise kernels, in pixels; one number, or one for each spatial dimension.
        dilation: Spacing between the pixels of the depthwise kernels.
        input_dilation: The dilation of the previous block, used by the kernels. By default ``dilation``.
        norm_layer: Called with the channels, after each convolution; None for no norms.
        activation: Called without arguments, after the 1x1 convolutions; None for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``out_channels`` is odd, or ``kernel_size`` is even.

    Source:
        Ma et al. 2018, figure 3c and d, https://arxiv.org/abs/1807.11164.

    Example:
        >>> import torch
        >>> from lazytorch.layers import ShuffleBlock
        >>> ShuffleBlock(24, 48, stride=2)(torch.zeros(2, 24, 32, 32)).shape
        torch.Size([2, 48, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        dilation: Sizes = 1,
        input_dilation: Sizes | None = None,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        half, input_dilation = out_channels // 2, dilation if input_dilation is None else input_dilation
        # If dilation replaces a stride, the branches are the same as with the stride.
        keeps_shape = largest(stride) == 1 and in_channels == out_channels and dilation == input_dilation
        self.splits = [half, half] if keeps_shape else None
        common = {"norm_layer": norm_layer, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        middle = {
            "kernel_size": kernel_size,
            "stride": stride,
            "dilation": input_dilation,
            "activation": None,
            **common,
        }
        last = {"activation": activation, **common}
        self.layers = NamedSequential(
            expand=PointwiseConv(half if keeps_shape else in_channels, half, **last),
            depthwise=DepthwiseConv(half, **middle),
            project=PointwiseConv(half, half, **last),
        )
        self.shortcut = nn.Identity()
        if not keeps_shape:
            depthwise = DepthwiseConv(in_channels, **middle)
            self.shortcut = NamedSequential(depthwise=depthwise, project=PointwiseConv(in_channels, half, **last))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        first, second = (x, x) if self.splits is None else x.split(self.splits, 1)
        y = torch.cat([self.shortcut(first), self.layers(second)], 1)
        return y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyShuffleBlock(LazyConvInChannelModule, ShuffleBlock):
    """A ``ShuffleBlock`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyShuffleBlock
        >>> LazyShuffleBlock(48, stride=2)(torch.zeros(2, 24, 32, 32)).shape
        torch.Size([2, 48, 16, 16])
    """

    @without_first(ShuffleBlock.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
