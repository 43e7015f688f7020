"""The ResNetV2s with names, one row each: ResNets of pre-activation blocks.

- ResNetV2: He et al. 2016, "Identity Mappings in Deep Residual Networks", https://arxiv.org/abs/1603.05027. The stride
  of a bottleneck is in its 3x3 convolution; the stems d and t are those of ``resnets.py``.
- BiT: Kolesnikov et al. 2020, "Big Transfer", section 2.1, https://arxiv.org/abs/1912.11370: group norms, standardized
  weights, and a width factor.

Each network equals timm's of the same name, except that the classifier is a linear layer; timm's is a 1x1 convolution.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from lazytorch.layers import LazyPreActivationBlock, StdConv2d
from lazytorch.models.registry import rows_of
from lazytorch.models.resnet import D, ResNet, T
from lazytorch.models.stems import zero_padded_max_pool

# fmt: off
__all__ = [
    "resnetv2_18", "resnetv2_18d", "resnetv2_34", "resnetv2_34d", "resnetv2_50", "resnetv2_50d", "resnetv2_50d_gn",
    "resnetv2_50t", "resnetv2_50x1_bit", "resnetv2_50x3_bit", "resnetv2_101", "resnetv2_101d", "resnetv2_101x1_bit",
    "resnetv2_101x3_bit", "resnetv2_152", "resnetv2_152d", "resnetv2_152x2_bit", "resnetv2_152x4_bit",
]
# fmt: on

BASIC = {"block": partial(LazyPreActivationBlock, basic=True), "expansion": 1}
GN = {"norm_layer": partial(nn.GroupNorm, 32)}


@rows_of(ResNet)
def row(name: str, depths: Sequence[int], *options: dict[str, Any]) -> Any:
    """The columns are the number of blocks of each stage, and other options."""
    return ["timm"], {"depths": depths, "preactivation": True, "block": LazyPreActivationBlock}, *options


def bit(width: int) -> dict[str, Any]:
    """BiT, with ``width`` times the channels."""
    widths = {"stem": (64 * width,), "widths": tuple(channels * width for channels in (64, 128, 256, 512))}
    return GN | widths | {"stem_pool": zero_padded_max_pool, "conv_layer": partial(StdConv2d, eps=1e-8)}


resnetv2_18 = row("resnetv2_18", (2, 2, 2, 2), BASIC)
resnetv2_18d = row("resnetv2_18d", (2, 2, 2, 2), BASIC, D)
resnetv2_34 = row("resnetv2_34", (3, 4, 6, 3), BASIC)
resnetv2_34d = row("resnetv2_34d", (3, 4, 6, 3), BASIC, D)
resnetv2_50 = row("resnetv2_50", (3, 4, 6, 3))
resnetv2_50d = row("resnetv2_50d", (3, 4, 6, 3), D)
resnetv2_50d_gn = row("resnetv2_50d_gn", (3, 4, 6, 3), D, GN)
resnetv2_50t = row("resnetv2_50t", (3, 4, 6, 3), T)
resnetv2_50x1_bit = row("resnetv2_50x1_bit", (3, 4, 6, 3), bit(1))
resnetv2_50x3_bit = row("resnetv2_50x3_bit", (3, 4, 6, 3), bit(3))
resnetv2_101 = row("resnetv2_101", (3, 4, 23, 3))
resnetv2_101d = row("resnetv2_101d", (3, 4, 23, 3), D)
resnetv2_101x1_bit = row("resnetv2_101x1_bit", (3, 4, 23, 3), bit(1))
resnetv2_101x3_bit = row("resnetv2_101x3_bit", (3, 4, 23, 3), bit(3))
resnetv2_152 = row("resnetv2_152", (3, 8, 36, 3))
resnetv2_152d = row("resnetv2_152d", (3, 8, 36, 3), D)
resnetv2_152x2_bit = row("resnetv2_152x2_bit", (3, 8, 36, 3), bit(2))
resnetv2_152x4_bit = row("resnetv2_152x4_bit", (3, 8, 36, 3), bit(4))
