"""MobileNets for edge TPUs: the first blocks are fused, because edge TPUs compute dense convolutions fast.

Gupta & Akin 2020, https://arxiv.org/abs/2003.02838; the tables, and all of the second version, are from edgetpu/vision
of the TensorFlow models, as in timm. All names are timm's.
"""

from functools import partial

from lazytorch.layers import LazyFusedInvertedBottleneck, LazyInvertedBottleneck
from lazytorch.models.mobile import AS_TIMM, Stage, as_stated, convolution, row

__all__ = [
    "MOBILENET_EDGETPU",
    "mobilenet_edgetpu_100",
    "mobilenet_edgetpu_v2_l",
    "mobilenet_edgetpu_v2_m",
    "mobilenet_edgetpu_v2_s",
    "mobilenet_edgetpu_v2_xs",
]

fused = LazyFusedInvertedBottleneck

MOBILENET_EDGETPU = (
    Stage(16, kernel_size=1, block=convolution),
    (Stage(32, stride=2, expansion_ratio=8, block=fused), Stage(32, repeats=3, expansion_ratio=4, block=fused)),
    (Stage(48, stride=2, expansion_ratio=8, block=fused), Stage(48, repeats=3, expansion_ratio=4, block=fused)),
    (Stage(96, stride=2, expansion_ratio=8), Stage(96, repeats=3, expansion_ratio=4)),
    (
        Stage(96, expansion_ratio=8, block=partial(LazyInvertedBottleneck, shortcut=False)),
        Stage(96, repeats=3, expansion_ratio=4),
    ),
    (
        Stage(160, stride=2, kernel_size=5, expansion_ratio=8),
        Stage(160, repeats=3, kernel_size=5, expansion_ratio=4),
    ),
    Stage(192, expansion_ratio=8),
)


def version_2(*channels: int, group_size: int = 64) -> tuple[Stage | tuple[Stage, ...], ...]:
    """The table of the second version; its sizes differ only in channels and in the size of groups."""
    first, second, third, fourth, fifth, sixth, last = channels
    grouped = partial(LazyFusedInvertedBottleneck, group_size=group_size)
    return (
        Stage(first, kernel_size=1, block=convolution),
        (Stage(second, stride=2, expansion_ratio=8, block=fused), Stage(second, expansion_ratio=4, block=grouped)),
        (
            Stage(third, stride=2, expansion_ratio=8, block=fused),
            Stage(third, expansion_ratio=4, block=grouped),
            Stage(third, expansion_ratio=4, block=fused),
            Stage(third, expansion_ratio=4, block=grouped),
        ),
        (Stage(fourth, stride=2, expansion_ratio=8, block=fused), Stage(fourth, repeats=3, expansion_ratio=4)),
        (Stage(fifth, expansion_ratio=8), Stage(fifth, repeats=3, expansion_ratio=4)),
        (Stage(sixth, stride=2, expansion_ratio=8), Stage(sixth, repeats=3, expansion_ratio=4)),
        Stage(last, expansion_ratio=8),
    )


COMMON = {"final_width": as_stated, **AS_TIMM}
XS = COMMON | {"stages": version_2(16, 32, 48, 96, 144, 160, 192)}
S = COMMON | {"stages": version_2(24, 48, 64, 128, 160, 192, 256), "stem_channels": 64, "stem_kernel_size": 5}
M = COMMON | {"stages": version_2(32, 64, 80, 160, 192, 240, 320), "stem_channels": 64, "stem_kernel_size": 5}
L = COMMON | {
    "stages": version_2(32, 64, 96, 192, 240, 256, 384, group_size=128),
    "stem_channels": 64,
    "stem_kernel_size": 7,
}

mobilenet_edgetpu_100 = row("mobilenet_edgetpu_100", COMMON, stages=MOBILENET_EDGETPU, final_channels=1280)
mobilenet_edgetpu_v2_xs = row("mobilenet_edgetpu_v2_xs", XS, final_channels=1280)
mobilenet_edgetpu_v2_s = row("mobilenet_edgetpu_v2_s", S, final_channels=1280)
mobilenet_edgetpu_v2_m = row("mobilenet_edgetpu_v2_m", M, final_channels=1344)
mobilenet_edgetpu_v2_l = row("mobilenet_edgetpu_v2_l", L, final_channels=1408)
