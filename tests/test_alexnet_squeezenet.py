"""AlexNet and SqueezeNet, which classify in ways of their own; equal torchvision's."""

import pytest
import timm.optim
import torch
import torchvision
from torch import nn

from lazytorch import materialize
from lazytorch.models import (
    AlexNet,
    Features,
    SqueezeNet,
    get_model,
    inflate_state_dict,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from scripts import parity
from tests.families import assert_checkpointing_computes_the_same

X = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
SMALL = {
    AlexNet: {"stages": ((6,), (8, 4)), "stem_channels": 4, "pool_size": 2, "hidden_channels": 10},
    SqueezeNet: {"stages": ((8, 8), (16,)), "stem_channels": 4, "reduction_ratio": 4},
}
both = pytest.mark.parametrize("family", SMALL)


def small(family, num_classes=3, shape=X.shape, **options):
    model = materialize(family(num_classes, **SMALL[family] | options), shape)
    parity.randomize(model)
    return model.eval()


@pytest.mark.parametrize("side", [64, 75, 224])
@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_0", "squeezenet1_1"])
def test_equals_torchvisions(name, side):
    theirs = torchvision.models.get_model(name, num_classes=5).eval()
    parity.randomize(theirs)
    ours = get_model(name, num_classes=5).eval()
    load_reference_state_dict(ours, theirs.state_dict(), "torchvision")
    x = torch.randn(1, 3, side, side + 3)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.forward_features(x), theirs.features(x), rtol=1e-4, atol=1e-4)
    returned = reference_state_dict(ours, "torchvision")
    torch.testing.assert_close(returned, dict(theirs.state_dict()), rtol=0, atol=0)


@both
def test_weights_of_a_file_fit_another_input(tmp_path, family):
    trained = small(family)
    torch.save(reference_state_dict(trained, "torchvision"), tmp_path / "weights.pt")
    model = family(**SMALL[family], weights=tmp_path / "weights.pt").eval()
    gray = X[:, :1]
    torch.testing.assert_close(model(gray), trained(gray.expand(-1, 3, -1, -1)))
    with pytest.warns(UserWarning, match="num_classes=4: loaded the backbone only"):
        other = family(4, **SMALL[family], weights=tmp_path / "weights.pt").eval()
    assert other(X).shape == (2, 4)
    torch.testing.assert_close(other.forward_features(X), trained.forward_features(X))


@both
@pytest.mark.parametrize("shape", [(2, 1, 96), (2, 12, 64, 96), (1, 2, 64, 64, 64)])
def test_takes_any_channels_and_number_of_dimensions(family, shape):
    model = family(4, **SMALL[family]).eval()
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.stem.conv.weight.dim() == len(shape)


@both
def test_weights_of_images_for_volumes(family):
    options = {} if family is SqueezeNet else {"pool_size": 1}  # more pixels are more inputs of a linear layer
    weights = small(family, **options).state_dict()
    volumes = family(3, **SMALL[family] | options).eval()
    volumes.load_state_dict(inflate_state_dict(weights))
    assert volumes(X.unsqueeze(2).expand(-1, -1, 64, -1, -1)).shape == (2, 3)


@both
def test_feature_maps_precede_the_poolings(family):
    model = small(family)
    channels, reductions = ([4, 6, 4, 4], [4, 8, 16, 32]) if family is AlexNet else ([4, 8, 16], [2, 4, 8])
    assert model.feature_info.channels() == channels
    assert model.feature_info.reduction() == reductions
    expected, outputs = [], {}
    for name in model.feature_info.module_name():
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    final, expected = model.forward_intermediates(X)
    torch.testing.assert_close(list(outputs.values()), expected, rtol=0, atol=0)
    torch.testing.assert_close(Features(model)(X), expected, rtol=0, atol=0)
    torch.testing.assert_close(final, expected[-1], rtol=0, atol=0)


def test_alexnet_without_classes_leaves_the_last_hidden_layer():
    model = small(AlexNet, num_classes=0)
    assert model(X).shape == (2, model.hidden_channels) == (2, 10)
    torch.testing.assert_close(model(X), model.forward_head(model.forward_features(X), pre_logits=True))
    model.reset_classifier(5)
    assert model(X).shape == (2, 5)


def test_alexnet_has_dropout_before_its_hidden_layers_alone():
    rates = {name: each.p for name, each in get_model("alexnet").named_modules() if isinstance(each, nn.Dropout)}
    assert rates == {"head.hidden.dropout0": 0.5, "head.hidden.dropout": 0.5, "head.dropout": 0}
    rates = [each.p for each in AlexNet(3, dropout=0.2).modules() if isinstance(each, nn.Dropout)]
    assert rates == [0.2, 0.2, 0]


def test_squeezenet_pools_the_scores_of_all_pixels():
    model = small(SqueezeNet)
    features = model.forward_features(X)
    scores = model.get_classifier()(features.flatten(2).mT).relu().mean(1)
    torch.testing.assert_close(model(X), scores)
    torch.testing.assert_close(model.forward_head(features), scores)
    torch.testing.assert_close(model.head(features), scores)
    assert (scores != model.get_classifier()(features.flatten(2).mean(2))).any()


def test_squeezenet_without_classes_leaves_pooled_features():
    model = small(SqueezeNet)
    pooled = model.forward_features(X).mean((2, 3))
    torch.testing.assert_close(model.forward_head(model.forward_features(X), pre_logits=True), pooled)
    assert model.hidden_channels == model.num_features == 16
    model.reset_classifier(0)
    torch.testing.assert_close(model(X), pooled)
    torch.testing.assert_close(
        SqueezeNet(0, **SMALL[SqueezeNet], weights=model.state_dict()).eval()(X), pooled, rtol=0, atol=0
    )


def test_squeezenet_takes_new_classifiers_and_poolings():
    model = small(SqueezeNet)
    features = model.forward_features(X)
    model.reset_classifier(5)
    assert model(X).shape == (2, 5)
    assert model.get_classifier().in_features == 16
    assert model.get_classifier().weight.std() < 0.02
    assert not model.get_classifier().bias.any()
    model.reset_classifier(6, global_pool=nn.AdaptiveMaxPool2d)
    scores = model.get_classifier()(features.flatten(2).mT).relu().amax(1)
    torch.testing.assert_close(model(X), scores)
    model.reset_classifier(0, global_pool="")
    torch.testing.assert_close(model(X), features)
    assert SqueezeNet(**SMALL[SqueezeNet], global_pool=None)(X).shape == features.shape


def test_squeezenet_drops_pixels_features():
    model = small(SqueezeNet, dropout=1.0).train()
    assert model.head.dropout.p == get_model("squeezenet1_0").head.dropout.p * 2
    torch.testing.assert_close(model(X), model.get_classifier().bias.relu().expand(2, -1))


@both
@pytest.mark.parametrize(("output_stride", "dilations"), [(8, [2, 4]), (16, [1, 2])])
def test_output_stride_keeps_the_weights(family, output_stride, dilations):
    options = {"stages": ((6,), (8,), (4,)) if family is AlexNet else ((8,), (8,), (8,), (16,))}
    model = small(family, output_stride=output_stride, **options)
    blocks = [stage[1] for stage in model.stages if len(stage) > 1][-2:]
    kernels = [each.conv if family is AlexNet else each.conv.conv for each in blocks]
    assert [each.dilation[0] for each in kernels] == dilations
    assert model.feature_info[-1].reduction == output_stride
    model.load_state_dict(small(family, **options).state_dict())
    assert model(X).shape == (2, 3)


@both
def test_freezing_and_layer_decay_are_by_stages_and_blocks(family):
    model = small(family)
    model.freeze_stages(1)
    frozen = {
        name.partition(".")[0] + name.split(".")[1] for name, each in model.named_parameters() if not each.requires_grad
    }
    assert frozen == {"stemconv", "stages0"}
    model.freeze_stages(None)
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
    found = [scale[id(each)] for name, each in model.named_parameters() if name.endswith("weight")]
    assert found == sorted(found)
    assert found[-1] == 1
    assert found[0] == scale[id(model.stem.conv.weight)] == 0.0625


@both
def test_gradient_checkpointing_computes_the_same(family):
    gradients = assert_checkpointing_computes_the_same(small(family).train(), X)
    assert all(gradient.any() for gradient in gradients[:4])


@both
@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_optimized_and_exported_networks_compute_the_same(family, norm_layer):
    model = small(family, norm_layer=norm_layer)
    optimized = optimize_for_inference(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in optimized.modules())
    torch.testing.assert_close(optimized(X), model(X), rtol=1e-4, atol=1e-4)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), model(X), rtol=1e-4, atol=1e-4)


def test_a_fire_module_concatenates_two_convolutions():
    fire = small(SqueezeNet).stages[0][1]
    x = torch.randn(2, 4, 9, 9)
    squeezed = fire.squeeze(x)
    torch.testing.assert_close(fire(x), torch.cat([fire.pointwise(squeezed), fire.conv(squeezed)], 1))
    assert [tuple(each.weight.shape[:2]) for each in (fire.squeeze.conv, fire.pointwise.conv, fire.conv.conv)] == [
        (2, 4), (4, 2), (4, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (AlexNet, {"stages": ()}, "AlexNet: stages must be a sequence of at least one value"),
        (AlexNet, {"stages": ((192,), (0,))}, r"AlexNet: stages\[1\]\[0\] must be a positive whole number, got 0"),
        (AlexNet, {"stem_channels": -1}, "AlexNet: stem_channels must be a positive whole number, got -1"),
        (AlexNet, {"pool_size": 0}, "AlexNet: pool_size must be a positive whole number, got 0"),
        (AlexNet, {"hidden_channels": 2.5}, "AlexNet: hidden_channels must be a positive whole number, got 2.5"),
        (AlexNet, {"dropout": 2.0}, "AlexNet: dropout must be from 0 to 1, got 2.0"),
        (AlexNet, {"drop_path_rate": 0.1}, "drop_path_rate must be 0 without residual branches, got 0.1"),
        (SqueezeNet, {"stages": (128,)}, r"SqueezeNet: stages\[0\] must be a sequence of at least one value"),
        (SqueezeNet, {"stages": ((7,),)}, "out_channels must be even, as two convolutions compute a half each, got 7"),
        (SqueezeNet, {"stem_kernel_size": 4}, "SqueezeNet: stem_kernel_size must be odd"),
        (SqueezeNet, {"reduction_ratio": 0}, "SqueezeNet: reduction_ratio must be positive, got 0"),
        (SqueezeNet, {"drop_path_rate": 0.1}, "drop_path_rate must be 0 without residual branches, got 0.1"),
        (SqueezeNet, {"num_classes": 10, "global_pool": None}, "num_classes must be 0 without pooling, .* got 10"),
    ],
)
def test_wrong_options(family, options, message):
    with pytest.raises(ValueError, match=message):
        family(**options)


def test_squeezenet_without_classes_leaves_negative_features():
    model = small(SqueezeNet, num_classes=0, activation=nn.Identity)
    pooled = model.forward_features(X).mean((2, 3))
    assert (pooled < 0).any()
    torch.testing.assert_close(model(X), pooled)
