"""The ResNets with names, one row each.

- ResNet: He et al. 2015, "Deep Residual Learning for Image Recognition", table 1, https://arxiv.org/abs/1512.03385.
  Networks of 10, 14, 26 and 200 layers, and the stems s and t, are timm's.
- ResNeXt: Xie et al. 2017, table 1, https://arxiv.org/abs/1611.05431. Wide ResNet: Zagoruyko & Komodakis 2016,
  https://arxiv.org/abs/1605.07146.
- ResNet-C and -D: He et al. 2018, figure 2, https://arxiv.org/abs/1812.01187.
- SE-ResNet and SENet-154: Hu et al. 2018, https://arxiv.org/abs/1709.01507. ECA-ResNet: Wang et al. 2020,
  https://arxiv.org/abs/1910.03151.
- Anti-aliased (aa: averaged, blur: blurred): Zhang 2019, https://arxiv.org/abs/1904.11486.
- ResNet-RS: Bello et al. 2021, https://arxiv.org/abs/2103.07579. Group normalisation: Wu & He 2018,
  https://arxiv.org/abs/1803.08494.

Each network equals those of the same name in torchvision and timm. Initial weights are torchvision's if it has the
name; otherwise timm's, which initialize every residual branch to zero (Goyal et al. 2017, section 5.1,
https://arxiv.org/abs/1706.02677).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers import pooled_projection
from lazytorch.models.registry import rows_of
from lazytorch.models.resnet import AA, BASIC, BLUR, ECA, RS, SE, SENET, C, D, ResNet, S, T, grouped

# fmt: off
__all__ = [
    "ecaresnet26t", "ecaresnet50d", "ecaresnet50t", "ecaresnet101d", "ecaresnet200d", "ecaresnet269d",
    "ecaresnetlight", "ecaresnext26t_32x4d", "ecaresnext50t_32x4d",
    "resnet10t", "resnet14t", "resnet18", "resnet18d", "resnet26", "resnet26d", "resnet26t", "resnet34", "resnet34d",
    "resnet50", "resnet50_gn", "resnet50c", "resnet50d", "resnet50s", "resnet50t", "resnet101", "resnet101c",
    "resnet101d", "resnet101s", "resnet152", "resnet152c", "resnet152d", "resnet152s", "resnet200", "resnet200d",
    "resnetaa34d", "resnetaa50", "resnetaa50d", "resnetaa101d",
    "resnetblur18", "resnetblur50", "resnetblur50d", "resnetblur101d",
    "resnetrs50", "resnetrs101", "resnetrs152", "resnetrs200", "resnetrs270", "resnetrs350", "resnetrs420",
    "resnext50_32x4d", "resnext50d_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_32x16d",
    "resnext101_32x32d", "resnext101_64x4d",
    "senet154",
    "seresnet18", "seresnet34", "seresnet50", "seresnet50t", "seresnet101", "seresnet152", "seresnet152d",
    "seresnet200d", "seresnet269d",
    "seresnetaa50d",
    "seresnext26d_32x4d", "seresnext26t_32x4d", "seresnext50_32x4d", "seresnext101_32x4d", "seresnext101_32x8d",
    "seresnext101_64x4d", "seresnext101d_32x8d",
    "seresnextaa101d_32x8d", "seresnextaa201d_32x8d", "wide_resnet50_2", "wide_resnet101_2",
]
# fmt: on


@rows_of(ResNet)
def row(name: str, depths: Sequence[int], *options: dict[str, Any], torchvision: bool = False, **config: Any) -> Any:
    """The columns are the number of blocks of each stage, and other options."""
    sources = ["torchvision", "timm"] if torchvision else ["timm"]
    return sources, {"depths": depths, "zero_init": not torchvision, **config}, *options


resnet10t = row("resnet10t", (1, 1, 1, 1), BASIC, T)
resnet14t = row("resnet14t", (1, 1, 1, 1), T)
resnet18 = row("resnet18", (2, 2, 2, 2), BASIC, torchvision=True)
resnet18d = row("resnet18d", (2, 2, 2, 2), BASIC, D)
resnet34 = row("resnet34", (3, 4, 6, 3), BASIC, torchvision=True)
resnet34d = row("resnet34d", (3, 4, 6, 3), BASIC, D)
resnet26 = row("resnet26", (2, 2, 2, 2))
resnet26t = row("resnet26t", (2, 2, 2, 2), T)
resnet26d = row("resnet26d", (2, 2, 2, 2), D)
resnet50 = row("resnet50", (3, 4, 6, 3), torchvision=True)
resnet50c = row("resnet50c", (3, 4, 6, 3), C)
resnet50d = row("resnet50d", (3, 4, 6, 3), D)
resnet50s = row("resnet50s", (3, 4, 6, 3), S)
resnet50t = row("resnet50t", (3, 4, 6, 3), T)
resnet101 = row("resnet101", (3, 4, 23, 3), torchvision=True)
resnet101c = row("resnet101c", (3, 4, 23, 3), C)
resnet101d = row("resnet101d", (3, 4, 23, 3), D)
resnet101s = row("resnet101s", (3, 4, 23, 3), S)
resnet152 = row("resnet152", (3, 8, 36, 3), torchvision=True)
resnet152c = row("resnet152c", (3, 8, 36, 3), C)
resnet152d = row("resnet152d", (3, 8, 36, 3), D)
resnet152s = row("resnet152s", (3, 8, 36, 3), S)
resnet200 = row("resnet200", (3, 24, 36, 3))
resnet200d = row("resnet200d", (3, 24, 36, 3), D)
wide_resnet50_2 = row("wide_resnet50_2", (3, 4, 6, 3), base_width=128, torchvision=True)
wide_resnet101_2 = row("wide_resnet101_2", (3, 4, 23, 3), base_width=128, torchvision=True)
resnet50_gn = row("resnet50_gn", (3, 4, 6, 3), norm_layer=partial(nn.GroupNorm, 32))
resnext50_32x4d = row("resnext50_32x4d", (3, 4, 6, 3), grouped(32, 4), torchvision=True)
resnext50d_32x4d = row("resnext50d_32x4d", (3, 4, 6, 3), D, grouped(32, 4))
resnext101_32x4d = row("resnext101_32x4d", (3, 4, 23, 3), grouped(32, 4))
resnext101_32x8d = row("resnext101_32x8d", (3, 4, 23, 3), grouped(32, 8), torchvision=True)
resnext101_32x16d = row("resnext101_32x16d", (3, 4, 23, 3), grouped(32, 16))
resnext101_32x32d = row("resnext101_32x32d", (3, 4, 23, 3), grouped(32, 32))
resnext101_64x4d = row("resnext101_64x4d", (3, 4, 23, 3), grouped(64, 4), torchvision=True)
ecaresnet26t = row("ecaresnet26t", (2, 2, 2, 2), T, ECA)
ecaresnet50d = row("ecaresnet50d", (3, 4, 6, 3), D, ECA)
ecaresnet50t = row("ecaresnet50t", (3, 4, 6, 3), T, ECA)
ecaresnetlight = row("ecaresnetlight", (1, 1, 11, 3), ECA, shortcut=pooled_projection)
ecaresnet101d = row("ecaresnet101d", (3, 4, 23, 3), D, ECA)
ecaresnet200d = row("ecaresnet200d", (3, 24, 36, 3), D, ECA)
ecaresnet269d = row("ecaresnet269d", (3, 30, 48, 8), D, ECA)
ecaresnext26t_32x4d = row("ecaresnext26t_32x4d", (2, 2, 2, 2), T, ECA, grouped(32, 4))
ecaresnext50t_32x4d = row("ecaresnext50t_32x4d", (3, 4, 6, 3), T, ECA, grouped(32, 4))
seresnet18 = row("seresnet18", (2, 2, 2, 2), BASIC, SE)
seresnet34 = row("seresnet34", (3, 4, 6, 3), BASIC, SE)
seresnet50 = row("seresnet50", (3, 4, 6, 3), SE)
seresnet50t = row("seresnet50t", (3, 4, 6, 3), T, SE)
seresnet101 = row("seresnet101", (3, 4, 23, 3), SE)
seresnet152 = row("seresnet152", (3, 8, 36, 3), SE)
seresnet152d = row("seresnet152d", (3, 8, 36, 3), D, SE)
seresnet200d = row("seresnet200d", (3, 24, 36, 3), D, SE)
seresnet269d = row("seresnet269d", (3, 30, 48, 8), D, SE)
seresnext26d_32x4d = row("seresnext26d_32x4d", (2, 2, 2, 2), D, SE, grouped(32, 4))
seresnext26t_32x4d = row("seresnext26t_32x4d", (2, 2, 2, 2), T, SE, grouped(32, 4))
seresnext50_32x4d = row("seresnext50_32x4d", (3, 4, 6, 3), SE, grouped(32, 4))
seresnext101_32x4d = row("seresnext101_32x4d", (3, 4, 23, 3), SE, grouped(32, 4))
seresnext101_32x8d = row("seresnext101_32x8d", (3, 4, 23, 3), SE, grouped(32, 8))
seresnext101d_32x8d = row("seresnext101d_32x8d", (3, 4, 23, 3), D, SE, grouped(32, 8))
seresnext101_64x4d = row("seresnext101_64x4d", (3, 4, 23, 3), SE, grouped(64, 4))
senet154 = row("senet154", (3, 8, 36, 3), SENET, grouped(64, 4))
resnetblur18 = row("resnetblur18", (2, 2, 2, 2), BASIC, BLUR)
resnetblur50 = row("resnetblur50", (3, 4, 6, 3), BLUR)
resnetblur50d = row("resnetblur50d", (3, 4, 6, 3), D, BLUR)
resnetblur101d = row("resnetblur101d", (3, 4, 23, 3), D, BLUR)
resnetaa34d = row("resnetaa34d", (3, 4, 6, 3), BASIC, D, AA)
resnetaa50 = row("resnetaa50", (3, 4, 6, 3), AA)
resnetaa50d = row("resnetaa50d", (3, 4, 6, 3), D, AA)
resnetaa101d = row("resnetaa101d", (3, 4, 23, 3), D, AA)
seresnetaa50d = row("seresnetaa50d", (3, 4, 6, 3), D, SE, AA)
seresnextaa101d_32x8d = row("seresnextaa101d_32x8d", (3, 4, 23, 3), D, SE, grouped(32, 8), AA)
seresnextaa201d_32x8d = row(
    "seresnextaa201d_32x8d", (3, 24, 36, 4), S, SE, grouped(32, 8), AA, shortcut=pooled_projection
)
resnetrs50 = row("resnetrs50", (3, 4, 6, 3), RS)
resnetrs101 = row("resnetrs101", (3, 4, 23, 3), RS)
resnetrs152 = row("resnetrs152", (3, 8, 36, 3), RS)
resnetrs200 = row("resnetrs200", (3, 24, 36, 3), RS)
resnetrs270 = row("resnetrs270", (4, 29, 53, 4), RS)
resnetrs350 = row("resnetrs350", (4, 36, 72, 4), RS)
resnetrs420 = row("resnetrs420", (4, 44, 87, 4), RS)
