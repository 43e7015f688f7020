"""LazyLinear: nn.Linear that infers its input features."""

from typing import Any

from torch import nn

from lazytorch.lazify import Lazified
from lazytorch.signature import create_lazy_signature, without_first


@create_lazy_signature(exclude=["in_features"])
class LazyLinear(Lazified, nn.Linear, inferred={"in_features": -1}):
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

    @without_first(nn.Linear.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
