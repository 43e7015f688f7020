"""What type checkers, and so an editor, know of calls; ``test_typing`` has pyright and mypy read this file."""

# Lines that end with "# error" must be errors, and no other line may be one; mypy does not know resnet50d's parameters.

from typing import assert_type

from torch import Tensor, nn

from lazytorch import lazify, materialize
from lazytorch.layers import (
    ConvNormActivation,
    LazyAdaptiveAvgPool,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyExpansionConv,
    LazyExpansionPointwiseConv,
    LazyInvertedBottleneck,
    LazyLayerScale,
    LazyLinear,
    LazyMaxPool,
    LazyReductionConv,
)
from lazytorch.models import (
    Backbone,
    Features,
    MobileNet,
    ResNet,
    efficientnet_b0,
    get_model,
    mobilenet_v2,
    mobilenetv4_conv_small,
    resnet50d,
)


class Own(nn.Module):
    """A module of a user's."""

    def __init__(self, dim: int, width: int = 4, *, deep: bool = False) -> None:
        super().__init__()


class Second(nn.Module):
    """A module whose first parameter is another one."""

    def __init__(self, heads: int, dim: int, channels: int = 4) -> None:
        super().__init__()


def builders(x: Tensor) -> None:
    resnet: ResNet = resnet50d(10, output_stride=8, weights="timm")
    assert_type(resnet(x), Tensor)
    assert_type(mobilenet_v2(num_classes=10, dropout=0.1), MobileNet)
    assert_type(efficientnet_b0(), MobileNet)
    assert_type(get_model("resnet18"), Backbone)
    assert_type(get_model("resnet18", features_only=True, out_indices=(1, 2)), Features)
    assert_type(materialize(mobilenetv4_conv_small(), (1, 3, 64, 64)), MobileNet)
    assert_type(get_model("resnet18", features_only=True)(x), list[Tensor])
    resnet50d(num_clases=10)  # error
    efficientnet_b0(num_clases=10)  # error
    mobilenet_v2(10, 3)  # error
    efficientnet_b0(dropout="high")  # error


def lazy_layers(block: type[LazyBottleneckBlock]) -> None:
    assert_type(LazyConvNormActivation(8, kernel_size=3, norm_layer=nn.InstanceNorm2d), LazyConvNormActivation)
    eager: ConvNormActivation = LazyConvNormActivation(8)
    materialize(eager, (1, 3, 8, 8))
    block(64, 256, stride=2)
    LazyInvertedBottleneck(16, stride=2, expansion_ratio=6)
    LazyExpansionPointwiseConv(expansion_ratio=2.0, bias=True)
    LazyLinear(10, bias=False)
    LazyLayerScale(0.1)
    LazyConvNormActivation(8, kernal_size=3)  # error
    LazyConvNormActivation("16")  # error
    LazyConvNormActivation(3, 8, in_channels=3)  # error
    LazyInvertedBottleneck()  # error
    block(64, 256, strid=2)  # error
    LazyLinear(in_features=3)  # error
    LazyLayerScale("high")  # error
    LazyMaxPool(3, stride=(1, 2, 2), padding=1)
    LazyAdaptiveAvgPool((None, 2), spatial_dims=2)
    LazyExpansionConv(2, kernel_size=3, padding="same")
    LazyReductionConv(4, 1, bias=False)
    LazyMaxPool(3, strid=2)  # error
    LazyAdaptiveAvgPool("1")  # error
    LazyExpansionConv(2)  # error
    LazyReductionConv(4, 1, biass=False)  # error


def lazified_classes() -> None:
    lazy_conv = lazify(nn.Conv2d, in_channels=1)
    assert_type(lazy_conv(8, kernel_size=3), nn.Conv2d)
    assert_type(lazify(Own, dim=1)(8, deep=True), Own)
    assert_type(lazify(Own, width=1)(8), Own)
    assert_type(lazify(Second, dim=1)(heads=8, channels=2), Second)
    assert_type(lazify(Own, dim=1, width=1)(deep=True), Own)
    lazify(Second, channels=1, dim=-1)(8)
    lazify(nn.LSTM, input_size=-1)(8, num_layers=2)
    lazify(nn.GroupNorm, num_channels=1)(num_groups=4)
    lazify(nn.BatchNorm2d, num_features=lambda inputs: inputs[0].size(1))(eps=1e-3)
    lazify(nn.Conv2d, in_channels=1)(8, kernal_size=3)  # error
    lazy_conv("8", 3)  # error
    lazify(Own, dim=1)(8, depp=True)  # error
