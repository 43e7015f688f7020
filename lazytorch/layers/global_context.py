"""Global context: a vector computed from all pixels, which is added to every pixel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.channel_norm import ChannelNorm
from lazytorch.layers.checks import positive_whole
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.signature import create_lazy_signature, without_first


@checked(squeeze_channels=positive_whole)
class GlobalContext(nn.Module):
    """Computes a vector from a weighted average of all pixels with two layers, and adds it to every pixel.

    With a ``gate``, every pixel is multiplied by the vector instead.

    Args:
        in_channels: Channels of the input and of the output.
        reduction_ratio: Ratio of the input channels to the channels between the two layers, which are rounded down to
            at least 1.
        squeeze_channels: Channels between the two layers; replaces ``reduction_ratio``.
        activation: Called without arguments, after the norm that follows the first layer.
        gate: Called without arguments, after the second layer; the result is then multiplied by the pixels. None to add
            it.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If a number is not positive.

    Source:
        Cao et al. 2019, figure 4d, https://arxiv.org/abs/1904.11492; multiplied, figure 4a.

    Example:
        >>> import torch
        >>> from lazytorch.layers import GlobalContext
        >>> GlobalContext(32)(torch.zeros(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        reduction_ratio: float = 8,
        *,
        squeeze_channels: int | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] | None = None,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        squeezed = squeeze_channels or max(1, int(in_channels / reduction_ratio))
        conv = of_rank(nn.Conv2d, spatial_dims)
        self.spatial_dims = spatial_dims
        self.attend = conv(in_channels, 1, kernel_size=1)
        self.transform = NamedSequential(
            reduce=conv(in_channels, squeezed, kernel_size=1),
            norm=ChannelNorm(squeezed),
            activation=activation(),
            expand=conv(squeezed, in_channels, kernel_size=1),
        )
        self.gate = None if gate is None else gate()

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` in and out."""
        weights = self.attend(x).flatten(1).softmax(-1)
        average = torch.bmm(x.flatten(2), weights.unsqueeze(-1))
        for _ in range(1, self.spatial_dims):
            average = average.unsqueeze(-1)
        context = self.transform(average)
        return x + context if self.gate is None else x * self.gate(context)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyGlobalContext(LazyConvInChannelModule, GlobalContext):
    """A ``GlobalContext`` that infers its channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyGlobalContext
        >>> LazyGlobalContext(reduction_ratio=4)(torch.zeros(2, 32, 64)).shape
        torch.Size([2, 32, 64])
    """

    @without_first(GlobalContext.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
