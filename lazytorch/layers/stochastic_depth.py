"""Stochastic depth: training drops residual branches at random."""

import torch
from torch import Tensor, nn

from lazytorch.layers.checks import fraction_below_one
from lazytorch.layers.rules import checked


@checked(rate=fraction_below_one)
class StochasticDepth(nn.Module):
    """Sets whole examples to zero at random in training, and scales the others up so that the mean does not change.

    At the end of a residual branch, this drops the branch.

    Args:
        rate: Probability that an example is set to zero.

    Shape:
        - Input: ``(N, *)``
        - Output: the same

    Raises:
        ValueError: If ``rate`` is not from 0 to below 1.

    Source:
        Huang et al. 2016, https://arxiv.org/abs/1603.09382; for each example, as Larsson et al. 2017 drop paths,
        https://arxiv.org/abs/1605.07648.

    Example:
        >>> import torch
        >>> from lazytorch.layers import StochasticDepth
        >>> StochasticDepth(0.2).eval()(torch.ones(2, 3))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, *)`` in and out."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty((x.size(0),) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x * kept.bernoulli_(1 - self.rate).div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"
