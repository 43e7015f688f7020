"""RegNet V, X, Y and Z: networks defined by four numbers. The networks with names are in ``regnets.py``.

Radosavovic et al. 2020, "Designing Network Design Spaces", https://arxiv.org/abs/2003.13678. The widths of all blocks
follow from four numbers (section 3.3): ``width(j) = first_width + slope * j`` of block ``j``, to the nearest power of
``factor`` times ``first_width``. Blocks of one width are a stage. Y has squeeze-excitation (section 5), Z in inverted
bottlenecks (Dollár et al. 2021, https://arxiv.org/abs/2103.06877). V is timm's Y with the blocks of ResNetV2.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Fill, InitFunction, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import (
    LazyBottleneckBlock,
    LazyInvertedBottleneck,
    LazyPointwiseConv,
    LazyPreActivationBlock,
    SqueezeExcitation,
    projection,
)
from lazytorch.layers.checks import above, at_least, flag, positive_whole, who
from lazytorch.layers.factories import factory
from lazytorch.layers.rules import shortcut_layer
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU, Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal, zero_last_norm
from lazytorch.models.stems import convolutions

__all__ = ["RegNet"]

NAMES = {
    "timm": Rules("""
        stem.(conv|norm)                      stem.(conv|bn)
        final.(conv|norm)                     final_conv.(conv|bn)
        head.classifier                       head.fc
        stages.S.B.shortcut.(conv|norm)       s{S+1}.b{B+1}.downsample.(conv|bn)
        stages.S.B.layers.se.(reduce|expand)  s{S+1}.b{B+1}.se.(fc1|fc2)
        stages.S.B.layers.*.(conv|norm)       s{S+1}.b{B+1}.conv{C+1}.(conv|bn)
    """),
    "torchvision": Rules("""
        stem.(conv|norm)                              stem.(0|1)
        head.classifier                               fc
        stages.S.B.shortcut.(conv|norm)               trunk_output.block{S+1}.block{S+1}-{B}.proj.(0|1)
        stages.S.B.layers.se.(reduce|expand)          trunk_output.block{S+1}.block{S+1}-{B}.f.se.(fc1|fc2)
        stages.S.B.layers.(reduce|conv|restore).conv  trunk_output.block{S+1}.block{S+1}-{B}.f.(a|b|c).0
        stages.S.B.layers.(reduce|conv|restore).norm  trunk_output.block{S+1}.block{S+1}-{B}.f.(a|b|c).1
    """),
}
PREACTIVATED = {
    "timm": Rules("""
        stem.conv                             stem
        final.(conv|norm)                     final_conv.(conv|bn)
        head.classifier                       head.fc
        stages.S.B.preactivation.norm         s{S+1}.b{B+1}.norm1
        stages.S.B.shortcut.conv              s{S+1}.b{B+1}.downsample
        stages.S.B.shortcut.project.conv      s{S+1}.b{B+1}.downsample.1
        stages.S.B.layers.se.(reduce|expand)  s{S+1}.b{B+1}.se.(fc1|fc2)
        stages.S.B.layers.norm.norm           s{S+1}.b{B+1}.norm3
        stages.S.B.layers.restore.conv        s{S+1}.b{B+1}.conv3
        stages.S.B.layers.*.(conv|norm)       s{S+1}.b{B+1}.(conv{C+1}|norm{C+2})
    """)
}


def activated(*, activation: Callable[[], nn.Module] | None, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """The activation after the last stage, if its blocks have none at the end; it does not change the feature map."""
    after: Any = nn.Identity() if activation is None else activation()
    if hasattr(after, "inplace"):
        after.inplace = False
    return after


def nearest(width: int, group_size: int) -> int:
    """The multiple of ``group_size`` nearest to ``width``."""
    return round(width / group_size) * group_size


def not_both(owner: object, inverted: bool, preactivation: bool) -> None:
    """The rule of ``inverted`` and ``preactivation``, which exclude each other."""
    if inverted and preactivation:
        raise ValueError(f"{who(owner)}: inverted and preactivation are two kinds of blocks, got both. Choose one.")


@family
class RegNet(Network):
    """A network of bottleneck blocks, or inverted bottlenecks, whose widths follow from four numbers; by default
    RegNetX-400MF.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).

    Args:
        depth: Number of blocks of all stages.
        first_width: Channels of the first block.
        slope: Difference between the channels of a block and those of the previous block, before rounding.
        factor: Ratio of the widths of two stages, before rounding.
        group_size: Channels of each group of a block's convolution; if a block has fewer channels, it has one group.
        rounding: Called with the width of a stage and the size of its groups; returns a width that is a multiple of
            this size.
        stem_channels: Channels of the first convolution, which has a stride of 2.
        expansion_ratio: Ratio of the channels of a block's convolution to its output channels.
        inverted: Whether blocks end without an activation, and have a shortcut only if it can be the identity, as in
            RegNetZ.
        preactivation: Whether blocks begin with a norm and an activation, as in RegNetV.
        shortcut: Called to construct a block's shortcut if it cannot be the identity, unless ``inverted``; see the
            block.
        final_channels: Channels of a 1x1 convolution before the pooling; None for no convolution.
        squeeze_ratio: Ratio of a block's input channels to the channels of its squeeze-excitation; None for no
            squeeze-excitation.
        zero_init: Whether the weight of a norm at the end of a branch is initialized to 0, so that the block starts as
            its shortcut.
        fan_per_group: Whether initialization divides the number of outputs of a convolution by its groups, and sets all
            biases to 0.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        Radosavovic et al. 2020, section 3.3 and appendix, https://arxiv.org/abs/2003.13678; Z, Dollár et al. 2021,
        https://arxiv.org/abs/2103.06877.

    Example:
        >>> import torch
        >>> from lazytorch.models import RegNet
        >>> model = RegNet(10, depth=13, first_width=24, slope=36.44, factor=2.49, group_size=8)
        >>> [info.channels for info in model.stage_info]
        [24, 56, 152, 368]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        **dict.fromkeys(("depth", "first_width"), positive_whole),
        "slope": at_least(0),
        "factor": above(1),
        "rounding": factory("width", "group_size", example="nearest"),
        "shortcut": shortcut_layer,
        ("inverted", "preactivation"): not_both,
        **dict.fromkeys(("inverted", "fan_per_group"), flag),
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depth: int = 22,
        first_width: int = 24,
        slope: float = 24.48,
        factor: float = 2.54,
        group_size: int = 16,
        rounding: Callable[[int, int], int] = nearest,
        stem_channels: int = 32,
        expansion_ratio: float = 1,
        inverted: bool = False,
        preactivation: bool = False,
        shortcut: Callable[..., nn.Module] = projection,
        final_channels: int | None = None,
        squeeze_ratio: float | None = None,
        zero_init: bool = True,
        fan_per_group: bool = True,
        **options: Unpack[NetworkOptions],
    ) -> None:
        final = activated if inverted or preactivation else None
        if final_channels is not None:
            final = partial(LazyPointwiseConv, final_channels)
        activation = options.get("activation", RELU) or nn.Identity
        se_layer = None if squeeze_ratio is None else partial(SqueezeExcitation, activation=activation)
        rows = []
        for width, those in groupby(widths(depth, first_width, slope, factor)):
            size = min(group_size, int(width * expansion_ratio))
            mid_channels = rounding(int(width * expansion_ratio), size)
            channels = int(mid_channels / expansion_ratio)
            if inverted:
                block = partial(
                    LazyInvertedBottleneck,
                    expansion_ratio=expansion_ratio,
                    expand_from_output=True,
                    expand_always=True,
                    group_size=size,
                )
            else:
                block = partial(LazyBottleneckBlock, se_last=False)
                if preactivation:
                    block = partial(LazyPreActivationBlock, always=True)
                groups = mid_channels // size
                block = partial(block, mid_channels=mid_channels, groups=groups, shortcut=shortcut)
            block = partial(block, se_layer=se_layer, squeeze_ratio=squeeze_ratio)
            rows.append([Row(block, channels, len(list(those)), stride=2)])
        super().__init__(
            num_classes,
            stem=partial(convolutions, (stem_channels,), kernel_size=3, preactivation=preactivation),
            stem_reduction=2,
            stages=rows,
            final=final,
            initialize=InitFunction(initial_values, zero_init=zero_init, fan_per_group=fan_per_group),
            names=PREACTIVATED if preactivation else NAMES,
            **options,
        )


def widths(depth: int, first_width: int, slope: float, factor: float) -> list[int]:
    """The channels of each block, by equations 2 to 4 of the paper, rounded to multiples of 8."""
    exponents = (round(math.log(1 + slope * index / first_width) / math.log(factor)) for index in range(depth))
    return [round(first_width * factor**exponent / 8) * 8 for exponent in exponents]


@known_code
def initial_values(module: nn.Module, *, zero_init: bool, fan_per_group: bool) -> dict[str, Fill]:
    """He normal, fan-out, for convolutions; with ``zero_init``, weight 0 for the last norm of every branch."""
    fills = fan_out_normal(module, per_group=fan_per_group, linear=small_normal)
    if not fan_per_group and not isinstance(module, nn.Linear):
        fills.pop("bias", None)
    return fills | zero_last_norm(module) if zero_init else fills
