"""ResNet and its kin, by a few options that go together as one likes. Those that have a name are in ``resnets.py``.

He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385; the step of a
bottleneck is in its 3x3 convolution, where torchvision and timm have it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path

from torch import nn

from lazytorch._init.initialize import Constant, Fill, InitFunction, Normal
from lazytorch.layers import (
    BasicBlock,
    BottleneckBlock,
    ConvNormActivation,
    LazyAdaptiveAvgPool,
    LazyAvgPool,
    LazyBlurPool,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyMaxPool,
    SqueezeExcitation,
    projection,
)
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.models._weights.loading import load_weights
from lazytorch.models._weights.names import Rules
from lazytorch.models._weights.sources import Reference
from lazytorch.models.backbone import Backbone
from lazytorch.models.features import StageInfo
from lazytorch.models.layout import branch_rates, places

__all__ = ["ResNet"]

RELU = partial(nn.ReLU, inplace=True)

# The names in torchvision and timm, which agree where both have a module.
NAMES = Rules("""
    stem.conv.conv                      conv1
    stem.conv.norm                      bn1
    stem.conv1.conv                     conv1.0
    stem.conv1.norm                     conv1.1
    stem.conv2.conv                     conv1.3
    stem.conv2.norm                     conv1.4
    stem.conv3.conv                     conv1.6
    stem.conv3.norm                     bn1
    stem.pool.conv                      maxpool.0
    stem.pool.norm                      maxpool.1
    head.classifier                     fc
    # In a pooled shortcut the pool counts, also where there is none.
    stages.S.B.shortcut.conv            layer{S+1}.{B}.downsample.0
    stages.S.B.shortcut.norm            layer{S+1}.{B}.downsample.1
    stages.S.B.shortcut.project.conv    layer{S+1}.{B}.downsample.1
    stages.S.B.shortcut.project.norm    layer{S+1}.{B}.downsample.2
    stages.S.B.layers.se.reduce         layer{S+1}.{B}.se.fc1
    stages.S.B.layers.se.expand         layer{S+1}.{B}.se.fc2
    stages.S.B.layers.se.conv           layer{S+1}.{B}.se.conv
    stages.S.B.layers.*.conv            layer{S+1}.{B}.conv{C+1}
    stages.S.B.layers.*.norm            layer{S+1}.{B}.bn{C+1}
""")


def max_pool(channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """The paper's pooling of the stem."""
    return LazyMaxPool(3, stride=2, padding=1)


def average_pool(channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Averages in place of maxima."""
    return LazyAvgPool(2)


def blurred_max_pool(channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Zhang 2019, section 3.2: the maximum at every pixel, then a blur with the step."""
    return NamedSequential(max=LazyMaxPool(3, stride=1, padding=1), blur=LazyBlurPool())


def strided_convolution(channels: int, **layer: Callable[..., nn.Module] | None) -> nn.Module:
    """ResNet-RS: a convolution with the step in place of pooling."""
    return LazyConvNormActivation(channels, stride=2, **layer)  # pyright: ignore[reportArgumentType]


def ResNet(  # noqa: N802 - a network, though built by a function
    num_classes: int | None = None,
    *,
    depths: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    block: Callable[..., nn.Module] = LazyBottleneckBlock,
    expansion: int = 4,
    cardinality: int = 1,
    base_width: int = 64,
    stem: Sequence[int] = (64,),
    stem_pool: Callable[..., nn.Module] | None = max_pool,
    shortcut: Callable[..., nn.Module] = projection,
    se_layer: Callable[..., nn.Module] | None = None,
    anti_aliasing: Callable[..., nn.Module] | None = None,
    zero_init: bool = False,
    dropout: float = 0.0,
    drop_path_rate: float = 0.0,
    norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] | None = RELU,
    output_stride: int = 32,
    global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
    gradient_checkpointing: bool = False,
    weights: str | Path | Reference | None = None,
) -> Backbone:
    """A network of residual blocks, for whatever channels and rank its first input has.

    Args:
        num_classes: Number of classes; 0 for no classifier, which leaves pooled features; by default as many as
            ``weights`` have, and else 1000.
        depths: Blocks of each stage.
        widths: Channels of each stage, before ``expansion``; every stage but the first halves the sides.
        block: ``LazyBottleneckBlock``, ``LazyBasicBlock``, a ``functools.partial`` of one, or the like.
        expansion: Channels that a block produces over the width of its stage.
        cardinality: Groups of channels that a block's convolution keeps apart.
        base_width: Channels of each such group, in a stage of width 64.
        stem: Channels of the first convolutions: one of 7x7 pixels, or several of 3x3.
        stem_pool: Called with the stem's channels, ``norm_layer`` and ``activation``, for what follows the stem's
            convolutions with a step of 2 pixels; None for nothing.
        shortcut: What a block's input goes through where the identity does not fit; see the block.
        se_layer: What ends a block's branch; see the block.
        anti_aliasing: What takes a block's step in place of its convolution; see the block.
        zero_init: Whether the last norm of every branch starts with weight 0, and so every block as its shortcut.
        dropout: Share of the pooled features that training sets to zero.
        drop_path_rate: Share of the examples for which training leaves out the last branch; the others less, in
            proportion to their place.
        norm_layer: Called with the channels, after each convolution; None for no norms.
        activation: Called without arguments; None for no activations.
        output_stride: Input pixels along a side over those of the last stage: 8, 16 or 32. Where steps are left out,
            kernels are dilated.
        global_pool: Called with 1, the pixels that it leaves along each side; None for no pooling.
        gradient_checkpointing: Whether the gradient computes each block's activations again, instead of keeping them.
        weights: ``"torchvision"`` or ``"timm"`` for what that zoo recommends for the model of this name, also with a
            tag of its own (``"timm:a1_in1k"``); or a ``.safetensors``, ``.pt`` or ``.pth`` file with names of either
            zoo or of this one. The stem is fitted to other input channels.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``

    Raises:
        ValueError: If a number is out of its range, or there are no such weights.
        RuntimeError: If the weights do not fit the model.

    Source:
        He et al. 2015, table 1, https://arxiv.org/abs/1512.03385; for the others see ``lazytorch.models.resnets``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyBasicBlock
        >>> from lazytorch.models import ResNet
        >>> model = ResNet(10, depths=(1, 1, 1, 1), block=LazyBasicBlock, expansion=1)
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """
    if len(depths) != len(widths):
        raise ValueError(f"ResNet: depths and widths must be as many, got {len(depths)} and {len(widths)}.")
    if not isinstance(stem, Sequence) or not stem:
        raise ValueError(f"ResNet: stem must be the channels of one convolution or of several, got {stem!r}.")
    layer = {"norm_layer": norm_layer, "activation": activation}
    if len(stem) == 1:
        convolutions: dict[str, nn.Module] = {"conv": LazyConvNormActivation(stem[0], 7, 2, **layer)}
    else:
        convolutions = {
            f"conv{index + 1}": LazyConvNormActivation(channels, stride=2 if index == 0 else 1, **layer)
            for index, channels in enumerate(stem)
        }
    stem_info = StageInfo(stem[-1], 2, f"stem.{[*convolutions][-1]}")
    if stem_pool is not None:
        convolutions["pool"] = stem_pool(stem[-1], **layer)
    strides = [1] + [2] * (len(depths) - 1)
    stages, reductions = places(
        strides,
        depths,
        stem_reduction=2 if stem_pool is None else 4,
        output_stride=output_stride,
    )
    rates = iter(branch_rates(drop_path_rate, sum(depths), last=sum(depths) - 1))
    channels = [width * expansion for width in widths]
    backbone = Backbone(
        stem=NamedSequential(**convolutions),
        stages=[
            [
                block(
                    int(width * base_width / 64) * cardinality,
                    width * expansion,
                    groups=cardinality,
                    shortcut=shortcut,
                    se_layer=se_layer,
                    anti_aliasing=anti_aliasing,
                    drop_path_rate=next(rates),
                    **place._asdict(),
                    **layer,
                )
                for place in stage
            ]
            for width, stage in zip(widths, stages, strict=True)
        ],
        channels=channels,
        reductions=reductions,
        strides=strides,
        stem_info=None if stem_pool is None else stem_info,
        num_features=channels[-1],
        num_classes=num_classes,
        dropout=dropout,
        global_pool=global_pool,
        gradient_checkpointing=gradient_checkpointing,
        initialize=InitFunction(initial_values, zero_init=zero_init),
        reference_names=dict.fromkeys(("torchvision", "timm"), NAMES),
    )
    return load_weights(backbone, weights, num_classes)


def initial_values(module: nn.Module, *, zero_init: bool) -> dict[str, Fill]:
    """He normal by outputs for convolutions, as both zoos do: He et al. 2015, https://arxiv.org/abs/1502.01852.

    With ``zero_init``, weight 0 for the last norm of every branch.
    """
    fills: dict[str, Fill] = {}
    if isinstance(module, (ConvNormActivation, SqueezeExcitation)):
        for name in ("conv",) if isinstance(module, ConvNormActivation) else ("reduce", "expand"):
            weight = module.get_parameter(f"{name}.weight")
            fills[f"{name}.weight"] = Normal(sqrt(2 / (weight.size(0) * weight[0, 0].numel())))
    if zero_init and isinstance(module, (BasicBlock, BottleneckBlock)):
        *_, last = (name for name, each in module.layers.named_children() if isinstance(each, ConvNormActivation))
        weight = f"layers.{last}.norm.weight"
        fills |= {name: Constant(0) for name, _ in module.named_parameters() if name == weight}
    return fills
