"""The base classes of residual blocks, and functions that construct their parts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazytorch.layers.checks import positive
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.stochastic_depth import StochasticDepth
from lazytorch.layers.twins import eager_twin


def branch(layers: dict[str, nn.Module | None], drop_path_rate: float) -> NamedSequential:
    """The layers of a branch in order, without entries that are None, followed by stochastic depth if it has a rate."""
    if drop_path_rate != 0:
        layers = {**layers, "drop_path": StochasticDepth(drop_path_rate)}
    return NamedSequential(**{name: layer for name, layer in layers.items() if layer is not None})


class ResidualBlock(nn.Module):
    """The sum of a branch of layers and a shortcut, followed by an activation.

    Args:
        layers: The layers of the branch by name, in order; entries that are None are skipped.
        shortcut: The layer of the shortcut; None for the identity.
        drop_path_rate: Probability that training drops the branch, for each example.
        activation: Called without arguments, after the sum; None for no activation.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module | None],
        shortcut: nn.Module | None,
        drop_path_rate: float,
        activation: Callable[[], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.layers = branch(layers, drop_path_rate)
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        return self.activation(self.layers(x) + self.shortcut(x))


class LinearResidual(nn.Module):
    """The sum of a branch of layers and the input if both have the same shape, without an activation after the sum.

    Args:
        layers: The layers of the branch by name, in order; entries that are None are skipped.
        has_shortcut: Whether the input is added to the branch.
        drop_path_rate: Probability that training drops the branch, for each example, if the block has a shortcut.
        channels: Channels of the input, and the number of further channels of the branch, to which nothing is added;
            None if both have the same channels.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module | None],
        has_shortcut: bool,
        drop_path_rate: float,
        channels: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.has_shortcut = has_shortcut
        self.channels = channels
        self.layers = branch(layers, drop_path_rate if has_shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        y = self.layers(x)
        if not self.has_shortcut:
            return y
        if self.channels is None:
            return x + y
        first, others = y.split(self.channels, 1)
        return torch.cat([x + first, others], 1)


def squeeze(
    block: nn.Module,
    se_layer: Callable[..., nn.Module] | None,
    channels: int,
    in_channels: int,
    squeeze_ratio: float | None,
    spatial_dims: int,
) -> nn.Module | None:
    """The attention of a block, if it has one.

    Args:
        block: The block, for messages.
        se_layer: Called with ``channels``, ``spatial_dims`` and, if ``squeeze_ratio`` is given, ``squeeze_channels``.
        channels: Channels of the attention's input.
        in_channels: Channels of the block's input.
        squeeze_ratio: Ratio of ``in_channels`` to the squeezed channels; None if ``se_layer`` determines them.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.
    """
    if se_layer is None:
        return None
    se_layer = eager_twin(se_layer)
    if squeeze_ratio is None:
        return se_layer(channels, spatial_dims=spatial_dims)
    width = max(1, round(in_channels / positive("squeeze_ratio", squeeze_ratio, block)))
    return se_layer(channels, squeeze_channels=width, spatial_dims=spatial_dims)
