"""MobileNetV3 and PP-LCNet.

- MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2, https://arxiv.org/abs/1905.02244.
- PP-LCNet: Cui et al. 2021, table 1, https://arxiv.org/abs/2109.15099.

``mobilenet_v3_large`` and ``_small`` are torchvision's: the hidden layer after the pooling is linear, and BatchNorm has
TensorFlow's constants. The others are timm's: the hidden layer is a 1x1 convolution, and BatchNorm has PyTorch's
constants. Weights of one kind can be loaded into the other.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from lazytorch._init.initialize import InitFunction, known_code
from lazytorch.layers import LazyInvertedBottleneck, SqueezeExcitation
from lazytorch.layers.checks import largest
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU
from lazytorch.models.heads import linear, pointwise
from lazytorch.models.initial_weights import as_tensorflow, fan_out_normal, small_normal
from lazytorch.models.mobile import HARD_SWISH, SE_V3, TENSORFLOW, TIMM, Stage, as_stated, convolution, row

# fmt: off
__all__ = [
    "LCNET", "MOBILENET_V3_LARGE", "MOBILENET_V3_SMALL",
    "lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "lcnet_150",
    "mobilenet_v3_large", "mobilenet_v3_small",
    "mobilenetv3_large_075", "mobilenetv3_large_100", "mobilenetv3_large_150d", "mobilenetv3_rw",
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100",
    "tf_mobilenetv3_large_075", "tf_mobilenetv3_large_100", "tf_mobilenetv3_large_minimal_100",
    "tf_mobilenetv3_small_075", "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100",
]
# fmt: on


@known_code
def quarter(channels: int) -> int:
    return round(channels / 4)


# ReLU is RE in the paper's tables; rows without it are HS (hard swish).
MOBILENET_V3_LARGE = (
    Stage(16, activation=RELU),
    (Stage(24, stride=2, expansion_ratio=4, activation=RELU), Stage(24, expansion_ratio=3, activation=RELU)),
    Stage(40, repeats=3, stride=2, kernel_size=5, expansion_ratio=3, se_layer=SE_V3, activation=RELU),
    (
        Stage(80, stride=2, expansion_ratio=6),
        Stage(80, expansion_ratio=2.5),
        Stage(80, repeats=2, expansion_ratio=2.3),
    ),
    Stage(112, repeats=2, expansion_ratio=6, se_layer=SE_V3),
    Stage(160, repeats=3, stride=2, kernel_size=5, expansion_ratio=6, se_layer=SE_V3),
    Stage(960, kernel_size=1, block=convolution),
)
MOBILENET_V3_SMALL = (
    Stage(16, stride=2, se_layer=SE_V3, activation=RELU),
    (Stage(24, stride=2, expansion_ratio=4.5, activation=RELU), Stage(24, expansion_ratio=3.67, activation=RELU)),
    (
        Stage(40, stride=2, kernel_size=5, expansion_ratio=4, se_layer=SE_V3),
        Stage(40, repeats=2, kernel_size=5, expansion_ratio=6, se_layer=SE_V3),
    ),
    Stage(48, repeats=2, kernel_size=5, expansion_ratio=3, se_layer=SE_V3),
    Stage(96, repeats=3, stride=2, kernel_size=5, expansion_ratio=6, se_layer=SE_V3),
    Stage(576, kernel_size=1, block=convolution),
)

depthwise_separable = partial(LazyInvertedBottleneck, shortcut=False, project_activation=HARD_SWISH)
LCNET = (
    Stage(32, block=depthwise_separable),
    Stage(64, repeats=2, stride=2, block=depthwise_separable),
    Stage(128, repeats=2, stride=2, block=depthwise_separable),
    (Stage(256, stride=2, block=depthwise_separable), Stage(256, kernel_size=5, block=depthwise_separable)),
    Stage(256, repeats=4, kernel_size=5, block=depthwise_separable),
    Stage(
        512,
        repeats=2,
        stride=2,
        kernel_size=5,
        se_layer=partial(SqueezeExcitation, squeeze_channels=quarter, gate=nn.Hardsigmoid),
        block=depthwise_separable,
    ),
)


def squeezed_as_activated(row: Stage) -> Stage:
    """Add squeeze-excitation with the row's activation and a quarter of the channels, rounded, between its layers."""
    if row.se_layer is None:
        return row
    activation = row.activation or HARD_SWISH
    return row._replace(
        se_layer=partial(SqueezeExcitation, squeeze_channels=quarter, activation=activation, gate=nn.Hardsigmoid)
    )


# torchvision's names.
NAMES = Rules("""
    stem.(conv|norm)                      features.0.(0|1)
    head.pooled.conv                      classifier.0  like=*x*
    head.hidden.linear                    classifier.0
    head.classifier                       classifier.3
    stages.S.B.layers.conv.(conv|norm)    features.{N+1}.(0|1)
    stages.S.B.layers.se.(reduce|expand)  features.{N+1}.block.{P}.(fc1|fc2)
    stages.S.B.layers.*.(conv|norm)       features.{N+1}.block.{P}.(0|1)
""")


def minimal(table: Sequence[Stage | tuple[Stage, ...]]) -> list[list[Stage]]:
    """The table without squeeze-excitation, hard swish and kernels larger than 3x3."""
    stages = [[each] if isinstance(each, Stage) else each for each in table]
    return [
        [row._replace(kernel_size=min(largest(row.kernel_size), 3), se_layer=None, activation=None) for row in rows]
        for rows in stages
    ]


COMMON = {
    "stem_channels": 16,
    "hidden": pointwise,
    "activation": HARD_SWISH,
    "initialize": as_tensorflow,
    "names": {"torchvision": NAMES, "timm": TIMM},
}
LARGE = COMMON | {"stages": MOBILENET_V3_LARGE, "hidden_channels": 1280}
SMALL = COMMON | {"stages": MOBILENET_V3_SMALL, "hidden_channels": 1024}
NARROW = {"stem_width": as_stated}
TORCHVISION = {
    "hidden": linear,
    "dropout": 0.2,
    "norm_layer": partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
    "initialize": InitFunction(fan_out_normal, per_group=False, linear=small_normal),
}
RW = {
    "stages": [
        MOBILENET_V3_LARGE[0]._replace(block=partial(LazyInvertedBottleneck, shortcut=False)),
        *(
            squeezed_as_activated(each) if isinstance(each, Stage) else [squeezed_as_activated(row) for row in each]
            for each in MOBILENET_V3_LARGE[1:]
        ),
    ],
    "hidden": partial(pointwise, bias=False),
    "norm_layer": partial(nn.BatchNorm2d, eps=1e-3),
}
MINIMAL = TENSORFLOW | {"activation": RELU}
LC = COMMON | {"stages": LCNET, "hidden_channels": 1280, "names": {"timm": TIMM}}

mobilenet_v3_large = row("mobilenet_v3_large", LARGE, TORCHVISION, sources=["torchvision"])
mobilenet_v3_small = row("mobilenet_v3_small", SMALL, TORCHVISION, sources=["torchvision"])

mobilenetv3_large_075 = row("mobilenetv3_large_075", LARGE, width=0.75)
mobilenetv3_large_100 = row("mobilenetv3_large_100", LARGE)
mobilenetv3_large_150d = row("mobilenetv3_large_150d", LARGE, width=1.5, depth=1.2)
mobilenetv3_small_050 = row("mobilenetv3_small_050", SMALL, NARROW, width=0.5)
mobilenetv3_small_075 = row("mobilenetv3_small_075", SMALL, width=0.75)
mobilenetv3_small_100 = row("mobilenetv3_small_100", SMALL)
mobilenetv3_rw = row("mobilenetv3_rw", LARGE, RW)

lcnet_035 = row("lcnet_035", LC, width=0.35)
lcnet_050 = row("lcnet_050", LC, width=0.5)
lcnet_075 = row("lcnet_075", LC, width=0.75)
lcnet_100 = row("lcnet_100", LC)
lcnet_150 = row("lcnet_150", LC, width=1.5)

tf_mobilenetv3_large_075 = row("tf_mobilenetv3_large_075", LARGE, TENSORFLOW, width=0.75)
tf_mobilenetv3_large_100 = row("tf_mobilenetv3_large_100", LARGE, TENSORFLOW)
tf_mobilenetv3_large_minimal_100 = row(
    "tf_mobilenetv3_large_minimal_100", LARGE, MINIMAL, stages=minimal(MOBILENET_V3_LARGE)
)
tf_mobilenetv3_small_075 = row("tf_mobilenetv3_small_075", SMALL, TENSORFLOW, width=0.75)
tf_mobilenetv3_small_100 = row("tf_mobilenetv3_small_100", SMALL, TENSORFLOW)
tf_mobilenetv3_small_minimal_100 = row(
    "tf_mobilenetv3_small_minimal_100", SMALL, MINIMAL, stages=minimal(MOBILENET_V3_SMALL)
)
