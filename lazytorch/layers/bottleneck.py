"""The bottleneck block of ResNet."""

from collections.abc import Callable

from torch import Tensor, nn

from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.depthwise_separable import PointwiseConv
from lazytorch.lazify import LazyConvInChannelModule, positive_whole
from lazytorch.signature import create_lazy_signature

__all__ = ["BottleneckBlock", "LazyBottleneckBlock"]


class BottleneckBlock(nn.Module):
    """A residual block that computes its convolution on fewer channels: 1x1 to reduce, convolution, 1x1 to restore.

    The shortcut is the identity where it can be, and else a 1x1 convolution and a norm. The step is in the middle
    convolution, where the paper has it in the first: all of the input is seen.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels of the middle convolution.
        out_channels: Channels produced.
        kernel_size: Side of the middle kernel, in pixels.
        stride: Step of the middle kernel, in pixels.
        groups: Groups of channels that the middle convolution keeps apart.
        dilation: Distance between the pixels that the middle kernel sees.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after each convolution and after the sum; None for no activations.
        spatial_dims: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``groups`` does not divide
            ``mid_channels``.

    Source:
        He et al. 2015, figure 5 right and equation 2, https://arxiv.org/abs/1512.03385.

    Example:
        >>> import torch
        >>> from lazytorch.layers import BottleneckBlock
        >>> BottleneckBlock(64, 16, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        require_residual(self, kernel_size, stride)
        common = {"norm_layer": norm_layer, "spatial_dims": spatial_dims}
        self.reduce = PointwiseConv(in_channels, mid_channels, activation=activation, **common)
        self.conv = ConvNormActivation(
            mid_channels,
            mid_channels,
            kernel_size,
            stride,
            groups=groups,
            dilation=dilation,
            activation=activation,
            **common,
        )
        self.restore = PointwiseConv(mid_channels, out_channels, activation=None, **common)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else PointwiseConv(in_channels, out_channels, stride, activation=None, **common)
        )
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        return self.activation(self.restore(self.conv(self.reduce(x))) + self.shortcut(x))


@create_lazy_signature(exclude=["in_channels", "spatial_dims"])
class LazyBottleneckBlock(LazyConvInChannelModule, BottleneckBlock):
    """A ``BottleneckBlock`` that infers its input channels, and 1-D, 2-D or 3-D, from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBottleneckBlock
        >>> LazyBottleneckBlock(16, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """


def require_residual(block: nn.Module, kernel_size: int, stride: int) -> None:
    """A residual sum needs the size kept, which an even kernel changes, and one stride to know whether it is."""
    positive_whole("stride", stride, block)
    if positive_whole("kernel_size", kernel_size, block) % 2 == 0:
        raise ValueError(f"{type(block).__name__}: kernel_size must be odd to keep the size, got {kernel_size}.")
