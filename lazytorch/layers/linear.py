"""LazyLinear: nn.Linear that infers its input features."""

from torch import nn

from lazytorch.lazify import lazify
from lazytorch.signature import create_lazy_signature

__all__ = ["LazyLinear"]


@create_lazy_signature(exclude=["in_features"])
class LazyLinear(lazify(nn.Linear, in_features=-1)):
    """``nn.Linear`` that infers its input features from the last dimension of its first input.

    Shape:
        - Input: ``(*, features)``
        - Output: ``(*, out_features)``

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyLinear
        >>> LazyLinear(10)(torch.zeros(2, 7)).shape
        torch.Size([2, 10])
    """
