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
    norm_layer = layer["norm_layer"] if norm else None
    conv = LazyConvNormActivation(
        channels,
        1,
        bias=bias and not norm,
        norm_layer=norm_layer,
        activation=layer["activation"],
        conv_layer=layer["conv_layer"] or nn.Conv2d,
    )
    return {"pooled": conv}


def linear(channels: int, **layer: Callable[..., nn.Module] | None) -> dict[str, nn.Module]:
    """The hidden layer after the pooling as a linear layer, as in torchvision."""
    activation = layer["activation"] or nn.Identity
    return {"hidden": NamedSequential(linear=LazyLinear(channels), activation=activation())}
