"""LayerScale: a learned factor for each channel of a residual branch."""

from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.checks import number
from lazytorch.layers.rules import checked
from lazytorch.lazify import Lazified
from lazytorch.signature import create_lazy_signature, without_first


@checked(initial_value=number)
class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor.

    At the end of a residual branch, small initial factors make the block nearly the identity before training.

    Args:
        channels: Channels of the input and of the output.
        initial_value: Initial value of all factors.

    Shape:
        - Input: ``(N, channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If ``channels`` is not a positive whole number.

    Source:
        Touvron et al. 2021, section 2, https://arxiv.org/abs/2103.17239.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LayerScale
        >>> LayerScale(3, 0.5)(torch.ones(1, 3, 2))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000],
                 [0.5000, 0.5000]]], grad_fn=<MulBackward0>)
    """

    def __init__(self, channels: int, initial_value: float = 1e-6) -> None:
        super().__init__()
        self.initial_value = initial_value
        self.weight = nn.Parameter(torch.full((channels,), float(initial_value)))

    def reset_parameters(self) -> None:
        """Set all factors to ``initial_value``."""
        nn.init.constant_(self.weight, self.initial_value)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, channels, *spatial)`` in and out."""
        return x * self.weight.view(-1, *(1 for _ in x.shape[2:]))

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, initial_value={self.initial_value:g}"


@create_lazy_signature(exclude=["channels"])
class LazyLayerScale(Lazified, LayerScale, inferred={"channels": 1}):
    """A ``LayerScale`` that infers its channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyLayerScale
        >>> LazyLayerScale(0.1)(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    @without_first(LayerScale.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
