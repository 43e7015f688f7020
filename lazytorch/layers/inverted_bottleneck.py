"""The inverted bottleneck block of MobileNetV2, and its version with the first two convolutions fused into one."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, flag, largest, odd
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.depthwise import DepthwiseConv
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.residual import LinearResidual, squeeze
from lazytorch.layers.rules import checked
from lazytorch.layers.twins import eager_twin
from lazytorch.signature import create_lazy_signature, without_first


def require_groups(block: nn.Module, channels: int, group_size: int) -> None:
    if channels % group_size:
        raise ValueError(
            f"{type(block).__name__}: group_size must divide the {channels} expanded channels, got {group_size}."
        )


@checked(kernel_size=odd, shortcut=flag, partial_shortcut=flag)
class InvertedBottleneck(LinearResidual):
    """A residual block that computes its convolution on more channels: 1x1 to expand, depthwise, 1x1 to project.

    The projection is linear: a norm, but no activation. The input is added to the output if both have the same shape.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the depthwise kernel, in pixels.
        stride: Stride of the depthwise kernel, in pixels; one number, or one for each spatial dimension.
        expansion_ratio: Ratio of the depthwise convolution's channels to the input channels; at 1, there is no
            expansion.
        expand_from_output: Whether ``expansion_ratio`` multiplies ``out_channels`` instead of ``in_channels``, as in
            RegNetZ.
        group_size: Channels of each group of the middle convolution; 1 for a depthwise convolution.
        rounding: Called with the expanded channels; returns a whole number of channels, as ``round_channels`` does.
        expand_always: Whether the block has the first 1x1 convolution even if ``expansion_ratio`` is 1, as in FBNet.
        dilation: Spacing between the pixels of the depthwise kernel.
        input_dilation: The dilation of the previous block, used by the kernel. By default ``dilation``.
        se_layer: Called with the expanded channels and ``spatial_dims``; returns the attention after the depthwise
            convolution: ``SqueezeExcitation``, or a ``functools.partial`` of it. None for no attention.
        squeeze_ratio: Ratio of the block's input channels to the squeezed channels of ``se_layer``, as in EfficientNet;
            by default ``se_layer`` determines them from the expanded channels, as in MobileNetV3.
        anti_aliasing: Called with the channels, the stride and ``spatial_dims``; returns a layer that replaces the
            stride of the convolution and follows its activation: ``BlurPool`` or ``average_blur``. None to keep the
            stride in the convolution.
        shortcut: Whether the input is added to the output if both have the same shape.
        partial_shortcut: Whether the input is added to the first output channels if it has fewer channels than the
            output, as in ReXNet.
        drop_path_rate: Probability that training drops the branch, for each example, if the block has a shortcut.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the expansion and the depthwise convolution; None for no
            activations.
        expand_activation: Called without arguments, after the expansion; None for the same as ``activation``.
        project_activation: Called without arguments, after the projection; None for no activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        conv_layers: Convolutions of single parts, by the names ``"expand"``, ``"depthwise"`` and ``"project"``; other
            parts have ``conv_layer``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``group_size`` does not divide the expanded
            channels.

    Source:
        Sandler et al. 2018, table 1 and figure 4d, https://arxiv.org/abs/1801.04381; with squeeze-excitation, Tan et
        al. 2019, figure 7, https://arxiv.org/abs/1807.11626; groups, Dollár et al. 2021,
        https://arxiv.org/abs/2103.06877. With an ``expansion_ratio`` of 1 and a ``project_activation``, the
        depthwise-separable block of Howard et al. 2017, https://arxiv.org/abs/1704.04861.

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
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        expansion_ratio: float = 1,
        *,
        expand_from_output: bool = False,
        group_size: int = 1,
        rounding: Callable[[float], int] = round,
        expand_always: bool = False,
        dilation: Sizes = 1,
        input_dilation: Sizes | None = None,
        se_layer: Callable[..., nn.Module] | None = None,
        squeeze_ratio: float | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        shortcut: bool = True,
        partial_shortcut: bool = False,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU6,
        expand_activation: Callable[[], nn.Module] | None = None,
        project_activation: Callable[[], nn.Module] | None = None,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        conv_layers: Mapping[str, Callable[..., nn.Module]] | None = None,
        spatial_dims: int = 2,
    ) -> None:
        expands = expansion_ratio != 1
        counted = out_channels if expand_from_output else in_channels
        mid_channels = rounding(counted * expansion_ratio) if expands else counted
        require_groups(self, mid_channels, group_size)

        def layer(part: str) -> dict[str, Any]:
            conv = (conv_layers or {}).get(part, conv_layer)
            return {"norm_layer": norm_layer, "conv_layer": conv, "spatial_dims": spatial_dims}

        extra = out_channels - in_channels if partial_shortcut else 0
        blur = eager_twin(anti_aliasing) if anti_aliasing and largest(stride) > 1 else None
        middle = layer("depthwise") | {
            "kernel_size": kernel_size,
            "stride": stride if blur is None else 1,
            "dilation": dilation if input_dilation is None else input_dilation,
            "activation": activation,
        }
        super().__init__(
            {
                "expand": PointwiseConv(
                    in_channels, mid_channels, activation=expand_activation or activation, **layer("expand")
                )
                if expands or expand_always or mid_channels != in_channels
                else None,
                "depthwise": DepthwiseConv(mid_channels, **middle) if group_size == 1 else None,
                "conv": None
                if group_size == 1
                else ConvNormActivation(mid_channels, mid_channels, groups=mid_channels // group_size, **middle),
                "blur": None if blur is None else blur(mid_channels, stride, spatial_dims=spatial_dims),
                "se": squeeze(self, se_layer, mid_channels, in_channels, squeeze_ratio, spatial_dims),
                "project": PointwiseConv(mid_channels, out_channels, activation=project_activation, **layer("project")),
            },
            shortcut and largest(stride) == 1 and (in_channels == out_channels or extra > 0),
            drop_path_rate,
            [in_channels, extra] if extra > 0 else None,
        )


@checked(kernel_size=odd, shortcut=flag)
class FusedInvertedBottleneck(LinearResidual):
    """An inverted bottleneck with one dense convolution in place of the 1x1 expansion and the depthwise convolution.

    At an ``expansion_ratio`` of 1 there is no projection: the block is one convolution, a norm and an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, in pixels.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        expansion_ratio: Ratio of the convolution's channels to the input channels.
        rounding: Called with the expanded channels; returns a whole number of channels, as ``round_channels`` does.
        expand_from_output: Whether ``expansion_ratio`` multiplies ``out_channels`` instead of ``in_channels``, as in
            the first stage of EfficientNet-EdgeTPU.
        project_always: Whether the block has the last 1x1 convolution even if ``expansion_ratio`` is 1, as in timm's
            first EfficientNetV2.
        group_size: Output channels of each group of the convolution; by default there is one group.
        dilation: Spacing between the pixels of the kernel.
        se_layer: Called with the expanded channels and ``spatial_dims``; returns the attention after the convolution.
            None for no attention.
        squeeze_ratio: Ratio of the block's input channels to the squeezed channels of ``se_layer``, as in EfficientNet;
            by default ``se_layer`` determines them from the expanded channels, as in MobileNetV3.
        anti_aliasing: Called with the channels, the stride and ``spatial_dims``; returns a layer that replaces the
            stride of the convolution and follows its activation: ``BlurPool`` or ``average_blur``. None to keep the
            stride in the convolution.
        shortcut: Whether the input is added to the output if both have the same shape.
        drop_path_rate: Probability that training drops the branch, for each example, if the block has a shortcut.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the convolution; None for no activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``group_size`` does not divide the
            expanded channels.

    Source:
        Gupta & Akin 2020, https://arxiv.org/abs/2003.02838; Tan & Le 2021, figure 2, https://arxiv.org/abs/2104.00298.

    Example:
        >>> import torch
        >>> from lazytorch.layers import FusedInvertedBottleneck
        >>> FusedInvertedBottleneck(16, 24, stride=2, expansion_ratio=4)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        expansion_ratio: float = 1,
        *,
        rounding: Callable[[float], int] = round,
        expand_from_output: bool = False,
        project_always: bool = False,
        group_size: int | None = None,
        dilation: Sizes = 1,
        se_layer: Callable[..., nn.Module] | None = None,
        squeeze_ratio: float | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        shortcut: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU6,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        projects = expansion_ratio != 1 or project_always
        expanded = rounding((out_channels if expand_from_output else in_channels) * expansion_ratio)
        mid_channels = expanded if projects else out_channels
        require_groups(self, mid_channels, group_size or mid_channels)
        common = {"norm_layer": norm_layer, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        blur = eager_twin(anti_aliasing) if anti_aliasing and largest(stride) > 1 else None
        super().__init__(
            {
                "conv": ConvNormActivation(
                    in_channels,
                    mid_channels,
                    kernel_size,
                    stride if blur is None else 1,
                    groups=mid_channels // group_size if group_size else 1,
                    dilation=dilation,
                    activation=activation,
                    **common,
                ),
                "blur": None if blur is None else blur(mid_channels, stride, spatial_dims=spatial_dims),
                "se": squeeze(self, se_layer, mid_channels, in_channels, squeeze_ratio, spatial_dims),
                "project": PointwiseConv(mid_channels, out_channels, activation=None, **common) if projects else None,
            },
            shortcut and largest(stride) == 1 and in_channels == out_channels,
            drop_path_rate,
        )


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyInvertedBottleneck(LazyConvInChannelModule, InvertedBottleneck):
    """An ``InvertedBottleneck`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyInvertedBottleneck
        >>> LazyInvertedBottleneck(24, stride=2, expansion_ratio=6)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """

    @without_first(InvertedBottleneck.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyFusedInvertedBottleneck(LazyConvInChannelModule, FusedInvertedBottleneck):
    """A ``FusedInvertedBottleneck`` that infers its input channels and spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyFusedInvertedBottleneck
        >>> LazyFusedInvertedBottleneck(24, stride=2, expansion_ratio=4)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """

    @without_first(FusedInvertedBottleneck.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
