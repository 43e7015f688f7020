"""The convolutions of ResNeSt and SKNet: attention weights the outputs of parallel convolutions."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.anti_aliasing import average_window
from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, along, divides, flag, largest, odd, positive, positive_whole
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rounding import round_channels
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


def parts(x: Tensor, count: int) -> list[Tensor]:
    """The parts of the channels; ``torch.fx`` traces indices, and no loop over what ``chunk`` returns."""
    chunks = x.chunk(count, 1)
    return [chunks[index] for index in range(count)]


def select(outputs: Sequence[Tensor], gate: Callable[[Tensor], Tensor], groups: int = 1) -> Tensor:
    """The weighted sum of ``outputs``: for each channel, a softmax over the outputs, or a sigmoid if there is only one.

    ``gate`` is called with their sum; it returns a value for each channel of each output, one group after the other.
    """
    scores = gate(reduce(add, outputs))
    # The order of operations is timm's, for equal rounding errors: norms over few values, as in gates, amplify them.
    grouped = scores.unflatten(1, (groups, len(outputs), -1)).movedim(2, 1)
    weights = grouped.softmax(1) if len(outputs) > 1 else torch.sigmoid(grouped)
    factors = parts(weights.flatten(2, 3), len(outputs))
    return reduce(add, (each * factor.flatten(1, 2) for each, factor in zip(outputs, factors, strict=True)))


@checked(
    {("in_channels", "groups", "radix"): divides, ("out_channels", "groups"): divides},
    kernel_size=odd,
    radix=positive_whole,
    pool_first=flag,
)
class SplitAttentionConv(nn.Module):
    """Computes ``radix`` convolutions and their weighted sum, with weights computed from the averages of all channels.

    The stride is that of an average pooling with the kernel's size, which includes the zeros of its padding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernels, in pixels; one number, or one for each spatial dimension.
        stride: Stride of the pooling, in pixels; one number, or one for each spatial dimension. If it is 1, there is no
            pooling.
        groups: Number of groups of each convolution, and of the attention: the paper's cardinality.
        dilation: Spacing between the pixels of the kernels.
        radix: Number of convolutions, each on its own part of the input channels.
        pool_first: Whether the pooling precedes the convolutions; otherwise it follows the attention.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the convolutions and within the attention; None for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``groups`` and ``radix`` do not divide the channels.

    Source:
        Zhang et al. 2020, section 3.1 and figure 2, https://arxiv.org/abs/2004.08955.

    Example:
        >>> import torch
        >>> from lazytorch.layers import SplitAttentionConv
        >>> SplitAttentionConv(32, 64, stride=2)(torch.zeros(2, 32, 8, 8)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        groups: int = 1,
        dilation: Sizes = 1,
        radix: int = 2,
        pool_first: bool = False,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.groups, self.radix = groups, radix
        squeezed = max(32, round_channels(in_channels * radix / 4))
        layer = {"conv_layer": conv_layer, "spatial_dims": spatial_dims}
        normed = {"norm_layer": norm_layer, "activation": activation, **layer}
        pool = nn.Identity() if largest(stride) == 1 else average_window(kernel_size, stride, spatial_dims)
        self.before = pool if pool_first else nn.Identity()
        self.conv = ConvNormActivation(
            in_channels, radix * out_channels, kernel_size, groups=radix * groups, dilation=dilation, **normed
        )
        self.gate = nn.Sequential(
            of_rank(nn.AdaptiveAvgPool2d, spatial_dims)(1),
            PointwiseConv(out_channels, squeezed, groups=groups, bias=True, **normed),
            PointwiseConv(squeezed, radix * out_channels, groups=groups, norm_layer=None, activation=None, **layer),
        )
        self.after = nn.Identity() if pool_first else pool

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        outputs = parts(self.conv(self.before(x)), self.radix)
        return self.after(select(outputs, self.gate, self.groups))


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazySplitAttentionConv(LazyConvInChannelModule, SplitAttentionConv):
    """A ``SplitAttentionConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazySplitAttentionConv
        >>> LazySplitAttentionConv(64, stride=2)(torch.zeros(2, 32, 8)).shape
        torch.Size([2, 64, 4])
    """

    @without_first(SplitAttentionConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@checked(
    {("out_channels", "groups"): divides},
    kernel_size=odd,
    reduction_ratio=positive,
    divisor=positive_whole,
    split_input=flag,
)
class SelectiveKernelConv(nn.Module):
    """Computes two convolutions and their weighted sum, with weights computed from the averages of all channels.

    The second convolution has twice the dilation of the first: 3 pixels cover 5, as the paper's second kernel does.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of both kernels, in pixels; one number, or one for each spatial dimension.
        stride: Stride of both kernels, in pixels; one number, or one for each spatial dimension.
        groups: Number of groups of both convolutions.
        dilation: Spacing between the pixels of the first kernel.
        reduction_ratio: Ratio of the output channels to the channels within the attention.
        divisor: The channels within the attention are rounded to multiples of this number.
        split_input: Whether each convolution has one half of the input's channels, instead of all; timm's addition.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments, after the convolutions and within the attention; None for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``groups`` does not divide the channels.

    Source:
        Li et al. 2019, section 3.1 and figure 1, https://arxiv.org/abs/1903.06586.

    Example:
        >>> import torch
        >>> from lazytorch.layers import SelectiveKernelConv
        >>> SelectiveKernelConv(32, 64, stride=2)(torch.zeros(2, 32, 8, 8)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        groups: int = 1,
        dilation: Sizes = 1,
        reduction_ratio: float = 16,
        divisor: int = 8,
        split_input: bool = False,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        divides(self, in_channels, groups, 1 + split_input)
        self.split_input = split_input
        squeezed = round_channels(out_channels / reduction_ratio, divisor)
        wider = [2 * spacing for spacing in along(self, "dilation", dilation, spatial_dims)]
        layer = {"conv_layer": conv_layer, "spatial_dims": spatial_dims}
        normed = {"norm_layer": norm_layer, "activation": activation, **layer}
        window = {"kernel_size": kernel_size, "stride": stride, "groups": groups}
        channels = in_channels // (1 + split_input)
        self.narrow = ConvNormActivation(channels, out_channels, dilation=dilation, **window, **normed)
        self.wide = ConvNormActivation(channels, out_channels, dilation=wider, **window, **normed)
        self.gate = nn.Sequential(
            of_rank(nn.AdaptiveAvgPool2d, spatial_dims)(1),
            PointwiseConv(out_channels, squeezed, **normed),
            PointwiseConv(squeezed, 2 * out_channels, bias=False, norm_layer=None, activation=None, **layer),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        first, second = parts(x, 2) if self.split_input else (x, x)
        return select([self.narrow(first), self.wide(second)], self.gate)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazySelectiveKernelConv(LazyConvInChannelModule, SelectiveKernelConv):
    """A ``SelectiveKernelConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazySelectiveKernelConv
        >>> LazySelectiveKernelConv(64, stride=2)(torch.zeros(2, 32, 8)).shape
        torch.Size([2, 64, 4])
    """

    @without_first(SelectiveKernelConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
