"""ShuffleNetV2: its block splits and shuffles channels of signals, images and volumes; weights and options."""

import pytest
import timm.optim
import torch
import torchvision
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual, channel_shuffle

from lazytorch import materialize
from lazytorch.layers import LazyShuffleBlock, ShuffleBlock
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    Features,
    ShuffleNetV2,
    inflate_state_dict,
    load_reference_state_dict,
    optimize_for_inference,
    shufflenet_v2_x1_0,
)
from scripts import parity
from tests.families import assert_checkpointing_computes_the_same, assert_weights_go_there_and_back

SMALL = {"depths": (2, 2, 1), "widths": (16, 32, 48), "stem_channels": 8, "final_channels": 24}
X = torch.randn(2, 3, 64, 64)


def small(**options):
    model = materialize(ShuffleNetV2(**{"num_classes": 3, **SMALL, **options}), X.shape)
    parity.randomize(model)
    return model.eval()


def reference():
    theirs = torchvision.models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 48, 24], num_classes=3)
    parity.randomize(theirs)
    return theirs


@pytest.mark.parametrize("size", [64, 75])
def test_a_network_of_other_widths_equals_torchvisions(size):
    theirs, ours = reference(), small()
    load_reference_state_dict(ours, theirs.state_dict(), "torchvision")
    found = parity.difference(ours, theirs, "torchvision", size)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}


@pytest.mark.parametrize(("in_channels", "stride"), [(16, 1), (12, 2), (16, 2)])
def test_the_block_equals_torchvisions(in_channels, stride):
    ours, theirs = ShuffleBlock(in_channels, 16, stride=stride), InvertedResidual(in_channels, 16, stride)
    # Both have the branch of three convolutions last.
    names = sorted(ours.state_dict(), key=lambda name: name.startswith("layers"))
    parity.randomize(theirs)
    ours.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, in_channels, 9, 8)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_shuffle_alternates_the_channels_of_the_branches(dims):
    block = LazyShuffleBlock(6, norm_layer=None, activation=None)
    x = torch.arange(6.0).reshape(1, 6, *[1] * dims).expand(1, 6, *[4] * dims)
    block(x)
    nn.init.constant_(block.layers.project.conv.weight, 0)
    nn.init.constant_(block.layers.project.conv.bias, 9)
    y = block(x)
    assert y[(0, slice(None), *[1] * dims)].tolist() == [0, 9, 1, 9, 2, 9]
    expected = torch.cat([x[:, :3], torch.full_like(x[:, :3], 9)], 1)
    torch.testing.assert_close(y.flatten(2)[..., None], channel_shuffle(expected.flatten(2)[..., None], 2))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x2_0"])
def test_weights_go_to_torchvision_and_back(name):
    assert_weights_go_there_and_back(name, "torchvision")


def test_a_file_of_weights_fits_another_input(tmp_path):
    theirs = reference().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    gray = ShuffleNetV2(**SMALL, weights=tmp_path / "weights.pth").eval()
    x = X[:, :1]
    torch.testing.assert_close(gray(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    volumes = ShuffleNetV2(3, **SMALL)
    load_reference_state_dict(volumes, inflate_state_dict(theirs.state_dict()), "torchvision")
    assert volumes(torch.randn(2, 3, 32, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 32, 64), (1, 2, 64, 32, 32)])
@pytest.mark.parametrize("output_stride", [8, 32])
def test_takes_any_channels_and_number_of_dimensions(shape, output_stride):
    model = ShuffleNetV2(4, **SMALL, output_stride=output_stride).eval()
    assert runs_known_code(survey(model))
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.forward_features(torch.randn(shape)).shape[2:] == tuple(size // output_stride for size in shape[2:])


def test_every_reduction_has_a_feature_map():
    info = shufflenet_v2_x1_0().feature_info
    assert info.channels() == [24, 24, 116, 232, 464]
    assert info.reduction() == [2, 4, 8, 16, 32]
    theirs, model = reference().eval(), small()
    load_reference_state_dict(model, theirs.state_dict(), "torchvision")
    maps, x = [], X
    for part in (theirs.conv1, theirs.maxpool, theirs.stage2, theirs.stage3, theirs.stage4):
        maps.append(x := part(x))
    torch.testing.assert_close(Features(model)(X), maps)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_pixels_between(output_stride):
    strided = small(num_classes=0)
    dilated = small(num_classes=0, output_stride=output_stride)
    dilated.load_state_dict(strided.state_dict())
    outputs, step = dilated.forward_features(X), 32 // output_stride
    assert outputs.shape[2:] == (64 // output_stride,) * 2
    torch.testing.assert_close(outputs[..., ::step, ::step], strided.forward_features(X), rtol=1e-4, atol=1e-4)
    # The branches are those of the strided network also where the channels stay.
    kept = {"widths": (16, 16, 16), "depths": (1, 1, 1)}
    assert small(**kept, output_stride=8).state_dict().keys() == small(**kept).state_dict().keys()


def test_frozen_stages_and_groups_of_parameters():
    model = small().train()
    model.freeze_stages(2)
    model(X).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    assert trained == {"stages.2", "stages.3", "final.conv", "final.norm", "head.classifier"}
    groups = timm.optim.param_groups_layer_decay(small(), layer_decay=0.5)
    # The stem, five blocks, of which the last has the 1x1 convolution as well, and the classifier.
    assert sorted({group["lr_scale"] for group in groups}) == [0.5**power for power in range(6, -1, -1)]


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
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "ShuffleNetV2: depths and widths must have the same length, got 2 and 3"),
        ({"depths": (1, 0, 1)}, r"ShuffleNetV2: depths\[1\] must be a positive whole number, got 0"),
        ({"widths": (16, 31, 48)}, "out_channels must be even, as each of two branches has half, got 31"),
        ({"widths": 16}, r"widths must be a sequence of at least one value, such as \(116, 232, 464\), got 16"),
        ({"stem_channels": 0}, "ShuffleNetV2: stem_channels must be a positive whole number, got 0"),
        ({"final_channels": 1.5}, "ShuffleNetV2: final_channels must be a positive whole number, got 1.5"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"drop_path_rate": 0.1}, "drop_path_rate must be 0 without residual branches, got 0.1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2(**SMALL | options)


def test_wrong_options_of_the_block():
    for block in (LazyShuffleBlock, lambda **options: ShuffleBlock(8, **options)):
        with pytest.raises(
            ValueError, match="ShuffleBlock: out_channels must be even, as each of two branches has half, got 7"
        ):
            block(out_channels=7)
        with pytest.raises(ValueError, match="ShuffleBlock: kernel_size must be odd to keep the size, got 4"):
            block(out_channels=8, kernel_size=4)
