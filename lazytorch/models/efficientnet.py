"""EfficientNet and networks derived from it.

- EfficientNet: Tan & Le 2019, table 1, https://arxiv.org/abs/1905.11946; the widths and depths of B1 to B8 and L2 are
  those of the authors' code. Lite has no squeeze-excitation; ES, EM and EL are for edge TPUs.
- TinyNet: Han et al. 2020, table 4, https://arxiv.org/abs/2010.14819.

``efficientnet_b0`` to ``b7`` are torchvision's, with its rates of dropout and stochastic depth; b0 to b4 also equal
timm's with the same rates. The others are timm's. Names that begin with tf have TensorFlow's padding and eps.
"""

from functools import partial

from torch import nn

from lazytorch._init.initialize import InitFunction
from lazytorch.layers import LazyFusedInvertedBottleneck
from lazytorch.models.compose import RELU6
from lazytorch.models.initial_weights import fan_out_normal, uniform
from lazytorch.models.mobile import AS_EFFICIENTNET, AS_TIMM, SQUEEZED, TENSORFLOW, Stage, as_stated, row, scaled_up

# fmt: off
__all__ = [
    "EFFICIENTNET", "EFFICIENTNET_EDGE", "EFFICIENTNET_LITE",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "efficientnet_b8", "efficientnet_el", "efficientnet_em", "efficientnet_es",
    "efficientnet_l2", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_lite3",
    "efficientnet_lite4",
    "tf_efficientnet_b0", "tf_efficientnet_b1", "tf_efficientnet_b2", "tf_efficientnet_b3", "tf_efficientnet_b4",
    "tf_efficientnet_b5", "tf_efficientnet_b6", "tf_efficientnet_b7", "tf_efficientnet_b8", "tf_efficientnet_el",
    "tf_efficientnet_em", "tf_efficientnet_es", "tf_efficientnet_l2", "tf_efficientnet_lite0",
    "tf_efficientnet_lite1", "tf_efficientnet_lite2", "tf_efficientnet_lite3", "tf_efficientnet_lite4",
    "tinynet_a", "tinynet_b", "tinynet_c", "tinynet_d", "tinynet_e",
]
# fmt: on

EFFICIENTNET_LITE = (
    Stage(16),
    Stage(24, repeats=2, stride=2, expansion_ratio=6),
    Stage(40, repeats=2, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(80, repeats=3, stride=2, expansion_ratio=6),
    Stage(112, repeats=3, kernel_size=5, expansion_ratio=6),
    Stage(192, repeats=4, stride=2, kernel_size=5, expansion_ratio=6),
    Stage(320, expansion_ratio=6),
)
EFFICIENTNET = tuple(row._replace(**SQUEEZED) for row in EFFICIENTNET_LITE)
EFFICIENTNET_EDGE = (
    Stage(
        24,
        expansion_ratio=4,
        block=partial(LazyFusedInvertedBottleneck, expand_from_output=True, shortcut=False),
    ),
    Stage(32, repeats=2, stride=2, expansion_ratio=8, block=LazyFusedInvertedBottleneck),
    Stage(48, repeats=4, stride=2, expansion_ratio=8, block=LazyFusedInvertedBottleneck),
    Stage(96, repeats=5, stride=2, kernel_size=5, expansion_ratio=8),
    Stage(144, repeats=4, kernel_size=5, expansion_ratio=8),
    Stage(192, repeats=2, stride=2, kernel_size=5, expansion_ratio=8),
)

B = {"stages": EFFICIENTNET, **AS_EFFICIENTNET}
TORCHVISION = {
    "drop_path_rate": 0.2,
    "initialize": InitFunction(fan_out_normal, per_group=False, linear=uniform),
}
TENSORFLOW_NORM = {"norm_layer": partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)}
EDGE = {"stages": EFFICIENTNET_EDGE, "final_channels": 1280, **AS_TIMM}
LITE = {
    "stages": EFFICIENTNET_LITE,
    "fixed_ends": True,
    "stem_width": as_stated,
    "final_channels": 1280,
    "final_width": as_stated,
    "activation": RELU6,
    **AS_TIMM,
}
TINY = B | {"round_depth": round, "stem_width": as_stated, "final_width": scaled_up}
BOTH, T5 = ["torchvision", "timm"], TORCHVISION | TENSORFLOW_NORM

efficientnet_b0 = row("efficientnet_b0", B, TORCHVISION, dropout=0.2, sources=BOTH)
efficientnet_b1 = row("efficientnet_b1", B, TORCHVISION, width=1.0, depth=1.1, dropout=0.2, sources=BOTH)
efficientnet_b2 = row("efficientnet_b2", B, TORCHVISION, width=1.1, depth=1.2, dropout=0.3, sources=BOTH)
efficientnet_b3 = row("efficientnet_b3", B, TORCHVISION, width=1.2, depth=1.4, dropout=0.3, sources=BOTH)
efficientnet_b4 = row("efficientnet_b4", B, TORCHVISION, width=1.4, depth=1.8, dropout=0.4, sources=BOTH)
efficientnet_b5 = row("efficientnet_b5", B, T5, width=1.6, depth=2.2, dropout=0.4, sources=["torchvision"])
efficientnet_b6 = row("efficientnet_b6", B, T5, width=1.8, depth=2.6, dropout=0.5, sources=["torchvision"])
efficientnet_b7 = row("efficientnet_b7", B, T5, width=2.0, depth=3.1, dropout=0.5, sources=["torchvision"])
efficientnet_b8 = row("efficientnet_b8", B, width=2.2, depth=3.6)
efficientnet_l2 = row("efficientnet_l2", B, width=4.3, depth=5.3)

efficientnet_lite0 = row("efficientnet_lite0", LITE)
efficientnet_lite1 = row("efficientnet_lite1", LITE, width=1.0, depth=1.1)
efficientnet_lite2 = row("efficientnet_lite2", LITE, width=1.1, depth=1.2)
efficientnet_lite3 = row("efficientnet_lite3", LITE, width=1.2, depth=1.4)
efficientnet_lite4 = row("efficientnet_lite4", LITE, width=1.4, depth=1.8)

efficientnet_es = row("efficientnet_es", EDGE)
efficientnet_em = row("efficientnet_em", EDGE, width=1.0, depth=1.1)
efficientnet_el = row("efficientnet_el", EDGE, width=1.2, depth=1.4)

tinynet_a = row("tinynet_a", TINY, width=1.0, depth=1.2)
tinynet_b = row("tinynet_b", TINY, width=0.75, depth=1.1)
tinynet_c = row("tinynet_c", TINY, width=0.54, depth=0.85)
tinynet_d = row("tinynet_d", TINY, width=0.54, depth=0.695)
tinynet_e = row("tinynet_e", TINY, width=0.51, depth=0.6)

tf_efficientnet_b0 = row("tf_efficientnet_b0", B, TENSORFLOW)
tf_efficientnet_b1 = row("tf_efficientnet_b1", B, TENSORFLOW, width=1.0, depth=1.1)
tf_efficientnet_b2 = row("tf_efficientnet_b2", B, TENSORFLOW, width=1.1, depth=1.2)
tf_efficientnet_b3 = row("tf_efficientnet_b3", B, TENSORFLOW, width=1.2, depth=1.4)
tf_efficientnet_b4 = row("tf_efficientnet_b4", B, TENSORFLOW, width=1.4, depth=1.8)
tf_efficientnet_b5 = row("tf_efficientnet_b5", B, TENSORFLOW, width=1.6, depth=2.2)
tf_efficientnet_b6 = row("tf_efficientnet_b6", B, TENSORFLOW, width=1.8, depth=2.6)
tf_efficientnet_b7 = row("tf_efficientnet_b7", B, TENSORFLOW, width=2.0, depth=3.1)
tf_efficientnet_b8 = row("tf_efficientnet_b8", B, TENSORFLOW, width=2.2, depth=3.6)
tf_efficientnet_l2 = row("tf_efficientnet_l2", B, TENSORFLOW, width=4.3, depth=5.3)

tf_efficientnet_lite0 = row("tf_efficientnet_lite0", LITE, TENSORFLOW)
tf_efficientnet_lite1 = row("tf_efficientnet_lite1", LITE, TENSORFLOW, width=1.0, depth=1.1)
tf_efficientnet_lite2 = row("tf_efficientnet_lite2", LITE, TENSORFLOW, width=1.1, depth=1.2)
tf_efficientnet_lite3 = row("tf_efficientnet_lite3", LITE, TENSORFLOW, width=1.2, depth=1.4)
tf_efficientnet_lite4 = row("tf_efficientnet_lite4", LITE, TENSORFLOW, width=1.4, depth=1.8)

tf_efficientnet_es = row("tf_efficientnet_es", EDGE, TENSORFLOW)
tf_efficientnet_em = row("tf_efficientnet_em", EDGE, TENSORFLOW, width=1.0, depth=1.1)
tf_efficientnet_el = row("tf_efficientnet_el", EDGE, TENSORFLOW, width=1.2, depth=1.4)
