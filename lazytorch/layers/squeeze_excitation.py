"""Squeeze-and-excitation: multiply each channel by a gate that is computed from the whole image."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import positive_whole
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.factories import factory
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


def whole_or_function(name: str, value: Any, owner: object) -> None:
    """The rule of a number of channels, or a function of the channels of the input."""
    rule = factory("in_channels", example="round_channels") if callable(value) else positive_whole
    rule(name, value, owner)


@checked(squeeze_channels=whole_or_function)
class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a gate, computed from the averages of all channels.

    Args:
        in_channels: Channels of the input and of the output.
        reduction_ratio: Ratio of the input channels to the channels between the two layers, which are rounded down to
            at least 1.
        squeeze_channels: Channels between the two layers, or a function that computes them from ``in_channels``;
            replaces ``reduction_ratio``.
        norm_layer: Called with the channels between the two layers, after the first layer; None for no norm.
        activation: Called without arguments, after the first layer.
        gate: Called without arguments, after the second layer.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If a number is not positive.

    Source:
        Hu et al. 2018, figure 3 and section 3, https://arxiv.org/abs/1709.01507.

    Example:
        >>> import torch
        >>> from lazytorch.layers import SqueezeExcitation
        >>> SqueezeExcitation(32)(torch.zeros(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        reduction_ratio: float = 16,
        *,
        squeeze_channels: int | Callable[[int], int] | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if squeeze_channels is None:
            squeeze_channels = max(1, int(in_channels / reduction_ratio))
        elif callable(squeeze_channels):
            squeeze_channels = int(positive_whole("squeeze_channels", squeeze_channels(in_channels), self))
        conv = of_rank(nn.Conv2d, spatial_dims)
        self.pool = of_rank(nn.AdaptiveAvgPool2d, spatial_dims)(1)
        self.reduce = conv(in_channels, squeeze_channels, kernel_size=1)
        if norm_layer is not None:
            norm = {"norm_layer": norm_layer, "activation": None, "spatial_dims": spatial_dims}
            self.reduce = ConvNormActivation(in_channels, squeeze_channels, 1, bias=True, **norm)
        self.activation = activation()
        self.expand = conv(squeeze_channels, in_channels, kernel_size=1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` in and out."""
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazySqueezeExcitation(LazyConvInChannelModule, SqueezeExcitation):
    """A ``SqueezeExcitation`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazySqueezeExcitation
        >>> squeeze = LazySqueezeExcitation(reduction_ratio=4)
        >>> squeeze(torch.zeros(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
        >>> squeeze.reduce.out_channels
        8
    """

    @without_first(SqueezeExcitation.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
