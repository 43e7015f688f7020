"""The universal inverted bottleneck block of MobileNetV4."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, flag, largest, odd, sizes, who, whole
from lazytorch.layers.depthwise import DepthwiseConv
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.residual import LinearResidual, squeeze
from lazytorch.layers.rules import checked
from lazytorch.layers.twins import eager_twin
from lazytorch.signature import create_lazy_signature, without_first


def odd_or_none(name: str, value: Sizes, owner: object) -> None:
    """The rule of the size of a kernel: odd, or 0 for no convolution."""
    sizes(whole)(name, value, owner)
    if value != 0:
        odd(name, value, owner)


def strided_convolution(owner: object, stride: Sizes, kernel_size: Sizes, start_kernel_size: Sizes) -> None:
    """The rule of ``stride``: a block with a stride must have a depthwise convolution."""
    if largest(stride) > 1 and not kernel_size and not start_kernel_size:
        raise ValueError(
            f"{who(owner)}: a stride must be taken by a depthwise convolution, got stride={stride} and no kernel."
        )


@checked(
    {("stride", "kernel_size", "start_kernel_size"): strided_convolution},
    kernel_size=odd_or_none,
    start_kernel_size=odd_or_none,
    shortcut=flag,
)
class UniversalInvertedBottleneck(LinearResidual):
    """An inverted bottleneck with a depthwise convolution before the expansion, after it, both or none.

    The second depthwise convolution has the stride, or the first if there is no second.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the depthwise kernel on the expanded channels, in pixels; 0 for none.
        stride: Stride of the block, in pixels; one number, or one for each spatial dimension.
        expansion_ratio: Ratio of the expanded channels to the input channels.
        start_kernel_size: Size of the depthwise kernel before the expansion, in pixels; 0 for none.
        rounding: Called with the expanded channels; returns a whole number of channels, as ``round_channels`` does.
        dilation: Spacing between the pixels of the depthwise kernels.
        se_layer: Called with the expanded channels and ``spatial_dims``; returns the attention before the projection.
            None for no attention.
        squeeze_ratio: Ratio of the block's input channels to the squeezed channels of ``se_layer``; by default
            ``se_layer`` determines them from the expanded channels.
        anti_aliasing: Called with the channels, the stride and ``spatial_dims``; returns a layer that replaces the
            stride of the convolution and follows it: ``BlurPool`` or ``average_blur``. None to keep the stride in the
            convolution.
        shortcut: Whether the input is added to the output if both have the same shape.
        drop_path_rate: Probability that training drops the branch, for each example, if the block has a shortcut.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the expansion and the depthwise convolution that follows it; None
            for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, a kernel is even, or there is a stride but no depthwise convolution.

    Source:
        Qin et al. 2024, figure 4, https://arxiv.org/abs/2404.10518.

    Example:
        >>> import torch
        >>> from lazytorch.layers import UniversalInvertedBottleneck
        >>> UniversalInvertedBottleneck(16, 24, 5, 2, 4, start_kernel_size=3)(torch.zeros(2, 16, 32, 32)).shape
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
        start_kernel_size: int = 0,
        rounding: Callable[[float], int] = round,
        dilation: Sizes = 1,
        se_layer: Callable[..., nn.Module] | None = None,
        squeeze_ratio: float | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        shortcut: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        mid_channels = rounding(in_channels * expansion_ratio)
        common = {"norm_layer": norm_layer, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        blur = eager_twin(anti_aliasing) if anti_aliasing and largest(stride) > 1 else None
        step = stride if blur is None else 1

        depthwise = partial(DepthwiseConv, dilation=dilation, **common)
        layers: dict[str, nn.Module | None] = {}
        if start_kernel_size:
            layers["start"] = depthwise(in_channels, start_kernel_size, 1 if kernel_size else step, activation=None)
        if blur is not None and not kernel_size:
            layers["start_blur"] = blur(in_channels, stride, spatial_dims=spatial_dims)
        layers["expand"] = PointwiseConv(in_channels, mid_channels, activation=activation, **common)
        if kernel_size:
            layers["depthwise"] = depthwise(mid_channels, kernel_size, step, activation=activation)
        if blur is not None and kernel_size:
            layers["blur"] = blur(mid_channels, stride, spatial_dims=spatial_dims)
        layers["se"] = squeeze(self, se_layer, mid_channels, in_channels, squeeze_ratio, spatial_dims)
        layers["project"] = PointwiseConv(mid_channels, out_channels, activation=None, **common)
        has_shortcut = shortcut and largest(stride) == 1 and in_channels == out_channels
        super().__init__(layers, has_shortcut, drop_path_rate)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyUniversalInvertedBottleneck(LazyConvInChannelModule, UniversalInvertedBottleneck):
    """A ``UniversalInvertedBottleneck`` that infers its input channels and spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyUniversalInvertedBottleneck
        >>> LazyUniversalInvertedBottleneck(24, 5, 2, 4, start_kernel_size=3)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 24, 16, 16])
    """

    @without_first(UniversalInvertedBottleneck.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
