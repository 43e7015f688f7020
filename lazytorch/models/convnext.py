"""ConvNeXt V1 and V2: Liu et al. 2022, "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.

V2: Woo et al. 2023, https://arxiv.org/abs/2301.00808, with global response normalization in place of LayerScale
(section 4). V1 from tiny to xlarge is from the first paper (section 3), V2 from atto to huge, except small, from the
second (appendix A); the others are from timm.

Linear layers in the blocks of torchvision and timm are 1x1 convolutions here, with the same weights.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, Normal, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import ChannelNorm, LazyConvNeXtBlock, LazyConvNormActivation, LazyNormActivation, ResponseNorm
from lazytorch.layers.checks import Sizes, flag, number, odd, positive_whole, several
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rules import norm_layer
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.heads import linear
from lazytorch.models.registry import rows_of
from lazytorch.models.tables import same_length

# fmt: off
__all__ = [
    "ConvNeXt",
    "convnext_atto", "convnext_atto_ols", "convnext_base", "convnext_femto", "convnext_femto_ols", "convnext_large",
    "convnext_large_mlp", "convnext_nano", "convnext_nano_ols", "convnext_pico", "convnext_pico_ols",
    "convnext_small", "convnext_tiny", "convnext_tiny_hnf", "convnext_xlarge", "convnext_xxlarge",
    "convnextv2_atto", "convnextv2_base", "convnextv2_femto", "convnextv2_huge", "convnextv2_large",
    "convnextv2_nano", "convnextv2_pico", "convnextv2_small", "convnextv2_tiny",
]
# fmt: on

# timm's names, for models whose blocks have 1x1 convolutions in timm.
CONVOLUTIONS = """
    stem.conv1.conv                          stem.0
    stem.conv2.(conv|norm)                   stem.(1|2)
    stem.(conv|norm)                         stem.(0|1)
    final.norm                               norm_pre
    head.pooled.norm                         head.norm
    head.hidden.linear                       head.pre_logits.fc
    head.classifier                          head.fc
    stages.S.B.downsample.(norm|conv)        stages.{S}.downsample.(0|1)
    stages.S.B.layers.depthwise.(conv|norm)  stages.{S}.blocks.{B}.(conv_dw|norm)
    stages.S.B.layers.hidden_norm            stages.{S}.blocks.{B}.mlp.grn
    stages.S.B.layers.scale.weight           stages.{S}.blocks.{B}.gamma
    stages.S.B.layers.expand.conv            stages.{S}.blocks.{B}.mlp.fc1
    stages.S.B.layers.project.conv           stages.{S}.blocks.{B}.mlp.fc2
"""
NAMES = {
    "timm": Rules(CONVOLUTIONS.replace("fc1", "fc1  like=*x*").replace("fc2", "fc2  like=*x*")),
    "torchvision": Rules("""
        stem.(conv|norm)                         features.0.(0|1)
        head.pooled.norm                         classifier.0
        head.classifier                          classifier.2
        stages.S.B.downsample.(norm|conv)        features.{2*S}.(0|1)
        stages.S.B.layers.depthwise.(conv|norm)  features.{2*S+1}.{B}.block.(0|2)
        stages.S.B.layers.(expand|project).conv  features.{2*S+1}.{B}.block.(3|5)  like=*x*
        stages.S.B.layers.scale.weight           features.{2*S+1}.{B}.layer_scale  like=*x1x1
    """),
}


@known_code
def initial_values(module: nn.Module) -> dict[str, Fill]:
    """Normal distribution, biases of 0. torchvision and timm truncate it at 100 standard deviations, with no effect."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
        return {}
    return {"weight": Normal(0.02), **({} if module.bias is None else {"bias": Constant(0)})}


def stem_of(width: int, overlap_channels: int | None, **layer: Any) -> nn.Module:
    """A convolution of 4x4 pixels, or two convolutions of 3x3 pixels with ``overlap_channels`` between them."""
    layer["activation"] = None
    if overlap_channels is None:
        return LazyConvNormActivation(width, 4, 4, padding=0, bias=True, **layer)
    without_norm: dict[str, Any] = {**layer, "norm_layer": None}
    first = LazyConvNormActivation(overlap_channels, 3, 2, bias=True, **without_norm)
    return NamedSequential(conv1=first, conv2=LazyConvNormActivation(width, 3, 2, bias=True, **layer))


def norm_of(*, norm_layer: Callable[[int], nn.Module] | None, **_: Any) -> nn.Module:
    return LazyNormActivation(norm_layer=norm_layer, activation=None)


def after_pooling(norm: bool, hidden_channels: int | None, **layer: Any) -> dict[str, nn.Module]:
    """The norm of the pooled features, and the hidden layer on vectors."""
    parts = {"pooled": norm_of(**layer)} if norm else {}
    return parts | ({} if hidden_channels is None else linear(hidden_channels, **layer))


@family
class ConvNeXt(Network):
    """A network of ConvNeXt blocks.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).

    Args:
        depths: Number of blocks of each stage.
        widths: Channels of each stage; every stage but the first has a stride of 2.
        kernel_size: Size of the depthwise kernels, in pixels; one number, or one for each spatial dimension.
        overlap_channels: Channels between the two 3x3 convolutions of a stem with overlapping patches; None for a stem
            of one 4x4 convolution, whose patches do not overlap.
        layer_scale: Initial value of the ``LayerScale`` at the end of a block's branch; None for no ``LayerScale``.
        hidden_norm: Called with the channels; returns the norm of the expanded channels of a block: ``ResponseNorm``,
            for ConvNeXt V2. None for no norm.
        norm_first: Whether the last norm precedes the pooling; otherwise it follows the pooling.
        hidden_channels: Channels of a layer between the pooling and the classifier; None for no layer.
        names: Rules for the names of the weights in ``"torchvision"`` and ``"timm"``.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        Liu et al. 2022, figure 4 and section 3, https://arxiv.org/abs/2201.03545.

    Example:
        >>> import torch
        >>> from lazytorch.models import ConvNeXt
        >>> model = ConvNeXt(10, depths=(1, 1, 2), widths=(16, 32, 64), kernel_size=5)
        >>> [info.reduction for info in model.stage_info]
        [4, 8, 16]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        **same_length("depths", "widths"),
        "depths": several(positive_whole, "(3, 3, 9, 3)"),
        "widths": several(positive_whole, "(96, 192, 384, 768)"),
        "kernel_size": odd,
        "overlap_channels": positive_whole,
        "layer_scale": number,
        "hidden_norm": norm_layer,
        "norm_first": flag,
    }
    defaults: ClassVar[NetworkOptions] = {"norm_layer": ChannelNorm, "activation": nn.GELU}

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        kernel_size: Sizes = 7,
        overlap_channels: int | None = None,
        layer_scale: float | None = 1e-6,
        hidden_norm: Callable[[int], nn.Module] | None = None,
        norm_first: bool = False,
        hidden_channels: int | None = None,
        names: Mapping[str, Rules] | None = NAMES,
        **options: Unpack[NetworkOptions],
    ) -> None:
        block = partial(LazyConvNeXtBlock, kernel_size=kernel_size, layer_scale=layer_scale, hidden_norm=hidden_norm)
        super().__init__(
            num_classes,
            stem=partial(stem_of, widths[0], overlap_channels),
            stem_reduction=4,
            stages=[
                [Row(block, width, depth, stride=1 if index == 0 else 2)]
                for index, (depth, width) in enumerate(zip(depths, widths, strict=True))
            ],
            final=norm_of if norm_first else None,
            hidden=partial(after_pooling, not norm_first, hidden_channels),
            initialize=InitFunction(initial_values),
            names=names,
            **(self.defaults | options),
        )


@rows_of(ConvNeXt)
def row(name: str, depths: tuple[int, ...], width: int, *options: dict[str, Any], both: bool = False) -> Any:
    """The columns are the number of blocks of each stage and the channels of the first stage."""
    widths = tuple(width << index for index in range(len(depths)))
    sources = ["torchvision", "timm"] if both else ["timm"]
    return sources, {"depths": depths, "widths": widths}, *options


# Models whose blocks have 1x1 convolutions in timm.
SMALL = {"names": {"timm": Rules(CONVOLUTIONS)}}
V2 = {"layer_scale": None, "hidden_norm": ResponseNorm}

convnext_atto = row("convnext_atto", (2, 2, 6, 2), 40, SMALL)
convnext_atto_ols = row("convnext_atto_ols", (2, 2, 6, 2), 40, SMALL, {"overlap_channels": 24})
convnext_femto = row("convnext_femto", (2, 2, 6, 2), 48, SMALL)
convnext_femto_ols = row("convnext_femto_ols", (2, 2, 6, 2), 48, SMALL, {"overlap_channels": 24})
convnext_pico = row("convnext_pico", (2, 2, 6, 2), 64, SMALL)
convnext_pico_ols = row("convnext_pico_ols", (2, 2, 6, 2), 64, SMALL, {"overlap_channels": 32})
convnext_nano = row("convnext_nano", (2, 2, 8, 2), 80, SMALL)
convnext_nano_ols = row("convnext_nano_ols", (2, 2, 8, 2), 80, SMALL, {"overlap_channels": 80})
convnext_tiny = row("convnext_tiny", (3, 3, 9, 3), 96, {"drop_path_rate": 0.1}, both=True)
convnext_tiny_hnf = row("convnext_tiny_hnf", (3, 3, 9, 3), 96, SMALL, {"norm_first": True})
convnext_small = row("convnext_small", (3, 3, 27, 3), 96, {"drop_path_rate": 0.4}, both=True)
convnext_base = row("convnext_base", (3, 3, 27, 3), 128, {"drop_path_rate": 0.5}, both=True)
convnext_large = row("convnext_large", (3, 3, 27, 3), 192, {"drop_path_rate": 0.5}, both=True)
convnext_large_mlp = row("convnext_large_mlp", (3, 3, 27, 3), 192, {"hidden_channels": 1536})
convnext_xlarge = row("convnext_xlarge", (3, 3, 27, 3), 256)
convnext_xxlarge = row("convnext_xxlarge", (3, 4, 30, 3), 384, {"norm_layer": partial(ChannelNorm, eps=1e-5)})
convnextv2_atto = row("convnextv2_atto", (2, 2, 6, 2), 40, SMALL, V2)
convnextv2_femto = row("convnextv2_femto", (2, 2, 6, 2), 48, SMALL, V2)
convnextv2_pico = row("convnextv2_pico", (2, 2, 6, 2), 64, SMALL, V2)
convnextv2_nano = row("convnextv2_nano", (2, 2, 8, 2), 80, SMALL, V2)
convnextv2_tiny = row("convnextv2_tiny", (3, 3, 9, 3), 96, V2)
convnextv2_small = row("convnextv2_small", (3, 3, 27, 3), 96, V2)
convnextv2_base = row("convnextv2_base", (3, 3, 27, 3), 128, V2)
convnextv2_large = row("convnextv2_large", (3, 3, 27, 3), 192, V2)
convnextv2_huge = row("convnextv2_huge", (3, 3, 27, 3), 352, V2)
