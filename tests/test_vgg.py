"""VGG: plain convolutions, max-pooling and hidden linear layers; equal torchvision's and, up to 224 pixels, timm's."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
import torchvision
from torch import nn

from lazytorch import is_lazy, materialize, summary
from lazytorch.layers import ConvNormActivation, LazyAdaptiveMaxPool
from lazytorch.models import (
    VGG,
    Features,
    Network,
    get_model,
    inflate_state_dict,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
    references,
)
from scripts import parity
from tests.families import assert_checkpointing_computes_the_same

SMALL = {"depths": (2, 1, 1), "widths": (4, 6, 8), "pool_size": 2, "hidden_channels": 10}
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small(num_classes=3, shape=(2, 3, 64, 64), **options):
    return materialize(VGG(num_classes, **SMALL, **options), shape)


def with_timms_weights(name, **options):
    theirs = timm.create_model(name, num_classes=5, **options)
    ours = get_model(name, num_classes=5)
    parity.randomize(theirs)
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    return ours.eval(), theirs.eval()


@pytest.fixture(scope="module")
def both():
    return with_timms_weights("vgg13_bn")


@pytest.mark.parametrize("side", [32, 75, 224])
def test_equals_timms_up_to_224_pixels(both, side):
    ours, theirs = both
    x = torch.randn(1, 3, side, side)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        ours.forward_head(ours.forward_features(x), pre_logits=True),
        theirs.forward_head(theirs.forward_features(x), pre_logits=True),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_equals_torchvisions_above_224_pixels_where_timms_differs(both):
    ours, theirs = both
    torchvisions = torchvision.models.vgg13_bn(num_classes=5).eval()
    torchvisions.load_state_dict(reference_state_dict(ours, "torchvision"))
    x = torch.randn(1, 3, 256, 288)
    torch.testing.assert_close(ours(x), torchvisions(x))
    assert parity.relative([(ours(x).detach(), theirs(x).detach())]) > 1e-3
    assert list(references("vgg13_bn")) == ["torchvision", "timm"]


def test_feature_maps_equal_timms(both):
    ours, classifier = both
    theirs = timm.create_model("vgg13_bn", features_only=True).eval()
    weights = {key.replace(".", "_", 1): value for key, value in classifier.state_dict().items() if key[0] == "f"}
    theirs.load_state_dict(weights)
    assert ours.feature_info.channels() == theirs.feature_info.channels() == [64, 128, 256, 512, 512, 512]
    assert ours.feature_info.reduction() == theirs.feature_info.reduction() == [1, 2, 4, 8, 16, 32]
    expected = theirs(X)
    assert expected[0].any()
    torch.testing.assert_close(Features(ours)(X), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.forward_intermediates(X)[1], expected, rtol=1e-4, atol=1e-4)
    (coarsest,) = ours.forward_intermediates(X, indices=[-1], intermediates_only=True)
    torch.testing.assert_close(coarsest, ours.forward_features(X), rtol=0, atol=0)


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_weights_of_a_table_with_a_name_of_its_own_go_there_and_back(norm_layer):
    model = small(norm_layer=norm_layer)
    step = 2 if norm_layer is None else 3
    for source, hidden in (("torchvision", (10, 32)), ("timm", (10, 8, 2, 2))):
        state = reference_state_dict(model, source)
        convolutions = [int(key.split(".")[1]) for key, value in state.items() if key[0] == "f" and value.dim() == 4]
        assert convolutions == [0, step, 2 * step + 1, 3 * step + 2]
        assert [tuple(value.shape) for value in state.values() if value.numel() == 320] == [hidden]
        copied = VGG(3, **SMALL, norm_layer=norm_layer)
        load_reference_state_dict(copied, state, source)
        torch.testing.assert_close(copied.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_weights_of_a_file_fit_another_input(tmp_path, source):
    trained = small().eval()
    torch.save(reference_state_dict(trained, source), tmp_path / "weights.pt")
    model = VGG(**SMALL, weights=tmp_path / "weights.pt").eval()
    gray = X[:, :1]
    torch.testing.assert_close(model(gray), trained(gray.expand(-1, 3, -1, -1)))
    with pytest.warns(UserWarning, match="have 3 classes but num_classes=4"):
        other = VGG(4, **SMALL, weights=tmp_path / "weights.pt")
    assert other(X).shape == (2, 4)


def test_weights_of_images_for_volumes():
    options = SMALL | {"pool_size": 1}  # more pixels are more inputs of a linear layer
    images, volumes = VGG(3, **options).eval(), VGG(3, **options).eval()
    image = X.clone()
    images(image)
    weights = reference_state_dict(images, "torchvision")
    load_reference_state_dict(volumes, inflate_state_dict(weights), "torchvision")
    assert volumes(image.unsqueeze(2).expand(-1, -1, 16, -1, -1)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="linear1"):
        VGG(3, **SMALL).load_state_dict(inflate_state_dict(small().state_dict()))


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
def test_takes_any_channels_and_number_of_dimensions(shape):
    model = VGG(4, **SMALL).eval()
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.head.hidden.linear1.in_features == 8 * 2 ** (len(shape) - 2)


def test_without_classes_it_leaves_the_last_hidden_layer():
    model, x = small(num_classes=0).eval(), X
    assert model(x).shape == (2, model.hidden_channels) == (2, 10)
    torch.testing.assert_close(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    model.reset_classifier(5)
    assert model(x).shape == (2, 5)
    assert model.get_classifier().in_features == 10
    assert model.get_classifier().weight.std() < 0.02
    assert VGG(**SMALL, global_pool=None)(x).shape == (2, 8, 8, 8)


def test_dropout_is_in_the_whole_head():
    rates = [each.p for each in get_model("vgg11").modules() if isinstance(each, nn.Dropout)]
    assert rates == [0.5, 0.5]
    rates = [each.p for each in VGG(3, dropout=0.2).modules() if isinstance(each, nn.Dropout)]
    assert rates == [0.2, 0.2]
    assert [each.p for each in VGG(3).modules() if isinstance(each, nn.Dropout)] == [0, 0]


def test_options_of_every_network_apply():
    model = small(norm_layer=partial(nn.GroupNorm, 2), activation=nn.SiLU, global_pool=LazyAdaptiveMaxPool)
    kinds = {type(each) for each in model.modules()}
    assert {nn.GroupNorm, nn.SiLU, nn.AdaptiveMaxPool2d} <= kinds
    assert not {nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d} & kinds
    assert model.head.pool.output_size == 2
    assert nn.ReLU not in {type(each) for each in small(activation=None).modules()}


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, [1, 1]), (16, [1, 2]), (8, [2, 4])])
def test_dilation_replaces_the_last_strides(output_stride, dilations):
    options = {"depths": (1,) * 6, "widths": (4,) * 6, "pool_size": 2, "hidden_channels": 10}
    model = materialize(VGG(3, **options, output_stride=output_stride), X.shape).eval()
    assert [stage[1].conv.dilation[0] for stage in list(model.stages)[3:5]] == dilations
    assert model.feature_info[-1].reduction == output_stride
    assert [64 // each.shape[2] for each in model.forward_intermediates(X)[1]] == model.feature_info.reduction()
    model.load_state_dict(materialize(VGG(3, **options), X.shape).state_dict())
    assert model(X).shape == (2, 3)


def test_freezing_by_stages():
    model = small()
    model.freeze_stages(1)
    trained = {name.rpartition(".")[0] for name, each in model.named_parameters() if each.requires_grad}
    head = {"head.hidden.linear1", "head.hidden.linear2", "head.classifier"}
    assert trained == {"stages.1.1.conv", "stages.1.1.norm"} | head


def test_layer_decay_counts_poolings_as_no_groups():
    model = small()
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
    found = {name: scale[id(each)] for name, each in model.named_parameters() if name.endswith("weight")}
    assert found["stem.conv1.conv.weight"] == found["stem.conv2.conv.weight"] == 0.125
    assert found["stages.0.1.conv.weight"] == 0.25
    assert found["stages.1.1.conv.weight"] == 0.5
    assert found["head.hidden.linear1.weight"] == found["head.classifier.weight"] == 1


def test_gradient_checkpointing_computes_the_same():
    gradients = assert_checkpointing_computes_the_same(small(), X)
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_optimized_and_exported_networks_compute_the_same(norm_layer):
    model = small(norm_layer=norm_layer)
    parity.randomize(model)
    model.eval()
    optimized = optimize_for_inference(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in optimized.modules())
    torch.testing.assert_close(optimized(X), model(X), rtol=1e-4, atol=1e-4)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X), rtol=1e-4, atol=1e-4)


def test_convolutions_have_biases_before_norms():
    model = small()
    layers = [each for each in model.modules() if isinstance(each, ConvNormActivation)]
    assert len(layers) == 4
    assert all(each.conv.bias is not None and not each.conv.bias.any() for each in layers)
    assert isinstance(model, Network)


def test_summary_needs_no_memory_for_weights():
    model = get_model("vgg16")
    assert summary(model, (1, 3, 224, 224)).macs == 15_470_264_320
    assert is_lazy(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "VGG: depths and widths must have the same length, got 2 and 5"),
        ({"depths": (), "widths": ()}, "VGG: depths must be a sequence of at least one value"),
        ({"depths": (0, 1, 1, 1, 1)}, r"VGG: depths\[0\] must be a positive whole number, got 0"),
        ({"depths": (1, 1, 0, 1, 1)}, r"VGG: depths\[2\] must be a positive whole number, got 0"),
        ({"pool_size": 0}, "VGG: pool_size must be a positive whole number, got 0"),
        ({"hidden_channels": 2.5}, "VGG: hidden_channels must be a positive whole number, got 2.5"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"drop_path_rate": 0.1}, "drop_path_rate must be 0 without residual branches, got 0.1"),
        ({"dropout": 2.0}, "VGG: dropout must be from 0 to 1, got 2.0"),
        ({"num_classes": 10, "global_pool": None}, "num_classes must be 0 without pooling, .* got 10"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        VGG(**options)
