"""Heads: the layers of networks between the pooling and the classifier."""

from collections.abc import Callable

from torch import nn

from lazytorch.layers import LazyConvNormActivation, LazyLinear
from lazytorch.layers.named_sequential import NamedSequential

__all__ = ["linear", "pointwise"]


def pointwise(
    channels: int, *, bias: bool = True, norm: bool = False, **layer: Callable[..., nn.Module] | None
) -> dict[str, nn.Module]:
    """The hidden layer after the pooling as a 1x1 convolution, as in timm."""
    if not norm:
        layer["norm_layer"] = None
    return {"pooled": LazyConvNormActivation(channels, 1, bias=bias and not norm, **layer)}  # pyright: ignore[reportArgumentType]


def linear(channels: int, **layer: Callable[..., nn.Module] | None) -> dict[str, nn.Module]:
    """The hidden layer after the pooling as a linear layer, as in torchvision."""
    activation = layer["activation"] or nn.Identity
    return {"hidden": NamedSequential(linear=LazyLinear(channels), activation=activation())}
