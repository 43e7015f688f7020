"""MobileNetV4, without attention: Qin et al. 2024, tables 8 to 10, https://arxiv.org/abs/2404.10518.

All are timm's. Networks with anti-aliasing (aa: average pooling, blur: blur pooling) are not in the paper.
"""

from functools import partial

from lazytorch.layers import BlurPool, LazyFusedInvertedBottleneck, LazyUniversalInvertedBottleneck, average_blur
from lazytorch.models._weights.names import Rules
from lazytorch.models.heads import pointwise
from lazytorch.models.initial_weights import as_tensorflow
from lazytorch.models.mobile import TIMM, Stage, as_stated, convolution, row

# fmt: off
__all__ = [
    "MOBILENET_V4_LARGE", "MOBILENET_V4_MEDIUM", "MOBILENET_V4_SMALL",
    "mobilenetv4_conv_aa_large", "mobilenetv4_conv_aa_medium", "mobilenetv4_conv_blur_medium",
    "mobilenetv4_conv_large", "mobilenetv4_conv_medium", "mobilenetv4_conv_small", "mobilenetv4_conv_small_035",
    "mobilenetv4_conv_small_050",
]
# fmt: on


def uib(out_channels: int, *rows: tuple[int, int, float, int]) -> tuple[Stage, ...]:
    """A stage of universal inverted bottlenecks with a stride of 2.

    Columns: both kernel sizes of the paper's tables (0 for no convolution), expansion ratio, number of blocks.
    """
    table = []
    for index, (start, kernel_size, expansion_ratio, repeats) in enumerate(rows):
        block = partial(LazyUniversalInvertedBottleneck, start_kernel_size=start)
        table.append(Stage(out_channels, repeats, 1 if index else 2, kernel_size, expansion_ratio, block=block))
    return tuple(table)


def conv(out_channels: int, kernel_size: int, stride: int = 1) -> Stage:
    """A row of one convolution."""
    return Stage(out_channels, 1, stride, kernel_size, block=convolution)


FUSED = Stage(48, stride=2, expansion_ratio=4, block=LazyFusedInvertedBottleneck)
MOBILENET_V4_SMALL = (
    (conv(32, 3, stride=2), conv(32, 1)),
    (conv(96, 3, stride=2), conv(64, 1)),
    uib(96, (5, 5, 3, 1), (0, 3, 2, 4), (3, 0, 4, 1)),
    uib(128, (3, 3, 6, 1), (5, 5, 4, 1), (0, 5, 4, 1), (0, 5, 3, 1), (0, 3, 4, 2)),
    conv(960, 1),
)
MOBILENET_V4_MEDIUM = (
    FUSED,
    uib(80, (3, 5, 4, 1), (3, 3, 2, 1)),
    uib(160, (3, 5, 6, 1), (3, 3, 4, 2), (3, 5, 4, 1), (3, 3, 4, 1), (3, 0, 4, 1), (0, 0, 2, 1), (3, 0, 4, 1)),
    uib(
        256,
        (5, 5, 6, 1),
        (5, 5, 4, 1),
        (3, 5, 4, 2),
        (0, 0, 4, 1),
        (3, 0, 4, 1),
        (3, 5, 2, 1),
        (5, 5, 4, 1),
        (0, 0, 4, 2),
        (5, 0, 2, 1),
    ),
    conv(960, 1),
)
MOBILENET_V4_LARGE = (
    FUSED,
    uib(96, (3, 5, 4, 1), (3, 3, 4, 1)),
    uib(192, (3, 5, 4, 1), (3, 3, 4, 3), (3, 5, 4, 1), (5, 3, 4, 5), (3, 0, 4, 1)),
    uib(
        512,
        (5, 5, 4, 1),
        (5, 5, 4, 3),
        (5, 0, 4, 1),
        (5, 3, 4, 1),
        (5, 0, 4, 2),
        (5, 3, 4, 1),
        (5, 5, 4, 1),
        (5, 0, 4, 3),
    ),
    conv(960, 1),
)

NAMES = Rules(
    """
    stages.S.B.layers.start.(conv|norm)      blocks.{S}.{B}.dw_start.(conv|bn)
    stages.S.B.layers.expand.(conv|norm)     blocks.{S}.{B}.pw_exp.(conv|bn)
    stages.S.B.layers.depthwise.(conv|norm)  blocks.{S}.{B}.dw_mid.(conv|bn)
    stages.S.B.layers.project.(conv|norm)    blocks.{S}.{B}.pw_proj.(conv|bn)  unless=conv
    """
    + TIMM.text
)

COMMON = {
    "hidden_channels": 1280,
    "hidden": partial(pointwise, norm=True),
    "initialize": as_tensorflow,
    "names": {"timm": NAMES},
}
SMALL = COMMON | {"stages": MOBILENET_V4_SMALL}
MEDIUM = COMMON | {"stages": MOBILENET_V4_MEDIUM}
LARGE = COMMON | {"stages": MOBILENET_V4_LARGE, "stem_channels": 24}
NARROW = {"stem_width": as_stated}
AA = {"anti_aliasing": partial(average_blur, ceil_mode=False)}
BLUR = {"anti_aliasing": partial(BlurPool, padding_mode="constant")}

mobilenetv4_conv_small = row("mobilenetv4_conv_small", SMALL)
mobilenetv4_conv_small_035 = row("mobilenetv4_conv_small_035", SMALL, NARROW, width=0.35)
mobilenetv4_conv_small_050 = row("mobilenetv4_conv_small_050", SMALL, NARROW, width=0.5)
mobilenetv4_conv_medium = row("mobilenetv4_conv_medium", MEDIUM)
mobilenetv4_conv_large = row("mobilenetv4_conv_large", LARGE)
mobilenetv4_conv_aa_medium = row("mobilenetv4_conv_aa_medium", MEDIUM, AA)
mobilenetv4_conv_aa_large = row("mobilenetv4_conv_aa_large", LARGE, AA)
mobilenetv4_conv_blur_medium = row("mobilenetv4_conv_blur_medium", MEDIUM, BLUR)
