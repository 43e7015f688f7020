"""The layers of DenseNet: a norm with an activation, and a layer that adds channels to its input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, fraction, largest, odd, positive_sizes, positive_whole, who
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked()
class NormActivation(NamedSequential):
    """A norm, then an activation, which does not change the input in place.

    Args:
        in_channels: Channels of the input and of the output.
        norm_layer: Called with the channels; None for no norm. A class of torch.nn is replaced by its version for
            ``spatial_dims``.
        activation: Called without arguments; None for no activation.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: the same

    Source:
        He et al. 2016, figure 1b, https://arxiv.org/abs/1603.05027.

    Example:
        >>> import torch
        >>> from lazytorch.layers import NormActivation
        >>> NormActivation(8)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        spatial_dims: int = 2,
    ) -> None:
        parts: dict[str, nn.Module] = {}
        if norm_layer is not None:
            parts["norm"] = of_rank(norm_layer, spatial_dims)(in_channels)
        if activation is not None:
            after: Any = activation()
            if norm_layer is None and hasattr(after, "inplace"):
                after.inplace = False
            parts["activation"] = after
        super().__init__(**parts)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyNormActivation(LazyConvInChannelModule, NormActivation):
    """A ``NormActivation`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyNormActivation
        >>> LazyNormActivation()(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 8, 32])
    """

    @without_first(NormActivation.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


def stride_of_one(name: str, value: Sizes, owner: object) -> None:
    """The rule of a stride, which must be 1."""
    if largest(positive_sizes(name, value, owner)) != 1:
        raise ValueError(f"{who(owner)}: {name} must be 1, as the output contains the input, got {value}.")


@checked(kernel_size=odd, stride=stride_of_one, expansion_ratio=positive_whole, dropout=fraction)
class DenseLayer(nn.Module):
    """Computes new channels by a 1x1 and a 3x3 convolution, each after a norm and an activation.

    The output is the input, concatenated with the new channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; those beyond ``in_channels`` are new.
        kernel_size: Size of the second kernel, in pixels.
        stride: Must be 1, as the output contains the input.
        expansion_ratio: Ratio of the channels between the two convolutions to the new channels.
        dilation: Spacing between the pixels of the second kernel.
        input_dilation: Has no effect; networks pass it to every block.
        dropout: Dropout probability of the new values.
        norm_layer: Called with the channels; None for no norms.
        activation: Called without arguments; None for no activations.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *spatial)``

    Raises:
        ValueError: If there are no new channels, a number is not positive, ``kernel_size`` is even or ``stride`` not 1.

    Source:
        Huang et al. 2017, section 3 (DenseNet-B), https://arxiv.org/abs/1608.06993.

    Example:
        >>> import torch
        >>> from lazytorch.layers import DenseLayer
        >>> DenseLayer(64, 96)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 96, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        *,
        expansion_ratio: int = 4,
        dilation: Sizes = 1,
        input_dilation: Sizes | None = None,
        dropout: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if out_channels <= in_channels:
            raise ValueError(
                f"DenseLayer: out_channels must be more than the {in_channels} of the input, got {out_channels}."
            )
        growth = out_channels - in_channels
        mid_channels = growth * expansion_ratio
        layer = {"norm_layer": norm_layer, "activation": activation, "spatial_dims": spatial_dims}
        self.layers = NamedSequential(
            preactivation=NormActivation(in_channels, **layer),
            reduce=PointwiseConv(in_channels, mid_channels, conv_layer=conv_layer, **layer),
            conv=ConvNormActivation(
                mid_channels,
                growth,
                kernel_size,
                dilation=dilation,
                bias=norm_layer is None,
                norm_layer=None,
                activation=None,
                conv_layer=conv_layer,
                spatial_dims=spatial_dims,
            ),
            **({"dropout": nn.Dropout(dropout)} if dropout != 0 else {}),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``."""
        return torch.cat([x, self.layers(x)], 1)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyDenseLayer(LazyConvInChannelModule, DenseLayer):
    """A ``DenseLayer`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyDenseLayer
        >>> LazyDenseLayer(96)(torch.zeros(2, 64, 32, 32)).shape
        torch.Size([2, 96, 32, 32])
    """

    @without_first(DenseLayer.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
