"""GENet, ResNet-TS and timm's RegNetZ: networks of residual blocks by a table, with a stem of small kernels.

- GENet: Lin et al. 2020, "Neural Architecture Design for GPU-Efficient Networks", https://arxiv.org/abs/2006.14090:
  basic blocks (XX), bottlenecks to a quarter (BL), and depthwise blocks of three times the channels (DW).
- ResNet-TS: timm's small ResNets and ResNeXts with SiLU and the stem of three convolutions of He et al. 2018, section
  4.2, https://arxiv.org/abs/1812.01187, in which the channels grow; attention precedes the last convolution. Those
  with global context: Cao et al. 2019, https://arxiv.org/abs/1904.11492.
- RegNetZ with letters: timm's networks of the blocks of Dollár et al. 2021, https://arxiv.org/abs/2103.06877. Those of
  RegNet's rule for widths are in ``regnets.py``.

Each network equals timm's of the same name, with two departures. Stochastic depth drops only branches with a shortcut;
timm's RegNetZ with letters also sets the output of blocks without a shortcut to zero. If dilation replaces strides, the
last stage of a GENet has the same weights as with strides, and all its blocks dilate; in timm its first block has a
projection and does not dilate.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, Normal, default_fills, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import (
    EfficientChannelAttention,
    GlobalContext,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyInvertedBottleneck,
    LazyPointwiseConv,
    SqueezeExcitation,
)
from lazytorch.layers.checks import positive_whole, several
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import RELU, SILU, Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal, zero_last_norm
from lazytorch.models.registry import model, rows_of
from lazytorch.models.resnet import quarter, sixteenth
from lazytorch.models.stems import convolutions, max_pool, strided_convolution
from lazytorch.models.tables import table_of

# fmt: off
__all__ = [
    "ByobNet", "eca_resnet33ts", "eca_resnext26ts", "gcresnet33ts", "gcresnet50t",
    "gcresnext26ts", "gcresnext50ts", "gernet_l", "gernet_m", "gernet_s",
    "regnetz_b16", "regnetz_c16", "regnetz_d8", "regnetz_d32", "regnetz_e8",
    "resnet32ts", "resnet33ts", "resnext26ts", "seresnet33ts",
    "seresnext26ts",
]
# fmt: on

NAMES = Rules("""
    stem.norm                                            stem.bn
    stem_pool.(conv|norm)                                stem.conv3.(conv|bn)
    stem.*.norm                                          stem.*.bn
    head.classifier                                      head.fc
    stages.S.B.(conv|norm)                               final_conv.(conv|bn)
    stages.S.B.shortcut.norm                             stages.{S}.{B}.shortcut.bn
    stages.S.B.layers.se.(reduce|expand)                 stages.{S}.{B}.attn.(fc1|fc2)
    stages.S.B.layers.se.(conv|attend)                   stages.{S}.{B}.attn.(conv|conv_attn)
    stages.S.B.layers.se.transform.(reduce|norm|expand)  stages.{S}.{B}.attn.mlp_add.(fc1|norm|fc2)
    stages.S.B.layers.conv.(conv|norm)                   stages.{S}.{B}.conv2_kxk.(conv|bn)
    stages.S.B.layers.*.(conv|norm)                      stages.{S}.{B}.conv{C+1}_kxk.(conv|bn)  if=conv1
    stages.S.B.layers.*.(conv|norm)                      stages.{S}.{B}.conv{C+1}_1x1.(conv|bn)
""")


def final_convolution(*, stride: int, dilation: int, input_dilation: int, **options: Any) -> nn.Module:
    """A 1x1 convolution as the last block, which ignores stride and dilation."""
    return LazyPointwiseConv(**options)


@family
class ByobNet(Network):
    """A network of any blocks that a table lists, with a stem of 3x3 convolutions: timm's "bring your own blocks".

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).

    Args:
        stages: The table, one row for each stage.
        stem: Channels of the first convolutions, of 3x3 pixels. The first convolution has a stride of 2. If there are
            several and no pooling follows, the last one also has a stride of 2.
        stem_pool: Called with the stem's channels, ``norm_layer``, ``activation`` and ``conv_layer``; returns the layer
            with a stride of 2 that follows the stem's convolutions. None for no layer.
        final_channels: Channels of a 1x1 convolution, the last block of the last stage; None for no convolution.
        zero_init: Whether the weight of the last norm of every branch with a shortcut is initialized to 0, so that
            these blocks start as their shortcuts.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        The paper of each network, in ``lazytorch.models.byobnet``.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from lazytorch.layers import LazyBasicBlock, LazyInvertedBottleneck
        >>> from lazytorch.models import ByobNet, Row
        >>> grouped = partial(LazyInvertedBottleneck, expansion_ratio=3, group_size=8)
        >>> rows = [Row(partial(LazyBasicBlock, 16), 16, stride=2), Row(grouped, 32, repeats=2, stride=2)]
        >>> model = ByobNet(10, stages=rows, stem=(8,), final_channels=64)
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "stages": table_of(Row),
        "stem": several(positive_whole, "(32,)"),
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stages: Sequence[Row] = (),
        stem: Sequence[int] = (32,),
        stem_pool: Callable[..., nn.Module] | None = None,
        final_channels: int | None = None,
        zero_init: bool = True,
        **options: Unpack[NetworkOptions],
    ) -> None:
        ByobNet.rules["stages"]("stages", stages, self)  # also raises an error if no table was given
        table = [[row] for row in stages]
        if final_channels is not None:
            table[-1].append(Row(final_convolution, final_channels, residual=False))
        if len(stem) > 1 and stem_pool is None:
            stem, stem_pool = stem[:-1], partial(strided_convolution, stem[-1])
        elif stem_pool is not None:
            stem_pool = partial(stem_pool, stem[-1])
        super().__init__(
            num_classes,
            stem=partial(convolutions, stem, kernel_size=3),
            stem_pool=stem_pool,
            stem_reduction=2 if stem_pool is None else 4,
            stages=table,
            initialize=InitFunction(initial_values, zero_init=zero_init),
            names={"timm": NAMES},
            **options,
        )


@known_code
def initial_values(module: nn.Module, *, zero_init: bool) -> dict[str, Fill]:
    """He normal, fan-out of each group, for convolutions; with ``zero_init``, 0 for the last norm of every branch."""
    fills = fan_out_normal(module, per_group=True, linear=small_normal)
    if isinstance(module, EfficientChannelAttention):  # timm keeps the default of its convolution
        fills["conv.weight"] = default_fills(module.conv)["weight"]
    if isinstance(module, GlobalContext):
        fills["attend.weight"] = Normal(sqrt(2 / module.get_parameter("attend.weight").size(1)))
        if module.gate is None:  # it adds 0 before training
            fills["transform.expand.weight"] = Constant(0)
    return fills | zero_last_norm(module) if zero_init else fills


def basic(channels: int, repeats: int, stride: int) -> Row:
    """A row of basic blocks."""
    return Row(partial(LazyBasicBlock, channels), channels, repeats, stride)


def bottleneck(
    channels: int, repeats: int, stride: int, *, ratio: float = 1 / 4, group_size: int | None = None, **options: Any
) -> Row:
    """A row of bottlenecks, whose middle convolution has ``ratio`` times the output channels."""
    middle = round(channels * ratio)
    groups = 1 if group_size is None else middle // group_size
    return Row(partial(LazyBottleneckBlock, middle, groups=groups, se_last=False, **options), channels, repeats, stride)


def inverted(channels: int, repeats: int, stride: int, *, ratio: int = 4, group_size: int) -> Row:
    """A row of RegNetZ, whose squeezed channels are a fraction of the expanded channels."""
    block = partial(LazyInvertedBottleneck, expansion_ratio=ratio, group_size=group_size)
    squeeze = partial(SqueezeExcitation, squeeze_channels=quarter)
    return Row(partial(block, se_layer=squeeze), channels, repeats, stride)


@rows_of(ByobNet)
def row(name: str, block: Callable[..., Row], depths: Sequence[int], widths: Sequence[int], **config: Any) -> Any:
    """A network of one kind of block; if the stem has several convolutions, its reduction is 4."""
    strides = (1 if "stem" in config and len(config["stem"]) > 1 else 2, 2, 2, 2)
    stages = [block(*columns) for columns in zip(widths, depths, strides, strict=True)]
    return ["timm"], {"stages": stages, "activation": SILU, **config}


# Channels, blocks and stride of each row.
XX, BL, DW = basic, bottleneck, partial(bottleneck, ratio=3, group_size=1)
LARGE = [XX(128, 1, 2), XX(192, 2, 2), BL(640, 6, 2), DW(640, 5, 2), DW(640, 4, 1)]
MEDIUM = [XX(128, 1, 2), XX(192, 2, 2), BL(640, 6, 2), DW(640, 4, 2), DW(640, 1, 1)]
SMALL = [XX(48, 1, 2), XX(48, 3, 2), BL(384, 7, 2), DW(560, 2, 2), DW(256, 1, 1)]

gernet_l = model("gernet_l", ByobNet, ["timm"], stages=LARGE, final_channels=2560)
gernet_m = model("gernet_m", ByobNet, ["timm"], stages=MEDIUM, final_channels=2560)
gernet_s = model("gernet_s", ByobNet, ["timm"], stages=SMALL, stem=(13,), final_channels=1920)

SE = partial(bottleneck, se_layer=partial(SqueezeExcitation, squeeze_channels=sixteenth))
ECA = partial(bottleneck, se_layer=EfficientChannelAttention)
GC = partial(bottleneck, se_layer=GlobalContext)
TIERED = {"stem": (24, 32, 64)}
# Blocks and channels of each stage.
R26 = (2, 2, 2, 2), (256, 512, 1024, 2048)
R50 = (3, 4, 6, 3), (256, 512, 1024, 2048)
R33 = (2, 3, 3, 2), (256, 512, 1536, 1536)

resnext26ts = row("resnext26ts", partial(bottleneck, group_size=32), *R26, **TIERED, stem_pool=max_pool)
seresnext26ts = row("seresnext26ts", partial(SE, group_size=32), *R26, **TIERED, stem_pool=max_pool)
eca_resnext26ts = row("eca_resnext26ts", partial(ECA, group_size=32), *R26, **TIERED, stem_pool=max_pool)
resnet32ts = row("resnet32ts", bottleneck, *R33, **TIERED)
resnet33ts = row("resnet33ts", bottleneck, *R33, **TIERED, final_channels=1280)
seresnet33ts = row("seresnet33ts", SE, *R33, **TIERED, final_channels=1280)
eca_resnet33ts = row("eca_resnet33ts", ECA, *R33, **TIERED, final_channels=1280)
gcresnext26ts = row("gcresnext26ts", partial(GC, group_size=32), *R26, **TIERED, stem_pool=max_pool)
gcresnet33ts = row("gcresnet33ts", GC, *R33, **TIERED, final_channels=1280)
gcresnet50t = row("gcresnet50t", GC, *R50, **TIERED, activation=RELU)
gcresnext50ts = row("gcresnext50ts", partial(GC, group_size=32), *R50, **TIERED, stem_pool=max_pool)

Z16 = partial(inverted, group_size=16)
# Channels of each stage.
B, D, E = (48, 96, 192, 288), (64, 128, 256, 384), (96, 192, 384, 512)

regnetz_b16 = row("regnetz_b16", partial(Z16, ratio=3), (2, 6, 12, 2), B, final_channels=1536)
regnetz_c16 = row("regnetz_c16", Z16, (2, 6, 12, 2), B, final_channels=1536)
regnetz_d8 = row("regnetz_d8", partial(inverted, group_size=8), (3, 6, 12, 3), D, **TIERED, final_channels=1792)
regnetz_d32 = row("regnetz_d32", partial(inverted, group_size=32), (3, 6, 12, 3), D, **TIERED, final_channels=1792)
regnetz_e8 = row("regnetz_e8", partial(inverted, group_size=8), (3, 8, 16, 3), E, **TIERED, final_channels=2048)
