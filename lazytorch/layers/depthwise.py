"""Depthwise convolutions, one for each channel."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConv2dInChannelModule, LazyConvInChannelModule
from lazytorch.layers.checks import Padding, Sizes, strided_same
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.rank import two_dimensional
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked({("padding", "stride"): strided_same})
class DepthwiseConv(ConvNormActivation):
    """A separate convolution for each channel, then a norm, then an activation.

    Args:
        channels: Channels of the input and of the output.
        kernel_size: Size of the kernel, in pixels.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        padding: Pixels added on every side, one number or one for each spatial dimension; or ``"same"`` or ``"valid"``,
            as in torch.nn. By default, a kernel of odd size keeps the input size at stride 1.
        padding_mode: Kind of padding: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        dilation: Spacing between the pixels of the kernel.
        bias: Whether the convolution has a bias; by default only if no norm follows.
        norm_layer: Called with the channels; None for no norm.
        activation: Called without arguments; None for no activation.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, channels, *spatial)``
        - Output: ``(N, channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive.

    Source:
        Howard et al. 2017, section 3.1, https://arxiv.org/abs/1704.04861.

    Example:
        >>> import torch
        >>> from lazytorch.layers import DepthwiseConv
        >>> DepthwiseConv(8, stride=2, spatial_dims=1)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 8, 16])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        padding: Padding = None,
        padding_mode: str = "zeros",
        dilation: Sizes = 1,
        bias: bool | None = None,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            norm_layer,
            activation,
            bias,
            padding=padding,
            padding_mode=padding_mode,
            groups=channels,
            dilation=dilation,
            conv_layer=conv_layer,
            spatial_dims=spatial_dims,
        )


@two_dimensional
class DepthwiseConv2d(DepthwiseConv):
    """``DepthwiseConv`` for images.

    Example:
        >>> import torch
        >>> from lazytorch.layers import DepthwiseConv2d
        >>> DepthwiseConv2d(8)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """


@create_lazy_signature(exclude=["channels"], optional=["spatial_dims"])
class LazyDepthwiseConv(LazyConvInChannelModule, DepthwiseConv):
    """A ``DepthwiseConv`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyDepthwiseConv
        >>> LazyDepthwiseConv(stride=2)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 8, 16])
    """

    @without_first(DepthwiseConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=["channels"])
class LazyDepthwiseConv2d(LazyConv2dInChannelModule, DepthwiseConv2d):
    """A ``DepthwiseConv2d`` that infers its channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyDepthwiseConv2d
        >>> LazyDepthwiseConv2d(kernel_size=5)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """

    @without_first(DepthwiseConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
