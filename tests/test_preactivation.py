"""ResNetV2, BiT, RegNetV and networks with global context: their layers, and what they share with timm's."""

import copy
from functools import partial

import pytest
import timm
import timm.optim
import torch
from timm.layers import GlobalContext as TimmGlobalContext
from timm.layers import GroupNormAct
from timm.layers import StdConv2d as TimmStdConv2d
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torch.nn import functional as F

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.layers import (
    BasicBlock,
    BlurPool,
    GlobalContext,
    LazyConvNormActivation,
    LazyPreActivationBlock,
    PreActivationBlock,
    SqueezeExcitation,
    StdConv1d,
    StdConv2d,
    StdConv3d,
    pooled_projection,
    projection,
)
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    ByobNet,
    Network,
    RegNet,
    ResNet,
    Row,
    get_model,
    inflate_state_dict,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from lazytorch.models.stems import zero_padded_max_pool
from scripts import parity
from tests.catalogue import first_fast
from tests.families import assert_checkpointing_computes_the_same

SHAPE = (2, 3, 64, 64)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
V2 = {"preactivation": True, "block": LazyPreActivationBlock, "depths": (1, 2, 1), "widths": (8, 16, 24), "stem": (8,)}
BIT = V2 | {
    "norm_layer": partial(nn.GroupNorm, 4),
    "conv_layer": partial(StdConv2d, eps=1e-8),
    "stem_pool": zero_padded_max_pool,
}
BASIC = V2 | {"block": partial(LazyPreActivationBlock, basic=True), "expansion": 1, "stem": (4, 4, 8)}
RESNETS = {"v2": V2, "bit": BIT, "basic": BASIC}
REGNET = {"depth": 5, "first_width": 16, "slope": 10, "factor": 2.5, "group_size": 4, "squeeze_ratio": 4}
REGNETV = REGNET | {"preactivation": True, "shortcut": pooled_projection}
GC = {
    "stem": (4, 8),
    "stages": [
        Row(partial(LazyPreActivationBlock, 8, se_layer=GlobalContext), 16),
        Row(partial(LazyPreActivationBlock, 8, se_layer=partial(GlobalContext, gate=nn.Sigmoid)), 32, 2, stride=2),
    ],
}
TABLES = {**{name: (ResNet, each) for name, each in RESNETS.items()}, "v": (RegNet, REGNETV), "gc": (ByobNet, GC)}
SAMPLES = ["resnetv2_18d", "resnetv2_50x1_bit", "regnetv_064", "gcresnext26ts", "gc_efficientnetv2_rw_t"]
every_table = pytest.mark.parametrize(("family", "table"), TABLES.values(), ids=TABLES)
every_sample = pytest.mark.parametrize("name", first_fast(SAMPLES, 2))


def built(family, table, shape=SHAPE, **options):
    model = materialize(family(3, **table, **options), shape)
    parity.randomize(model)
    return model


def same_weights(name, **options):
    """Ours and timm's, with the same random weights, in evaluation."""
    theirs = timm.create_model(name, num_classes=3, **options).eval()
    parity.randomize(theirs)
    ours = get_model(name, num_classes=3, **options).eval()
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    return ours, theirs


# Layers.


@pytest.mark.parametrize("groups", [1, 2])
def test_a_standardized_convolution_equals_timms(groups):
    options = {"stride": 2, "padding": 1, "groups": groups, "bias": True, "eps": 0.1}
    ours, theirs = StdConv2d(4, 6, 3, **options), TimmStdConv2d(4, 6, 3, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    assert (ours(x) - F.conv2d(x, ours.weight, ours.bias, 2, 1, 1, groups)).abs().max() > 0.1


@pytest.mark.parametrize(("layer", "dims"), [(StdConv1d, 1), (StdConv2d, 2), (StdConv3d, 3)])
def test_the_scale_and_the_mean_of_weights_do_not_matter(layer, dims):
    conv = LazyConvNormActivation(4, stride=2, dilation=2, norm_layer=None, activation=None, conv_layer=StdConv2d)
    x = torch.randn(2, 3, *(9,) * dims)
    expected = conv(x)
    assert type(conv.conv) is layer
    assert expected.shape == (2, 4, *(5,) * dims)
    assert copy.deepcopy(conv).to(torch.float64)(x.double()).dtype is torch.float64
    with torch.no_grad():
        conv.conv.weight.mul_(3).add_(1)
    torch.testing.assert_close(conv(x), expected, rtol=1e-3, atol=1e-3)


def test_wrong_options_of_a_standardized_convolution():
    with pytest.raises(ValueError, match="StdConv2d: an output must have several weights to standardize, got one"):
        StdConv2d(4, 4, 1, groups=4)
    with pytest.raises(ValueError, match="StdConv1d: eps must be positive, got 0"):
        StdConv1d(4, 4, 1, eps=0)
    with pytest.raises(TypeError, match="padding_mode"):
        LazyConvNormActivation(4, padding_mode="reflect", conv_layer=StdConv2d)(X)


@pytest.mark.parametrize(("add", "scale"), [(True, False), (False, True)])
def test_global_context_equals_timms(add, scale):
    theirs = TimmGlobalContext(16, fuse_add=add, fuse_scale=scale, act_layer=nn.SiLU)
    ours = GlobalContext(16, activation=nn.SiLU, gate=nn.Sigmoid if scale else None)
    parity.randomize(theirs)
    assert [each.shape for each in ours.parameters()] == [each.shape for each in theirs.parameters()]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 16, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x.to(memory_format=torch.channels_last)), theirs(x))


@pytest.mark.parametrize("dims", [1, 3])
def test_global_context_does_not_depend_on_where_pixels_are(dims):
    context = GlobalContext(8, 2, spatial_dims=dims)
    x = torch.randn(2, 8, *(6,) * dims)
    torch.testing.assert_close(context(x.flip(2)), context(x).flip(2))
    difference = (context(x) - x).flatten(2)  # one vector for all pixels
    torch.testing.assert_close(difference, difference[..., :1].expand_as(difference))
    assert difference.abs().max() > 1e-3


def test_channels_between_the_layers_of_global_context():
    assert [GlobalContext(20, *ratio).transform.reduce.out_channels for ratio in ((), (3,), (99,))] == [2, 6, 1]
    assert GlobalContext(20, squeeze_channels=5).transform.norm.weight.shape == (5,)
    with pytest.raises(ValueError, match="squeeze_channels must be a positive whole number, got 0"):
        GlobalContext(8, squeeze_channels=0)
    with pytest.raises(ValueError, match="reduction_ratio must be positive, got 0"):
        GlobalContext(8, 0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_zeros_that_pad_the_pooling_are_values(dims):
    pool = materialize(zero_padded_max_pool(4), (1, 2, *(8,) * dims))
    y = pool(torch.full((1, 2, *(8,) * dims), -1.0))
    assert y.shape == (1, 2, *(4,) * dims)
    assert y.flatten(2)[..., 0].eq(0).all()
    assert y.flatten(2)[..., -1].eq(-1).all()


@pytest.mark.parametrize("basic", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_block_is_the_sum_of_its_branch_and_its_shortcut(basic, dims):
    x = torch.randn(2, 8, *(6,) * dims)
    for always in (False, True):
        block = PreActivationBlock(8, 4, 8, basic=basic, always=always, spatial_dims=dims).eval()
        parity.randomize(block)
        activated = block.preactivation(x)
        assert activated.min() == 0
        torch.testing.assert_close(block(x), block.layers(activated) + (activated if always else x))
    strided = PreActivationBlock(8, 4, 12, stride=2, basic=basic, spatial_dims=dims).eval()
    expected = strided.layers(strided.preactivation(x)) + strided.shortcut(strided.preactivation(x))
    torch.testing.assert_close(strided(x), expected)
    assert strided(x).shape == (2, 12, *(3,) * dims)
    assert [name for name, each in strided.named_parameters() if name.endswith("bias") and "norm" not in name] == []


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_activations_in_place_leave_the_input_as_it_is(norm_layer):
    block = PreActivationBlock(4, 4, 4, norm_layer=norm_layer, activation=partial(nn.ReLU, inplace=True))
    x = torch.randn(2, 4, 8, 8)
    before = x.clone()
    block(x).sum().backward()
    assert torch.equal(x, before)
    biases = [name for name, _ in block.named_parameters() if name.endswith("conv.bias")]
    assert len(biases) == (3 if norm_layer is None else 0)


def test_attention_precedes_the_last_norm():
    block = PreActivationBlock(8, 4, 12, se_layer=SqueezeExcitation, squeeze_ratio=4)
    assert [name for name, _ in block.layers.named_children()] == ["reduce", "conv", "se", "norm", "restore"]
    assert [name for name, _ in block.layers.conv.named_children()] == ["conv"]
    assert (block.layers.se.reduce.in_channels, block.layers.se.reduce.out_channels) == (4, 2)
    basic = PreActivationBlock(8, 4, 12, basic=True, dilation=2, input_dilation=1)
    assert [each.conv.dilation for each in basic.layers] == [(1, 1), (2, 2)]
    assert [each.conv.kernel_size for each in basic.layers] == [(3, 3), (3, 3)]
    assert not isinstance(basic.shortcut, nn.Identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 0}, "PreActivationBlock: out_channels must be a positive whole number, got 0"),
        ({"kernel_size": 2}, "PreActivationBlock: kernel_size must be odd to keep the size, got 2"),
        ({"groups": 3}, "PreActivationBlock: groups must divide the channels, got 3 for 4"),
        ({"squeeze_ratio": 0}, "PreActivationBlock: squeeze_ratio must be positive, got 0"),
        ({"drop_path_rate": 1}, "PreActivationBlock: drop_path_rate must be from 0 to below 1, got 1"),
    ],
)
def test_wrong_options_of_the_block(options, message):
    options = {"mid_channels": 4, "out_channels": 8} | options
    with pytest.raises(ValueError, match=message):
        PreActivationBlock(6, **options)
    with pytest.raises(ValueError, match=f"Lazy{message}"):
        LazyPreActivationBlock(**options)


def test_other_wrong_options():
    for option in ("basic", "always"):
        with pytest.raises(TypeError, match=f"LazyPreActivationBlock: {option} must be True or False, got 'no'"):
            LazyPreActivationBlock(4, 8, **{option: "no"})
    with pytest.raises(TypeError, match="preactivation must be True or False, got 'yes'"):
        ResNet(preactivation="yes")
    with pytest.raises(TypeError, match="unexpected keyword argument 'anti_aliasing'"):
        ResNet(**V2, anti_aliasing=BlurPool)
    with pytest.raises(ValueError, match="RegNet: inverted and preactivation are two kinds of blocks, got both"):
        RegNet(**REGNETV, inverted=True)
    with pytest.raises(TypeError, match="RegNet: shortcut must be a class or function that makes it, got 'avg'"):
        RegNet(**REGNET, shortcut="avg")


# Networks.


@every_table
@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 65), (1, 2, 32, 33, 32)])
def test_takes_any_channels_and_rank(family, table, shape):
    model = family(4, **table).eval()
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    maps = model.forward_intermediates(torch.randn(shape), intermediates_only=True)
    for info, each in zip(model.feature_info, maps, strict=True):
        assert each.shape[1:] == (info.channels, *(-(-size // info.reduction) for size in shape[2:]))


@every_table
def test_its_code_is_known_and_every_part_with_weights_is_lazy(family, table):
    model = family(4, **table)
    assert runs_known_code(survey(model))
    parts = [each for each in model.modules() if next(each.parameters(recurse=False), None) is not None]
    assert parts
    assert all(isinstance(each, LazyModule) for each in parts)


@pytest.mark.parametrize(
    ("stem_type", "stem"), [("", (16,)), ("fixed", (16,)), ("deep", (8, 8, 16)), ("tiered", (6, 8, 16))]
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("basic", [False, True])
def test_a_table_equals_timms_of_the_same_numbers(stem_type, stem, output_stride, basic):
    average, expansion, widths = stem_type in ("deep", "fixed"), 1 if basic else 4, (8, 16, 24, 32)
    theirs = ResNetV2(
        (1, 2, 1, 2),
        tuple(width * expansion for width in widths),
        num_classes=3,
        stem_chs=16,
        stem_type=stem_type,
        avg_down=average,
        basic=basic,
        bottle_ratio=1 / expansion,
        output_stride=output_stride,
        norm_layer=partial(GroupNormAct, num_groups=2),
        conv_layer=partial(TimmStdConv2d, eps=1e-3),
    )
    options = {"stem_pool": zero_padded_max_pool} if stem_type == "fixed" else {}
    ours = ResNet(
        3,
        depths=(1, 2, 1, 2),
        widths=widths,
        expansion=expansion,
        stem=stem,
        block=partial(LazyPreActivationBlock, basic=basic),
        preactivation=True,
        shortcut=pooled_projection if average else projection,
        norm_layer=partial(nn.GroupNorm, 2),
        conv_layer=partial(StdConv2d, eps=1e-3),
        output_stride=output_stride,
        **options,
    )
    parity.randomize(theirs)
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    found = parity.difference(ours, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}


@every_sample
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_networks_equal_timms(name, output_stride):
    ours, theirs = same_weights(name, output_stride=output_stride)
    with torch.no_grad():
        torch.testing.assert_close(ours(X), theirs(X), rtol=1e-4, atol=1e-4)
        assert ours.forward_features(X).shape[2:] == (64 // output_stride,) * 2


@every_sample
def test_weights_there_and_back_and_of_a_file_for_other_channels(name, tmp_path):
    ours, theirs = same_weights(name)
    again = timm.create_model(name, num_classes=3)
    again.load_state_dict(reference_state_dict(ours, "timm"))
    torch.testing.assert_close(again.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    other = get_model(name, weights=tmp_path / "weights.pt").eval()
    assert other.num_classes == 3  # as the weights have
    same = get_model(name, num_classes=3, weights=tmp_path / "weights.pt").eval()
    with torch.no_grad():
        torch.testing.assert_close(same(X), theirs(X), rtol=1e-4, atol=1e-4)
        gray = X[:, :1]
        if "bit" not in name:
            expected = theirs(gray.expand(-1, 3, -1, -1))
            torch.testing.assert_close(other(gray), expected, rtol=1e-3, atol=1e-3)
        else:  # standardized weights do not sum to those of the sum
            assert other(gray).shape == (2, 3)


def test_weights_for_other_classes():
    _, theirs = same_weights("resnetv2_50x1_bit")
    with pytest.warns(UserWarning, match="have 3 classes but num_classes=5: loaded the backbone only"):
        model = get_model("resnetv2_50x1_bit", num_classes=5, weights=theirs.state_dict()).eval()
    assert model(X).shape == (2, 5)
    expected = theirs.forward_features(X)
    torch.testing.assert_close(model.forward_features(X), expected, rtol=1e-4, atol=1e-4)


@every_table
def test_weights_of_a_table_without_a_name_go_there_and_back(family, table):
    model = built(family, table)
    state = reference_state_dict(model, "timm")
    assert not any(key.startswith("head.classifier") or ".layers." in key for key in state) or family is ByobNet
    assert state["head.fc.weight"].dim() == (4 if family is ResNet else 2)
    copied = family(3, **table)
    load_reference_state_dict(copied, state, "timm")
    torch.testing.assert_close(copied.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_weights_of_images_for_volumes():
    volumes = ResNet(3, **V2)
    load_reference_state_dict(volumes, inflated(reference_state_dict(built(ResNet, V2), "timm")), "timm")
    assert volumes(torch.randn(2, 3, 32, 32, 32)).shape == (2, 3)


def inflated(state):
    """The classifier, a 1x1 convolution in timm, has the same shape for volumes."""
    return inflate_state_dict({key: each for key, each in state.items() if not key.startswith("head.fc")}) | {
        key: each for key, each in state.items() if key.startswith("head.fc")
    }


@every_sample
def test_feature_maps_are_those_of_timm(name):
    ours, theirs = same_weights(name)
    with torch.no_grad():
        features, maps = ours.forward_intermediates(X)
        expected_features, expected = theirs.forward_intermediates(X)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features, expected_features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [REGNETV, REGNET | {"inverted": True, "expansion_ratio": 2}], ids=["V", "Z"])
def test_an_activation_in_place_leaves_the_last_feature_map_as_it_is(options):
    model = materialize(RegNet(3, **options, activation=partial(nn.ReLU, inplace=True)), SHAPE).eval()
    features, maps = model.forward_intermediates(X)
    assert features.min() == 0
    assert maps[-1].min() < 0


@every_sample
def test_layer_decay_groups_parameters_as_timm_does(name):
    model, theirs = same_weights(name)
    scales = []
    for network in (model, theirs):
        optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
        groups = optimizer.param_groups
        found = {id(each): (group["lr_scale"], group["weight_decay"]) for group in groups for each in group["params"]}
        scales.append({key: found[id(each)] for key, each in network.named_parameters()})
    there = dict(zip(model.state_dict(), reference_state_dict(model, "timm"), strict=True))
    assert {there[key]: value for key, value in scales[0].items()} == scales[1]


@every_table
def test_frozen_stages_keep_their_weights(family, table):
    model = built(family, table)
    model.freeze_stages(1)
    model(X).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    rest = {f"stages.{index}" for index in range(1, len(model.stages))} | {"head.classifier"}
    assert trained == rest | ({"final.norm"} if family is ResNet else set())


@every_table
def test_gradient_checkpointing_computes_the_same(family, table):
    assert_checkpointing_computes_the_same(built(family, table), X)


@every_table
def test_export_and_optimization_keep_the_outputs(family, table):
    model = built(family, table).eval()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    expected = model(X)
    torch.testing.assert_close(program(X), expected)
    optimized = optimize_for_inference(model)
    torch.testing.assert_close(optimized(X), expected, rtol=1e-4, atol=1e-4)
    block = optimized.stages[1][0]
    assert hasattr(block.preactivation, "norm")  # which precedes a sum as well
    folded = "norm_layer" not in table and family is not ByobNet  # and its last convolution has attention
    first = next(iter(block.layers))
    assert hasattr(first, "norm") is not (folded or family is ByobNet)


def test_a_standardized_convolution_is_not_folded():
    layer = materialize(LazyConvNormActivation(4, conv_layer=StdConv2d), SHAPE).eval()
    parity.randomize(layer)
    folded = optimize_for_inference(layer)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    torch.testing.assert_close(folded(X), layer(X), rtol=1e-4, atol=1e-4)


def test_initial_values():
    model = materialize(ResNet(100, **BIT), SHAPE)
    classifier = model.head.classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not classifier.bias.any()
    weight = model.stages[1][0].layers.conv.conv.weight
    assert weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)
    assert materialize(ResNet(100, **V2, zero_init=True), SHAPE).stages[0][0].layers.conv.norm.weight.all()
    gc = materialize(ByobNet(3, **GC), SHAPE)
    added, multiplied = gc.stages[0][0].layers.se, gc.stages[1][0].layers.se
    assert not added.transform.expand.weight.any()
    assert multiplied.transform.expand.weight.any()
    assert added.attend.weight.std().item() == pytest.approx(0.5, rel=0.6)


def test_stochastic_depth():
    model = materialize(ResNet(3, **V2, drop_path_rate=0.3), SHAPE)
    blocks = [block for stage in model.stages for block in stage]
    rates = [block.layers.drop_path.rate if "drop_path" in block.layers._modules else 0 for block in blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_blocks_in_a_network_of_another_stem():
    rows = [[Row(partial(PreActivationBlock, mid_channels=4), 8, repeats=2)]]
    model = Network(3, stem=partial(LazyConvNormActivation, 8), stem_reduction=1, stages=rows)
    assert is_lazy(model)
    assert model(torch.zeros(2, 5, 16, 16)).shape == (2, 3)
    assert isinstance(BasicBlock(4, 4, 4, se_layer=GlobalContext).layers.se, GlobalContext)
