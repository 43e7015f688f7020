"""MobileNet: networks of inverted bottlenecks by a table of stages, from MobileNetV1 to EfficientNetV2.

Each family has a file with its tables. This file contains the code that they share.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Unpack

from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import (
    LazyConvNormActivation,
    LazyFusedInvertedBottleneck,
    LazyInvertedBottleneck,
    LazyPointwiseConv,
    SameConv2d,
    SqueezeExcitation,
    round_channels,
)
from lazytorch.layers.checks import Sizes, flag, positive, positive_whole, sizes, whole
from lazytorch.layers.factories import factory, maker
from lazytorch.layers.rules import checked
from lazytorch.layers.twins import lazy_twin
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import SILU, Network, NetworkOptions, Row, family
from lazytorch.models.heads import pointwise
from lazytorch.models.initial_weights import as_tensorflow
from lazytorch.models.registry import rows_of
from lazytorch.models.tables import one_or_several, table_of

__all__ = ["MobileNet", "Stage"]

HARD_SWISH = partial(nn.Hardswish, inplace=True)
# A convolution, a norm and an activation, as a block.
convolution = partial(LazyFusedInvertedBottleneck, shortcut=False)


@known_code
def rounded_quarter(channels: int) -> int:
    return round_channels(channels / 4)


# The squeeze-excitation of MobileNetV3.
SE_V3 = partial(SqueezeExcitation, squeeze_channels=rounded_quarter, gate=nn.Hardsigmoid)

# timm's names for EfficientNet and MobileNetV3, and therefore for most of these networks.
TIMM = Rules("""
    stem.(conv|norm)                                     (conv_stem|bn1)
    final.(conv|norm)                                    (conv_head|bn2)
    head.pooled.(conv|norm)                              (conv_head|norm_head)
    head.hidden.linear                                   conv_head                like=*x*x1x1
    head.classifier                                      classifier
    stages.S.B.layers.se.(reduce|expand|attend)          blocks.{S}.{B}.se.(conv_reduce|conv_expand|conv_attn)
    stages.S.B.layers.se.transform.(reduce|norm|expand)  blocks.{S}.{B}.se.mlp_scale.(fc1|norm|fc2)
    stages.S.B.layers.*.norm                             blocks.{S}.{B}.bn{C+1}
    stages.S.B.layers.(expand|depthwise).conv            blocks.{S}.{B}.(conv_pw|conv_dw)
    stages.S.B.layers.project.conv                       blocks.{S}.{B}.conv_pwl  if=expand|conv
    stages.S.B.layers.project.conv                       blocks.{S}.{B}.conv_pw
    stages.S.B.layers.conv.conv                          blocks.{S}.{B}.conv_exp  if=project
    stages.S.B.layers.conv.conv                          blocks.{S}.{B}.conv
""")
# Options of most of these networks: the initial weights and names of timm's.
AS_TIMM = {"initialize": as_tensorflow, "names": {"timm": TIMM}}
# Options of timm's models with weights from TensorFlow: TensorFlow's padding, which depends on the input, and its eps.
TENSORFLOW = {"norm_layer": partial(nn.BatchNorm2d, eps=1e-3), "conv_layer": SameConv2d}
# torchvision's names for EfficientNet.
TORCHVISION = Rules("""
    stem.(conv|norm)                      features.0.(0|1)
    final.(conv|norm)                     features.{L+1}.(0|1)
    head.classifier                       classifier.1
    stages.S.B.layers.se.(reduce|expand)  features.{S+1}.{B}.block.{P}.(fc1|fc2)
    stages.S.B.layers.*.(conv|norm)       features.{S+1}.{B}.block.{P}.(0|1)
""")
# Options of EfficientNets, and of their rows with squeeze-excitation to a quarter of the block's input channels.
AS_EFFICIENTNET = {
    "final_channels": 1280,
    "activation": SILU,
    "initialize": as_tensorflow,
    "names": {"torchvision": TORCHVISION, "timm": TIMM},
}
SQUEEZED: dict[str, Any] = {
    "se_layer": partial(SqueezeExcitation, activation=SILU),
    "block": partial(LazyInvertedBottleneck, squeeze_ratio=4),
}


@checked(out_channels=positive, repeats=positive_whole, kernel_size=sizes(whole), block=maker("LazyInvertedBottleneck"))
class Stage(NamedTuple):
    """A row of a network's table: ``repeats`` blocks, the first of them with ``stride``.

    Attributes:
        out_channels: Output channels, before they are multiplied by the network's width and rounded.
        repeats: Number of blocks, before it is multiplied by the network's depth.
        stride: Stride of the first block, in pixels; one number, or one for each spatial dimension.
        kernel_size: Size of the kernel, in pixels; one number, or one for each spatial dimension.
        expansion_ratio: Ratio of the expanded channels to the block's input channels.
        se_layer: The attention of each block, such as ``SqueezeExcitation``; None for no attention.
        activation: Called without arguments; None for the network's activation.
        block: ``LazyInvertedBottleneck``, ``LazyFusedInvertedBottleneck``, ``LazyUniversalInvertedBottleneck``, a
            ``functools.partial`` of one, or a similar block.

    Example:
        >>> from lazytorch.models import MobileNet, Stage
        >>> row = Stage(24, repeats=2, stride=2, expansion_ratio=6)
        >>> row._replace(kernel_size=5).kernel_size
        5
        >>> model = MobileNet(10, stages=[Stage(16), row])
    """

    out_channels: float
    repeats: int = 1
    stride: Sizes = 1
    kernel_size: Sizes = 3
    expansion_ratio: float = 1
    se_layer: Callable[..., nn.Module] | None = None
    activation: Callable[[], nn.Module] | None = None
    block: Callable[..., nn.Module] = LazyInvertedBottleneck


def as_stated(channels: int, width: float) -> int:
    """Return ``channels`` without applying the network's width."""
    return channels


def scaled(channels: int, width: float) -> int:
    """Multiply ``channels`` by the network's width, rounded to a multiple of 8."""
    return round_channels(channels * width)


def scaled_up(channels: int, width: float) -> int:
    """Multiply ``channels`` by the network's width if the width is above 1."""
    return max(channels, round_channels(channels * width))


@family
class MobileNet(Network):
    """A network of inverted bottlenecks that a table lists.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).

    Args:
        stages: The table, one row for each stage; or several rows for a stage with different blocks.
        width: Factor of the channels of all stages.
        depth: Factor of the number of blocks of all stages, or one for each stage.
        rounding: Called with the channels of a stage times ``width``, and with the expanded channels of a block;
            returns a whole number of channels.
        round_depth: Called with the number of blocks of a stage times ``depth``; returns a whole number.
        fixed_ends: Whether ``depth`` is not applied to the first and the last stage.
        stem_channels: Channels of the first convolution.
        stem_kernel_size: Size of the first convolution's kernel, in pixels; one number, or one for each spatial
            dimension.
        stem_stride: Stride of the first convolution, in pixels; one number, or one for each spatial dimension.
        stem_width: Called with ``stem_channels`` and ``width``; returns the channels of the first convolution.
        final_channels: Channels of a 1x1 convolution before the pooling; None for no convolution.
        final_width: Called with ``final_channels`` and ``width``; returns the channels of the final convolution.
        hidden_channels: Channels of a layer between the pooling and the classifier; None for no layer.
        hidden: Called with ``hidden_channels``, ``norm_layer`` and ``activation``; returns the layer between the
            pooling and the classifier: ``pointwise`` or ``linear`` of ``lazytorch.models.heads``, or a
            ``functools.partial`` of one.
        anti_aliasing: The layer that replaces the stride of a block's convolution; see the block.
        rates_end: Whether the rate of the last block is ``drop_path_rate``; otherwise it is one step smaller.
        initialize: Applied to every module when it is built, to initialize its weights; None for PyTorch's default
            initialization.
        names: Rules for the names of the weights in ``"torchvision"`` and ``"timm"``.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        The paper of each family is named in the file of the family.

    Example:
        >>> import torch
        >>> from lazytorch.models import MobileNet, Stage
        >>> table = [Stage(16), Stage(24, repeats=2, stride=2, expansion_ratio=6), Stage(32, stride=2, kernel_size=5)]
        >>> MobileNet(10, stages=table, width=0.5)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "stages": table_of(Stage, several_rows=True),
        "width": positive,
        "depth": one_or_several(positive),
        "round_depth": factory("blocks", example="math.ceil"),
        "fixed_ends": flag,
        **dict.fromkeys(("stem_width", "final_width"), factory("channels", "width", example="scaled")),
        "hidden": maker("pointwise"),
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stages: Sequence[Stage | Sequence[Stage]] = (),
        width: float = 1.0,
        depth: float | Sequence[float] = 1.0,
        rounding: Callable[[float], int] = round_channels,
        round_depth: Callable[[float], int] = math.ceil,
        fixed_ends: bool = False,
        stem_channels: int = 32,
        stem_kernel_size: Sizes = 3,
        stem_stride: Sizes = 2,
        stem_width: Callable[[int, float], int] = scaled,
        final_channels: int | None = None,
        final_width: Callable[[int, float], int] = scaled,
        hidden_channels: int | None = None,
        hidden: Callable[..., dict[str, nn.Module]] = pointwise,
        anti_aliasing: Callable[..., nn.Module] | None = None,
        rates_end: bool = False,
        initialize: Callable[[nn.Module], None] | None = None,
        names: Mapping[str, Rules] | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        MobileNet.rules["stages"]("stages", stages, self)  # also raises an error if no table was given
        table = blocks(stages, width, depth, rounding, round_depth, fixed_ends)
        stem = stem_width(stem_channels, width)
        final = None if final_channels is None else final_width(final_channels, width)
        common = {"rounding": rounding, "anti_aliasing": anti_aliasing}
        super().__init__(
            num_classes,
            stem=partial(LazyConvNormActivation, stem, stem_kernel_size, stem_stride),
            stem_reduction=stem_stride,
            stages=[
                [Row(partial(block, row, **common), row.out_channels, 1, row.stride) for row in rows]  # pyright: ignore[reportArgumentType]
                for rows in table
            ],
            final=None if final is None else partial(LazyPointwiseConv, final),
            hidden=None if hidden_channels is None else partial(hidden, hidden_channels),
            rates_end=rates_end,
            initialize=initialize,
            names=names,
            **options,
        )


def block(
    row: Stage,
    *,
    activation: Callable[[], nn.Module] | None,
    dilation: int,
    input_dilation: int,
    **options: Any,
) -> nn.Module:
    """A block of a row. Its dilation is that of the previous block, because its only larger kernel has the stride."""
    return lazy_twin(row.block)(
        kernel_size=row.kernel_size,
        expansion_ratio=row.expansion_ratio,
        se_layer=row.se_layer,
        activation=row.activation or activation,
        dilation=input_dilation,
        **options,
    )


def blocks(
    stages: Sequence[Stage | Sequence[Stage]],
    width: float,
    depth: float | Sequence[float],
    rounding: Callable[[float], int],
    round_depth: Callable[[float], int],
    fixed_ends: bool,
) -> list[list[Stage]]:
    """The rows of the blocks of each stage: one row for each block, with the width and the depth applied."""
    groups = [[each] if isinstance(each, Stage) else list(each) for each in stages]
    depths = list(depth) if isinstance(depth, Sequence) else [depth] * len(groups)
    if len(depths) != len(groups):
        raise ValueError(f"MobileNet: depth must be one number or one a stage, got {len(depths)} for {len(groups)}.")
    if fixed_ends:
        depths[0] = depths[-1] = 1.0
    table = []
    for rows, factor in zip(groups, depths, strict=True):
        counts = [row.repeats for row in rows]
        left, wanted = sum(counts), max(1, round_depth(sum(counts) * factor))
        # Blocks are assigned from the last row on, so that the first row, which often differs, is repeated least.
        for index in reversed(range(len(rows))):
            share = max(1, round(counts[index] / left * wanted))
            left, wanted, counts[index] = left - counts[index], wanted - share, share
        table.append(
            [
                row._replace(
                    out_channels=rounding(row.out_channels * width), repeats=1, stride=row.stride if first else 1
                )
                for row, count in zip(rows, counts, strict=True)
                for first in (True, *[False] * (count - 1))
            ]
        )
    return table


@rows_of(MobileNet)
def row(name: str, *options: Mapping[str, Any], sources: Sequence[str] = ("timm",), **config: Any) -> Any:
    """The columns are the options, of which later ones replace earlier ones, and the zoos that have the network."""
    return sources, *options, config
