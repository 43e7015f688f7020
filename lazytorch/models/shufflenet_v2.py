"""ShuffleNetV2: Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", table 5,
https://arxiv.org/abs/1807.11164. The numbers of channels are those of the authors' code, as in torchvision.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Unpack

from lazytorch.arguments import ValueRules
from lazytorch.layers import LazyConvNormActivation, LazyPointwiseConv, LazyShuffleBlock
from lazytorch.layers.checks import positive_whole, several
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.registry import model
from lazytorch.models.stems import max_pool
from lazytorch.models.tables import same_length

__all__ = ["ShuffleNetV2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"]

NAMES = Rules("""
    stem.(conv|norm)                           conv1.(0|1)
    final.(conv|norm)                          conv5.(0|1)
    head.classifier                            fc
    stages.S.B.shortcut.depthwise.(conv|norm)  stage{S+1}.{B}.branch1.(0|1)
    stages.S.B.shortcut.project.(conv|norm)    stage{S+1}.{B}.branch1.(2|3)
    stages.S.B.layers.expand.(conv|norm)       stage{S+1}.{B}.branch2.(0|1)
    stages.S.B.layers.depthwise.(conv|norm)    stage{S+1}.{B}.branch2.(3|4)
    stages.S.B.layers.project.(conv|norm)      stage{S+1}.{B}.branch2.(5|6)
""")


@family
class ShuffleNetV2(Network):
    """A network of blocks of two branches, whose output channels are interleaved.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes). The
    first stage is the pooling after the stem. Its blocks have no residual branch that stochastic depth could drop.

    Args:
        depths: Number of blocks of each stage after the pooling.
        widths: Channels of each of these stages, even numbers.
        stem_channels: Channels of the first convolution.
        final_channels: Channels of the 1x1 convolution before the pooling of the head.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        Ma et al. 2018, table 5, https://arxiv.org/abs/1807.11164.

    Example:
        >>> import torch
        >>> from lazytorch.models import ShuffleNetV2
        >>> model = ShuffleNetV2(10, depths=(2, 1), widths=(32, 64))
        >>> [(info.channels, info.reduction) for info in model.feature_info]
        [(24, 2), (24, 4), (32, 8), (64, 16)]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "depths": several(positive_whole, "(4, 8, 4)"),
        "widths": several(positive_whole, "(116, 232, 464)"),
        **same_length("depths", "widths"),
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (4, 8, 4),
        widths: Sequence[int] = (116, 232, 464),
        stem_channels: int = 24,
        final_channels: int = 1024,
        **options: Unpack[NetworkOptions],
    ) -> None:
        pool = Row(max_pool, stem_channels, stride=2, residual=False)
        table = zip(widths, depths, strict=True)
        super().__init__(
            num_classes,
            stem=partial(LazyConvNormActivation, stem_channels, stride=2),
            stem_reduction=2,
            stages=[[pool], *([Row(LazyShuffleBlock, width, depth, 2, residual=False)] for width, depth in table)],
            final=partial(LazyPointwiseConv, final_channels),
            names={"torchvision": NAMES},
            **options,
        )


shufflenet_v2_x0_5 = model("shufflenet_v2_x0_5", ShuffleNetV2, ["torchvision"], widths=(48, 96, 192))
shufflenet_v2_x1_0 = model("shufflenet_v2_x1_0", ShuffleNetV2, ["torchvision"])
shufflenet_v2_x1_5 = model("shufflenet_v2_x1_5", ShuffleNetV2, ["torchvision"], widths=(176, 352, 704))
shufflenet_v2_x2_0 = model(
    "shufflenet_v2_x2_0", ShuffleNetV2, ["torchvision"], widths=(244, 488, 976), final_channels=2048
)
