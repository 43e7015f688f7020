"""The middle convolutions of Res2Net's blocks, an option of the bottleneck block."""

from typing import Any

import torch
from torch import Tensor, nn

from lazytorch._init.initialize import known_code
from lazytorch.layers.anti_aliasing import average_window
from lazytorch.layers.checks import Sizes
from lazytorch.layers.conv_norm_activation import ConvNormActivation


@known_code
class HierarchicalConv(nn.Sequential):
    """Splits the channels, and convolves each split except the last.

    If ``chained``, the output of each convolution is added to the input of the next one, and the last split is not
    changed. Otherwise the last split is average-pooled with ``kernel_size`` and ``stride``. ``layer`` contains other
    options of ``ConvNormActivation``. Source: Gao et al. 2019, figure 2b and equation 1,
    https://arxiv.org/abs/1904.01169.
    """

    def __init__(
        self, channels: int, splits: int, kernel_size: Sizes, stride: Sizes, *, chained: bool, **layer: Any
    ) -> None:
        width = channels // splits
        convs = [ConvNormActivation(width, width, kernel_size, stride, **layer) for _ in range(splits - 1)]
        last = nn.Identity() if chained else average_window(kernel_size, stride, layer["spatial_dims"])
        super().__init__(*convs, last)
        self.chained = chained

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch.nn
        """Shape: ``(N, channels, *spatial)`` to ``(N, channels, *ceil(spatial / stride))``."""
        *convs, last = self
        splits = input.chunk(len(self), 1)
        outputs: list[Tensor] = []
        for index, conv in enumerate(convs):  # torch.fx traces indices, and no loop over what chunk returns
            outputs.append(conv(splits[index] + outputs[-1] if self.chained and outputs else splits[index]))
        return torch.cat([*outputs, last(splits[len(convs)])], 1)
