"""DenseNet: Huang et al. 2017, "Densely Connected Convolutional Networks", https://arxiv.org/abs/1608.06993.

Table 1 lists networks of 121, 169, 201 and 264 layers with a growth rate of 32; that of 161 layers has 48. Names that
end with d are timm's: a stem of three convolutions, and, if blur is in the name, an anti-aliased pooling (Zhang 2019,
https://arxiv.org/abs/1904.11486). All are DenseNet-BC: 1x1 convolutions in the layers, and transitions that halve the
channels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, Normal, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import LazyAvgPool, LazyConvNormActivation, LazyDenseLayer, LazyNormActivation
from lazytorch.layers.checks import fraction, positive_whole, several
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.registry import rows_of
from lazytorch.models.resnet import norm_activation
from lazytorch.models.stems import blurred_max_pool, convolutions, max_pool

__all__ = [
    "DenseNet",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264d",
    "densenetblur121d",
]

# The names in torchvision and timm, which are equal for modules that both have. A stage's first block has no number.
NAMES = Rules("""
    stem.(conv|norm)                      features.(conv0|norm0)
    stem.conv1.(conv|norm)                features.(conv0|norm0)
    stem.conv2.(conv|norm)                features.(conv1|norm1)
    stem.conv3.(conv|norm)                features.(conv2|norm2)
    head.classifier                       classifier
    stages.S.B.layers.preactivation.norm  features.denseblock{S+1}.denselayer{B}.norm1
    stages.S.B.layers.reduce.(conv|norm)  features.denseblock{S+1}.denselayer{B}.(conv1|norm2)
    stages.S.B.layers.conv.conv           features.denseblock{S+1}.denselayer{B}.conv2
    stages.S.B.preactivation.norm         features.transition{S}.norm
    stages.S.B.conv.conv                  features.transition{S}.conv
    stages.S.B.norm                       features.norm5
""")


def transition(out_channels: int, *, stride: int, **options: Any) -> nn.Module:
    """The first block of a stage; if dilation replaces its stride, the pooling has a kernel of one pixel."""
    norm, activation, conv = (options[name] for name in ("norm_layer", "activation", "conv_layer"))
    return NamedSequential(
        preactivation=LazyNormActivation(norm_layer=norm, activation=activation),
        conv=LazyConvNormActivation(
            out_channels, 1, bias=norm is None, norm_layer=None, activation=None, conv_layer=conv
        ),
        pool=LazyAvgPool(stride),
    )


@family
class DenseNet(Network):
    """A network whose layers add channels to their input, so that it contains the outputs of all previous layers.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes). The
    first block of each stage halves the size: the pooling after the stem, or a transition. The last block of the last
    stage is a norm with an activation.

    Args:
        depths: Number of layers of each stage.
        growth_rate: Channels that each layer adds.
        stem: Channels of the first convolutions: one of 7x7 pixels, or several of 3x3.
        stem_pool: Called with the keyword argument ``out_channels``; returns the first block of the first stage, with a
            stride of 2.
        expansion_ratio: Ratio of the channels between the two convolutions of a layer to the channels that it adds.
        layer_dropout: Dropout probability of each layer's new values.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        Huang et al. 2017, section 3 and table 1, https://arxiv.org/abs/1608.06993. Dilation in place of the
        last poolings: Yang et al. 2018 (DenseASPP), section 4.

    Example:
        >>> import torch
        >>> from lazytorch.models import DenseNet
        >>> model = DenseNet(10, depths=(1, 2, 2), growth_rate=8, stem=(16,))
        >>> [(info.channels, info.reduction) for info in model.feature_info]
        [(16, 2), (24, 4), (28, 8), (30, 16)]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "depths": several(positive_whole, "(6, 12, 24, 16)"),
        "growth_rate": positive_whole,
        "stem": several(positive_whole, "(64,)"),
        "expansion_ratio": positive_whole,
        "layer_dropout": fraction,
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (6, 12, 24, 16),
        growth_rate: int = 32,
        stem: Sequence[int] = (64,),
        stem_pool: Callable[..., nn.Module] = max_pool,
        expansion_ratio: int = 4,
        layer_dropout: float = 0.0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        layer = partial(LazyDenseLayer, expansion_ratio=expansion_ratio, dropout=layer_dropout)
        channels, stages = stem[-1], []
        for index, depth in enumerate(depths):
            channels //= 1 if index == 0 else 2
            rows = [Row(stem_pool if index == 0 else transition, channels, stride=2, residual=False)]
            for _ in range(depth):
                channels += growth_rate
                rows.append(Row(layer, channels, residual=False))
            stages.append(rows)
        stages[-1].append(Row(norm_activation, channels, residual=False))
        super().__init__(
            num_classes,
            stem=partial(convolutions, stem),
            stem_reduction=2,
            stages=stages,
            initialize=InitFunction(initial_values),
            names=dict.fromkeys(("torchvision", "timm"), NAMES),
            **options,
        )


@known_code
def initial_values(module: nn.Module) -> dict[str, Fill]:
    """He normal, fan-in, for convolutions, https://arxiv.org/abs/1502.01852; a bias of 0 for the classifier."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {"weight": Normal(sqrt(2 / module.weight[0].numel()))}
    return {"bias": Constant(0)} if isinstance(module, nn.Linear) else {}


@rows_of(DenseNet)
def row(name: str, depths: Sequence[int], growth_rate: int = 32, torchvision: bool = True, **config: Any) -> Any:
    """The columns are the number of layers of each stage and their channels."""
    stem = (2 * growth_rate,)
    sources = ["torchvision", "timm"] if torchvision else ["timm"]
    return sources, {"depths": depths, "growth_rate": growth_rate, "stem": stem, **config}


densenet121 = row("densenet121", (6, 12, 24, 16))
densenet161 = row("densenet161", (6, 12, 36, 24), 48)
densenet169 = row("densenet169", (6, 12, 32, 32))
densenet201 = row("densenet201", (6, 12, 48, 32))
densenet264d = row("densenet264d", (6, 12, 64, 48), 48, torchvision=False, stem=(48, 48, 96))
densenetblur121d = row(
    "densenetblur121d", (6, 12, 24, 16), torchvision=False, stem=(32, 32, 64), stem_pool=blurred_max_pool
)
