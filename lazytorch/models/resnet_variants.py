"""ResNets with other blocks, one row each: Res2Net, ResNeSt, SKNet and the first SENets.

- Res2Net: Gao et al. 2019, tables 1 and 2, https://arxiv.org/abs/1904.01169. 26w_4s is 4 splits of 26 channels.
- ResNeSt: Zhang et al. 2020, tables 1 and 3, https://arxiv.org/abs/2004.08955. 4s2x40d is 4 splits (the radix) of 2
  groups of 40 channels; d and e have a stem of 32 and 64 channels.
- SKNet: Li et al. 2019, table 1, https://arxiv.org/abs/1903.06586; all but skresnext50_32x4d are timm's, with basic
  blocks or half of the channels for each kernel.
- SENet: Hu et al. 2018, table 1, https://arxiv.org/abs/1709.01507, as its authors trained it with Caffe: with the
  stride in the first convolution of a SE-ResNet's block, and dropout.

Each network equals timm's of the same name, with one departure: stochastic depth drops the branch of a ResNeSt's block;
timm drops the input of the projection.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers import (
    LazyBasicBlock,
    LazyBottleneckBlock,
    SelectiveKernelConv,
    SplitAttentionConv,
    SqueezeExcitation,
    pooled_projection,
)
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU
from lazytorch.models.registry import rows_of
from lazytorch.models.resnet import NAMES, SENET, D, ResNet, grouped
from lazytorch.models.stems import ceil_max_pool

# fmt: off
__all__ = [
    "legacy_senet154", "legacy_seresnet18", "legacy_seresnet34", "legacy_seresnet50", "legacy_seresnet101",
    "legacy_seresnet152", "legacy_seresnext26_32x4d", "legacy_seresnext50_32x4d", "legacy_seresnext101_32x4d",
    "res2net50_14w_8s", "res2net50_26w_4s", "res2net50_26w_6s", "res2net50_26w_8s", "res2net50_48w_2s", "res2net50d",
    "res2net101_26w_4s", "res2net101d", "res2next50",
    "resnest14d", "resnest26d", "resnest50d", "resnest50d_1s4x24d", "resnest50d_4s2x40d", "resnest101e",
    "resnest200e", "resnest269e",
    "skresnet18", "skresnet34", "skresnet50", "skresnet50d", "skresnext50_32x4d",
]
# fmt: on

SK_NAMES = Rules(
    """
    stages.S.B.layers.*.narrow.(conv|norm)  layer{S+1}.{B}.conv{C+1}.paths.0.(conv|bn)
    stages.S.B.layers.*.wide.(conv|norm)    layer{S+1}.{B}.conv{C+1}.paths.1.(conv|bn)
    stages.S.B.layers.*.gate.1.(conv|norm)  layer{S+1}.{B}.conv{C+1}.attn.(fc_reduce|bn)
    stages.S.B.layers.*.gate.2.conv         layer{S+1}.{B}.conv{C+1}.attn.fc_select
    stages.S.B.layers.*.(conv|norm)         layer{S+1}.{B}.conv{C+1}.(conv|bn)
    """
    + NAMES.text
)
LEGACY_NAMES = Rules(
    """
    stem.(conv|norm)                      layer0.(conv1|bn1)
    stem.(conv1|conv2|conv3).norm         layer0.(bn1|bn2|bn3)
    stem.*.conv                           layer0.*
    head.classifier                       last_linear
    stages.S.B.layers.se.(reduce|expand)  layer{S+1}.{B}.se_module.(fc1|fc2)
    """
    + NAMES.text
)
R26, R50, R101, R152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)  # blocks of each stage


@rows_of(ResNet)
def row(name: str, depths: Sequence[int], *options: dict[str, Any], **config: Any) -> Any:
    """The columns are the number of blocks of each stage, and other options."""
    return ["timm"], {"depths": depths, **config}, *options


def splits(count: int, width: int, groups: int = 1) -> dict[str, Any]:
    """Res2Net: ``count`` splits of ``width`` channels in each group."""
    block = partial(LazyBottleneckBlock, splits=count)
    return {"block": block, "base_width": count * width, "cardinality": groups, "zero_init": True}


def attention(radix: int, pool_first: bool = False) -> dict[str, Any]:
    """ResNeSt."""
    layer = partial(SplitAttentionConv, radix=radix, pool_first=pool_first)
    return {"block": partial(LazyBottleneckBlock, spatial_layer=layer), "zero_init": True}


def kernels(block: type[nn.Module], **options: Any) -> dict[str, Any]:
    """SKNet."""
    layer = partial(SelectiveKernelConv, **options)
    return {"block": partial(block, spatial_layer=layer), "names": {"timm": SK_NAMES}}


E: dict[str, Any] = {"stem": (64, 64, 128), "shortcut": pooled_projection}
BASIC = kernels(LazyBasicBlock, reduction_ratio=8, divisor=16, split_input=True) | {"expansion": 1}
HALVES = kernels(LazyBottleneckBlock, split_input=True)
LEGACY = {"stem_pool": ceil_max_pool, "se_layer": SqueezeExcitation, "dropout": 0.2, "names": {"timm": LEGACY_NAMES}}
SE_BASIC = LEGACY | {"block": partial(LazyBasicBlock, project_activation=RELU), "expansion": 1}
CAFFE = LEGACY | {"block": partial(LazyBottleneckBlock, stride_first=True)}
NEXT = grouped(32, 4)

res2net50_14w_8s = row("res2net50_14w_8s", R50, splits(8, 14))
res2net50_26w_4s = row("res2net50_26w_4s", R50, splits(4, 26))
res2net50_26w_6s = row("res2net50_26w_6s", R50, splits(6, 26))
res2net50_26w_8s = row("res2net50_26w_8s", R50, splits(8, 26))
res2net50_48w_2s = row("res2net50_48w_2s", R50, splits(2, 48))
res2net50d = row("res2net50d", R50, splits(4, 26), D)
res2net101_26w_4s = row("res2net101_26w_4s", R101, splits(4, 26))
res2net101d = row("res2net101d", R101, splits(4, 26), D)
res2next50 = row("res2next50", R50, splits(4, 4, groups=8))
resnest14d = row("resnest14d", (1, 1, 1, 1), attention(2), D)
resnest26d = row("resnest26d", R26, attention(2), D)
resnest50d = row("resnest50d", R50, attention(2), D)
resnest50d_1s4x24d = row("resnest50d_1s4x24d", R50, attention(1, pool_first=True), D, cardinality=4, base_width=24)
resnest50d_4s2x40d = row("resnest50d_4s2x40d", R50, attention(4, pool_first=True), D, cardinality=2, base_width=40)
resnest101e = row("resnest101e", R101, attention(2), E)
resnest200e = row("resnest200e", (3, 24, 36, 3), attention(2), E)
resnest269e = row("resnest269e", (3, 30, 48, 8), attention(2), E)
skresnet18 = row("skresnet18", R26, BASIC)
skresnet34 = row("skresnet34", R50, BASIC)
skresnet50 = row("skresnet50", R50, HALVES)
skresnet50d = row("skresnet50d", R50, HALVES, D)
skresnext50_32x4d = row("skresnext50_32x4d", R50, kernels(LazyBottleneckBlock, divisor=32), NEXT)
legacy_seresnet18 = row("legacy_seresnet18", R26, SE_BASIC)
legacy_seresnet34 = row("legacy_seresnet34", R50, SE_BASIC)
legacy_seresnet50 = row("legacy_seresnet50", R50, CAFFE)
legacy_seresnet101 = row("legacy_seresnet101", R101, CAFFE)
legacy_seresnet152 = row("legacy_seresnet152", R152, CAFFE)
legacy_seresnext26_32x4d = row("legacy_seresnext26_32x4d", R26, LEGACY, NEXT)
legacy_seresnext50_32x4d = row("legacy_seresnext50_32x4d", R50, LEGACY, NEXT)
legacy_seresnext101_32x4d = row("legacy_seresnext101_32x4d", R101, LEGACY, NEXT)
legacy_senet154 = row("legacy_senet154", R152, SENET, LEGACY, grouped(64, 4))
