"""A convolution, then a norm, then an activation: the layer that every network here is made of."""

from collections.abc import Callable, Sequence

from torch import nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import positive_whole, whole
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import of_rank
from lazytorch.signature import create_lazy_signature

__all__ = ["ConvNormActivation", "LazyConvNormActivation"]


class ConvNormActivation(NamedSequential):
    """A convolution, then a norm, then an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, in pixels; one number, or one for each spatial dimension.
        stride: Stride of the kernel, in pixels; likewise.
        padding: Pixels added on every side; by default as many as keep the size of the input at stride 1, for a
            kernel of odd size.
        groups: Number of groups of channels.
        dilation: Spacing between the pixels of the kernel, likewise.
        bias: Whether the convolution has a bias; by default only if no norm follows.
        norm_layer: Called with the channels; None for no norm. A class of torch.nn is replaced by its
            sibling for ``spatial_dims``.
        activation: Called without arguments; None for no activation.
        conv_layer: Called as ``nn.Conv2d`` is; a class of torch.nn is replaced by its sibling for ``spatial_dims``.
        spatial_dims: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))`` for an odd kernel and the default padding

    Raises:
        TypeError: If ``norm_layer`` or ``activation`` is no class or function, but a module, say.
        ValueError: If a number is not a positive whole one, or ``groups`` does not divide the channels.

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
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        *,
        padding: int | Sequence[int] | None = None,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool | None = None,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        for name, value in {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}.items():
            positive_whole(name, value, self)
        for name, layer in {"norm_layer": norm_layer, "activation": activation, "conv_layer": conv_layer}.items():
            if layer is not None and (isinstance(layer, nn.Module) or not callable(layer)):
                raise TypeError(
                    f"{type(self).__name__}: {name} must be a class or function that makes it, got {layer!r}."
                )
        kernel = self._each("kernel_size", kernel_size, spatial_dims)
        step = self._each("stride", stride, spatial_dims)
        dilations = self._each("dilation", dilation, spatial_dims)
        if padding is None:
            padding = tuple(distance * (side - 1) // 2 for side, distance in zip(kernel, dilations, strict=True))
        else:
            padding = self._each("padding", padding, spatial_dims, whole)
        parts = {
            "conv": of_rank(conv_layer, spatial_dims)(
                in_channels,
                out_channels,
                kernel,
                step,
                padding,
                dilations,
                groups,
                bias=norm_layer is None if bias is None else bias,
            )
        }
        if norm_layer is not None:
            parts["norm"] = of_rank(norm_layer, spatial_dims)(out_channels)
        if activation is not None:
            parts["activation"] = activation()
        super().__init__(**parts)

    def _each(
        self,
        name: str,
        value: int | Sequence[int],
        spatial_dims: int,
        check: Callable[[str, int, object], int] = positive_whole,
    ) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, Sequence) else (value,) * spatial_dims
        if len(values) != spatial_dims:
            raise ValueError(
                f"{type(self).__name__}: {name} must be one number or {spatial_dims} of them, got {value!r}."
            )
        return tuple(check(name, each, self) for each in values)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyConvNormActivation(LazyConvInChannelModule, ConvNormActivation):
    """A ``ConvNormActivation`` that infers its input channels, and 1-D, 2-D or 3-D, from its first input.

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
