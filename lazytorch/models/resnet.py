"""ResNet and related networks, from options that can be combined. The networks with names are in ``resnets.py``.

He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385. The stride of a
bottleneck is in its 3x3 convolution, as in torchvision and timm.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, Normal, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import (
    BlurPool,
    ConvNormActivation,
    EfficientChannelAttention,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyNormActivation,
    SqueezeExcitation,
    average_blur,
    pooled_projection,
    projection,
    round_channels,
)
from lazytorch.layers.checks import Sizes, positive_sizes, positive_whole, several
from lazytorch.layers.factories import maker
from lazytorch.layers.rules import shortcut_layer
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import zero_last_norm
from lazytorch.models.stems import average_pool, blurred_max_pool, convolutions, max_pool, strided_convolution
from lazytorch.models.tables import same_length

__all__ = ["AA", "BASIC", "BLUR", "ECA", "RS", "SE", "SENET", "C", "D", "ResNet", "S", "T", "grouped"]

# The names in torchvision and timm, which are equal for modules that both have.
NAMES = Rules("""
    stem.(conv|norm)                           (conv1|bn1)
    stem.conv1.(conv|norm)                     conv1.(0|1)
    stem.conv2.(conv|norm)                     conv1.(3|4)
    stem.conv3.(conv|norm)                     (conv1.6|bn1)
    stem_pool.(conv|norm)                      maxpool.(0|1)
    head.classifier                            fc
    # In a pooled shortcut, index 0 is the pooling, even if there is none.
    stages.S.B.shortcut.(conv|norm)            layer{S+1}.{B}.downsample.(0|1)
    stages.S.B.shortcut.project.(conv|norm)    layer{S+1}.{B}.downsample.(1|2)
    stages.S.B.layers.se.(reduce|expand|conv)  layer{S+1}.{B}.se.(fc1|fc2|conv)
    # Split attention, then the parts of a hierarchical convolution.
    stages.S.B.layers.conv.conv.(conv|norm)    layer{S+1}.{B}.conv2.(conv|bn0)
    stages.S.B.layers.conv.gate.1.(conv|norm)  layer{S+1}.{B}.conv2.(fc1|bn1)
    stages.S.B.layers.conv.gate.2.conv         layer{S+1}.{B}.conv2.fc2
    stages.S.B.layers.conv.*.(conv|norm)       layer{S+1}.{B}.(convs|bns).*
    stages.S.B.layers.*.(conv|norm)            layer{S+1}.{B}.(conv|bn){C+1}
""")

# timm's names for ResNetV2.
PREACTIVATED = Rules("""
    stem.(conv1|conv2).norm           stem.(norm1|norm2)
    stem.*.conv                       stem.*
    final.norm                        norm
    head.classifier                   head.fc  like=*x*x1x1
    stages.S.B.preactivation.norm     stages.{S}.blocks.{B}.norm1
    stages.S.B.shortcut.conv          stages.{S}.blocks.{B}.downsample.conv
    stages.S.B.shortcut.project.conv  stages.{S}.blocks.{B}.downsample.conv
    stages.S.B.layers.*.(conv|norm)   stages.{S}.blocks.{B}.(conv{C+1}|norm{C+2})
""")


def twice(stride: Sizes) -> Sizes:
    """The reduction after a layer with ``stride`` and a pooling with a stride of 2."""
    return tuple(2 * each for each in stride) if isinstance(stride, Sequence) else 2 * stride


@known_code
def sixteenth(channels: int) -> int:
    return round_channels(channels / 16, lower_limit=0)


@known_code
def quarter(channels: int) -> int:
    return round_channels(channels / 4, lower_limit=0)


@family
class ResNet(Network):
    """A network of residual blocks.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).

    Args:
        depths: Number of blocks of each stage.
        widths: Channels of each stage, before ``expansion``.
        strides: Stride of each stage, in pixels; one number, or one for each spatial dimension. By default 1 for the
            first stage and 2 for the others.
        block: ``LazyBottleneckBlock``, ``LazyBasicBlock``, a ``functools.partial`` of one, or a similar block; called
            with keyword arguments.
        expansion: Ratio of a block's output channels to the width of its stage.
        cardinality: Number of groups of a block's convolution.
        base_width: Channels of each group, in a stage of width 64.
        stem: Channels of the first convolutions: one convolution of ``stem_kernel_size`` pixels, or several of 3x3.
        stem_kernel_size: Kernel size of a stem of one convolution, in pixels; one number, or one for each spatial
            dimension.
        stem_stride: Stride of the first convolution, in pixels; one number, or one for each spatial dimension.
        stem_pool: Called with the stem's channels, ``norm_layer`` and ``activation``; returns the layer with a stride
            of 2 that follows the stem's convolutions. None for no layer.
        shortcut: Called to construct a block's shortcut if it cannot be the identity; see the block.
        se_layer: The attention at the end of a block's branch; see the block.
        anti_aliasing: The layer that replaces the stride of a block's convolution; see the block.
        preactivation: Whether a norm and an activation follow the last stage instead of the stem, for blocks such as
            ``LazyPreActivationBlock``, as in ResNetV2.
        zero_init: Whether the weight of a norm at the end of a branch is initialized to 0, so that the block starts as
            its shortcut.
        names: Rules for the names of the weights in ``"torchvision"`` and ``"timm"``; by default those of ResNets.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        He et al. 2015, table 1, https://arxiv.org/abs/1512.03385; for the others see ``lazytorch.models.resnets`` and
        ``resnet_variants``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBasicBlock
        >>> from lazytorch.models import ResNet
        >>> model = ResNet(10, depths=(1, 1, 1, 1), block=LazyBasicBlock, expansion=1)
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        **same_length("depths", "widths"),
        **same_length("depths", "strides"),
        "depths": several(positive_whole, "(3, 4, 6, 3)"),
        "widths": several(positive_whole, "(64, 128, 256, 512)"),
        "strides": several(positive_sizes, "(1, 2, 2, 2)"),
        "block": maker("LazyBottleneckBlock"),
        "expansion": positive_whole,
        "cardinality": positive_whole,
        "base_width": positive_whole,
        "stem": several(positive_whole, "(64,)"),
        "shortcut": shortcut_layer,
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[Sizes] | None = None,
        block: Callable[..., nn.Module] = LazyBottleneckBlock,
        expansion: int = 4,
        cardinality: int = 1,
        base_width: int = 64,
        stem: Sequence[int] = (64,),
        stem_kernel_size: Sizes = 7,
        stem_stride: Sizes = 2,
        stem_pool: Callable[..., nn.Module] | None = max_pool,
        shortcut: Callable[..., nn.Module] = projection,
        se_layer: Callable[..., nn.Module] | None = None,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        preactivation: bool = False,
        zero_init: bool = False,
        names: Mapping[str, Rules] | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        strides = [1 if index == 0 else 2 for index in range(len(depths))] if strides is None else list(strides)
        common = {
            "groups": cardinality,
            "shortcut": shortcut,
            "se_layer": se_layer,
            **({} if anti_aliasing is None else {"anti_aliasing": anti_aliasing}),
        }
        rows = []
        for depth, width, stride in zip(depths, widths, strides, strict=True):
            mid_channels = int(width * base_width / 64) * cardinality
            make = partial(block, mid_channels=mid_channels, **common)
            rows.append([Row(make, width * expansion, depth, stride)])
        super().__init__(
            num_classes,
            stem=partial(
                convolutions, stem, kernel_size=stem_kernel_size, stride=stem_stride, preactivation=preactivation
            ),
            stem_pool=None if stem_pool is None else partial(stem_pool, stem[-1]),
            stem_reduction=stem_stride if stem_pool is None else twice(stem_stride),
            stages=rows,
            final=norm_activation if preactivation else None,
            initialize=InitFunction(initial_values, zero_init=zero_init, preactivation=preactivation),
            names=names or ({"timm": PREACTIVATED} if preactivation else dict.fromkeys(("torchvision", "timm"), NAMES)),
            **options,
        )


def norm_activation(*, norm_layer: Any, activation: Any, **_: Any) -> nn.Module:
    """The layer after the last convolution, if blocks begin with norms."""
    return LazyNormActivation(norm_layer=norm_layer, activation=activation)


def initial_values(module: nn.Module, *, zero_init: bool, preactivation: bool) -> dict[str, Fill]:
    """He normal, fan-out, for convolutions, as in both zoos: He et al. 2015, https://arxiv.org/abs/1502.01852.

    With ``zero_init``, weight 0 for the last norm of every branch; with ``preactivation``, small classifier weights.
    """
    fills: dict[str, Fill] = {}
    if preactivation and isinstance(module, nn.Linear):
        fills = {"weight": Normal(0.01), "bias": Constant(0)}
    if isinstance(module, (ConvNormActivation, SqueezeExcitation)):
        for name, weight in module.named_parameters():
            if name.startswith(("conv.", "reduce.", "expand.")) and weight.dim() > 2:
                fills[name] = Normal(sqrt(2 / (weight.size(0) * weight[0, 0].numel())))
    return fills | zero_last_norm(module) if zero_init else fills


# Options by their letters in timm's names, for every file of names: D has those of ``resnet50d``.
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
