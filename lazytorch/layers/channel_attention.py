"""Efficient channel attention: multiply each channel by a gate that is computed from its neighbours."""

import math
from typing import Any

from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import odd_number
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked(kernel_size=odd_number)
class EfficientChannelAttention(nn.Module):
    """Multiplies each channel by a gate, computed from the averages of the channel and its neighbours.

    Args:
        in_channels: Channels of the input and of the output.
        kernel_size: Number of neighbouring channels that a gate is computed from, an odd number; by default it grows
            with ``in_channels``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If a number is not positive, or ``kernel_size`` is even.

    Source:
        Wang et al. 2020, figure 2 and equation 12, https://arxiv.org/abs/1910.03151.

    Example:
        >>> import torch
        >>> from lazytorch.layers import EfficientChannelAttention
        >>> EfficientChannelAttention(256)(torch.zeros(2, 256, 8, 8)).shape
        torch.Size([2, 256, 8, 8])
    """

    def __init__(self, in_channels: int, kernel_size: int | None = None, *, spatial_dims: int = 2) -> None:
        super().__init__()
        if kernel_size is None:
            # Equation 12 with gamma = 2 and b = 1; an even result is increased by 1.
            kernel_size = max(3, int((math.log2(in_channels) + 1) / 2) | 1)
        self.pool = of_rank(nn.AdaptiveAvgPool2d, spatial_dims)(1)
        self.conv = of_rank(nn.Conv1d, 1)(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` in and out."""
        averages = self.pool(x)
        return x * self.gate(self.conv(averages.flatten(1).unsqueeze(1))).view_as(averages)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyEfficientChannelAttention(LazyConvInChannelModule, EfficientChannelAttention):
    """An ``EfficientChannelAttention`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyEfficientChannelAttention
        >>> attention = LazyEfficientChannelAttention()
        >>> attention(torch.zeros(2, 256, 8, 8)).shape
        torch.Size([2, 256, 8, 8])
        >>> attention.conv.kernel_size
        (5,)
    """

    @without_first(EfficientChannelAttention.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
