"""Convolutions whose weights are standardized in every forward."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from lazytorch._init.initialize import RESETS
from lazytorch.layers.checks import positive


class Standardized(nn.Module):
    """Base of the convolutions, with their constructor and forward."""

    convolve: ClassVar[Callable[..., Tensor]]
    weight: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)  # pyright: ignore[reportCallIssue]
        if self.weight[0].numel() == 1:
            raise ValueError(f"{type(self).__name__}: an output must have several weights to standardize, got one.")
        self.eps = positive("eps", eps, self)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch.nn
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *output)``, as in torch.nn."""
        weight = F.batch_norm(self.weight.unsqueeze(0), None, None, training=True, eps=self.eps).view(self.weight.shape)
        return type(self).convolve(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StdConv1d(Standardized, nn.Conv1d):
    """``nn.Conv1d`` with standardized weights; see ``StdConv2d``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import StdConv1d
        >>> StdConv1d(3, 8, kernel_size=3)(torch.zeros(2, 3, 32)).shape
        torch.Size([2, 8, 30])
    """

    convolve = F.conv1d


class StdConv2d(Standardized, nn.Conv2d):
    """``nn.Conv2d`` with weights of mean 0 and variance 1 for each output channel, computed in every forward.

    Args:
        in_channels: As in ``nn.Conv2d``, like all other parameters; there is no ``padding_mode``.
        eps: Added to the variance.

    Raises:
        ValueError: If an output channel has a single weight.

    Source:
        Qiao et al. 2019, equations 5 and 6, https://arxiv.org/abs/1903.10520.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyConvNormActivation, StdConv2d
        >>> LazyConvNormActivation(8, stride=2, conv_layer=StdConv2d)(torch.zeros(2, 3, 32, 32, 32)).shape
        torch.Size([2, 8, 16, 16, 16])
    """

    convolve = F.conv2d


class StdConv3d(Standardized, nn.Conv3d):
    """``nn.Conv3d`` with standardized weights; see ``StdConv2d``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import StdConv3d
        >>> StdConv3d(3, 8, kernel_size=3)(torch.zeros(2, 3, 8, 8, 8)).shape
        torch.Size([2, 8, 6, 6, 6])
    """

    convolve = F.conv3d


RESETS.update({layer: (layer.__init__, layer.reset_parameters) for layer in (StdConv1d, StdConv2d, StdConv3d)})
