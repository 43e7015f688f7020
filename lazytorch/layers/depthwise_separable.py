"""Depthwise-separable convolutions: a depthwise convolution, then a pointwise one."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConv2dInChannelModule, LazyConvInChannelModule
from lazytorch.layers.checks import Padding, Sizes, strided_same
from lazytorch.layers.depthwise import DepthwiseConv
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rank import two_dimensional
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked({("padding", "stride"): strided_same})
class DepthSepConv(NamedSequential):
    """A depthwise convolution, then a pointwise one, each followed by a norm and an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the depthwise kernel, in pixels.
        stride: Stride of the depthwise kernel, in pixels; one number, or one for each spatial dimension.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments; None for no activations.
        padding: Pixels that the depthwise convolution adds on every side, one number or one for each spatial dimension;
            or ``"same"`` or ``"valid"``, as in torch.nn. By default, a kernel of odd size keeps the input size at
            stride 1.
        padding_mode: Kind of padding: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        dilation: Spacing between the pixels of the depthwise kernel.
        bias: Whether both convolutions have a bias; by default only if no norms follow.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive.

    Source:
        Howard et al. 2017, figure 3, https://arxiv.org/abs/1704.04861.

    Example:
        >>> import torch
        >>> from lazytorch.layers import DepthSepConv
        >>> DepthSepConv(3, 8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        *,
        padding: Padding = None,
        padding_mode: str = "zeros",
        dilation: Sizes = 1,
        bias: bool | None = None,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        common = {
            "norm_layer": norm_layer,
            "activation": activation,
            "bias": bias,
            "conv_layer": conv_layer,
            "spatial_dims": spatial_dims,
        }
        kernel = {"padding": padding, "padding_mode": padding_mode, "dilation": dilation}
        super().__init__(
            depthwise=DepthwiseConv(in_channels, kernel_size, stride, **kernel, **common),
            pointwise=PointwiseConv(in_channels, out_channels, **common),
        )


@two_dimensional
class DepthSepConv2d(DepthSepConv):
    """``DepthSepConv`` for images.

    Example:
        >>> import torch
        >>> from lazytorch.layers import DepthSepConv2d
        >>> DepthSepConv2d(8, 4)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyDepthSepConv(LazyConvInChannelModule, DepthSepConv):
    """A ``DepthSepConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyDepthSepConv
        >>> LazyDepthSepConv(4, stride=2)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 4, 16])
    """

    @without_first(DepthSepConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=["in_channels"])
class LazyDepthSepConv2d(LazyConv2dInChannelModule, DepthSepConv2d):
    """A ``DepthSepConv2d`` that infers its input channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyDepthSepConv2d
        >>> LazyDepthSepConv2d(4, stride=2)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 16, 16])
    """

    @without_first(DepthSepConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
