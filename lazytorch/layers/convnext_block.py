"""The block of ConvNeXt."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.channel_norm import ChannelNorm
from lazytorch.layers.checks import Sizes, along, number, odd
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.layer_scale import LayerScale
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import of_rank
from lazytorch.layers.residual import branch
from lazytorch.layers.rules import checked
from lazytorch.layers.rules import norm_layer as norm_rule
from lazytorch.layers.same_padding import SamePadding
from lazytorch.signature import create_lazy_signature, without_first


@checked(kernel_size=odd, hidden_norm=norm_rule, layer_scale=number)
class ConvNeXtBlock(nn.Module):
    """A residual block of a depthwise convolution, a norm, and two 1x1 convolutions with more channels between them.

    If the block has a stride, or other output than input channels, a norm and a convolution precede the residual sum.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the depthwise kernel, in pixels.
        stride: Stride and kernel size of the convolution before the sum, in pixels; one number, or one for each spatial
            dimension.
        expansion_ratio: Ratio of the channels between the two 1x1 convolutions to ``out_channels``; the product is
            rounded.
        layer_scale: Initial value of the ``LayerScale`` at the end of the branch; None for no ``LayerScale``.
        hidden_norm: Called with the channels; returns the norm after the activation, such as ``ResponseNorm``; None for
            no norm. A class of torch.nn is replaced by its version for ``spatial_dims``.
        dilation: Spacing between the pixels of the depthwise kernel.
        input_dilation: The dilation of the previous block, used by the convolution before the sum; if it is not
            ``dilation``, zeros at the borders keep the size. By default ``dilation``.
        drop_path_rate: Probability that training drops the branch, for each example.
        norm_layer: Called with the channels; None for no norms. A class of torch.nn is replaced by its version for
            ``spatial_dims``.
        activation: Called without arguments; None for no activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *floor(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``kernel_size`` is even.

    Source:
        Liu et al. 2022, figure 4 and section 2.6 (downsampling layers), https://arxiv.org/abs/2201.03545;
        ``hidden_norm``, Woo et al. 2023, figure 5, https://arxiv.org/abs/2301.00808.

    Example:
        >>> import torch
        >>> from lazytorch.layers import ConvNeXtBlock
        >>> ConvNeXtBlock(16, 32, stride=2)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 32, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 7,
        stride: Sizes = 1,
        *,
        expansion_ratio: float = 4,
        layer_scale: float | None = 1e-6,
        hidden_norm: Callable[[int], nn.Module] | None = None,
        dilation: Sizes = 1,
        input_dilation: Sizes | None = None,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = ChannelNorm,
        activation: Callable[[], nn.Module] | None = nn.GELU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        expanded = round(out_channels * expansion_ratio)
        common = {"bias": True, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        plain = {"norm_layer": None, **common}
        strides = along(self, "stride", stride, spatial_dims)
        after = along(self, "dilation", dilation, spatial_dims)
        before = along(self, "input_dilation", dilation if input_dilation is None else input_dilation, spatial_dims)
        # The kernel is as large as the stride, also where dilation replaces the stride.
        kernel = [max(1, step * wide // narrow) for step, wide, narrow in zip(strides, after, before, strict=True)]
        self.downsample = nn.Identity()
        if in_channels != out_channels or max(kernel) > 1:
            conv = of_rank(conv_layer, spatial_dims)(in_channels, out_channels, kernel, strides, 0, before)
            parts: dict[str, nn.Module] = {}
            if norm_layer is not None:
                parts["norm"] = of_rank(norm_layer, spatial_dims)(in_channels)
            spans = [spacing * (side - 1) + 1 for side, spacing in zip(kernel, before, strict=True)]
            missing = [span - step for span, step in zip(spans, strides, strict=True)]
            if max(missing) > 0 and not isinstance(conv, SamePadding):
                pads = tuple(pad for count in reversed(missing) for pad in (count // 2, count - count // 2))
                parts["pad"] = of_rank(nn.ZeroPad2d, spatial_dims)(pads)
            self.downsample = NamedSequential(**parts, conv=conv)
        layers = {
            "depthwise": ConvNormActivation(
                out_channels,
                out_channels,
                kernel_size,
                groups=out_channels,
                dilation=dilation,
                norm_layer=norm_layer,
                activation=None,
                **common,
            ),
            "expand": ConvNormActivation(out_channels, expanded, 1, activation=activation, **plain),
            "hidden_norm": hidden_norm and of_rank(hidden_norm, spatial_dims)(expanded),
            "project": ConvNormActivation(expanded, out_channels, 1, activation=None, **plain),
            "scale": None if layer_scale is None else LayerScale(out_channels, layer_scale),
        }
        self.layers = branch(layers, drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *floor(spatial / stride))``."""
        x = self.downsample(x)
        return x + self.layers(x)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyConvNeXtBlock(LazyConvInChannelModule, ConvNeXtBlock):
    """A ``ConvNeXtBlock`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyConvNeXtBlock
        >>> LazyConvNeXtBlock(32, stride=2)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 32, 16, 16])
    """

    @without_first(ConvNeXtBlock.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
