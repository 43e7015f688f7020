"""Pointwise convolutions: their kernels have one pixel."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConv2dInChannelModule, LazyConvInChannelModule
from lazytorch.layers.checks import Padding, Sizes, divides
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.rank import two_dimensional
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked({("out_channels", "groups"): divides})
class PointwiseConv(ConvNormActivation):
    """A 1x1 convolution, then a norm, then an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        padding: Pixels added on every side; a kernel of one pixel needs none to keep the input size.
        padding_mode: Kind of padding: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        groups: Number of groups of channels.
        dilation: Has no effect on a kernel of one pixel.
        bias: Whether the convolution has a bias; by default only if no norm follows.
        norm_layer: Called with the channels; None for no norm.
        activation: Called without arguments; None for no activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, or ``groups`` does not divide the channels.

    Source:
        Howard et al. 2017, section 3.1, https://arxiv.org/abs/1704.04861.

    Example:
        >>> import torch
        >>> from lazytorch.layers import PointwiseConv
        >>> PointwiseConv(8, 4, spatial_dims=3)(torch.zeros(2, 8, 4, 4, 4)).shape
        torch.Size([2, 4, 4, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Sizes = 1,
        *,
        padding: Padding = 0,
        padding_mode: str = "zeros",
        groups: int = 1,
        dilation: Sizes = 1,
        bias: bool | None = None,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            1,
            stride,
            norm_layer,
            activation,
            bias,
            padding=padding,
            padding_mode=padding_mode,
            groups=groups,
            dilation=dilation,
            conv_layer=conv_layer,
            spatial_dims=spatial_dims,
        )


@two_dimensional
class PointwiseConv2d(PointwiseConv):
    """``PointwiseConv`` for images.

    Example:
        >>> import torch
        >>> from lazytorch.layers import PointwiseConv2d
        >>> PointwiseConv2d(8, 4)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyPointwiseConv(LazyConvInChannelModule, PointwiseConv):
    """A ``PointwiseConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyPointwiseConv
        >>> LazyPointwiseConv(4)(torch.zeros(2, 8, 4, 4, 4)).shape
        torch.Size([2, 4, 4, 4, 4])
    """

    @without_first(PointwiseConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=["in_channels"])
class LazyPointwiseConv2d(LazyConv2dInChannelModule, PointwiseConv2d):
    """A ``PointwiseConv2d`` that infers its input channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyPointwiseConv2d
        >>> LazyPointwiseConv2d(4)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """

    @without_first(PointwiseConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
