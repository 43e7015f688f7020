"""Global response normalization: scale each channel by its norm relative to other channels."""

from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.checks import positive
from lazytorch.layers.rules import checked
from lazytorch.lazify import Lazified
from lazytorch.signature import create_lazy_signature, without_first


@checked(eps=positive)
class ResponseNorm(nn.Module):
    """Multiplies each channel by its norm over all pixels, relative to the mean of all channels, and adds the input.

    Weight and bias are initialized to 0, so that the output equals the input before training.

    Args:
        channels: Channels of the input and of the output.
        eps: Added to the mean.

    Shape:
        - Input: ``(N, channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If ``channels`` is not a positive whole number.

    Source:
        Woo et al. 2023, section 4 (global response normalization), https://arxiv.org/abs/2301.00808.

    Example:
        >>> import torch
        >>> from lazytorch.layers import ResponseNorm
        >>> x = torch.randn(2, 8, 4, 4)
        >>> torch.equal(ResponseNorm(8)(x), x)
        True
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def reset_parameters(self) -> None:
        """Set weight and bias to 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, channels, *spatial)`` in and out."""
        pixels = tuple(range(2, x.dim()))
        vector = (-1, *(1 for _ in pixels))
        norms = torch.linalg.vector_norm(x, dim=pixels, keepdim=True)
        response = norms / (norms.mean(dim=1, keepdim=True) + self.eps)
        return x * (response * self.weight.view(vector) + 1) + self.bias.view(vector)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps:g}"


@create_lazy_signature(exclude=["channels"])
class LazyResponseNorm(Lazified, ResponseNorm, inferred={"channels": 1}):
    """A ``ResponseNorm`` that infers its channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyResponseNorm
        >>> LazyResponseNorm()(torch.zeros(2, 8, 16)).shape
        torch.Size([2, 8, 16])
    """

    @without_first(ResponseNorm.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
