"""The basic block of ResNet-18 and ResNet-34."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, divides, largest, odd
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.residual import ResidualBlock, squeeze
from lazytorch.layers.rules import checked, shortcut_layer
from lazytorch.layers.shortcut import projection
from lazytorch.layers.twins import eager_twin
from lazytorch.signature import create_lazy_signature, without_first


@checked(
    {("mid_channels", "groups"): divides, ("out_channels", "groups"): divides},
    kernel_size=odd,
    shortcut=shortcut_layer,
)
class BasicBlock(ResidualBlock):
    """A residual block of two convolutions.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels between the two convolutions.
        out_channels: Channels of the output.
        kernel_size: Size of both kernels, in pixels.
        stride: Stride of the first kernel, in pixels; one number, or one for each spatial dimension.
        groups: Number of groups of both convolutions.
        dilation: Spacing between the pixels of the kernels.
        input_dilation: The dilation of the previous block, used by the first kernel. By default ``dilation``.
        spatial_layer: Called like ``ConvNormActivation``; returns the first convolution: ``SplitAttentionConv``,
            ``SelectiveKernelConv``, or a ``functools.partial`` of one.
        shortcut: Called with the channels of input and output, ``stride``, ``dilation``, ``input_dilation``,
            ``norm_layer``, ``conv_layer`` and ``spatial_dims``; returns the shortcut if it cannot be the identity:
            ``projection`` or ``pooled_projection``.
        se_layer: Called with the channels and ``spatial_dims``; returns the attention at the end of the branch:
            ``SqueezeExcitation``, ``EfficientChannelAttention``, or a ``functools.partial`` of one. None for no
            attention.
        anti_aliasing: Called with the channels, the stride and ``spatial_dims``; returns a layer that replaces the
            stride of the convolution and follows its activation: ``BlurPool`` or ``average_blur``. None to keep the
            stride in the convolution.
        drop_path_rate: Probability that training drops the branch, for each example.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the first convolution and after the sum; None for no activations.
        project_activation: Called without arguments, after the second convolution and before the attention; None for no
            activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``groups`` does not divide the channels.

    Source:
        He et al. 2015, figure 5 left and equation 2, https://arxiv.org/abs/1512.03385.

    Example:
        >>> import torch
        >>> from lazytorch.layers import BasicBlock
        >>> BasicBlock(64, 128, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        groups: int = 1,
        dilation: Sizes = 1,
        input_dilation: Sizes | None = None,
        spatial_layer: Callable[..., nn.Module] = ConvNormActivation,
        shortcut: Callable[..., nn.Module] = projection,
        se_layer: Callable[..., nn.Module] | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        project_activation: Callable[[], nn.Module] | None = None,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        input_dilation = dilation if input_dilation is None else input_dilation
        reduces = largest(stride) > 1 or input_dilation != dilation
        fits = in_channels == out_channels and not reduces
        project = partial(shortcut, dilation=dilation, input_dilation=input_dilation)
        blur = eager_twin(anti_aliasing) if anti_aliasing and reduces else None
        common = {"norm_layer": norm_layer, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        super().__init__(
            {
                "conv1": eager_twin(spatial_layer)(
                    in_channels,
                    mid_channels,
                    kernel_size,
                    stride if blur is None else 1,
                    groups=groups,
                    dilation=input_dilation,
                    activation=activation,
                    **common,
                ),
                "blur": None if blur is None else blur(mid_channels, stride, spatial_dims=spatial_dims),
                "conv2": ConvNormActivation(
                    mid_channels,
                    out_channels,
                    kernel_size,
                    groups=groups,
                    dilation=dilation,
                    activation=project_activation,
                    **common,
                ),
                "se": squeeze(self, se_layer, out_channels, in_channels, None, spatial_dims),
            },
            None if fits else project(in_channels, out_channels, stride, **common),
            drop_path_rate,
            activation,
        )


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyBasicBlock(LazyConvInChannelModule, BasicBlock):
    """A ``BasicBlock`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBasicBlock
        >>> LazyBasicBlock(128, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    @without_first(BasicBlock.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
