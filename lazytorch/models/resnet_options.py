"""Options of ``ResNet`` by their letters in timm's names, for every file of names: D has those of ``resnet50d``."""

from functools import partial
from typing import Any

from lazytorch.layers import (
    BlurPool,
    EfficientChannelAttention,
    LazyBasicBlock,
    LazyBottleneckBlock,
    SqueezeExcitation,
    average_blur,
    pooled_projection,
    projection,
)
from lazytorch.models.resnet import quarter, sixteenth
from lazytorch.models.stems import average_pool, blurred_max_pool, strided_convolution

__all__ = ["AA", "BASIC", "BLUR", "ECA", "RS", "SE", "SENET", "C", "D", "S", "T", "grouped"]

BASIC: dict[str, Any] = {"block": LazyBasicBlock, "expansion": 1}
C: dict[str, Any] = {"stem": (32, 32, 64)}
D: dict[str, Any] = {"stem": (32, 32, 64), "shortcut": pooled_projection}
S: dict[str, Any] = {"stem": (64, 64, 128)}
T: dict[str, Any] = {"stem": (24, 32, 64), "shortcut": pooled_projection}
SE: dict[str, Any] = {"se_layer": partial(SqueezeExcitation, squeeze_channels=sixteenth)}
ECA: dict[str, Any] = {"se_layer": EfficientChannelAttention}
RS: dict[str, Any] = D | {
    "stem_pool": strided_convolution,
    "se_layer": partial(SqueezeExcitation, squeeze_channels=quarter),
}
AA: dict[str, Any] = {"anti_aliasing": average_blur, "stem_pool": average_pool}
BLUR: dict[str, Any] = {"anti_aliasing": BlurPool, "stem_pool": blurred_max_pool}
SENET: dict[str, Any] = (
    S
    | SE
    | {
        "block": partial(LazyBottleneckBlock, reduce_ratio=2),
        "shortcut": partial(projection, kernel_size=3),
    }
)


def grouped(cardinality: int, base_width: int) -> dict[str, Any]:
    """ResNeXt's notation: 32x4d is 32 groups of 4 channels."""
    return {"cardinality": cardinality, "base_width": base_width}
