"""HardCoRe-NAS: Nayman et al. 2021, https://arxiv.org/abs/2102.11646; the tables and names are timm's."""

from collections.abc import Sequence
from typing import Any

from lazytorch.models.compose import RELU
from lazytorch.models.mobile import AS_TIMM, HARD_SWISH, SE_V3, Stage, convolution, row

# fmt: off
__all__ = [
    "HARDCORENAS_A", "HARDCORENAS_B", "HARDCORENAS_C", "HARDCORENAS_D", "HARDCORENAS_E", "HARDCORENAS_F",
    "hardcorenas_a", "hardcorenas_b", "hardcorenas_c", "hardcorenas_d", "hardcorenas_e", "hardcorenas_f",
]
# fmt: on


# Output channels, stride and activation of the stages of every network; stages without one have hard swish.
STAGES: tuple[dict[str, Any], ...] = (
    {"out_channels": 24, "stride": 2, "activation": RELU},
    {"out_channels": 40, "stride": 2, "activation": RELU},
    {"out_channels": 80, "stride": 2},
    {"out_channels": 112},
    {"out_channels": 192, "stride": 2},
)


def table(*stages: Sequence[tuple[Any, ...]]) -> tuple[Stage | tuple[Stage, ...], ...]:
    """The table of a network. Each block is given by kernel size, expansion ratio and, if any, squeeze-excitation."""
    searched, columns = [], ("kernel_size", "expansion_ratio", "se_layer")
    for stage, blocks in zip(STAGES, stages, strict=True):
        rows = [Stage(**stage, **dict(zip(columns, block, strict=False))) for block in blocks]
        searched.append((rows[0], *(row._replace(stride=1) for row in rows[1:])))
    return (Stage(16, activation=RELU), *searched, Stage(960, kernel_size=1, block=convolution))


HARDCORENAS_A = table(
    [(5, 3), (5, 3, SE_V3)],
    [(5, 3), (5, 6, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3)],
)
HARDCORENAS_B = table(
    [(5, 3), (5, 3, SE_V3), (3, 3)],
    [(5, 3), (5, 3), (5, 3)],
    [(5, 3), (5, 3), (3, 3), (3, 3)],
    [(5, 3), (3, 3), (3, 3), (3, 3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (3, 3, SE_V3)],
)
HARDCORENAS_C = table(
    [(5, 3), (5, 3, SE_V3)],
    [(5, 3), (5, 3), (5, 3), (5, 3)],
    [(5, 4), (5, 6, SE_V3), (3, 3), (3, 3)],
    [(5, 6, SE_V3), (3, 3), (3, 3), (3, 3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (3, 3, SE_V3)],
)
HARDCORENAS_D = table(
    [(5, 3, SE_V3), (5, 3, SE_V3)],
    [(5, 3, SE_V3), (5, 4, SE_V3), (3, 3, SE_V3)],
    [(5, 4, SE_V3), (3, 3, SE_V3), (3, 3, SE_V3), (3, 3, SE_V3)],
    [(3, 4, SE_V3), (5, 4, SE_V3), (3, 3, SE_V3), (5, 3, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (5, 6, SE_V3), (3, 6, SE_V3)],
)
HARDCORENAS_E = table(
    [(5, 3, SE_V3), (5, 3, SE_V3)],
    [(5, 6, SE_V3), (5, 4, SE_V3), (5, 4, SE_V3), (3, 3, SE_V3)],
    [(5, 4, SE_V3), (3, 6, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (5, 6, SE_V3), (5, 3, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (5, 6, SE_V3), (3, 6, SE_V3)],
)
HARDCORENAS_F = table(
    [(5, 3, SE_V3), (5, 3, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (3, 3, SE_V3), (3, 3, SE_V3)],
    [(3, 6, SE_V3), (5, 6, SE_V3), (5, 6, SE_V3), (3, 3, SE_V3)],
    [(5, 6, SE_V3), (5, 6, SE_V3), (3, 6, SE_V3), (3, 6, SE_V3)],
)

COMMON = {"hidden_channels": 1280, "activation": HARD_SWISH, **AS_TIMM}

hardcorenas_a = row("hardcorenas_a", COMMON, stages=HARDCORENAS_A)
hardcorenas_b = row("hardcorenas_b", COMMON, stages=HARDCORENAS_B)
hardcorenas_c = row("hardcorenas_c", COMMON, stages=HARDCORENAS_C)
hardcorenas_d = row("hardcorenas_d", COMMON, stages=HARDCORENAS_D)
hardcorenas_e = row("hardcorenas_e", COMMON, stages=HARDCORENAS_E)
hardcorenas_f = row("hardcorenas_f", COMMON, stages=HARDCORENAS_F)
