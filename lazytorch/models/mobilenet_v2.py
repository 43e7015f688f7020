"""MobileNetV2: Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.

The table is the paper's table 2. Equal to torchvision's mobilenet_v2 in parameters, outputs, gradients and BatchNorm
buffers; initial weights are torchvision's as well, the paper names none. timm calls the same network mobilenetv2_100.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from lazytorch.layers import LazyAdaptiveAvgPool, LazyConvNormActivation, LazyInvertedBottleneck, LazyPointwiseConv
from lazytorch.models.backbone import Backbone, places
from lazytorch.models.registry import model
from lazytorch.models.sources import Reference
from lazytorch.models.weights import load_weights

__all__ = ["MOBILENET_V2", "MobileNetV2", "Stage", "mobilenet_v2"]


class Stage(NamedTuple):
    """A row of table 2: ``repeats`` inverted bottlenecks, the first of them with ``stride``."""

    expansion_ratio: int
    out_channels: int
    repeats: int
    stride: int


STEM_CHANNELS = 32
MOBILENET_V2 = (
    Stage(expansion_ratio=1, out_channels=16, repeats=1, stride=1),
    Stage(expansion_ratio=6, out_channels=24, repeats=2, stride=2),
    Stage(expansion_ratio=6, out_channels=32, repeats=3, stride=2),
    Stage(expansion_ratio=6, out_channels=64, repeats=4, stride=2),
    Stage(expansion_ratio=6, out_channels=96, repeats=3, stride=1),
    Stage(expansion_ratio=6, out_channels=160, repeats=3, stride=2),
    Stage(expansion_ratio=6, out_channels=320, repeats=1, stride=1),
)
NUM_FEATURES = 1280
RELU6 = partial(nn.ReLU6, inplace=True)


def MobileNetV2(  # noqa: N802 - a network, though built by a function
    num_classes: int | None = None,
    *,
    stages: Sequence[Stage] = MOBILENET_V2,
    dropout: float = 0.2,
    drop_path_rate: float = 0.0,
    norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] | None = RELU6,
    output_stride: int = 32,
    global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
    gradient_checkpointing: bool = False,
    weights: str | Path | Reference | None = None,
) -> Backbone:
    """MobileNetV2, for whatever channels and rank its first input has.

    Args:
        num_classes: Classes to tell apart; 0 for no classifier, which leaves pooled features; by default as many as
            ``weights`` have, and else 1000.
        stages: The rows of the table.
        dropout: Share of the pooled features that training sets to zero.
        drop_path_rate: Share of the examples for which training would leave out the branch after the last; the others
            less, in proportion to their place.
        norm_layer: Called with the channels, after each convolution; None for no norms.
        activation: Called without arguments, after each convolution but the projections; None for no activations.
        output_stride: Input pixels along a side over those of the last stage: 8, 16 or 32. Where steps are left out,
            kernels are dilated.
        global_pool: Called with 1, the pixels that it leaves along each side; None for no pooling.
        gradient_checkpointing: Whether training computes each block's activations again instead of keeping them.
        weights: ``"torchvision"`` or ``"timm"`` for what that zoo recommends for the model of this name, also with a
            tag of its own; or a ``.safetensors``, ``.pt`` or ``.pth`` file with names of either zoo or of this one. The
            stem is fitted to other input channels.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``

    Raises:
        ValueError: If a number is out of its range, or there are no such weights.
        RuntimeError: If the weights do not fit the model.

    Source:
        Sandler et al. 2018, table 2, https://arxiv.org/abs/1801.04381.

    Example:
        >>> import torch, lazytorch
        >>> model = lazytorch.models.mobilenet_v2(num_classes=10)
        >>> model(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    layer = {"norm_layer": norm_layer, "activation": activation}
    repeats = [row.repeats for row in stages]
    places_of, reductions = places(
        [row.stride for row in stages], repeats, stem_reduction=2, output_stride=output_stride
    )
    rates = iter(drop_path_rate * index / sum(repeats) for index in range(sum(repeats)))
    backbone = Backbone(
        stem=LazyConvNormActivation(STEM_CHANNELS, stride=2, **layer),
        stages=[
            [
                LazyInvertedBottleneck(
                    row.out_channels,
                    stride=place.stride,
                    expansion_ratio=row.expansion_ratio,
                    dilation=place.input_dilation,
                    drop_path_rate=next(rates),
                    **layer,
                )
                for place in stage
            ]
            for row, stage in zip(stages, places_of, strict=True)
        ],
        final=LazyPointwiseConv(NUM_FEATURES, **layer),
        channels=[row.out_channels for row in stages],
        reductions=reductions,
        num_features=NUM_FEATURES,
        num_classes=num_classes,
        dropout=dropout,
        global_pool=global_pool,
        gradient_checkpointing=gradient_checkpointing,
        initialize=initialize,
        reference_names={"torchvision": names_in_torchvision(repeats), "timm": NAMES_IN_TIMM},
    )
    return load_weights(backbone, weights, num_classes)


mobilenet_v2 = model("mobilenet_v2", MobileNetV2, ["torchvision"])

NAMES_IN_TIMM = (
    (r"^stem\.conv\.", "conv_stem."),
    (r"^stem\.norm\.", "bn1."),
    (r"^final\.conv\.", "conv_head."),
    (r"^final\.norm\.", "bn2."),
    (r"^head\.classifier\.", "classifier."),
    (r"^stages\.", "blocks."),
    # where nothing is expanded, timm's block is another one, and counts from the depthwise convolution
    (r"^blocks\.0\.(\d+)\.layers\.depthwise\.conv\.", r"blocks.0.\1.conv_dw."),
    (r"^blocks\.0\.(\d+)\.layers\.depthwise\.norm\.", r"blocks.0.\1.bn1."),
    (r"^blocks\.0\.(\d+)\.layers\.project\.conv\.", r"blocks.0.\1.conv_pw."),
    (r"^blocks\.0\.(\d+)\.layers\.project\.norm\.", r"blocks.0.\1.bn2."),
    (r"\.layers\.expand\.conv\.", ".conv_pw."),
    (r"\.layers\.expand\.norm\.", ".bn1."),
    (r"\.layers\.depthwise\.conv\.", ".conv_dw."),
    (r"\.layers\.depthwise\.norm\.", ".bn2."),
    (r"\.layers\.project\.conv\.", ".conv_pwl."),
    (r"\.layers\.project\.norm\.", ".bn3."),
)


def names_in_torchvision(repeats: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """Blocks are counted through there, and their layers from the first one present."""
    blocks = [(stage, repeat) for stage, count in enumerate(repeats) for repeat in range(count)]
    return (
        *((rf"^stages\.{stage}\.{repeat}\.", f"features.{index}.") for index, (stage, repeat) in enumerate(blocks, 1)),
        (r"^stem\.conv\.", "features.0.0."),
        (r"^stem\.norm\.", "features.0.1."),
        (r"^final\.conv\.", f"features.{len(blocks) + 1}.0."),
        (r"^final\.norm\.", f"features.{len(blocks) + 1}.1."),
        (r"^head\.classifier\.", "classifier.1."),
        (r"^features\.1\.layers\.depthwise\.conv\.", "features.1.conv.0.0."),
        (r"^features\.1\.layers\.depthwise\.norm\.", "features.1.conv.0.1."),
        (r"^features\.1\.layers\.project\.conv\.", "features.1.conv.1."),
        (r"^features\.1\.layers\.project\.norm\.", "features.1.conv.2."),
        (r"\.layers\.expand\.conv\.", ".conv.0.0."),
        (r"\.layers\.expand\.norm\.", ".conv.0.1."),
        (r"\.layers\.depthwise\.conv\.", ".conv.1.0."),
        (r"\.layers\.depthwise\.norm\.", ".conv.1.1."),
        (r"\.layers\.project\.conv\.", ".conv.2."),
        (r"\.layers\.project\.norm\.", ".conv.3."),
    )


def initialize(module: nn.Module) -> None:
    """Draw weights as torchvision does: He normal by outputs for convolutions, a small normal for the classifier."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
