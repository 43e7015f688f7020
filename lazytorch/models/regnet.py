"""RegNet X and Y: Radosavovic et al. 2020, "Designing Network Design Spaces", https://arxiv.org/abs/2003.13678.

The widths of all blocks follow from four numbers (section 3.3): ``width(j) = first_width + slope * j`` of block ``j``,
to the nearest power of ``factor`` times ``first_width``. Blocks of one width are a stage. Y has squeeze-excitation
(section 5). Names with mf and gf are torchvision's, all others timm's; those that end with tv have torchvision's rule
for widths that groups do not divide.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any, Unpack

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, known_function
from lazytorch.layers import (
    BottleneckBlock,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    SqueezeExcitation,
    round_channels,
)
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal
from lazytorch.models.registry import model

# fmt: off
__all__ = [
    "RegNet",
    "regnet_x_1_6gf",
    "regnet_x_3_2gf",
    "regnet_x_8gf",
    "regnet_x_16gf",
    "regnet_x_32gf",
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_y_1_6gf",
    "regnet_y_3_2gf",
    "regnet_y_8gf",
    "regnet_y_16gf",
    "regnet_y_32gf",
    "regnet_y_128gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "regnetx_002",
    "regnetx_004",
    "regnetx_004_tv",
    "regnetx_006",
    "regnetx_008",
    "regnetx_016",
    "regnetx_032",
    "regnetx_040",
    "regnetx_064",
    "regnetx_080",
    "regnetx_120",
    "regnetx_160",
    "regnetx_320",
    "regnety_002",
    "regnety_004",
    "regnety_006",
    "regnety_008",
    "regnety_008_tv",
    "regnety_016",
    "regnety_032",
    "regnety_040",
    "regnety_064",
    "regnety_080",
    "regnety_080_tv",
    "regnety_120",
    "regnety_160",
    "regnety_320",
    "regnety_640",
    "regnety_1280",
    "regnety_2560",
]
# fmt: on

NAMES = {
    "timm": Rules("""
        stem.conv                    stem.conv
        stem.norm                    stem.bn
        head.classifier              head.fc
        stages.S.B.shortcut.conv     s{S+1}.b{B+1}.downsample.conv
        stages.S.B.shortcut.norm     s{S+1}.b{B+1}.downsample.bn
        stages.S.B.layers.se.reduce  s{S+1}.b{B+1}.se.fc1
        stages.S.B.layers.se.expand  s{S+1}.b{B+1}.se.fc2
        stages.S.B.layers.*.conv     s{S+1}.b{B+1}.conv{C+1}.conv
        stages.S.B.layers.*.norm     s{S+1}.b{B+1}.conv{C+1}.bn
    """),
    "torchvision": Rules("""
        stem.conv                       stem.0
        stem.norm                       stem.1
        head.classifier                 fc
        stages.S.B.shortcut.conv        trunk_output.block{S+1}.block{S+1}-{B}.proj.0
        stages.S.B.shortcut.norm        trunk_output.block{S+1}.block{S+1}-{B}.proj.1
        stages.S.B.layers.se.reduce     trunk_output.block{S+1}.block{S+1}-{B}.f.se.fc1
        stages.S.B.layers.se.expand     trunk_output.block{S+1}.block{S+1}-{B}.f.se.fc2
        stages.S.B.layers.reduce.conv   trunk_output.block{S+1}.block{S+1}-{B}.f.a.0
        stages.S.B.layers.reduce.norm   trunk_output.block{S+1}.block{S+1}-{B}.f.a.1
        stages.S.B.layers.conv.conv     trunk_output.block{S+1}.block{S+1}-{B}.f.b.0
        stages.S.B.layers.conv.norm     trunk_output.block{S+1}.block{S+1}-{B}.f.b.1
        stages.S.B.layers.restore.conv  trunk_output.block{S+1}.block{S+1}-{B}.f.c.0
        stages.S.B.layers.restore.norm  trunk_output.block{S+1}.block{S+1}-{B}.f.c.1
    """),
}


def nearest(width: int, group_size: int) -> int:
    """The multiple of ``group_size`` nearest to ``width``."""
    return round(width / group_size) * group_size


@family
class RegNet(Network):
    """A network of bottleneck blocks without a bottleneck, whose widths grow by a rule.

    It takes any number of input channels, and signals, images or volumes, as its first input has them.

    Args:
        num_classes: Number of classes; 0 for no classifier, which leaves pooled features; by default as many as
            ``weights`` have, or else 1000.
        depth: Number of blocks of all stages.
        first_width: Channels of the first block.
        slope: Channels by which each block is wider than the one before, before rounding.
        factor: Ratio of the widths of two stages, before rounding.
        group_size: Channels of each group of a block's convolution; all channels where they are fewer.
        rounding: Called with the width of a stage and the size of its groups; returns a width that they divide.
        stem_channels: Channels of the first convolution, which has a stride of 2.
        squeeze_ratio: Channels of a block's input over those of its squeeze-excitation; None for none.
        zero_init: Whether the last norm of every branch starts with weight 0, and so every block as its shortcut.
        fan_per_group: Whether initialization counts the outputs of each group of a convolution alone, and sets all
            biases to 0.
        options: Those of every network; see ``NetworkOptions``.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``

    Raises:
        ValueError: If a number is out of its range, or there are no such weights.
        RuntimeError: If the weights do not fit the model.

    Source:
        Radosavovic et al. 2020, section 3.3 and appendix, https://arxiv.org/abs/2003.13678.

    Example:
        >>> import torch
        >>> from lazytorch.models import RegNet
        >>> model = RegNet(10, depth=13, first_width=24, slope=36.44, factor=2.49, group_size=8)
        >>> [info.channels for info in model.stage_info]
        [24, 56, 152, 368]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depth: int,
        first_width: int,
        slope: float,
        factor: float,
        group_size: int,
        rounding: Callable[[int, int], int] = nearest,
        stem_channels: int = 32,
        squeeze_ratio: float | None = None,
        zero_init: bool = True,
        fan_per_group: bool = True,
        **options: Unpack[NetworkOptions],
    ) -> None:
        rows = []
        for width, those in groupby(widths(depth, first_width, slope, factor)):
            size = min(group_size, width)
            channels = rounding(width, size)
            block = partial(
                LazyBottleneckBlock,
                mid_channels=channels,
                groups=channels // size,
                se_layer=None if squeeze_ratio is None else SqueezeExcitation,
                squeeze_ratio=squeeze_ratio,
            )
            rows.append([Row(block, channels, len(list(those)), stride=2)])
        super().__init__(
            num_classes,
            stem=partial(LazyConvNormActivation, stem_channels, stride=2),
            stem_reduction=2,
            stages=rows,
            initialize=InitFunction(initial_values, zero_init=zero_init, fan_per_group=fan_per_group),
            names=NAMES,
            **options,
        )


def widths(depth: int, first_width: int, slope: float, factor: float) -> list[int]:
    """The channels of each block: equations 2 to 4 of the paper, and then multiples of 8."""
    exponents = (round(math.log(1 + slope * index / first_width) / math.log(factor)) for index in range(depth))
    return [round(first_width * factor**exponent / 8) * 8 for exponent in exponents]


@known_function
def initial_values(module: nn.Module, *, zero_init: bool, fan_per_group: bool) -> dict[str, Fill]:
    """He normal by outputs for convolutions; with ``zero_init``, weight 0 for the last norm of every branch."""
    fills = fan_out_normal(module, per_group=fan_per_group, linear=small_normal)
    if not fan_per_group and not isinstance(module, nn.Linear):
        fills.pop("bias", None)
    if zero_init and isinstance(module, BottleneckBlock):
        weight = "layers.restore.norm.weight"  # which a network without norms does not have
        fills |= {name: Constant(0) for name, _ in module.named_parameters() if name == weight}
    return fills


def row(
    name: str, depth: int, first_width: int, slope: float, factor: float, group_size: int, *options: dict[str, Any]
):
    """Enter a model in the registry. The columns are those of the paper's tables: d, w_0, w_a, w_m, g."""
    config = {key: value for each in options for key, value in each.items()}
    source = config.pop("source", "timm")
    return model(
        name,
        RegNet,
        [source],
        depth=depth,
        first_width=first_width,
        slope=slope,
        factor=factor,
        group_size=group_size,
        **config,
    )


Y = {"squeeze_ratio": 4}
ROUNDED_UP = {"rounding": round_channels}
TORCHVISION = ROUNDED_UP | {"source": "torchvision", "zero_init": False, "fan_per_group": False}

regnet_y_400mf = row("regnet_y_400mf", 16, 48, 27.89, 2.09, 8, TORCHVISION, Y)
regnet_y_800mf = row("regnet_y_800mf", 14, 56, 38.84, 2.4, 16, TORCHVISION, Y)
regnet_y_1_6gf = row("regnet_y_1_6gf", 27, 48, 20.71, 2.65, 24, TORCHVISION, Y)
regnet_y_3_2gf = row("regnet_y_3_2gf", 21, 80, 42.63, 2.66, 24, TORCHVISION, Y)
regnet_y_8gf = row("regnet_y_8gf", 17, 192, 76.82, 2.19, 56, TORCHVISION, Y)
regnet_y_16gf = row("regnet_y_16gf", 18, 200, 106.23, 2.48, 112, TORCHVISION, Y)
regnet_y_32gf = row("regnet_y_32gf", 20, 232, 115.89, 2.53, 232, TORCHVISION, Y)
regnet_y_128gf = row("regnet_y_128gf", 27, 456, 160.83, 2.52, 264, TORCHVISION, Y)
regnet_x_400mf = row("regnet_x_400mf", 22, 24, 24.48, 2.54, 16, TORCHVISION)
regnet_x_800mf = row("regnet_x_800mf", 16, 56, 35.73, 2.28, 16, TORCHVISION)
regnet_x_1_6gf = row("regnet_x_1_6gf", 18, 80, 34.01, 2.25, 24, TORCHVISION)
regnet_x_3_2gf = row("regnet_x_3_2gf", 25, 88, 26.31, 2.25, 48, TORCHVISION)
regnet_x_8gf = row("regnet_x_8gf", 23, 80, 49.56, 2.88, 120, TORCHVISION)
regnet_x_16gf = row("regnet_x_16gf", 22, 216, 55.59, 2.1, 128, TORCHVISION)
regnet_x_32gf = row("regnet_x_32gf", 23, 320, 69.86, 2.0, 168, TORCHVISION)
regnetx_002 = row("regnetx_002", 13, 24, 36.44, 2.49, 8)
regnetx_004 = row("regnetx_004", 22, 24, 24.48, 2.54, 16)
regnetx_004_tv = row("regnetx_004_tv", 22, 24, 24.48, 2.54, 16, ROUNDED_UP)
regnetx_006 = row("regnetx_006", 16, 48, 36.97, 2.24, 24)
regnetx_008 = row("regnetx_008", 16, 56, 35.73, 2.28, 16)
regnetx_016 = row("regnetx_016", 18, 80, 34.01, 2.25, 24)
regnetx_032 = row("regnetx_032", 25, 88, 26.31, 2.25, 48)
regnetx_040 = row("regnetx_040", 23, 96, 38.65, 2.43, 40)
regnetx_064 = row("regnetx_064", 17, 184, 60.83, 2.07, 56)
regnetx_080 = row("regnetx_080", 23, 80, 49.56, 2.88, 120)
regnetx_120 = row("regnetx_120", 19, 168, 73.36, 2.37, 112)
regnetx_160 = row("regnetx_160", 22, 216, 55.59, 2.1, 128)
regnetx_320 = row("regnetx_320", 23, 320, 69.86, 2.0, 168)
regnety_002 = row("regnety_002", 13, 24, 36.44, 2.49, 8, Y)
regnety_004 = row("regnety_004", 16, 48, 27.89, 2.09, 8, Y)
regnety_006 = row("regnety_006", 15, 48, 32.54, 2.32, 16, Y)
regnety_008 = row("regnety_008", 14, 56, 38.84, 2.4, 16, Y)
regnety_008_tv = row("regnety_008_tv", 14, 56, 38.84, 2.4, 16, ROUNDED_UP, Y)
regnety_016 = row("regnety_016", 27, 48, 20.71, 2.65, 24, Y)
regnety_032 = row("regnety_032", 21, 80, 42.63, 2.66, 24, Y)
regnety_040 = row("regnety_040", 22, 96, 31.41, 2.24, 64, Y)
regnety_064 = row("regnety_064", 25, 112, 33.22, 2.27, 72, Y)
regnety_080 = row("regnety_080", 17, 192, 76.82, 2.19, 56, Y)
regnety_080_tv = row("regnety_080_tv", 17, 192, 76.82, 2.19, 56, ROUNDED_UP, Y)
regnety_120 = row("regnety_120", 19, 168, 73.36, 2.37, 112, Y)
regnety_160 = row("regnety_160", 18, 200, 106.23, 2.48, 112, Y)
regnety_320 = row("regnety_320", 20, 232, 115.89, 2.53, 232, Y)
regnety_640 = row("regnety_640", 20, 352, 147.48, 2.4, 328, Y)
regnety_1280 = row("regnety_1280", 27, 456, 160.83, 2.52, 264, Y)
regnety_2560 = row("regnety_2560", 27, 640, 230.83, 2.53, 373, Y)
