"""The RegNets with names, one row each.

- X and Y: Radosavovic et al. 2020, appendix, https://arxiv.org/abs/2003.13678. Names with mf and gf are torchvision's,
  all others timm's. Names that end with tv use torchvision's rule for widths that are not a multiple of the group size.
- V: timm's Y with the blocks of ResNetV2, He et al. 2016, https://arxiv.org/abs/1603.05027.
- Z: the blocks of Dollár et al. 2021, https://arxiv.org/abs/2103.06877, with the numbers of timm; h has a final
  convolution.
"""

from typing import Any

from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch.layers import pooled_projection, round_channels
from lazytorch.models.compose import SILU
from lazytorch.models.registry import rows_of
from lazytorch.models.regnet import RegNet

# fmt: off
__all__ = [
    "regnet_x_1_6gf", "regnet_x_3_2gf", "regnet_x_8gf", "regnet_x_16gf", "regnet_x_32gf", "regnet_x_400mf",
    "regnet_x_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf", "regnet_y_8gf", "regnet_y_16gf", "regnet_y_32gf",
    "regnet_y_128gf", "regnet_y_400mf", "regnet_y_800mf",
    "regnetv_040", "regnetv_064",
    "regnetx_002", "regnetx_004", "regnetx_004_tv", "regnetx_006", "regnetx_008", "regnetx_016", "regnetx_032",
    "regnetx_040", "regnetx_064", "regnetx_080", "regnetx_120", "regnetx_160", "regnetx_320",
    "regnety_002", "regnety_004", "regnety_006", "regnety_008", "regnety_008_tv", "regnety_016", "regnety_032",
    "regnety_040", "regnety_064", "regnety_080", "regnety_080_tv", "regnety_120", "regnety_160", "regnety_320",
    "regnety_640", "regnety_1280", "regnety_2560",
    "regnetz_005", "regnetz_040", "regnetz_040_h",
]
# fmt: on


@rows_of(RegNet)
def row(
    name: str, depth: int, first_width: int, slope: float, factor: float, group_size: int, *options: dict[str, Any]
) -> Any:
    """The columns are those of the paper's tables: d, w_0, w_a, w_m, g."""
    columns = {"depth": depth, "first_width": first_width, "slope": slope, "factor": factor, "group_size": group_size}
    return ["torchvision" if name.startswith("regnet_") else "timm"], columns, *options


@known_code
def averaged(*places: Any, dilation: int, input_dilation: int, **options: Any) -> nn.Module:
    """The shortcut of timm's RegNet. If dilation replaces a stride, it has a pooling only if its input is dilated."""
    return pooled_projection(*places, dilation=input_dilation, **options)


Y = {"squeeze_ratio": 4}
SILU = Y | {"activation": SILU, "zero_init": False}
V = SILU | {"preactivation": True}
Z = SILU | {"expansion_ratio": 4, "inverted": True}
ROUNDED_UP = {"rounding": round_channels}
TORCHVISION = ROUNDED_UP | {"zero_init": False, "fan_per_group": False}

regnet_y_400mf = row("regnet_y_400mf", 16, 48, 27.89, 2.09, 8, TORCHVISION, Y)
regnet_y_800mf = row("regnet_y_800mf", 14, 56, 38.84, 2.4, 16, TORCHVISION, Y)
regnet_y_1_6gf = row("regnet_y_1_6gf", 27, 48, 20.71, 2.65, 24, TORCHVISION, Y)
regnet_y_3_2gf = row("regnet_y_3_2gf", 21, 80, 42.63, 2.66, 24, TORCHVISION, Y)
regnet_y_8gf = row("regnet_y_8gf", 17, 192, 76.82, 2.19, 56, TORCHVISION, Y)
regnet_y_16gf = row("regnet_y_16gf", 18, 200, 106.23, 2.48, 112, TORCHVISION, Y)
regnet_y_32gf = row("regnet_y_32gf", 20, 232, 115.89, 2.53, 232, TORCHVISION, Y)
regnet_y_128gf = row("regnet_y_128gf", 27, 456, 160.83, 2.52, 264, TORCHVISION, Y)
regnet_x_400mf = row("regnet_x_400mf", 22, 24, 24.48, 2.54, 16, TORCHVISION)
regnet_x_800mf = row("regnet_x_800mf", 16, 56, 35.73, 2.28, 16, TORCHVISION)
regnet_x_1_6gf = row("regnet_x_1_6gf", 18, 80, 34.01, 2.25, 24, TORCHVISION)
regnet_x_3_2gf = row("regnet_x_3_2gf", 25, 88, 26.31, 2.25, 48, TORCHVISION)
regnet_x_8gf = row("regnet_x_8gf", 23, 80, 49.56, 2.88, 120, TORCHVISION)
regnet_x_16gf = row("regnet_x_16gf", 22, 216, 55.59, 2.1, 128, TORCHVISION)
regnet_x_32gf = row("regnet_x_32gf", 23, 320, 69.86, 2.0, 168, TORCHVISION)
regnetv_040 = row("regnetv_040", 22, 96, 31.41, 2.24, 64, V)
regnetv_064 = row("regnetv_064", 25, 112, 33.22, 2.27, 72, V, {"shortcut": averaged})
regnetx_002 = row("regnetx_002", 13, 24, 36.44, 2.49, 8)
regnetx_004 = row("regnetx_004", 22, 24, 24.48, 2.54, 16)
regnetx_004_tv = row("regnetx_004_tv", 22, 24, 24.48, 2.54, 16, ROUNDED_UP)
regnetx_006 = row("regnetx_006", 16, 48, 36.97, 2.24, 24)
regnetx_008 = row("regnetx_008", 16, 56, 35.73, 2.28, 16)
regnetx_016 = row("regnetx_016", 18, 80, 34.01, 2.25, 24)
regnetx_032 = row("regnetx_032", 25, 88, 26.31, 2.25, 48)
regnetx_040 = row("regnetx_040", 23, 96, 38.65, 2.43, 40)
regnetx_064 = row("regnetx_064", 17, 184, 60.83, 2.07, 56)
regnetx_080 = row("regnetx_080", 23, 80, 49.56, 2.88, 120)
regnetx_120 = row("regnetx_120", 19, 168, 73.36, 2.37, 112)
regnetx_160 = row("regnetx_160", 22, 216, 55.59, 2.1, 128)
regnetx_320 = row("regnetx_320", 23, 320, 69.86, 2.0, 168)
regnety_002 = row("regnety_002", 13, 24, 36.44, 2.49, 8, Y)
regnety_004 = row("regnety_004", 16, 48, 27.89, 2.09, 8, Y)
regnety_006 = row("regnety_006", 15, 48, 32.54, 2.32, 16, Y)
regnety_008 = row("regnety_008", 14, 56, 38.84, 2.4, 16, Y)
regnety_008_tv = row("regnety_008_tv", 14, 56, 38.84, 2.4, 16, ROUNDED_UP, Y)
regnety_016 = row("regnety_016", 27, 48, 20.71, 2.65, 24, Y)
regnety_032 = row("regnety_032", 21, 80, 42.63, 2.66, 24, Y)
regnety_040 = row("regnety_040", 22, 96, 31.41, 2.24, 64, Y)
regnety_064 = row("regnety_064", 25, 112, 33.22, 2.27, 72, Y)
regnety_080 = row("regnety_080", 17, 192, 76.82, 2.19, 56, Y)
regnety_080_tv = row("regnety_080_tv", 17, 192, 76.82, 2.19, 56, ROUNDED_UP, Y)
regnety_120 = row("regnety_120", 19, 168, 73.36, 2.37, 112, Y)
regnety_160 = row("regnety_160", 18, 200, 106.23, 2.48, 112, Y)
regnety_320 = row("regnety_320", 20, 232, 115.89, 2.53, 232, Y)
regnety_640 = row("regnety_640", 20, 352, 147.48, 2.4, 328, Y)
regnety_1280 = row("regnety_1280", 27, 456, 160.83, 2.52, 264, Y)
regnety_2560 = row("regnety_2560", 27, 640, 230.83, 2.53, 373, Y)
regnetz_005 = row("regnetz_005", 21, 16, 10.7, 2.51, 4, Z, {"final_channels": 1024})
regnetz_040 = row("regnetz_040", 28, 48, 14.5, 2.226, 8, Z)
regnetz_040_h = row("regnetz_040_h", 28, 48, 14.5, 2.226, 8, Z, {"final_channels": 1536})
