"""MobileNetV2: Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.

The table is the paper's table 2. Equal to torchvision's mobilenet_v2 in parameters, outputs, gradients and BatchNorm
buffers; initial weights are torchvision's as well, the paper names none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from torch import nn

from lazytorch.layers import LazyConvNormActivation, LazyInvertedBottleneck, LazyPointwiseConv
from lazytorch.models.backbone import Backbone

__all__ = ["MOBILENET_V2", "Stage", "mobilenet_v2"]


class Stage(NamedTuple):
    """A row of table 2: ``repeats`` inverted bottlenecks, the first of them with ``stride``."""

    expansion_ratio: int
    out_channels: int
    repeats: int
    stride: int


STEM_CHANNELS = 32
MOBILENET_V2 = (
    Stage(expansion_ratio=1, out_channels=16, repeats=1, stride=1),
    Stage(expansion_ratio=6, out_channels=24, repeats=2, stride=2),
    Stage(expansion_ratio=6, out_channels=32, repeats=3, stride=2),
    Stage(expansion_ratio=6, out_channels=64, repeats=4, stride=2),
    Stage(expansion_ratio=6, out_channels=96, repeats=3, stride=1),
    Stage(expansion_ratio=6, out_channels=160, repeats=3, stride=2),
    Stage(expansion_ratio=6, out_channels=320, repeats=1, stride=1),
)
NUM_FEATURES = 1280
RELU6 = partial(nn.ReLU6, inplace=True)


def mobilenet_v2(
    num_classes: int = 1000,
    *,
    dropout: float = 0.2,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] = RELU6,
    stages: Sequence[Stage] = MOBILENET_V2,
) -> Backbone:
    """MobileNetV2, for whatever channels and rank its first input has.

    Args:
        num_classes: Classes to tell apart; 0 for no classifier.
        dropout: Share of the pooled features that training sets to zero.
        norm_layer: Called with the channels, after each convolution.
        activation: Called without arguments, after each convolution but the projections.
        stages: The rows of the table.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``

    Raises:
        ValueError: If ``num_classes`` is not a whole number of at least 0, or ``dropout`` is not from 0 to 1.

    Source:
        Sandler et al. 2018, table 2, https://arxiv.org/abs/1801.04381.

    Example:
        >>> import torch, lazytorch
        >>> model = lazytorch.models.mobilenet_v2(num_classes=10)
        >>> model(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    layer = {"norm_layer": norm_layer, "activation": activation}
    return Backbone(
        stem=LazyConvNormActivation(STEM_CHANNELS, stride=2, **layer),
        stages=[
            [
                LazyInvertedBottleneck(
                    row.out_channels,
                    stride=row.stride if repeat == 0 else 1,
                    expansion_ratio=row.expansion_ratio,
                    **layer,
                )
                for repeat in range(row.repeats)
            ]
            for row in stages
        ],
        final=LazyPointwiseConv(NUM_FEATURES, **layer),
        channels=[row.out_channels for row in stages],
        reductions=accumulate((2 * row.stride if index == 0 else row.stride for index, row in enumerate(stages)), mul),
        num_features=NUM_FEATURES,
        num_classes=num_classes,
        dropout=dropout,
        initialize=initialize,
    )


def initialize(module: nn.Module) -> None:
    """Draw weights as torchvision does: He normal by outputs for convolutions, a small normal for the classifier."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
