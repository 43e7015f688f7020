"""MobileNetV1 and MobileNetV2.

- MobileNetV1: Howard et al. 2017, table 1, https://arxiv.org/abs/1704.04861.
- MobileNetV2: Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks", table 2,
  https://arxiv.org/abs/1801.04381.

``mobilenet_v2`` is torchvision's, also in its initial weights; the others are timm's.
"""

from functools import partial

from lazytorch._init.initialize import InitFunction
from lazytorch.layers import LazyInvertedBottleneck
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU6
from lazytorch.models.initial_weights import as_tensorflow, fan_out_normal, small_normal
from lazytorch.models.mobile import AS_TIMM, TIMM, Stage, as_stated, row, scaled_up

# fmt: off
__all__ = [
    "MOBILENET_V1", "MOBILENET_V2", "mobilenet_v2",
    "mobilenetv1_100", "mobilenetv1_100h", "mobilenetv1_125", "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075",
    "mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140",
]
# fmt: on

depthwise_separable = partial(LazyInvertedBottleneck, shortcut=False, project_activation=RELU6)

MOBILENET_V1 = (
    Stage(64, block=depthwise_separable),
    Stage(128, repeats=2, stride=2, block=depthwise_separable),
    Stage(256, repeats=2, stride=2, block=depthwise_separable),
    Stage(512, repeats=6, stride=2, block=depthwise_separable),
    Stage(1024, repeats=2, stride=2, block=depthwise_separable),
)
MOBILENET_V2 = (
    Stage(16),
    Stage(24, repeats=2, stride=2, expansion_ratio=6),
    Stage(32, repeats=3, stride=2, expansion_ratio=6),
    Stage(64, repeats=4, stride=2, expansion_ratio=6),
    Stage(96, repeats=3, stride=1, expansion_ratio=6),
    Stage(160, repeats=3, stride=2, expansion_ratio=6),
    Stage(320, repeats=1, stride=1, expansion_ratio=6),
)

TORCHVISION = Rules("""
    stem.(conv|norm)                       features.0.(0|1)
    final.(conv|norm)                      features.{T+1}.(0|1)
    head.classifier                        classifier.1
    stages.S.B.layers.project.(conv|norm)  features.{N+1}.conv.({P}|{P+1})
    stages.S.B.layers.*.(conv|norm)        features.{N+1}.conv.{P}.(0|1)
""")

V1 = {"stages": MOBILENET_V1, "activation": RELU6, **AS_TIMM}
V2 = {
    "stages": MOBILENET_V2,
    "final_channels": 1280,
    "final_width": scaled_up,
    "activation": RELU6,
    "initialize": as_tensorflow,
    "names": {"torchvision": TORCHVISION, "timm": TIMM},
}
AS_TORCHVISION = InitFunction(fan_out_normal, per_group=False, linear=small_normal)
DEEPER = {"stem_width": as_stated, "final_width": as_stated, "fixed_ends": True}

mobilenetv1_100 = row("mobilenetv1_100", V1)
mobilenetv1_100h = row("mobilenetv1_100h", V1, final_channels=1024, final_width=scaled_up)
mobilenetv1_125 = row("mobilenetv1_125", V1, width=1.25)

mobilenet_v2 = row("mobilenet_v2", V2, dropout=0.2, initialize=AS_TORCHVISION, sources=["torchvision"])
mobilenetv2_035 = row("mobilenetv2_035", V2, width=0.35)
mobilenetv2_050 = row("mobilenetv2_050", V2, width=0.5)
mobilenetv2_075 = row("mobilenetv2_075", V2, width=0.75)
mobilenetv2_100 = row("mobilenetv2_100", V2)
mobilenetv2_140 = row("mobilenetv2_140", V2, width=1.4)
mobilenetv2_110d = row("mobilenetv2_110d", V2, DEEPER, width=1.1, depth=1.2)
mobilenetv2_120d = row("mobilenetv2_120d", V2, DEEPER, width=1.2, depth=1.4)
