"""ConvNeXt: its options equal timm's where timm has them; its norms and block take any number of spatial dimensions."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
import torchvision
from timm.layers.grn import GlobalResponseNorm
from torch import nn
from torch.nn import functional as F

import lazytorch
from lazytorch import LazyModule, materialize
from lazytorch.layers import (
    ChannelNorm,
    ConvNeXtBlock,
    LayerScale,
    LazyConvNeXtBlock,
    LazyConvNormActivation,
    ResponseNorm,
    SameConv2d,
)
from lazytorch.models import (
    ConvNeXt,
    Network,
    Row,
    get_model,
    list_models,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from scripts import parity
from tests.catalogue import first_fast
from tests.families import assert_checkpointing_computes_the_same, assert_weights_go_there_and_back

SMALL = {"depths": (1, 2, 1), "widths": (8, 16, 24), "kernel_size": 3}
SHAPE = (2, 3, 64, 64)


def same_weights(name, ours, theirs):
    theirs = timm.create_model(name, **theirs)
    model = get_model(name, **ours)
    parity.randomize(theirs)
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    return model, theirs


def assert_equals_timm(name, ours, theirs, size=64):
    model, theirs = same_weights(name, {"num_classes": 5, **ours}, {"num_classes": 5, **theirs})
    found = parity.difference(model, theirs, "timm", size)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    return model


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", first_fast(["convnext_atto", "convnextv2_atto", "convnext_pico_ols"]))
def test_dilated_networks_equal_timms(name, output_stride, size):
    options = {"output_stride": output_stride}
    model = assert_equals_timm(name, options, options, size)
    assert model.feature_info[-1].reduction == output_stride
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // output_stride,) * 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"drop_path_rate": 0.3}, {"drop_path_rate": 0.3}),
        ({"dropout": 0.3}, {"drop_rate": 0.3}),
        ({"activation": nn.SiLU}, {"act_layer": "silu"}),
        ({"norm_layer": nn.BatchNorm2d}, {"norm_layer": "batchnorm2d"}),
        ({"norm_layer": partial(ChannelNorm, eps=0.1)}, {"norm_eps": 0.1}),
        ({"kernel_size": 3}, {"kernel_sizes": 3}),
        ({"layer_scale": 0.5}, {"ls_init_value": 0.5}),
        ({"hidden_norm": ResponseNorm}, {"use_grn": True}),
        ({"hidden_channels": 24}, {"head_hidden_size": 24}),
        ({"norm_first": True}, {"head_norm_first": True}),
        ({"depths": (1, 2, 1, 1), "widths": (16, 24, 24, 8)}, {"depths": (1, 2, 1, 1), "dims": (16, 24, 24, 8)}),
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_equal_timms(ours, theirs):
    assert_equals_timm("convnext_atto", ours, theirs)


def test_xxlarge_has_its_own_eps():
    small = {"depths": (1, 1, 1, 1)}
    assert_equals_timm("convnext_xxlarge", {**small, "widths": (8,) * 4}, {**small, "dims": (8,) * 4})


@pytest.mark.parametrize("options", [{}, {"out_indices": (0, -1)}, {"output_stride": 8}], ids=str)
@pytest.mark.parametrize("name", first_fast(["convnext_atto_ols", "convnextv2_femto", "convnext_tiny"]))
def test_feature_maps_are_those_of_timm(name, options):
    given = {"features_only": True, **options}
    theirs = timm.create_model(name, **given).eval()
    parity.randomize(theirs)
    whole = {key: value for key, value in options.items() if key != "out_indices"}
    source, model = timm.create_model(name, **whole), get_model(name, **whole).eval()
    # timm flattens the names of modules in what it keeps of a network.
    state = {key.replace("stem.", "stem_").replace("stages.", "stages_"): key for key in source.state_dict()}
    source.load_state_dict({state[key]: value for key, value in theirs.state_dict().items()}, strict=False)
    load_reference_state_dict(model, source.state_dict(), "timm")
    features = lazytorch.models.Features(model, options.get("out_indices"))
    x = torch.randn(SHAPE)
    torch.testing.assert_close(features(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert features.feature_info.channels() == theirs.feature_info.channels()
    assert features.feature_info.reduction() == theirs.feature_info.reduction()


@pytest.mark.parametrize("name", ["convnext_atto_ols", "convnextv2_nano", "convnext_tiny", "convnext_tiny_hnf"])
def test_weights_go_to_timm_and_back(name):
    assert_weights_go_there_and_back(name, "timm")


def test_weights_of_both_zoos_are_the_same_model(tmp_path):
    theirs = torchvision.models.convnext_tiny(num_classes=4).eval()
    parity.randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "torchvision.pt")
    model = get_model("convnext_tiny", weights=tmp_path / "torchvision.pt").eval()
    x = torch.randn(SHAPE)
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.save(reference_state_dict(model, "timm"), tmp_path / "timm.pt")
    again = timm.create_model("convnext_tiny", num_classes=4).eval()
    again.load_state_dict(torch.load(tmp_path / "timm.pt"))
    torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-4)
    gray = get_model("convnext_tiny", weights=tmp_path / "timm.pt").eval()
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(gray(x), model(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_layer_decay_groups_parameters_as_timm_does():
    model, theirs = same_weights("convnext_atto", {}, {})
    scales = []
    for network in (model, theirs):
        optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
        groups = optimizer.param_groups
        found = {id(each): (group["lr_scale"], group["weight_decay"]) for group in groups for each in group["params"]}
        scales.append({key: found[id(each)] for key, each in network.named_parameters()})
    there = dict(zip(model.state_dict(), reference_state_dict(model, "timm"), strict=True))
    assert {there[key]: value for key, value in scales[0].items()} == scales[1]


def test_stochastic_depth_is_torchvisions():
    for size, rate in {"tiny": 0.1, "small": 0.4, "base": 0.5, "large": 0.5}.items():
        name = f"convnext_{size}"
        with torch.device("meta"):
            model = materialize(get_model(name), (1, 3, 64, 64))
            theirs = torchvision.models.get_model(name)
        rates = [getattr(block.layers, "drop_path", None) for stage in model.stages for block in stage]
        expected = [each.p for each in theirs.modules() if isinstance(each, torchvision.ops.StochasticDepth)]
        assert [0 if each is None else each.rate for each in rates] == pytest.approx(expected)
        assert expected[-1] == rate
    assert materialize(get_model("convnext_atto"), (1, 3, 64, 64)).stages[-1][-1].layers[-1].__class__ is LayerScale


def test_frozen_stages_keep_their_weights():
    model = get_model("convnext_atto")
    model.freeze_stages(2)
    model(torch.randn(SHAPE)).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    assert trained == {"stages.2", "stages.3", "head.pooled", "head.classifier"}


@pytest.mark.parametrize("options", [{}, {"hidden_norm": ResponseNorm, "layer_scale": None}], ids=["v1", "v2"])
def test_gradient_checkpointing_computes_the_same(options):
    model = materialize(ConvNeXt(3, **SMALL, **options), SHAPE)
    parity.randomize(model)
    assert_checkpointing_computes_the_same(model, torch.randn(SHAPE))


@pytest.mark.parametrize("norm_layer", [ChannelNorm, nn.BatchNorm2d])
def test_export_and_optimization_keep_the_outputs(norm_layer):
    model = materialize(ConvNeXt(3, **SMALL, hidden_norm=ResponseNorm, norm_layer=norm_layer), SHAPE).eval()
    parity.randomize(model)
    x = torch.randn(SHAPE)
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    optimized = optimize_for_inference(model)
    torch.testing.assert_close(optimized(x), expected, rtol=1e-4, atol=1e-4)
    depthwise = optimized.stages[0][0].layers.depthwise
    assert hasattr(depthwise, "norm") is (norm_layer is ChannelNorm)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("output_stride", [8, 32])
@pytest.mark.parametrize("name", ["convnext_atto_ols", "convnext_tiny_hnf", "convnextv2_atto"])
def test_takes_any_channels_and_rank(name, shape, output_stride):
    model = get_model(name, num_classes=4, output_stride=output_stride).eval()
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.forward_features(torch.randn(shape)).shape[2:] == tuple(size // output_stride for size in shape[2:])


@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, nn.InstanceNorm2d, None])
@pytest.mark.parametrize("shape", [(2, 3, 64), (2, 3, 64, 64), (2, 3, 32, 32, 32)])
def test_other_norms(norm_layer, shape):
    for first in (True,) if norm_layer is nn.InstanceNorm2d else (False, True):  # it needs more than one pixel
        model = ConvNeXt(3, **SMALL, norm_layer=norm_layer, norm_first=first).eval()
        assert model(torch.randn(shape)).shape == (2, 3)
        assert not any(isinstance(each, ChannelNorm) for each in model.modules())
        kinds = {type(each).__name__ for each in model.modules()}
        assert norm_layer is None or f"{norm_layer.__name__[:-2]}{len(shape) - 2}d" in kinds


def test_every_part_with_weights_is_lazy():
    for name in list_models(["convnext_atto*", "convnext_large_mlp", "convnext_tiny_hnf", "convnextv2_atto"]):
        parts = [each for each in get_model(name).modules() if next(each.parameters(recurse=False), None) is not None]
        assert parts
        assert all(isinstance(each, LazyModule) for each in parts)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_norm_over_channels_is_a_layer_norm_of_every_pixel(dims):
    norm = ChannelNorm(6, eps=0.1)
    parity.randomize(norm)
    x = torch.randn(2, 6, *(5,) * dims)
    pixel = x[(1, slice(None), *(3,) * dims)]
    expected = F.layer_norm(pixel, (6,), norm.weight, norm.bias, 0.1)
    torch.testing.assert_close(norm(x)[(1, slice(None), *(3,) * dims)], expected)
    with pytest.raises(ValueError, match="ChannelNorm: channels must be a positive whole number, got 0"):
        ChannelNorm(0)


def test_response_norm_equals_timms():
    ours, theirs = ResponseNorm(6, eps=0.1), GlobalResponseNorm(6, eps=0.1, channels_last=False)
    parity.randomize(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    # A signal is an image of one row.
    torch.testing.assert_close(ours(x[:, :, 0]), ours(x[:, :, :1])[:, :, 0])
    silent = torch.zeros(1, 6, 3, requires_grad=True)
    ours(silent).sum().backward()
    assert silent.grad.isfinite().all()


def test_initial_values_of_the_factors():
    model = materialize(ConvNeXt(3, **SMALL, layer_scale=0.25), SHAPE)
    factors = [each.layers.scale.weight for stage in model.stages for each in stage]
    assert len(factors) == 4
    assert all((each == 0.25).all() for each in factors)
    parity.randomize(model)
    model.init_weights()
    assert all((each == 0.25).all() for each in factors)
    weight = model.stages[2][0].layers.expand.conv.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_block_at_first_is_nearly_the_identity():
    block = ConvNeXtBlock(8, 8, layer_scale=1e-6)
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(block(x), x, rtol=0, atol=1e-5)
    assert not torch.equal(ConvNeXtBlock(8, 8, layer_scale=None)(x), x)


@pytest.mark.parametrize("conv_layer", [nn.Conv2d, SameConv2d])
@pytest.mark.parametrize(
    ("stride", "dilation", "input_dilation", "kernel", "size"),
    [
        (2, 1, 1, (2, 2), (8, 8)),
        (1, 2, 1, (2, 2), (16, 16)),
        (1, 4, 2, (2, 2), (16, 16)),
        (1, 3, 1, (3, 3), (16, 16)),
        ((1, 2), 1, 1, (1, 2), (16, 8)),
        ((1, 2), (2, 1), (1, 1), (2, 2), (16, 8)),
    ],
)
def test_a_stride_that_dilation_replaces_keeps_its_kernel(conv_layer, stride, dilation, input_dilation, kernel, size):
    places = {"stride": stride, "dilation": dilation, "input_dilation": input_dilation}
    block = ConvNeXtBlock(4, 4, **places, conv_layer=conv_layer)
    assert block.downsample.conv.kernel_size == kernel
    assert block(torch.randn(1, 4, 16, 16)).shape[2:] == size
    assert isinstance(ConvNeXtBlock(4, 4).downsample, nn.Identity)
    assert ConvNeXtBlock(4, 6).downsample.conv.kernel_size == (1, 1)


def test_blocks_in_a_network_of_another_stem():
    rows = [[Row(LazyConvNeXtBlock, 8, repeats=2)], [Row(partial(LazyConvNeXtBlock, kernel_size=5), 16, 2, stride=2)]]
    model = Network(3, stem=partial(LazyConvNormActivation, 8), stem_reduction=1, stages=rows)
    assert model(torch.zeros(2, 5, 16, 16)).shape == (2, 3)
    assert isinstance(model.stages[1][0].downsample.norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "depths and widths must have the same length, got 2 and 3"),
        ({"depths": (), "widths": ()}, "depths must be a sequence of at least one value"),
        ({"widths": (8, 0, 8)}, r"widths\[1\] must be a positive whole number, got 0"),
        ({"depths": (1, 0, 1)}, r"depths\[1\] must be a positive whole number, got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd to keep the size, got 4"),
        ({"kernel_size": 0}, "kernel_size must be a positive whole number, got 0"),
        ({"overlap_channels": 0}, "overlap_channels must be a positive whole number, got 0"),
        ({"hidden_channels": -1}, "hidden_channels must be a positive whole number, got -1"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be from 0 to below 1, got 1.5"),
        ({"num_classes": -1}, "num_classes must be a whole number of at least 0, got -1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXt(**SMALL | options)


def test_wrong_options_of_the_block():
    assert ConvNeXtBlock(3, 3, expansion_ratio=1.5).layers.expand.conv.out_channels == 4
    with pytest.raises(ValueError, match="out_channels must be a positive whole number, got 0"):
        ConvNeXtBlock(3, 0)
    with pytest.raises(ValueError, match="expansion_ratio must be positive, got 0"):
        ConvNeXtBlock(3, 3, expansion_ratio=0)
    with pytest.raises(ValueError, match=r"stride must be one number or 2 of them, got \(1, 1, 2\)"):
        ConvNeXtBlock(3, 3, stride=(1, 1, 2))
    with pytest.raises(ValueError, match="input_dilation must be a positive whole number, got 0"):
        ConvNeXtBlock(3, 3, input_dilation=0)
    with pytest.raises(TypeError, match=r"ConvNeXt\.__init__\(\) got an unexpected keyword argument 'depth'"):
        ConvNeXt(depth=3)


def test_defaults_of_the_family_are_in_its_signature():
    import inspect

    defaults = {name: each.default for name, each in inspect.signature(ConvNeXt).parameters.items()}
    assert (defaults["norm_layer"], defaults["activation"]) == (ChannelNorm, nn.GELU)
    assert defaults["conv_layer"] is nn.Conv2d
