"""ReXNet: Han et al. 2021, "Rethinking Channel Dimensions for Efficient Model Design",
https://arxiv.org/abs/2007.00992, section 4.

The names are timm's. Names that begin with rexnetr have channels that are multiples of 8, or of 16 at a width of 3.
Every block has 180 / 16 more channels than the previous one; its input is added to the first channels of its output.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch.layers import LazyInvertedBottleneck, NamedSequential, SqueezeExcitation, round_channels
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import SILU
from lazytorch.models.initial_weights import as_tensorflow
from lazytorch.models.mobile import MobileNet, Stage
from lazytorch.models.registry import rows_of

# fmt: off
__all__ = [
    "REXNET",
    "rexnet_100", "rexnet_130", "rexnet_150", "rexnet_200", "rexnet_300",
    "rexnetr_100", "rexnetr_130", "rexnetr_150", "rexnetr_200", "rexnetr_300",
]
# fmt: on

NAMES = Rules("""
    stem.norm                                          stem.bn
    final.(conv|norm)                                  features.{T}.(conv|bn)
    head.classifier                                    head.fc
    stages.S.B.layers.expand.(conv|norm)               features.{N}.conv_exp.(conv|bn)
    stages.S.B.layers.depthwise.(conv|norm)            features.{N}.conv_dw.(conv|bn)
    stages.S.B.layers.se.attention.reduce.(conv|norm)  features.{N}.se.(fc1|bn)
    stages.S.B.layers.se.attention.expand              features.{N}.se.fc2
    stages.S.B.layers.project.(conv|norm)              features.{N}.conv_pwl.(conv|bn)
""")


@known_code
def multiple(channels: float, width: float = 1.0, *, divisor: int = 1) -> int:
    """The multiple of ``divisor`` nearest to ``channels`` times ``width``, which is rounded to a whole number first."""
    return round_channels(round(channels * width), divisor)


@known_code
def twelfth(channels: int, rounding: Callable[[float], int]) -> int:
    return rounding(int(channels * (1 / 12)))  # as timm computes it: 1 / 12 is not exact


@known_code
def activated(channels: int, *, attention: Callable[..., nn.Module], spatial_dims: int) -> nn.Module:
    """The squeeze-excitation of a block, followed by ReLU6."""
    return NamedSequential(attention=attention(channels, spatial_dims=spatial_dims), activation=nn.ReLU6())


def widening(
    *,
    rounding: Callable[[float], int],
    activation: Callable[[], nn.Module] | None,
    se_layer: Callable[..., nn.Module] | None,
    norm_layer: Callable[[int], nn.Module] | None,
    **options: Any,
) -> nn.Module:
    """An inverted bottleneck with more channels than its input; its squeeze-excitation precedes its ReLU6."""
    squeeze = {"squeeze_channels": partial(twelfth, rounding=rounding), "norm_layer": norm_layer}
    return LazyInvertedBottleneck(
        partial_shortcut=True,
        rounding=rounding,
        expand_activation=activation,
        activation=nn.ReLU6 if se_layer is None else None,
        se_layer=se_layer and partial(activated, attention=partial(se_layer, **squeeze)),
        norm_layer=norm_layer,
        **options,
    )


def stage(first: int, depth: int, stride: int, **options: Any) -> list[Stage]:
    """The blocks of a stage from index ``first``. A block with a stride has no shortcut, even if it dilates instead."""
    return [
        Stage(
            16 + 180 / 16 * index,
            stride=stride if index == first else 1,
            expansion_ratio=6 if index else 1,
            block=partial(widening, shortcut=stride == 1 or index > first),
            **options,
        )
        for index in range(first, first + depth)
    ]


SE = {"se_layer": SqueezeExcitation}
REXNET = (
    stage(0, 1, 1),
    stage(1, 2, 2),
    stage(3, 2, 2, **SE),
    stage(5, 3, 2, **SE),
    stage(8, 3, 1, **SE),
    stage(11, 5, 2, **SE),
)
COMMON = {
    "stages": REXNET,
    "final_channels": 1280,
    "rates_end": True,
    "dropout": 0.2,
    "activation": SILU,
    "initialize": as_tensorflow,
    "names": {"timm": NAMES},
}


@rows_of(MobileNet)
def row(name: str, width: float, divisor: int = 1) -> Any:
    """The columns are the factor of the channels, and a number of which they are multiples."""
    rounding = dict.fromkeys(("rounding", "stem_width", "final_width"), partial(multiple, divisor=divisor))
    return ["timm"], COMMON, rounding, {"width": width}


rexnet_100 = row("rexnet_100", 1.0)
rexnet_130 = row("rexnet_130", 1.3)
rexnet_150 = row("rexnet_150", 1.5)
rexnet_200 = row("rexnet_200", 2.0)
rexnet_300 = row("rexnet_300", 3.0)
rexnetr_100 = row("rexnetr_100", 1.0, 8)
rexnetr_130 = row("rexnetr_130", 1.3, 8)
rexnetr_150 = row("rexnetr_150", 1.5, 8)
rexnetr_200 = row("rexnetr_200", 2.0, 8)
rexnetr_300 = row("rexnetr_300", 3.0, 16)
