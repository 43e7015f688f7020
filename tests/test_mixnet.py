"""MixNet: mixed convolutions of any number of dimensions; weights, feature maps and options that are timm's."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
from timm.layers import MixedConv2d
from torch import nn
from torch.nn import functional as F

from lazytorch import materialize
from lazytorch.layers import (
    InvertedBottleneck,
    LazyConvNormActivation,
    LazyInvertedBottleneck,
    LazyMixedConv,
    MixedConv,
    SameConv1d,
    SameConv2d,
)
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    MobileNet,
    Stage,
    get_model,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
    resnet10t,
)
from lazytorch.models.mixnet import mix, mixed
from scripts import parity
from tests.families import assert_checkpointing_computes_the_same, assert_weights_go_there_and_back

TABLE = [Stage(8), mix(16, 2, 2, 3, (2, 3, 2), 2), mix(24, 1, 2, 6, (1, 5, 1), 4), [mix(32, 1, 2, 2, (2, 1, 2))]]
X = torch.randn(2, 3, 64, 64)


def small(**options):
    model = materialize(MobileNet(**{"num_classes": 3, "stages": TABLE, "stem_channels": 8, **options}), X.shape)
    parity.randomize(model)
    return model.eval()


@pytest.mark.parametrize(("sizes", "stride"), [([3, 5], 1), ([3, 5, 7], 2), ([3, 5, 7, 9], 1), ([1, 1], 1)])
@pytest.mark.parametrize("channels", [8, 11])
@pytest.mark.parametrize(("conv_layer", "padding"), [(nn.Conv2d, ""), (SameConv2d, "same")])
def test_the_convolution_equals_timms(sizes, stride, channels, conv_layer, padding):
    depthwise = sizes[0] > 1
    theirs = MixedConv2d(channels, channels, sizes, stride, padding, depthwise=depthwise, bias=False)
    groups = channels if depthwise else 1
    options = {"groups": groups, "bias": False, "parts": len(sizes), "conv_layer": conv_layer}
    ours = MixedConv(channels, channels, sizes[0], stride, sizes[0] // 2, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, channels, 13, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_parts_of_a_kernel_for_each_dimension():
    conv = LazyMixedConv(8, (1, 3, 3), (1, 2, 2), (0, 1, 1), dilation=(1, 1, 2), parts=2)
    assert conv(torch.zeros(1, 6, 4, 9, 16)).shape == (1, 8, 4, 5, 7)
    first, second = conv.children()
    assert (first.kernel_size, first.padding) == ((1, 3, 3), (0, 1, 1))
    assert (second.kernel_size, second.padding) == ((1, 5, 5), (0, 2, 3))
    assert (second.in_channels, second.out_channels, second.groups) == (3, 4, 1)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_parts_see_their_own_channels_alone(dims):
    conv = LazyMixedConv(6, 3, padding=1, groups=6, bias=False, parts=2)
    x = torch.zeros(1, 6, *[9] * dims)
    x[(0, slice(None), *[4] * dims)] = 1
    conv(x)
    for part in conv.children():
        nn.init.constant_(part.weight, 1)
    assert [int(each.sum()) for each in conv(x)[0]] == [3**dims] * 3 + [5**dims] * 3


def test_padding_by_name():
    x = torch.randn(1, 4, 16)
    same = MixedConv(4, 4, 3, padding="same", dilation=2, spatial_dims=1)
    assert same(x).shape == x.shape
    valid = MixedConv(4, 4, 3, padding="valid", spatial_dims=1)
    assert valid(x).shape == (1, 4, 14)
    expected = F.conv1d(x[:, 2:], valid.get_parameter("1.weight"), valid.get_parameter("1.bias"), padding=1)
    torch.testing.assert_close(valid(x)[:, 2:], expected)


def test_a_mixed_convolution_in_other_networks():
    layer = LazyConvNormActivation(8, conv_layer=partial(MixedConv, parts=3, conv_layer=SameConv2d))
    assert layer(torch.zeros(2, 5, 16)).shape == (2, 8, 16)
    assert [type(each) for each in layer.conv.children()] == [SameConv1d] * 3
    model = materialize(resnet10t(3, conv_layer=partial(MixedConv, parts=2)), X.shape)
    assert model.stages[0][0].layers.conv1.conv.get_submodule("1").kernel_size == (5, 5)
    assert model(X).shape == (2, 3)
    block = LazyInvertedBottleneck(8, expansion_ratio=2, conv_layers={"depthwise": MixedConv})
    block(torch.zeros(2, 8, 16, 16))
    kinds = [type(block.layers.get_submodule(part).conv) for part in ("expand", "depthwise", "project")]
    assert kinds == [nn.Conv2d, MixedConv, nn.Conv2d]


@pytest.mark.parametrize("name", ["mixnet_s", "mixnet_l", "tf_mixnet_m"])
def test_weights_go_to_timm_and_back(name):
    assert_weights_go_there_and_back(name, "timm")


def test_a_file_of_weights_fits_another_input(tmp_path):
    theirs = timm.create_model("mixnet_s", num_classes=5).eval()
    parity.randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    gray = get_model("mixnet_s", weights=tmp_path / "weights.pth").eval()
    x = X[:, :1]
    torch.testing.assert_close(gray(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("mixnet_s", {"output_stride": 8}, {"output_stride": 8}),
        ("tf_mixnet_s", {"output_stride": 16}, {"output_stride": 16}),
        ("mixnet_s", {"drop_path_rate": 0.3, "dropout": 0.3}, {"drop_path_rate": 0.3, "drop_rate": 0.3}),
    ],
    ids=str,
)
def test_options_equal_timms(name, ours, theirs):
    theirs = timm.create_model(name, num_classes=5, **theirs)
    model = get_model(name, num_classes=5, **ours)
    parity.randomize(theirs)
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    found = parity.difference(model, theirs, "timm", 75)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("conv_layer", [nn.Conv2d, SameConv2d])
def test_takes_any_channels_and_number_of_dimensions(shape, conv_layer):
    model = MobileNet(4, stages=TABLE, conv_layer=conv_layer).eval()
    assert runs_known_code(survey(model))
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    parts = list(model.stages[2][0].layers.depthwise.conv.children())
    assert [part.kernel_size for part in parts] == [(size,) * (len(shape) - 2) for size in (3, 5, 7, 9, 11)]
    assert all(type(part).__name__ == f"{conv_layer.__name__[:-2]}{len(shape) - 2}d" for part in parts)


def test_frozen_stages_and_groups_of_parameters():
    model = small().train()
    model.freeze_stages(2)
    model(X).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    assert trained == {"stages.2", "stages.3", "head.classifier"}
    model, theirs = materialize(get_model("mixnet_s"), X.shape), timm.create_model("mixnet_s")
    scales = []
    for network in (model, theirs):
        groups = timm.optim.param_groups_layer_decay(network, layer_decay=0.5)
        found = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
        scales.append({key: found[id(each)] for key, each in network.named_parameters()})
    there = dict(zip(model.state_dict(), reference_state_dict(model, "timm"), strict=True))
    assert {there[key]: value for key, value in scales[0].items()} == scales[1]


def test_gradient_checkpointing_computes_the_same():
    assert_checkpointing_computes_the_same(small(), X)


def test_export_and_optimization_keep_the_outputs():
    model = small()
    expected = model(X)
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(X), expected)
    optimized = optimize_for_inference(model)
    block = optimized.stages[1][0].layers
    assert isinstance(block.depthwise.norm, nn.BatchNorm2d)  # one after a mixed convolution stays
    assert not hasattr(optimized.stages[2][0].layers.expand, "norm")
    torch.testing.assert_close(optimized(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LazyMixedConv(8, 3, parts=0), "MixedConv: parts must be a positive whole number, got 0"),
        (lambda: MixedConv(4, 8, 3, parts=5), "MixedConv: parts must be at most the channels, got 5 for 4 and 8"),
        (lambda: MixedConv(4, 8, 3, groups=2), "MixedConv: groups must be 1 or in_channels=4, got 2"),
        (lambda: MixedConv(4, 8, (3, 3), padding=(1, 1, 1)), r"padding must be one number or 2 of them, got \(1, 1, 1"),
        (lambda: MixedConv(4, 8, (3, 3), spatial_dims=1), r"kernel_size must be one number or 1 of them, got \(3, 3\)"),
        (
            lambda: LazyInvertedBottleneck(8, conv_layers={"middle": MixedConv}),
            r"LazyInvertedBottleneck: conv_layers must be a dict with some of the names \('expand', .* got {'middle': ",
        ),
        (lambda: InvertedBottleneck(8, 8, conv_layers=MixedConv), "InvertedBottleneck: conv_layers must be a dict"),
        (lambda: mixed(2, 2, conv_layer=nn.Conv2d), "shorter than argument 1"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match=r"conv_layers\['expand'\] must be a class or function that makes it, got 3"):
        LazyInvertedBottleneck(8, conv_layers={"expand": 3})
