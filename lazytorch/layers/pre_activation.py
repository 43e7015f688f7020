"""The residual block of ResNetV2: norms and activations precede the convolutions."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, divides, flag, largest, odd
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.dense import NormActivation
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.residual import branch, squeeze
from lazytorch.layers.rules import checked, shortcut_layer
from lazytorch.layers.shortcut import projection
from lazytorch.signature import create_lazy_signature, without_first


@checked({("mid_channels", "groups"): divides}, kernel_size=odd, shortcut=shortcut_layer, basic=flag, always=flag)
class PreActivationBlock(nn.Module):
    """A residual block that begins with a norm and an activation, and ends with the sum.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels before the last convolution.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel between the two 1x1 convolutions, or of both kernels of a ``basic`` block, in
            pixels.
        stride: Stride of the first of these kernels, in pixels; one number, or one for each spatial dimension.
        groups: Number of groups of the convolution with the stride.
        dilation: Spacing between the pixels of the kernels.
        activation: Called without arguments, after each norm; None for no activations.
        basic: Whether the block has two convolutions of ``kernel_size``, as ``BasicBlock`` has; otherwise it has those
            of ``BottleneckBlock``.
        always: Whether the first norm and activation precede the shortcut even if it is the identity, as in RegNetV.
        input_dilation: The dilation of the previous block, used by the kernel with the stride. By default ``dilation``.
        shortcut: Called with the channels of input and output, ``stride``, ``dilation``, ``input_dilation``,
            ``norm_layer``, ``conv_layer`` and ``spatial_dims``; returns the shortcut if it cannot be the identity:
            ``projection`` or ``pooled_projection``. ``norm_layer`` is then ``nn.Identity``.
        se_layer: Called with the channels and ``spatial_dims``; returns the attention before the last norm. None for no
            attention.
        squeeze_ratio: Ratio of the block's input channels to the squeezed channels of ``se_layer``; by default
            ``se_layer`` determines them.
        drop_path_rate: Probability that training drops the branch, for each example.
        norm_layer: Called with the channels; None for no norms.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``groups`` does not divide
            ``mid_channels``.

    Source:
        He et al. 2016, figure 4e, https://arxiv.org/abs/1603.05027.

    Example:
        >>> import torch
        >>> from lazytorch.layers import PreActivationBlock
        >>> PreActivationBlock(64, 16, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        groups: int = 1,
        dilation: Sizes = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        *,
        basic: bool = False,
        always: bool = False,
        input_dilation: Sizes | None = None,
        shortcut: Callable[..., nn.Module] = projection,
        se_layer: Callable[..., nn.Module] | None = None,
        squeeze_ratio: float | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        given = dilation if input_dilation is None else input_dilation
        fits = largest(stride) == 1 and in_channels == out_channels and given == dilation
        rank = {"spatial_dims": spatial_dims}
        norm = {"norm_layer": norm_layer, "activation": activation, **rank}
        normed = {"conv_layer": conv_layer, **norm}
        plain = normed | {"norm_layer": None, "activation": None, "bias": norm_layer is None}
        attention = squeeze(self, se_layer, mid_channels, in_channels, squeeze_ratio, spatial_dims)
        layers = {
            "reduce": None if basic else PointwiseConv(in_channels, mid_channels, **normed),
            "conv": ConvNormActivation(
                in_channels if basic else mid_channels,
                mid_channels,
                kernel_size,
                stride,
                groups=groups,
                dilation=given,
                **(normed if attention is None else plain),
            ),
            "se": attention,
            "norm": None if attention is None else NormActivation(mid_channels, **norm),
            "restore": ConvNormActivation(mid_channels, out_channels, kernel_size, dilation=dilation, **plain)
            if basic
            else PointwiseConv(mid_channels, out_channels, **plain),
        }
        self.preactivation = NormActivation(in_channels, **norm)
        self.layers = branch(layers, drop_path_rate)
        self.shortcut = nn.Identity()
        self.passes_input = fits and not always
        if not fits:
            places = {"dilation": dilation, "input_dilation": given}
            without = {"norm_layer": norm_layer and nn.Identity, "conv_layer": conv_layer}
            self.shortcut = shortcut(in_channels, out_channels, stride, **places, **without, **rank)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        activated = self.preactivation(x)
        return self.layers(activated) + self.shortcut(x if self.passes_input else activated)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyPreActivationBlock(LazyConvInChannelModule, PreActivationBlock):
    """A ``PreActivationBlock`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyPreActivationBlock
        >>> LazyPreActivationBlock(16, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    @without_first(PreActivationBlock.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
