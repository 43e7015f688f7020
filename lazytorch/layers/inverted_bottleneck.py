"""The inverted bottleneck block of MobileNetV2."""

from collections.abc import Callable

from torch import Tensor, nn

from lazytorch.layers.depthwise_separable import DepthwiseConv, PointwiseConv
from lazytorch.layers.residual import require_residual
from lazytorch.layers.stochastic_depth import StochasticDepth
from lazytorch.lazify import LazyConvInChannelModule, positive
from lazytorch.named_sequential import NamedSequential
from lazytorch.signature import create_lazy_signature

__all__ = ["InvertedBottleneck", "LazyInvertedBottleneck"]


class InvertedBottleneck(nn.Module):
    """A residual block that computes its convolution on more channels: 1x1 to expand, depthwise, 1x1 to project.

    The projection is linear: a norm, but no activation. The sum with the input is there where both have one shape.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels produced.
        kernel_size: Side of the depthwise kernel, in pixels.
        stride: Step of the depthwise kernel, in pixels.
        expansion_ratio: Channels of the depthwise convolution over those of the input, rounded to whole channels; at
            1, nothing is expanded.
        dilation: Distance between the pixels that the depthwise kernel sees.
        se_layer: Called with the expanded channels and ``spatial_dims``, for what follows the depthwise convolution:
            ``SqueezeExcitation``, or a ``functools.partial`` of it. None for nothing.
        drop_path_rate: Share of the examples for which training leaves the branch out, if there is a sum.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the expansion and the depthwise convolution; None for none.
        spatial_dims: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``kernel_size`` is even.

    Source:
        Sandler et al. 2018, table 1 and figure 4d, https://arxiv.org/abs/1801.04381; with squeeze-excitation, Tan et
        al. 2019, figure 7, https://arxiv.org/abs/1807.11626.

    Example:
        >>> import torch
        >>> from lazytorch.layers import InvertedBottleneck
        >>> InvertedBottleneck(16, 24, stride=2, expansion_ratio=6)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        expansion_ratio: float = 1,
        *,
        dilation: int = 1,
        se_layer: Callable[..., nn.Module] | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU6,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        require_residual(self, kernel_size, stride)
        common = {"norm_layer": norm_layer, "spatial_dims": spatial_dims}
        mid_channels = round(in_channels * positive("expansion_ratio", expansion_ratio, self))
        parts: dict[str, nn.Module] = {}
        if expansion_ratio != 1:
            parts["expand"] = PointwiseConv(in_channels, mid_channels, activation=activation, **common)
        parts["depthwise"] = DepthwiseConv(
            mid_channels, kernel_size, stride, dilation=dilation, activation=activation, **common
        )
        if se_layer is not None:
            parts["se"] = se_layer(mid_channels, spatial_dims=spatial_dims)
        parts["project"] = PointwiseConv(mid_channels, out_channels, activation=None, **common)
        self.has_shortcut = stride == 1 and in_channels == out_channels
        if self.has_shortcut and drop_path_rate != 0:
            parts["drop_path"] = StochasticDepth(drop_path_rate)
        self.layers = NamedSequential(**parts)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        y = self.layers(x)
        return x + y if self.has_shortcut else y


@create_lazy_signature(exclude=["in_channels", "spatial_dims"])
class LazyInvertedBottleneck(LazyConvInChannelModule, InvertedBottleneck):
    """An ``InvertedBottleneck`` that infers its input channels, and 1-D, 2-D or 3-D, from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyInvertedBottleneck
        >>> LazyInvertedBottleneck(24, stride=2, expansion_ratio=6)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """
