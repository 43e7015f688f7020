"""ReXNet: blocks that are added to the first of their channels; weights, feature maps and options that are timm's."""

import pytest
import timm
import timm.optim
import torch
from timm.models.rexnet import LinearBottleneck
from torch import nn

from lazytorch import materialize
from lazytorch.layers import InvertedBottleneck, LazyInvertedBottleneck, LazySqueezeExcitation, SqueezeExcitation
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    MobileNet,
    get_model,
    load_reference_state_dict,
    optimize_for_inference,
    rexnet_100,
    rexnetr_300,
)
from lazytorch.models.rexnet import stage
from scripts import parity
from tests.families import assert_checkpointing_computes_the_same, assert_weights_go_there_and_back

TABLE = [stage(0, 1, 1), stage(1, 2, 2, se_layer=SqueezeExcitation), stage(3, 2, 2)]
X = torch.randn(2, 3, 64, 64)


def small(**options):
    model = materialize(rexnet_100(**{"num_classes": 3, "stages": TABLE, **options}), X.shape)
    parity.randomize(model)
    return model.eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("out_channels", [6, 9, 5])
def test_the_input_is_added_to_the_first_channels(dims, out_channels):
    block = LazyInvertedBottleneck(out_channels, expansion_ratio=2, partial_shortcut=True).eval()
    x = torch.randn(2, 6, *[5] * dims)
    block(x)
    parity.randomize(block)
    expected = block.layers(x)
    if out_channels >= 6:
        expected = torch.cat([expected[:, :6] + x, expected[:, 6:]], 1)
    torch.testing.assert_close(block(x), expected)
    plain = InvertedBottleneck(6, out_channels, expansion_ratio=2, spatial_dims=dims).eval()
    plain.load_state_dict(block.state_dict())
    assert torch.equal(plain(x), block(x)) is (out_channels <= 6)


@pytest.mark.parametrize("options", [{"stride": 2}, {"shortcut": False}], ids=str)
def test_no_sum_with_a_stride_or_without_a_shortcut(options):
    block = InvertedBottleneck(6, 9, partial_shortcut=True, **options).eval()
    x = torch.randn(2, 6, 8, 8)
    assert torch.equal(block(x), block.layers(x))


def test_stochastic_depth_leaves_out_the_whole_branch():
    block = InvertedBottleneck(6, 9, partial_shortcut=True, drop_path_rate=0.999)
    x = torch.randn(4, 6, 8, 8)
    torch.testing.assert_close(block(x), torch.cat([x, torch.zeros(4, 3, 8, 8)], 1))


@pytest.mark.parametrize("se_ratio", [0, 1 / 12])
def test_the_block_equals_timms(se_ratio):
    theirs = LinearBottleneck(24, 36, 1, exp_ratio=6, se_ratio=se_ratio)
    row = stage(1, 1, 1, **({"se_layer": SqueezeExcitation} if se_ratio else {}))[0]
    norms = {"norm_layer": nn.BatchNorm2d, "activation": nn.SiLU}
    ours = row.block(out_channels=36, expansion_ratio=6, rounding=round, se_layer=row.se_layer, **norms)
    x = torch.randn(2, 24, 9, 8)
    ours(x)
    parity.randomize(theirs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_squeeze_excitation_with_a_norm():
    squeeze = SqueezeExcitation(12, 4, norm_layer=nn.BatchNorm2d, spatial_dims=3).eval()
    parity.randomize(squeeze)
    assert isinstance(squeeze.reduce.norm, nn.BatchNorm3d)
    x = torch.randn(2, 12, 4, 4, 4)
    hidden = squeeze.reduce.norm(squeeze.reduce.conv(x.mean((2, 3, 4), keepdim=True))).relu()
    torch.testing.assert_close(squeeze(x), x * squeeze.expand(hidden).sigmoid())
    assert isinstance(SqueezeExcitation(12).reduce, nn.Conv2d)
    with pytest.raises(TypeError, match="SqueezeExcitation: norm_layer must be a class or function that makes it"):
        SqueezeExcitation(12, norm_layer=nn.BatchNorm2d(3))


def test_widths_by_block():
    model = materialize(rexnet_100(), X.shape)
    widths = [block.layers.project.conv.out_channels for stage in model.stages for block in stage]
    assert widths == [round(16 + 180 * index / 16) for index in range(16)]
    rounded = materialize(rexnetr_300(spatial_dims=2), X.shape)
    channels = [each.out_channels for name, each in rounded.named_modules() if isinstance(each, nn.Conv2d)]
    assert len(channels) == 16 * 2 + 15 + 13 * 2 + 2
    assert all(each % 16 == 0 for each in channels)


@pytest.mark.parametrize("name", ["rexnet_100", "rexnetr_130"])
def test_weights_go_to_timm_and_back(name):
    assert_weights_go_there_and_back(name, "timm")


def test_a_file_of_weights_fits_another_input(tmp_path):
    theirs = timm.create_model("rexnet_100", num_classes=5).eval()
    parity.randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    gray = get_model("rexnet_100", weights=tmp_path / "weights.pth").eval()
    x = X[:, :1]
    torch.testing.assert_close(gray(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("rexnet_100", {"output_stride": 8}, {"output_stride": 8}),
        ("rexnet_100", {"output_stride": 16, "dropout": 0}, {"output_stride": 16, "drop_rate": 0}),
        ("rexnet_100", {"drop_path_rate": 0.3, "activation": nn.ReLU}, {"drop_path_rate": 0.3, "act_layer": "relu"}),
        ("rexnetr_100", {"width": 1.2}, {"width_mult": 1.2}),
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


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 32, 64), (2, 2, 32, 32, 32)])
@pytest.mark.parametrize("output_stride", [8, 32])
def test_takes_any_channels_and_number_of_dimensions(shape, output_stride):
    model = rexnet_100(4, stages=[*TABLE, stage(5, 1, 2), stage(6, 2, 2)], output_stride=output_stride)
    assert runs_known_code(survey(model))
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.forward_features(torch.randn(shape)).shape[2:] == tuple(size // output_stride for size in shape[2:])


def test_the_norms_of_the_network_are_those_of_its_attention():
    def norm(channels):
        return nn.GroupNorm(1, channels)

    model = small(norm_layer=norm)
    assert isinstance(model.stages[1][0].layers.se.attention.reduce.norm, nn.GroupNorm)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert isinstance(small(norm_layer=None).stages[1][0].layers.se.attention.reduce, nn.Conv2d)


def test_its_attention_may_be_lazy_or_eager():
    model = small(stages=[stage(1, 2, 1, se_layer=LazySqueezeExcitation)])
    assert type(model.stages[0][1].layers.se.attention) is SqueezeExcitation
    assert model.stages[0][1].layers.se.attention.expand.in_channels == 27 * 6 // 12


def test_frozen_stages_and_groups_of_parameters():
    model = small().train()
    model.freeze_stages(2)
    model(X).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    assert trained == {"stages.2", "final.conv", "final.norm", "head.classifier"}
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    # Five blocks, of which the last has the 1x1 convolution as well, and the classifier; what is frozen is in no group.
    assert sorted({group["lr_scale"] for group in groups}) == [0.25, 0.5, 1]


def test_gradient_checkpointing_computes_the_same():
    assert_checkpointing_computes_the_same(small(), X)


def test_export_and_optimization_keep_the_outputs():
    model = small()
    expected = model(X)
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(X), expected)
    optimized = optimize_for_inference(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in optimized.modules())
    torch.testing.assert_close(optimized(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rexnet_100(width=0), "MobileNet: width must be positive, got 0"),
        (lambda: rexnet_100(output_stride=4), "output_stride must be 8, 16 or 32, got 4"),
        (lambda: InvertedBottleneck(6, 9, partial_shortcut="no"), "partial_shortcut must be True or False, got 'no'"),
        (lambda: MobileNet(stages=TABLE, rates_end=3), "MobileNet: rates_end must be True or False, got 3"),
        (lambda: InvertedBottleneck(6, 9, expand_activation="silu"), "expand_activation must be a class or function"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
