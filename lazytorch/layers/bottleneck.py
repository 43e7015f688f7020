"""The bottleneck block of ResNet."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, divides, flag, largest, odd, positive_whole, who
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.hierarchical import HierarchicalConv
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.residual import ResidualBlock, squeeze
from lazytorch.layers.rules import checked, shortcut_layer
from lazytorch.layers.shortcut import projection
from lazytorch.layers.twins import eager_twin
from lazytorch.signature import create_lazy_signature, without_first


def splits_alone(owner: object, splits: int, reduce_ratio: int, spatial_layer: object) -> None:
    """The rule of ``splits``: several splits exclude ``reduce_ratio`` and ``spatial_layer``."""
    if splits > 1 and (reduce_ratio != 1 or spatial_layer is not ConvNormActivation):
        raise ValueError(f"{who(owner)}: splits must be 1 with a reduce_ratio or spatial_layer, got {splits}.")


@checked(
    {("mid_channels", "groups", "splits"): divides, ("splits", "reduce_ratio", "spatial_layer"): splits_alone},
    kernel_size=odd,
    stride_first=flag,
    splits=positive_whole,
    shortcut=shortcut_layer,
)
class BottleneckBlock(ResidualBlock):
    """A residual block that computes its convolution on fewer channels: 1x1 to reduce, convolution, 1x1 to restore.

    By default the middle convolution has the stride. In the paper the first one has it, which skips input pixels.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels of the middle convolution.
        out_channels: Channels of the output.
        kernel_size: Size of the middle kernel, in pixels.
        stride: Stride of the middle kernel, in pixels; one number, or one for each spatial dimension.
        groups: Number of groups of the middle convolution.
        dilation: Spacing between the pixels of the middle kernel.
        activation: Called without arguments, after each convolution and after the sum; None for no activations.
        reduce_ratio: Ratio of the middle convolution's channels to those of the first convolution.
        stride_first: Whether the first convolution has the stride, as in the paper.
        splits: Number of parts into which the channels are split, as in Res2Net. If there are several, each part except
            the last has its own middle convolution. If the shortcut is the identity, the output of each convolution is
            added to the input of the next one; otherwise the last part is average-pooled with ``kernel_size`` and
            ``stride``.
        spatial_layer: Called like ``ConvNormActivation``; returns the middle convolution: ``SplitAttentionConv``,
            ``SelectiveKernelConv``, or a ``functools.partial`` of one.
        input_dilation: The dilation of the previous block, used by the middle kernel. By default ``dilation``.
        shortcut: Called with the channels of input and output, ``stride``, ``dilation``, ``input_dilation``,
            ``norm_layer``, ``conv_layer`` and ``spatial_dims``; returns the shortcut if it cannot be the identity:
            ``projection`` or ``pooled_projection``.
        se_layer: Called with the channels and ``spatial_dims``; returns the attention of the branch:
            ``SqueezeExcitation``, ``EfficientChannelAttention``, or a ``functools.partial`` of one. None for no
            attention.
        se_last: Whether ``se_layer`` follows the last convolution; otherwise it precedes the last convolution, as in
            RegNet.
        squeeze_ratio: Ratio of the block's input channels to the squeezed channels of ``se_layer``; by default
            ``se_layer`` determines them.
        anti_aliasing: Called with the channels, the stride and ``spatial_dims``; returns a layer that replaces the
            stride of the convolution and follows its activation: ``BlurPool`` or ``average_blur``. None to keep the
            stride in the convolution.
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
        He et al. 2015, figure 5 right and equation 2, https://arxiv.org/abs/1512.03385; groups, Xie et al. 2017,
        https://arxiv.org/abs/1611.05431.

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
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        groups: int = 1,
        dilation: Sizes = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        *,
        reduce_ratio: int = 1,
        stride_first: bool = False,
        splits: int = 1,
        spatial_layer: Callable[..., nn.Module] = ConvNormActivation,
        input_dilation: Sizes | None = None,
        shortcut: Callable[..., nn.Module] = projection,
        se_layer: Callable[..., nn.Module] | None = None,
        se_last: bool = True,
        squeeze_ratio: float | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        first = mid_channels // reduce_ratio
        input_dilation = dilation if input_dilation is None else input_dilation
        reduces = largest(stride) > 1 or input_dilation != dilation
        fits = in_channels == out_channels and not reduces
        project = partial(shortcut, dilation=dilation, input_dilation=input_dilation)
        blur = eager_twin(anti_aliasing) if anti_aliasing and reduces else None
        strides = (1, stride if blur is None else 1)
        if stride_first and blur is None:
            strides, input_dilation = (stride, 1), dilation
        common = {"norm_layer": norm_layer, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        middle = {"groups": groups, "dilation": input_dilation, "activation": activation, **common}
        if splits > 1:
            conv = HierarchicalConv(mid_channels, splits, kernel_size, strides[1], chained=fits, **middle)
        else:
            conv = eager_twin(spatial_layer)(first, mid_channels, kernel_size, strides[1], **middle)
        squeezed = out_channels if se_last else mid_channels
        attention = squeeze(self, se_layer, squeezed, in_channels, squeeze_ratio, spatial_dims)
        super().__init__(
            {
                "reduce": PointwiseConv(in_channels, first, strides[0], activation=activation, **common),
                "conv": conv,
                "blur": None if blur is None else blur(mid_channels, stride, spatial_dims=spatial_dims),
                **({} if se_last else {"se": attention}),
                "restore": PointwiseConv(mid_channels, out_channels, activation=None, **common),
                **({"se": attention} if se_last else {}),
            },
            None if fits else project(in_channels, out_channels, stride, **common),
            drop_path_rate,
            activation,
        )


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyBottleneckBlock(LazyConvInChannelModule, BottleneckBlock):
    """A ``BottleneckBlock`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBottleneckBlock
        >>> LazyBottleneckBlock(16, 128, stride=2)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
    """

    @without_first(BottleneckBlock.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
