"""EfficientNetV2: Tan & Le 2021, table 4, https://arxiv.org/abs/2104.00298.

``efficientnet_v2_s``, ``_m`` and ``_l`` are torchvision's, with its rates of dropout and stochastic depth and an eps of
0.001; the others are timm's, and names with rw were designed for timm.
"""

from functools import partial

from torch import nn

from lazytorch._init.initialize import InitFunction
from lazytorch.layers import GlobalContext, LazyFusedInvertedBottleneck, round_channels
from lazytorch.models.compose import SILU
from lazytorch.models.initial_weights import fan_out_normal, uniform
from lazytorch.models.mobile import AS_EFFICIENTNET, SQUEEZED, TENSORFLOW, Stage, row

# fmt: off
__all__ = [
    "EFFICIENTNET_V2_BASE", "EFFICIENTNET_V2_L", "EFFICIENTNET_V2_M", "EFFICIENTNET_V2_S", "EFFICIENTNET_V2_XL",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "efficientnetv2_l", "efficientnetv2_m", "efficientnetv2_rw_m", "efficientnetv2_rw_s", "efficientnetv2_rw_t",
    "efficientnetv2_s", "efficientnetv2_xl",
    "gc_efficientnetv2_rw_t",
    "tf_efficientnetv2_b0", "tf_efficientnetv2_b1", "tf_efficientnetv2_b2", "tf_efficientnetv2_b3",
    "tf_efficientnetv2_l", "tf_efficientnetv2_m", "tf_efficientnetv2_s", "tf_efficientnetv2_xl",
]
# fmt: on


def fused(out_channels: int, repeats: int, stride: int, expansion_ratio: int) -> Stage:
    """A row of Fused-MBConv."""
    return Stage(out_channels, repeats, stride, 3, expansion_ratio, block=LazyFusedInvertedBottleneck)


def squeezed(out_channels: int, repeats: int, stride: int, expansion_ratio: int) -> Stage:
    """A row of MBConv with squeeze-excitation to a quarter of the block's input channels."""
    return Stage(out_channels, repeats, stride, 3, expansion_ratio, **SQUEEZED)


# Columns: channels, layers, stride, expansion ratio.
EFFICIENTNET_V2_S = (
    fused(24, 2, 1, 1),
    fused(48, 4, 2, 4),
    fused(64, 4, 2, 4),
    squeezed(128, 6, 2, 4),
    squeezed(160, 9, 1, 6),
    squeezed(256, 15, 2, 6),
)
EFFICIENTNET_V2_M = (
    fused(24, 3, 1, 1),
    fused(48, 5, 2, 4),
    fused(80, 5, 2, 4),
    squeezed(160, 7, 2, 4),
    squeezed(176, 14, 1, 6),
    squeezed(304, 18, 2, 6),
    squeezed(512, 5, 1, 6),
)
EFFICIENTNET_V2_L = (
    fused(32, 4, 1, 1),
    fused(64, 7, 2, 4),
    fused(96, 7, 2, 4),
    squeezed(192, 10, 2, 4),
    squeezed(224, 19, 1, 6),
    squeezed(384, 25, 2, 6),
    squeezed(640, 7, 1, 6),
)
EFFICIENTNET_V2_XL = (
    fused(32, 4, 1, 1),
    fused(64, 8, 2, 4),
    fused(96, 8, 2, 4),
    squeezed(192, 16, 2, 4),
    squeezed(256, 24, 1, 6),
    squeezed(512, 32, 2, 6),
    squeezed(640, 8, 1, 6),
)
# The authors' smaller networks, scaled as in EfficientNet.
EFFICIENTNET_V2_BASE = (
    fused(16, 1, 1, 1),
    fused(32, 2, 2, 4),
    fused(48, 2, 2, 4),
    squeezed(96, 3, 2, 4),
    squeezed(112, 5, 1, 6),
    squeezed(192, 8, 2, 6),
)
# timm's first version: a projection even at an expansion ratio of 1, and a wider last stage.
EFFICIENTNET_V2_RW = (
    EFFICIENTNET_V2_S[0]._replace(block=partial(LazyFusedInvertedBottleneck, project_always=True)),
    *EFFICIENTNET_V2_S[1:-1],
    EFFICIENTNET_V2_S[-1]._replace(out_channels=272),
)
# Global context, Cao et al. 2019, https://arxiv.org/abs/1904.11492, in place of squeeze-excitation.
CONTEXT = partial(GlobalContext, activation=SILU, gate=nn.Sigmoid)
EFFICIENTNET_V2_GC = tuple(each._replace(se_layer=each.se_layer and CONTEXT) for each in EFFICIENTNET_V2_S)

S = AS_EFFICIENTNET | {"stages": EFFICIENTNET_V2_S, "stem_channels": 24}
M = AS_EFFICIENTNET | {"stages": EFFICIENTNET_V2_M, "stem_channels": 24}
L = AS_EFFICIENTNET | {"stages": EFFICIENTNET_V2_L}
BASE = (
    AS_EFFICIENTNET | TENSORFLOW | {"stages": EFFICIENTNET_V2_BASE, "rounding": partial(round_channels, lower_limit=0)}
)
RW = AS_EFFICIENTNET | {"stages": EFFICIENTNET_V2_RW, "stem_channels": 24, "final_channels": 1792}
TORCHVISION = {
    "drop_path_rate": 0.2,
    "norm_layer": partial(nn.BatchNorm2d, eps=1e-3),
    "initialize": InitFunction(fan_out_normal, per_group=False, linear=uniform),
}

efficientnet_v2_s = row("efficientnet_v2_s", S, TORCHVISION, dropout=0.2, sources=["torchvision"])
efficientnet_v2_m = row("efficientnet_v2_m", M, TORCHVISION, dropout=0.3, sources=["torchvision"])
efficientnet_v2_l = row("efficientnet_v2_l", L, TORCHVISION, dropout=0.4, sources=["torchvision"])

efficientnetv2_s = row("efficientnetv2_s", S)
efficientnetv2_m = row("efficientnetv2_m", M)
efficientnetv2_l = row("efficientnetv2_l", L)
efficientnetv2_xl = row("efficientnetv2_xl", AS_EFFICIENTNET, stages=EFFICIENTNET_V2_XL)
efficientnetv2_rw_t = row("efficientnetv2_rw_t", S, width=0.8, depth=0.9)
gc_efficientnetv2_rw_t = row("gc_efficientnetv2_rw_t", S, stages=EFFICIENTNET_V2_GC, width=0.8, depth=0.9)
efficientnetv2_rw_s = row("efficientnetv2_rw_s", RW)
efficientnetv2_rw_m = row("efficientnetv2_rw_m", RW, width=1.2, depth=(1.2, 1.2, 1.2, 1.2, 1.6, 1.6))

tf_efficientnetv2_s = row("tf_efficientnetv2_s", S, TENSORFLOW)
tf_efficientnetv2_m = row("tf_efficientnetv2_m", M, TENSORFLOW)
tf_efficientnetv2_l = row("tf_efficientnetv2_l", L, TENSORFLOW)
tf_efficientnetv2_xl = row("tf_efficientnetv2_xl", AS_EFFICIENTNET, TENSORFLOW, stages=EFFICIENTNET_V2_XL)
tf_efficientnetv2_b0 = row("tf_efficientnetv2_b0", BASE)
tf_efficientnetv2_b1 = row("tf_efficientnetv2_b1", BASE, width=1.0, depth=1.1)
tf_efficientnetv2_b2 = row("tf_efficientnetv2_b2", BASE, width=1.1, depth=1.2)
tf_efficientnetv2_b3 = row("tf_efficientnetv2_b3", BASE, width=1.2, depth=1.4)
