"""ResNets of any make: options go together, and equal timm's where timm has them."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.layers import (
    BlurPool,
    EfficientChannelAttention,
    LazyAdaptiveMaxPool,
    LazyBasicBlock,
    LazyBottleneckBlock,
    SqueezeExcitation,
    average_blur,
    pooled_projection,
    projection,
)
from lazytorch.models import ResNet, get_model, list_models, load_reference_state_dict
from scripts import parity
from tests.catalogue import first_fast

SMALL = {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32), "stem": (8,)}


def assert_equals_timm(name, ours, theirs):
    theirs = timm.create_model(name, num_classes=5, **theirs)
    model = get_model(name, num_classes=5, **ours)
    parity.randomize(theirs)
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    found = parity.difference(model, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    return model


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "name",
    first_fast(
        ["resnet18", "resnet26d", "resnet26", "seresnext26t_32x4d", "resnetblur18", "resnetaa34d", "senet154"], 2
    ),
)
def test_dilated_networks_equal_timms(name, output_stride):
    model = assert_equals_timm(name, {"output_stride": output_stride}, {"output_stride": output_stride})
    assert model.feature_info[-1].reduction == output_stride
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // output_stride,) * 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"drop_path_rate": 0.3}, {"drop_path_rate": 0.3}),
        ({"dropout": 0.3}, {"drop_rate": 0.3}),
        ({"global_pool": LazyAdaptiveMaxPool}, {"global_pool": "max"}),
        ({"activation": nn.SiLU}, {"act_layer": "silu"}),
        ({"norm_layer": partial(nn.BatchNorm2d, eps=0.1)}, {"norm_layer": partial(nn.BatchNorm2d, eps=0.1)}),
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_equal_timms(ours, theirs):
    assert_equals_timm("resnet26t", ours, theirs)


@pytest.mark.parametrize("block", [LazyBasicBlock, LazyBottleneckBlock])
@pytest.mark.parametrize("shortcut", [projection, partial(projection, kernel_size=3), pooled_projection])
@pytest.mark.parametrize("se_layer", [None, SqueezeExcitation, EfficientChannelAttention])
@pytest.mark.parametrize("anti_aliasing", [None, BlurPool, average_blur])
def test_options_go_together(block, shortcut, se_layer, anti_aliasing):
    model = ResNet(
        3, **SMALL, block=block, expansion=2, cardinality=2, shortcut=shortcut, se_layer=se_layer,
        anti_aliasing=anti_aliasing, zero_init=True, output_stride=16, drop_path_rate=0.1,
    )  # fmt: skip
    channels = [16, 32, 48, 64]
    assert [info.channels for info in model.stage_info] == channels
    x = torch.randn(2, 5, 32, 32, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.any()
    assert not is_lazy(model)


@pytest.mark.parametrize("last", [nn.ReLU, nn.Sigmoid])
def test_a_branch_may_end_in_what_keeps_its_output(last):
    model = ResNet(3, **SMALL, se_layer=lambda channels, spatial_dims: last())
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_branches_that_start_from_zero_leave_the_shortcut():
    for block, last in ((LazyBasicBlock, "conv2"), (LazyBottleneckBlock, "restore")):
        model = materialize(ResNet(3, **SMALL, block=block, zero_init=True), (2, 3, 32, 32))
        first = model.stages[0][0]
        assert not first.layers.get_submodule(last).norm.weight.any()
        x = torch.randn(2, 8, 8, 8)
        torch.testing.assert_close(first(x), torch.relu(first.shortcut(x)))
        plain = materialize(ResNet(3, **SMALL, block=block), (2, 3, 32, 32)).stages[0][0]
        assert plain.layers.get_submodule(last).norm.weight.all()


def test_gradient_checkpointing_computes_the_same():
    torch.manual_seed(0)
    model = materialize(ResNet(3, **SMALL), (2, 3, 64, 64))
    x = torch.randn(2, 3, 64, 64)
    outputs, gradients, saved = [], [], []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            output = model(x)
        output.square().sum().backward()
        outputs.append(output.detach())
        gradients.append([each.grad for each in model.parameters()])
        model.zero_grad()
        saved.append(sum(kept))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert saved[1] < saved[0] / 2


def test_gradient_checkpointing_from_the_first_call_on():
    model = ResNet(3, **SMALL, gradient_checkpointing=True)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_every_part_with_weights_is_lazy():
    for name in list_models(["resnet18", "resnet50*", "senet154", "resnetrs50", "ecaresnet26t"]):
        parts = [each for each in get_model(name).modules() if next(each.parameters(recurse=False), None) is not None]
        assert parts
        assert all(isinstance(each, LazyModule) for each in parts)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("name", ["resnet18", "ecaresnet26t", "resnetblur18", "resnetrs50", "resnetaa34d"])
def test_takes_any_channels_and_rank(name, shape):
    assert get_model(name, num_classes=4).eval()(torch.randn(shape)).shape == (shape[0], 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "depths and widths must have the same length, got 2 and 4"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"num_classes": -1}, "num_classes must be a whole number of at least 0, got -1"),
        ({"global_pool": None, "num_classes": 10}, "num_classes must be 0 without pooling, .* got 10"),
        ({"depths": (), "widths": ()}, r"depths must be a sequence of at least one value, .* got \(\)"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be from 0 to below 1, got 1.5"),
        ({"depths": (0, 1, 1, 1)}, r"depths\[0\] must be a positive whole number, got 0"),
        ({"stem": ()}, r"stem must be a sequence of at least one value, such as \(64,\), got \(\)"),
        ({"dropout": 2.0}, "dropout must be from 0 to 1, got 2.0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)(torch.zeros(1, 3, 64, 64))


def test_pool_is_a_class_or_function():
    for pool in (nn.AdaptiveAvgPool2d(1), "avg"):
        with pytest.raises(TypeError, match="global_pool must be a class or function that makes it, got"):
            ResNet(**SMALL, global_pool=pool)


def test_without_pooling_there_are_no_classes():
    assert ResNet(**SMALL, global_pool=None)(torch.zeros(2, 3, 64, 64)).shape == (2, 128, 2, 2)


def test_a_stage_is_deeper_than_the_input_is_large():
    model = get_model("resnetblur18", num_classes=2).eval()
    with pytest.raises(RuntimeError, match="Padding size should be less than"):
        model(torch.zeros(1, 3, 8, 8))
    assert is_lazy(model)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
