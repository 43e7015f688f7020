"""A convolution, then a norm, then an activation: the layer that every network here is made of."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Padding, Sizes, along, divides, strided_same
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked({("out_channels", "groups"): divides, ("padding", "stride"): strided_same})
class ConvNormActivation(NamedSequential):
    """A convolution, then a norm, then an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, in pixels; one number, or one for each spatial dimension.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        norm_layer: Called with the channels; None for no norm. A class of torch.nn is replaced by its version for
            ``spatial_dims``.
        activation: Called without arguments; None for no activation.
        bias: Whether the convolution has a bias; by default only if no norm follows.
        padding: Pixels added on every side, one number or one for each spatial dimension; or ``"same"`` or ``"valid"``,
            as in torch.nn. By default, a kernel of odd size keeps the input size at stride 1.
        padding_mode: Kind of padding: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        groups: Number of groups of channels.
        dilation: Spacing between the pixels of the kernel; one number, or one for each spatial dimension.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))`` for an odd kernel and the default padding

    Raises:
        TypeError: If ``norm_layer``, ``activation`` or ``conv_layer`` is not a class or function, or needs other
            arguments.
        ValueError: If a number is not a positive whole number, or ``groups`` does not divide the channels.

    Source:
        Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167.

    Example:
        >>> import torch
        >>> from lazytorch.layers import ConvNormActivation
        >>> ConvNormActivation(3, 8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
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
        bias: bool | None = None,
        *,
        padding: Padding = None,
        padding_mode: str = "zeros",
        groups: int = 1,
        dilation: Sizes = 1,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        kernel = along(self, "kernel_size", kernel_size, spatial_dims)
        dilations = along(self, "dilation", dilation, spatial_dims)
        if padding is None:
            padding = tuple(distance * (side - 1) // 2 for side, distance in zip(kernel, dilations, strict=True))
        elif not isinstance(padding, str):
            padding = along(self, "padding", padding, spatial_dims)
        parts = {
            "conv": of_rank(conv_layer, spatial_dims)(
                in_channels,
                out_channels,
                kernel,
                along(self, "stride", stride, spatial_dims),
                padding,
                dilations,
                groups,
                bias=norm_layer is None if bias is None else bool(bias),
                # ``conv_layer`` may be a function without this parameter.
                **({} if padding_mode == "zeros" else {"padding_mode": padding_mode}),
            )
        }
        if norm_layer is not None:
            parts["norm"] = of_rank(norm_layer, spatial_dims)(out_channels)
        if activation is not None:
            parts["activation"] = activation()
        super().__init__(**parts)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyConvNormActivation(LazyConvInChannelModule, ConvNormActivation):
    """A ``ConvNormActivation`` that infers its input channels and number of spatial dimensions from its first input.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ShapeInferenceError: At the first call, if the input has no channels or not 1 to 3 spatial dimensions.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyConvNormActivation
        >>> LazyConvNormActivation(8, kernel_size=3, stride=2)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    @without_first(ConvNormActivation.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
