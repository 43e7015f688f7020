"""MNASNet and networks found in its search space.

- MNASNet (B1, A1 with squeeze-excitation, small): Tan et al. 2019, figure 7, https://arxiv.org/abs/1807.11626.
- FBNet-C: Wu et al. 2019, table 3, https://arxiv.org/abs/1812.03443.
- Single-Path NAS: Stamoulis et al. 2019, figure 5, https://arxiv.org/abs/1904.02877.

``mnasnet0_5`` to ``mnasnet1_3`` are torchvision's, with the momentum of the paper; the others are timm's. ``semnasnet``
is A1.
"""

from functools import partial

from torch import nn

from lazytorch._init.initialize import InitFunction
from lazytorch.layers import LazyInvertedBottleneck, SqueezeExcitation
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU
from lazytorch.models.initial_weights import fan_out_normal, wide_uniform
from lazytorch.models.mobile import AS_TIMM, TIMM, Stage, as_stated, row

# fmt: off
__all__ = [
    "FBNET_C", "MNASNET_A1", "MNASNET_B1", "MNASNET_SMALL", "SPNASNET",
    "fbnetc_100",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mnasnet_050", "mnasnet_075", "mnasnet_100",
    "mnasnet_140", "mnasnet_small",
    "semnasnet_050", "semnasnet_075", "semnasnet_100", "semnasnet_140",
    "spnasnet_100",
]
# fmt: on

SE = partial(SqueezeExcitation, activation=RELU)
squeezed = partial(LazyInvertedBottleneck, squeeze_ratio=4)
no_shortcut = partial(LazyInvertedBottleneck, shortcut=False)
expanded = partial(LazyInvertedBottleneck, expand_always=True)

MNASNET_B1 = (
    Stage(16, block=no_shortcut),
    Stage(24, repeats=3, stride=2, expansion_ratio=3),
    Stage(40, repeats=3, stride=2, kernel_size=5, expansion_ratio=3),
    Stage(80, repeats=3, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(96, repeats=2, expansion_ratio=6),
    Stage(192, repeats=4, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(320, expansion_ratio=6, block=no_shortcut),
)
MNASNET_A1 = (
    Stage(16, block=no_shortcut),
    Stage(24, repeats=2, stride=2, expansion_ratio=6),
    Stage(40, repeats=3, stride=2, kernel_size=5, expansion_ratio=3, se_layer=SE, block=squeezed),
    Stage(80, repeats=4, stride=2, expansion_ratio=6),
    Stage(112, repeats=2, expansion_ratio=6, se_layer=SE, block=squeezed),
    Stage(160, repeats=3, stride=2, kernel_size=5, expansion_ratio=6, se_layer=SE, block=squeezed),
    Stage(320, expansion_ratio=6),
)
MNASNET_SMALL = (
    Stage(8),
    Stage(16, stride=2, expansion_ratio=3),
    Stage(16, repeats=2, stride=2, expansion_ratio=6),
    Stage(32, repeats=4, stride=2, kernel_size=5, expansion_ratio=6, se_layer=SE, block=squeezed),
    Stage(32, repeats=3, expansion_ratio=6, se_layer=SE, block=squeezed),
    Stage(88, repeats=3, stride=2, kernel_size=5, expansion_ratio=6, se_layer=SE, block=squeezed),
    Stage(144, expansion_ratio=6),
)
SPNASNET = (
    Stage(16, block=no_shortcut),
    Stage(24, repeats=3, stride=2, expansion_ratio=3),
    (Stage(40, stride=2, kernel_size=5, expansion_ratio=6), Stage(40, repeats=3, expansion_ratio=3)),
    (Stage(80, stride=2, kernel_size=5, expansion_ratio=6), Stage(80, repeats=3, expansion_ratio=3)),
    (Stage(96, kernel_size=5, expansion_ratio=6), Stage(96, repeats=3, kernel_size=5, expansion_ratio=3)),
    Stage(192, repeats=4, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(320, expansion_ratio=6, block=no_shortcut),
)
FBNET_C = (
    Stage(16, block=expanded),
    (Stage(24, stride=2, expansion_ratio=6), Stage(24, repeats=2, block=expanded)),
    (
        Stage(32, stride=2, kernel_size=5, expansion_ratio=6),
        Stage(32, kernel_size=5, expansion_ratio=3),
        Stage(32, kernel_size=5, expansion_ratio=6),
        Stage(32, expansion_ratio=6),
    ),
    (
        Stage(64, stride=2, kernel_size=5, expansion_ratio=6),
        Stage(64, kernel_size=5, expansion_ratio=3),
        Stage(64, repeats=2, kernel_size=5, expansion_ratio=6),
    ),
    (Stage(112, repeats=3, kernel_size=5, expansion_ratio=6), Stage(112, kernel_size=5, expansion_ratio=3)),
    Stage(184, repeats=4, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(352, expansion_ratio=6),
)

# torchvision's names.
NAMES = Rules("""
    stem.(conv|norm)                         layers.(0|1)
    stages.0.0.layers.depthwise.(conv|norm)  layers.(3|4)
    stages.0.0.layers.project.(conv|norm)    layers.(6|7)
    stages.S.B.layers.*.(conv|norm)          layers.{S+7}.{B}.layers.({3*P}|{3*P+1})
    final.(conv|norm)                        layers.({L+7}|{L+8})
    head.classifier                          classifier.1
""")

COMMON = {"final_channels": 1280, "final_width": as_stated, **AS_TIMM}
B1 = COMMON | {"stages": MNASNET_B1, "names": {"torchvision": NAMES, "timm": TIMM}}
A1 = COMMON | {"stages": MNASNET_A1}
TORCHVISION = {
    "dropout": 0.2,
    "norm_layer": partial(nn.BatchNorm2d, momentum=1 - 0.9997),
    "initialize": InitFunction(fan_out_normal, per_group=False, linear=wide_uniform),
}

mnasnet0_5 = row("mnasnet0_5", B1, TORCHVISION, width=0.5, sources=["torchvision"])
mnasnet0_75 = row("mnasnet0_75", B1, TORCHVISION, width=0.75, sources=["torchvision"])
mnasnet1_0 = row("mnasnet1_0", B1, TORCHVISION, sources=["torchvision"])
mnasnet1_3 = row("mnasnet1_3", B1, TORCHVISION, width=1.3, sources=["torchvision"])

mnasnet_050 = row("mnasnet_050", B1, width=0.5)
mnasnet_075 = row("mnasnet_075", B1, width=0.75)
mnasnet_100 = row("mnasnet_100", B1)
mnasnet_140 = row("mnasnet_140", B1, width=1.4)
mnasnet_small = row("mnasnet_small", COMMON, stages=MNASNET_SMALL, stem_channels=8)
semnasnet_050 = row("semnasnet_050", A1, width=0.5)
semnasnet_075 = row("semnasnet_075", A1, width=0.75)
semnasnet_100 = row("semnasnet_100", A1)
semnasnet_140 = row("semnasnet_140", A1, width=1.4)
spnasnet_100 = row("spnasnet_100", COMMON, stages=SPNASNET)
fbnetc_100 = row("fbnetc_100", COMMON, final_channels=1984, stages=FBNET_C, stem_channels=16)
