"""DenseNet: layers that add channels, transitions and a norm at the end; equal torchvision's and timm's."""

import re
from functools import partial

import pytest
import timm
import timm.optim
import torch
import torchvision
from torch import nn

from lazytorch import materialize
from lazytorch.layers import BlurPool, DenseLayer, LazyDenseLayer, LazyNormActivation, NormActivation
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    DenseNet,
    Network,
    Row,
    densenet121,
    get_model,
    inflate_state_dict,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from scripts import parity

SMALL = {"depths": (2, 1, 2), "growth_rate": 4, "stem": (8,)}
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small(num_classes=3, shape=(2, 3, 64, 64), **options):
    return materialize(DenseNet(num_classes, **SMALL | options), shape)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_layer_keeps_its_input_and_adds_channels(spatial_dims):
    layer = DenseLayer(6, 10, spatial_dims=spatial_dims)
    x = torch.randn(2, 6, *(8,) * spatial_dims)
    y = layer(x)
    torch.testing.assert_close(y[:, :6], x, rtol=0, atol=0)
    assert y.shape == (2, 10, *x.shape[2:])
    assert y[:, 6:].any()
    assert layer.layers.reduce.conv.out_channels == 16


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_an_activation_in_place_leaves_the_input_as_it_is(norm_layer):
    relu = partial(nn.ReLU, inplace=True)
    for layer in (
        NormActivation(4, norm_layer=norm_layer, activation=relu),
        DenseLayer(4, 6, norm_layer=norm_layer, activation=relu),
    ):
        x = torch.randn(2, 4, 8, 8)
        before = x.clone()
        assert not torch.equal(layer(x)[:, :4], torch.zeros(()))
        torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 6}, "DenseLayer: out_channels must be more than the 6 of the input, got 6"),
        ({"out_channels": 0}, "DenseLayer: out_channels must be a positive whole number, got 0"),
        ({"stride": 2}, "DenseLayer: stride must be 1, as the output contains the input, got 2"),
        ({"kernel_size": 2}, "DenseLayer: kernel_size must be odd to keep the size, got 2"),
        ({"expansion_ratio": 0}, "DenseLayer: expansion_ratio must be a positive whole number, got 0"),
        ({"dropout": -1}, "DenseLayer: dropout must be from 0 to 1, got -1"),
    ],
)
def test_wrong_options_of_a_layer(options, message):
    with pytest.raises(ValueError, match=message):
        DenseLayer(6, **{"out_channels": 8} | options)


def test_a_row_of_any_network_may_be_of_dense_layers():
    rows = [[Row(LazyDenseLayer, 12, residual=False), Row(LazyDenseLayer, 16, residual=False)]]
    model = Network(3, stem=lambda **layer: nn.Conv2d(3, 8, 3), stem_reduction=1, stages=rows)
    assert model(X).shape == (2, 3)


@pytest.mark.parametrize("name", ["densenet121", "densenet169"])
def test_old_names_of_torchvisions_weights_are_read(tmp_path, name):
    theirs = torchvision.models.get_model(name, num_classes=5).eval()
    parity.randomize(theirs)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "weights.pth")
    expected = theirs(X)
    torch.testing.assert_close(get_model(name, weights=tmp_path / "weights.pth").eval()(X), expected)
    model = get_model(name, num_classes=5).eval()
    load_reference_state_dict(model, old, "torchvision")
    torch.testing.assert_close(model(X), expected)


def test_published_weights_of_torchvision_are_read_by_their_old_names(monkeypatch):
    theirs = torchvision.models.densenet121().eval()
    old = {re.sub(r"(\.(?:norm|conv))([12]\.)", r"\1.\2", key): value for key, value in theirs.state_dict().items()}
    old = {key: value for key, value in old.items() if not key.endswith("num_batches_tracked")}
    published = torchvision.models.DenseNet121_Weights
    monkeypatch.setattr(published, "get_state_dict", lambda self, **options: old)
    torch.testing.assert_close(densenet121(weights="torchvision").eval()(X), theirs(X))


@pytest.mark.parametrize("options", [{}, {"stem": (6, 6, 8)}, {"norm_layer": None}])
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_weights_of_a_table_without_a_name_go_there_and_back(source, options):
    model = small(**options)
    state = reference_state_dict(model, source)
    assert all(key.startswith(("features.", "classifier.")) for key in state)
    assert "features.denseblock3.denselayer2.conv2.weight" in state
    assert "features.transition2.conv.weight" in state
    copied = DenseNet(3, **SMALL | options)
    load_reference_state_dict(copied, state, source)
    torch.testing.assert_close(copied.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_table_equals_timms_of_the_same_numbers():
    theirs = timm.models.densenet.DenseNet(8, (2, 3, 2), num_classes=3, stem_type="deep", proj_drop_rate=0.3)
    ours = DenseNet(3, depths=(2, 3, 2), growth_rate=8, stem=(8, 8, 16), layer_dropout=0.3)
    parity.randomize(theirs)
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    found = parity.difference(ours, theirs, "timm", 75)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    assert ours.feature_info.channels() == [info["num_chs"] for info in theirs.feature_info]
    assert ours.feature_info.reduction() == [info["reduction"] for info in theirs.feature_info]


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_weights_of_a_file_fit_another_input(tmp_path, source):
    trained = small().eval()
    torch.save(reference_state_dict(trained, source), tmp_path / "weights.pt")
    model = DenseNet(**SMALL, weights=tmp_path / "weights.pt").eval()
    gray = X[:, :1]
    torch.testing.assert_close(model(gray), trained(gray.expand(-1, 3, -1, -1)))


def test_weights_of_images_for_volumes():
    images, volumes = small(), DenseNet(3, **SMALL)
    weights = inflate_state_dict(reference_state_dict(images, "torchvision"))
    load_reference_state_dict(volumes, weights, "torchvision")
    assert volumes(torch.randn(2, 3, 32, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("name", ["densenet121", "densenetblur121d"])
def test_takes_any_channels_and_number_of_dimensions(name, shape):
    assert get_model(name, num_classes=4).eval()(torch.randn(shape)).shape == (shape[0], 4)


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, [1, 1, 1, 1]), (16, [1, 1, 1, 2]), (8, [1, 1, 2, 4])])
def test_dilation_replaces_the_last_poolings(output_stride, dilations):
    model = small(depths=(1, 1, 1, 1), output_stride=output_stride).eval()
    assert [stage[1].layers.conv.conv.dilation[0] for stage in model.stages] == dilations
    assert model.feature_info[-1].reduction == output_stride
    assert model.forward_features(X).shape[2:] == (64 // output_stride,) * 2
    assert [64 // each.shape[2] for each in model.forward_intermediates(X)[1]] == model.feature_info.reduction()
    state = small(depths=(1, 1, 1, 1)).state_dict()
    model.load_state_dict(state)


def test_options_of_every_network_apply():
    model = small(norm_layer=partial(nn.GroupNorm, 2), activation=nn.SiLU)
    kinds = {type(each) for each in model.modules()}
    assert {nn.GroupNorm, nn.SiLU} <= kinds
    assert not {nn.BatchNorm2d, nn.ReLU} & kinds
    for wrong in (None, nn.Identity):
        assert small(activation=wrong)(X).shape == (2, 3)
    assert small(stem_pool=lambda **place: nn.AvgPool2d(2))(X).shape == (2, 3)
    assert any(isinstance(each, BlurPool) for each in materialize(get_model("densenetblur121d"), X.shape).modules())


def test_freezing_by_stages():
    model = small()
    model.freeze_stages(2)
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {"stages.2", "head.classifier"}


def test_layer_decay_by_layers():
    model = small()
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
    found = {name.rpartition(".")[0]: scale[id(each)] for name, each in model.named_parameters()}
    order = ["stem.conv", *(f"stages.0.{block}.layers.reduce.conv" for block in (1, 2)), "stages.1.0.conv.conv",
             "stages.1.1.layers.reduce.conv", "stages.2.0.conv.conv",
             *(f"stages.2.{block}.layers.reduce.conv" for block in (1, 2)), "stages.2.3.norm"]  # fmt: skip
    assert [found[name] for name in order] == [0.5 ** (9 - index) for index in range(9)]
    assert found["head.classifier"] == 1


def test_gradient_checkpointing_computes_the_same_in_less_memory():
    model, results, saved = small(), [], []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            output = model(X)
        output.square().sum().backward()
        results.append((output.detach(), [each.grad for each in model.parameters()]))
        model.zero_grad()
        saved.append(sum(kept))
    assert all(gradient is not None for gradient in results[0][1])
    torch.testing.assert_close(*results)
    assert saved[1] < saved[0]


def test_optimized_and_exported_networks_compute_the_same():
    model = small()
    parity.randomize(model)
    model.eval()
    optimized = optimize_for_inference(model)
    # A norm before a convolution stays; one after a convolution is folded into it.
    left = [name for name, each in optimized.named_modules() if isinstance(each, nn.BatchNorm2d)]
    assert left
    assert all("preactivation" in name or name == "stages.2.3.norm" for name in left)
    torch.testing.assert_close(optimized(X), model(X), rtol=1e-4, atol=1e-4)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"output_stride": 8}])
def test_the_first_call_builds_it_without_running_its_layers(options):
    model = DenseNet(3, **SMALL | options)
    assert runs_known_code(survey(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": ()}, "DenseNet: depths must be a sequence of at least one value"),
        ({"depths": (1, 0)}, r"DenseNet: depths\[1\] must be a positive whole number, got 0"),
        ({"growth_rate": 0}, "DenseNet: growth_rate must be a positive whole number, got 0"),
        ({"expansion_ratio": 1.5}, "DenseNet: expansion_ratio must be a positive whole number, got 1.5"),
        ({"layer_dropout": 2}, "DenseNet: layer_dropout must be from 0 to 1, got 2"),
        ({"stem": ()}, r"DenseNet: stem must be a sequence of at least one value, .*, got \(\)"),
        ({"stem": 64}, r"DenseNet: stem must be a sequence of at least one value, .*, got 64"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"drop_path_rate": 0.1}, "DenseNet: drop_path_rate must be 0 without residual branches, got 0.1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        DenseNet(**options)


@pytest.mark.parametrize(("theirs", "ours"), [("block_config", "depths"), ("bn_size", "expansion_ratio")])
def test_options_of_other_zoos_have_a_suggestion(theirs, ours):
    with pytest.raises(TypeError, match=f"Did you mean '{ours}'"):
        densenet121(**{theirs: 1})


def test_norm_and_activation_may_both_be_absent():
    layer = LazyNormActivation(norm_layer=None, activation=None)
    torch.testing.assert_close(layer(X), X, rtol=0, atol=0)
