"""Kernels, strides and dilations of one number for each dimension, as volumes of thick slices need them."""

from functools import partial

import pytest
import torch

from lazytorch import is_lazy, materialize, summary
from lazytorch.layers import (
    BlurPool,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyDepthSepConv,
    LazyDepthwiseConv,
    LazyFusedInvertedBottleneck,
    LazyInvertedBottleneck,
    LazyUniversalInvertedBottleneck,
    average_blur,
    pooled_projection,
    projection,
)
from lazytorch.models import Features, MobileNet, Network, ResNet, Row, Stage

FLAT = (1, 2, 2)
VOLUME = (2, 3, 8, 64, 64)
TABLE = [
    Stage(8, kernel_size=(1, 3, 3)),
    Stage(16, 2, FLAT, (3, 5, 5), 3),
    Stage(24, 2, 2, expansion_ratio=3),
    Stage(32, 2, FLAT, expansion_ratio=3),
]
LAYERS = {
    "convolution": partial(LazyConvNormActivation, 8),
    "depthwise": LazyDepthwiseConv,
    "depthwise separable": partial(LazyDepthSepConv, 8),
    "basic": partial(LazyBasicBlock, 4, 8),
    "bottleneck": partial(LazyBottleneckBlock, 4, 8),
    "bottleneck, pooled": partial(LazyBottleneckBlock, 4, 8, shortcut=pooled_projection),
    "bottleneck, blurred": partial(LazyBottleneckBlock, 4, 8, anti_aliasing=BlurPool),
    "basic, averaged": partial(LazyBasicBlock, 4, 8, anti_aliasing=average_blur),
    "inverted": partial(LazyInvertedBottleneck, 8, expansion_ratio=2),
    "fused": partial(LazyFusedInvertedBottleneck, 8, expansion_ratio=2),
    "universal": partial(LazyUniversalInvertedBottleneck, 8, expansion_ratio=2),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("options", [{"stride": 1}, {"stride": 2}, {"dilation": 2}, {"kernel_size": 5, "stride": 2}])
def test_equal_numbers_for_all_dimensions_are_as_one(make, options):
    layers, x = [], torch.randn(2, 6, 17, 18)
    for values in (options, {name: (value, value) for name, value in options.items()}):
        torch.manual_seed(0)
        layers.append(materialize(make(**values), x.shape).eval())
    torch.testing.assert_close(layers[1](x), layers[0](x))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_each_dimension_has_its_own_stride(make):
    x = torch.randn(2, 6, 5, 16, 17)
    layer = make(stride=FLAT, kernel_size=(1, 3, 3))
    assert layer(x).shape[2:] == (5, 8, 9)
    slices = torch.stack([layer.eval()(x[:, :, [index]])[:, :, 0] for index in range(5)], dim=2)
    torch.testing.assert_close(layer(x), slices)  # neither kernels nor blurs connect the slices


@pytest.mark.parametrize("shortcut", [projection, pooled_projection])
def test_a_dilated_dimension_beside_a_strided_one(shortcut):
    block = LazyBottleneckBlock(4, 8, stride=(2, 1), dilation=(1, 2), input_dilation=(1, 1), shortcut=shortcut)
    assert block(torch.zeros(1, 6, 16, 16)).shape == (1, 8, 8, 16)


def test_kernels_before_the_expansion_and_in_the_shortcut():
    x = torch.randn(2, 6, 5, 16, 17)
    flat = (1, 3, 3)
    for layer in (
        LazyUniversalInvertedBottleneck(8, flat, FLAT, 2, start_kernel_size=flat),
        LazyUniversalInvertedBottleneck(8, 0, FLAT, 2, start_kernel_size=flat),
        LazyBottleneckBlock(4, 8, flat, FLAT, shortcut=partial(projection, kernel_size=flat)),
    ):
        assert layer(x).shape == (2, 8, 5, 8, 9)


def network(**options):
    return MobileNet(5, stages=TABLE, stem_channels=8, stem_stride=FLAT, stem_kernel_size=(1, 3, 3), **options)


@pytest.mark.parametrize("options", [{}, {"output_stride": 8}, {"anti_aliasing": BlurPool}])
def test_feature_maps_have_a_reduction_for_each_dimension(options):
    model = network(**options).eval()
    expected = [info.reduction for info in model.stage_info]
    wide = 8 if options.get("output_stride") else 16
    assert expected == [(1, 2, 2), (1, 4, 4), (2, 8, 8), (2, wide, wide)]
    assert model.feature_info.reduction()[0] == (1, 2, 2)
    features = Features(model)
    maps = features(torch.zeros(VOLUME))
    for info, each in zip(features.feature_info, maps, strict=True):
        assert each.shape[1] == info.channels
        assert each.shape[2:] == tuple(size // step for size, step in zip(VOLUME[2:], info.reduction, strict=True))


def test_a_network_is_summarized_loaded_and_trained():
    model = network()
    assert summary(model, VOLUME).layers[1].output_shapes == [(2, 8, 8, 32, 32)]
    model(torch.zeros(VOLUME)).sum().backward()
    again = network()
    again.load_state_dict(model.state_dict())
    assert not is_lazy(again)
    x = torch.randn(VOLUME)
    torch.testing.assert_close(again.eval()(x), model.eval()(x))


def test_rows_of_a_network():
    rows = [[Row(partial(LazyBottleneckBlock, mid_channels=4, kernel_size=(1, 3, 3)), 8, 2, stride=FLAT)], [
        Row(partial(LazyBottleneckBlock, mid_channels=4), 16, stride=2)
    ]]  # fmt: skip
    model = Network(3, stem=partial(LazyConvNormActivation, 8), stem_reduction=1, stages=rows)
    assert [info.reduction for info in model.stage_info] == [(1, 2, 2), (2, 4, 4)]
    assert model.forward_features(torch.zeros(1, 1, 4, 16, 16)).shape == (1, 16, 2, 4, 4)


@pytest.mark.parametrize("stem", [(8,), (4, 8)])
def test_a_resnet(stem):
    options = {"depths": (1, 1, 1), "widths": (4, 8, 8), "strides": (1, FLAT, 2), "stem": stem}
    model = ResNet(3, **options, stem_kernel_size=(1, 7, 7), stem_stride=FLAT, stem_pool=None)
    assert model.feature_info.reduction() == [(1, 2, 2), (1, 4, 4), (2, 8, 8)]
    maps = model.forward_intermediates(torch.zeros(VOLUME), intermediates_only=True)
    assert [each.shape[2:] for each in maps] == [(8, 32, 32), (8, 16, 16), (4, 8, 8)]
    if len(stem) == 1:
        assert model.stem.conv.kernel_size == (1, 7, 7)
    dilated = ResNet(3, **options, stem_stride=FLAT, output_stride=8)
    assert [info.reduction for info in dilated.stage_info] == [(2, 4, 4), (2, 8, 8), (4, 8, 8)]
    unpooled = ResNet(3, **options, stem_stride=(1, 4, 4), stem_pool=None, output_stride=8)
    assert [info.reduction for info in unpooled.stage_info] == [(1, 4, 4), (1, 8, 8), (2, 8, 8)]
    with pytest.raises(ValueError, match="depths and strides must have the same length, got 3 and 2"):
        ResNet(3, **options | {"strides": (1, 2)})


def test_numbers_for_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="strides must be for one number of dimensions"):
        MobileNet(5, stages=[Stage(8, stride=(1, 2)), Stage(8, stride=FLAT)])
    with pytest.raises(ValueError, match=r"kernel_size must be one number or 2 of them, got \(1, 3, 3\)"):
        network()(torch.zeros(1, 3, 64, 64))
