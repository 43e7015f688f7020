"""Layer normalization of convolutional networks: over the channels of each pixel."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lazytorch.layers.checks import positive
from lazytorch.layers.rules import checked
from lazytorch.lazify import Lazified
from lazytorch.signature import create_lazy_signature, without_first


@checked(eps=positive)
class ChannelNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the channels of each pixel, for any number of spatial dimensions.

    Its output is in channels-last memory format.

    Args:
        channels: Channels of the input and of the output.
        eps: Added to the variance.

    Shape:
        - Input: ``(N, channels, *spatial)``
        - Output: the same

    Raises:
        ValueError: If ``channels`` is not a positive whole number.

    Source:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450; over channels, Liu et al. 2022, section 2.6,
        https://arxiv.org/abs/2201.03545.

    Example:
        >>> import torch
        >>> from lazytorch.layers import ChannelNorm
        >>> ChannelNorm(8)(torch.randn(2, 8, 4, 4)).mean(1).abs().max() < 1e-5
        tensor(True)
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch.nn
        """Shape: ``(N, channels, *spatial)`` in and out."""
        last = input.movedim(1, -1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


@create_lazy_signature(exclude=["channels"])
class LazyChannelNorm(Lazified, ChannelNorm, inferred={"channels": 1}):
    """A ``ChannelNorm`` that infers its channels from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyChannelNorm
        >>> LazyChannelNorm()(torch.zeros(2, 8, 4, 4, 4)).shape
        torch.Size([2, 8, 4, 4, 4])
    """

    @without_first(ChannelNorm.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
