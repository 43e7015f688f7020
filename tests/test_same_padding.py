"""Convolutions with TensorFlow's padding, and networks made with them."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

import lazytorch
from lazytorch import materialize
from lazytorch.layers import (
    DepthSepConv,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyFusedInvertedBottleneck,
    LazyInvertedBottleneck,
    LazyUniversalInvertedBottleneck,
    SameConv1d,
    SameConv2d,
    SameConv3d,
    of_rank,
    pooled_projection,
    projection,
)
from lazytorch.models import get_model, optimize_for_inference
from scripts.parity import randomize


@pytest.mark.parametrize("size", [5, 6, 7, 8, 16, 17, (9, 12)])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize(
    ("kernel_size", "dilation"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1), ((3, 2), (1, 2))]
)
def test_equals_timms(size, stride, kernel_size, dilation):
    options = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    ours, theirs = SameConv2d(3, 4, **options), Conv2dSame(3, 4, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_signals_and_volumes_are_padded_as_images_are(kernel_size, stride):
    image = SameConv2d(3, 4, (kernel_size, 1), (stride, 1))
    signal = SameConv1d(3, 4, kernel_size, stride)
    volume = SameConv3d(3, 4, (1, kernel_size, 1), (1, stride, 1))
    signal.load_state_dict({"weight": image.weight[..., 0], "bias": image.bias})
    volume.load_state_dict({"weight": image.weight[:, :, None], "bias": image.bias})
    for size in (8, 9, 10, 11):
        x = torch.randn(2, 3, size)
        expected = image(x[..., None])[..., 0]
        assert expected.shape[-1] == -(-size // stride)
        torch.testing.assert_close(signal(x), expected)
        torch.testing.assert_close(volume(x[:, :, None, :, None])[:, :, 0, :, 0], expected)


def test_the_padding_is_fixed_where_the_size_does_not_matter():
    assert SameConv2d(3, 4, 5).padding == (2, 2)
    assert SameConv2d(3, 4, 5, dilation=2).padding == (4, 4)
    assert SameConv2d(3, 4, 5, stride=2).padding == (0, 0)
    assert SameConv2d(3, 4, 4).padding == (0, 0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_is_the_convolution_of_every_layer(dims):
    x = torch.randn(2, 6, *(9,) * dims)
    expected = of_rank(SameConv2d, dims)
    makers = [
        lambda **options: LazyConvNormActivation(4, stride=2, **options),
        lambda **options: LazyBasicBlock(4, 8, stride=2, **options),
        lambda **options: LazyBottleneckBlock(4, 8, stride=2, **options),
        lambda **options: LazyInvertedBottleneck(8, stride=2, expansion_ratio=2, **options),
        lambda **options: LazyFusedInvertedBottleneck(8, stride=2, expansion_ratio=2, **options),
        lambda **options: LazyUniversalInvertedBottleneck(8, stride=2, start_kernel_size=3, **options),
        lambda **options: DepthSepConv(6, 8, stride=2, spatial_dims=dims, **options),
        lambda **options: projection(6, 8, 2, spatial_dims=dims, **options),
        lambda **options: pooled_projection(6, 8, 2, spatial_dims=dims, **options),
    ]
    for make in makers:
        layer = make(conv_layer=SameConv2d)
        assert layer(x).shape[2:] == (5,) * dims
        convolutions = [each for each in layer.modules() if isinstance(each, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
        assert {type(each) for each in convolutions} == {expected}


class Doubled2d(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_class_without_siblings_is_used_as_it_is():
    layer = LazyConvNormActivation(4, conv_layer=Doubled2d)
    assert layer(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)
    assert type(layer.conv) is Doubled2d
    with pytest.raises(TypeError, match="conv_layer must be a class or function that makes it, got Conv2d"):
        materialize(LazyConvNormActivation(4, conv_layer=nn.Conv2d(1, 1, 1)), (1, 3, 8, 8))


@pytest.mark.parametrize("shape", [(2, 3, 64, 65), (2, 5, 97), (1, 1, 33, 32, 31)])
def test_networks_with_it_are_folded_and_exported(shape):
    model = materialize(get_model("tf_mobilenetv3_small_minimal_100", num_classes=4), shape).eval()
    randomize(model)
    x = torch.randn(shape)
    with torch.no_grad():
        expected = model(x)
        folded = optimize_for_inference(model)
        assert not any(isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for each in folded.modules())
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected)


def test_initialization_is_that_of_the_plain_convolution():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        same = materialize(get_model("resnet10t", num_classes=2, conv_layer=SameConv2d), (1, 3, 64, 64))
        torch.manual_seed(0)
        plain = materialize(get_model("resnet10t", num_classes=2), (1, 3, 64, 64))
    assert same.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in same.state_dict().items())


def test_default_initialization_depends_on_the_seed_of_the_layer_alone():
    layers = []
    for conv_layer in (SameConv2d, nn.Conv2d):
        torch.manual_seed(0)
        layer = LazyConvNormActivation(4, stride=2, conv_layer=conv_layer)
        state = torch.get_rng_state()
        layers.append(materialize(layer, (1, 3, 8, 8)))
        assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(layers[0].conv.weight, layers[1].conv.weight, rtol=0, atol=0)


def test_summary_counts_its_multiply_adds():
    model = get_model("tf_efficientnet_b0")
    table = lazytorch.summary(model, (1, 3, 224, 224))
    assert table.macs == lazytorch.summary(get_model("efficientnet_b0"), (1, 3, 224, 224)).macs
