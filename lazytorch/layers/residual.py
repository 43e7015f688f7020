"""ResidualBlock: what the residual blocks here have in common, the shortcut and the sum."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazytorch.layers.checks import positive
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.stochastic_depth import StochasticDepth
from lazytorch.layers.twins import eager_twin

__all__ = ["LinearResidual", "ResidualBlock", "squeeze"]


class ResidualBlock(nn.Module):
    """A branch of layers, a shortcut past them, and an activation of their sum.

    Args:
        layers: The branch, by names, in order; None for a part that is not there.
        shortcut: What the input goes through; None for the identity.
        drop_path_rate: Fraction of the examples for which training leaves the branch out.
        activation: Called without arguments, after the sum; None for none.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module | None],
        shortcut: nn.Module | None,
        drop_path_rate: float,
        activation: Callable[[], nn.Module] | None,
    ) -> None:
        super().__init__()
        if drop_path_rate != 0:
            layers = {**layers, "drop_path": StochasticDepth(drop_path_rate)}
        self.layers = NamedSequential(**{name: layer for name, layer in layers.items() if layer is not None})
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        return self.activation(self.layers(x) + self.shortcut(x))


class LinearResidual(nn.Module):
    """A branch of layers, and its sum with the input where both have one shape; nothing follows the sum.

    Args:
        layers: The branch, by names, in order; None for a part that is not there.
        has_shortcut: Whether there is a sum.
        drop_path_rate: Fraction of the examples for which training leaves the branch out, if there is a sum.
        channels: Channels of the input, and those that the branch has besides, which the sum leaves as they are; None
            for none.
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
        if has_shortcut and drop_path_rate != 0:
            layers = {**layers, "drop_path": StochasticDepth(drop_path_rate)}
        self.layers = NamedSequential(**{name: layer for name, layer in layers.items() if layer is not None})

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
        squeeze_ratio: ``in_channels`` over the channels in between; None to let ``se_layer`` decide.
        spatial_dims: 1, 2 or 3.
    """
    if se_layer is None:
        return None
    se_layer = eager_twin(se_layer)
    if squeeze_ratio is None:
        return se_layer(channels, spatial_dims=spatial_dims)
    width = max(1, round(in_channels / positive("squeeze_ratio", squeeze_ratio, block)))
    return se_layer(channels, squeeze_channels=width, spatial_dims=spatial_dims)
