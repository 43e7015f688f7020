"""The fire module of SqueezeNet."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, every, numeric, odd, positive_whole
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first

even = every(positive_whole, numeric("even, as two convolutions compute a half each", lambda value: value % 2 == 0))


@checked(out_channels=even, kernel_size=odd)
class FireModule(nn.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution of these, whose outputs are concatenated.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels of the first convolution.
        out_channels: Channels of the output; each of the last two convolutions computes a half.
        kernel_size: Size of the larger kernel, in pixels.
        stride: Stride of the last two convolutions, in pixels; one number, or one for each spatial dimension.
        dilation: Spacing between the pixels of the larger kernel.
        input_dilation: The dilation of the previous block, used by the larger kernel. By default ``dilation``.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after each convolution; None for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``out_channels`` is odd, or ``kernel_size`` is even.

    Source:
        Iandola et al. 2016, figure 1 and section 3.2, https://arxiv.org/abs/1602.07360.

    Example:
        >>> import torch
        >>> from lazytorch.layers import FireModule
        >>> FireModule(96, 16, 128)(torch.zeros(2, 96, 32, 32)).shape
        torch.Size([2, 128, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
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
        layer: dict[str, Any] = {"norm_layer": norm_layer, "activation": activation, "conv_layer": conv_layer}
        layer["spatial_dims"] = spatial_dims
        half, dilation = out_channels // 2, dilation if input_dilation is None else input_dilation
        self.squeeze = PointwiseConv(in_channels, mid_channels, **layer)
        self.pointwise = PointwiseConv(mid_channels, half, stride, **layer)
        self.conv = ConvNormActivation(mid_channels, half, kernel_size, stride, dilation=dilation, **layer)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        x = self.squeeze(x)
        return torch.cat([self.pointwise(x), self.conv(x)], 1)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyFireModule(LazyConvInChannelModule, FireModule):
    """A ``FireModule`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyFireModule
        >>> LazyFireModule(16, 128)(torch.zeros(2, 96, 32, 32)).shape
        torch.Size([2, 128, 32, 32])
    """

    @without_first(FireModule.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
