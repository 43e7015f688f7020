"""MixNet: Tan & Le 2019, "MixConv: Mixed Depthwise Convolutional Kernels", figure 5, https://arxiv.org/abs/1907.09595.

The names are timm's; its mixnet_xl and mixnet_xxl are wider and deeper than the networks of the paper. Grouped 1x1
convolutions are as in the authors' code. Names that begin with tf have TensorFlow's padding and eps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers import LazyInvertedBottleneck, MixedConv, SqueezeExcitation
from lazytorch.models.compose import SILU
from lazytorch.models.mobile import AS_TIMM, TENSORFLOW, Stage, as_stated, row

# fmt: off
__all__ = [
    "MIXNET_M", "MIXNET_S",
    "mixnet_l", "mixnet_m", "mixnet_s", "mixnet_xl", "mixnet_xxl",
    "tf_mixnet_l", "tf_mixnet_m", "tf_mixnet_s",
]
# fmt: on


def mixed(*parts: int, conv_layer: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """An inverted bottleneck; ``parts`` are the number of parts of its expansion, depthwise and projection layers."""
    layers = {
        name: partial(MixedConv, parts=count, conv_layer=conv_layer)
        for name, count in zip(("expand", "depthwise", "project"), parts, strict=True)
        if count > 1
    }
    return LazyInvertedBottleneck(conv_layer=conv_layer, conv_layers=layers, **options)


def mix(channels: int, repeats: int, stride: int, ratio: float, parts: tuple[int, int, int], squeeze: int = 0) -> Stage:
    """A row of the table; ``squeeze`` is the ``squeeze_ratio`` of its squeeze-excitation, with SiLU, or 0 for none."""
    block = partial(mixed, *parts)
    if not squeeze:
        return Stage(channels, repeats, stride, expansion_ratio=ratio, block=block)
    se, block = partial(SqueezeExcitation, activation=SILU), partial(block, squeeze_ratio=squeeze)
    return Stage(channels, repeats, stride, expansion_ratio=ratio, se_layer=se, activation=SILU, block=block)


# Channels, blocks, stride, expansion_ratio, parts of the three convolutions, squeeze_ratio.
MIXNET_S = (
    Stage(16),
    (mix(24, 1, 2, 6, (2, 1, 2)), mix(24, 1, 1, 3, (2, 1, 2))),
    (mix(40, 1, 2, 6, (1, 3, 1), 2), mix(40, 3, 1, 6, (2, 2, 2), 2)),
    (mix(80, 1, 2, 6, (1, 3, 2), 4), mix(80, 2, 1, 6, (1, 2, 2), 4)),
    (mix(120, 1, 1, 6, (2, 3, 2), 2), mix(120, 2, 1, 3, (2, 4, 2), 2)),
    (mix(200, 1, 2, 6, (1, 5, 1), 2), mix(200, 2, 1, 6, (1, 4, 2), 2)),
)
MIXNET_M = (
    Stage(24),
    (mix(32, 1, 2, 6, (2, 3, 2)), mix(32, 1, 1, 3, (2, 1, 2))),
    (mix(40, 1, 2, 6, (1, 4, 1), 2), mix(40, 3, 1, 6, (2, 2, 2), 2)),
    (mix(80, 1, 2, 6, (1, 3, 1), 4), mix(80, 3, 1, 6, (2, 4, 2), 4)),
    (mix(120, 1, 1, 6, (1, 1, 1), 2), mix(120, 3, 1, 3, (2, 4, 2), 2)),
    (mix(200, 1, 2, 6, (1, 4, 1), 2), mix(200, 3, 1, 6, (1, 4, 2), 2)),
)

COMMON = {"final_channels": 1536, "final_width": as_stated, **AS_TIMM}
S = COMMON | {"stages": MIXNET_S, "stem_channels": 16}
M = COMMON | {"stages": MIXNET_M, "stem_channels": 24, "round_depth": round}

mixnet_s = row("mixnet_s", S)
mixnet_m = row("mixnet_m", M)
mixnet_l = row("mixnet_l", M, width=1.3)
mixnet_xl = row("mixnet_xl", M, width=1.6, depth=1.2)
mixnet_xxl = row("mixnet_xxl", M, width=2.4, depth=1.3)
tf_mixnet_s = row("tf_mixnet_s", S, TENSORFLOW)
tf_mixnet_m = row("tf_mixnet_m", M, TENSORFLOW)
tf_mixnet_l = row("tf_mixnet_l", M, TENSORFLOW, width=1.3)
