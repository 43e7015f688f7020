"""LazyLinear: nn.Linear that infers its input features."""

from torch import nn

from lazytorch.lazify import lazify

__all__ = ["LazyLinear"]

LazyLinear = lazify(nn.Linear, in_features=-1)
