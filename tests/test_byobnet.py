"""GENet, ResNet-TS and RegNetZ: what their blocks compute, and what they share with timm's besides the outputs."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
from torch import nn

from lazytorch import is_lazy, materialize
from lazytorch.layers import (
    BasicBlock,
    BottleneckBlock,
    InvertedBottleneck,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyInvertedBottleneck,
    SqueezeExcitation,
)
from lazytorch.models import (
    ByobNet,
    Features,
    MobileNet,
    RegNet,
    Row,
    Stage,
    get_model,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from lazytorch.models.stems import max_pool
from scripts import parity
from tests.catalogue import first_fast
from tests.families import assert_checkpointing_computes_the_same

ROWS = [
    Row(partial(LazyBasicBlock, 16), 16, stride=2),
    Row(partial(LazyBottleneckBlock, 8, se_layer=SqueezeExcitation, se_last=False), 32, repeats=2, stride=2),
    Row(partial(LazyInvertedBottleneck, expansion_ratio=3, group_size=8), 32, repeats=2, stride=2),
]
WIDTHS = {"depth": 5, "first_width": 16, "slope": 10, "factor": 2.5, "group_size": 4}


def with_weights_of_timm(name, **options):
    """Both networks with the same random weights, in evaluation."""
    theirs = timm.create_model(name, num_classes=5, **options).eval()
    parity.randomize(theirs)
    ours = get_model(name, num_classes=5, **options).eval()
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    return ours, theirs


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", first_fast(["seresnext26ts", "resnet32ts", "regnetz_b16", "regnetz_005"]))
def test_dilated_networks_equal_timms(name, output_stride):
    ours, theirs = with_weights_of_timm(name, output_stride=output_stride)
    found = parity.difference(ours, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    assert ours.feature_info[-1].reduction == output_stride


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["gernet_s", "gernet_m"])
def test_dilated_genets_compute_the_pixels_between(name, output_stride):
    """In timm, the last stage of gernet_m has other weights there, and the first kernel of it never dilates."""
    strided, dilated = (get_model(name, num_classes=0, output_stride=each).eval() for each in (32, output_stride))
    x = torch.randn(1, 3, 128, 128)
    expected = materialize(strided, x)
    parity.randomize(expected)
    dilated.load_state_dict(strided.state_dict())
    with torch.no_grad():
        step = 32 // output_stride
        outputs = dilated.forward_features(x)
        assert outputs.shape[2:] == (128 // output_stride,) * 2
        torch.testing.assert_close(outputs[..., ::step, ::step], strided.forward_features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"out_indices": (1, -1)}, {"out_indices": (0,)}], ids=str)
@pytest.mark.parametrize(
    "name", first_fast(["gernet_s", "regnetz_005", "eca_resnext26ts", "resnet33ts", "regnetz_d8"], 2)
)
def test_feature_maps_are_those_of_timm(name, options):
    backbone, whole = with_weights_of_timm(name)
    theirs = timm.create_model(name, features_only=True, **options)
    ours = Features(backbone, options.get("out_indices"))
    x = torch.randn(2, 3, 64, 64)
    indices = list(options.get("out_indices", range(5)))
    torch.testing.assert_close(ours(x), whole.forward_intermediates(x, indices=indices, intermediates_only=True))
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


@pytest.mark.parametrize("name", ["gernet_s", "seresnext26ts", "eca_resnet33ts", "regnetz_b16", "regnetz_005"])
def test_weights_there_and_back(name):
    model = materialize(get_model(name, num_classes=5), (1, 3, 64, 64))
    parity.randomize(model)
    theirs = timm.create_model(name, num_classes=5)
    theirs.load_state_dict(reference_state_dict(model, "timm"))
    back = get_model(name, num_classes=5)
    load_reference_state_dict(back, theirs.state_dict(), "timm")
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(back.eval()(x), theirs.eval()(x))
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value)


@pytest.mark.parametrize("name", ["gernet_s", "resnext26ts", "regnetz_005"])
def test_a_file_of_timms_weights_for_other_channels(name, tmp_path):
    _, theirs = with_weights_of_timm(name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = get_model(name, weights=tmp_path / "weights.pth").eval()
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(model(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("name", ["gernet_s", "seresnext26ts", "eca_resnet33ts", "regnetz_b16", "regnetz_005"])
def test_takes_any_channels_and_rank(name, shape):
    assert get_model(name, num_classes=4).eval()(torch.randn(shape)).shape == (shape[0], 4)


def test_final_convolution_is_the_last_block_of_its_stage():
    model = materialize(ByobNet(5, stages=ROWS, stem=(8,), final_channels=64), (2, 3, 32, 32))
    assert model.feature_info.channels() == [8, 16, 32, 64]
    assert [len(stage) for stage in model.stages] == [1, 2, 3]
    model.freeze_stages(3)
    assert [name for name, each in model.named_parameters() if each.requires_grad] == [
        "head.classifier.weight",
        "head.classifier.bias",
    ]
    scales = {
        id(parameter): group["lr_scale"]
        for group in timm.optim.param_groups_layer_decay(model.train().requires_grad_(), layer_decay=0.5)
        for parameter in group["params"]
    }
    assert scales[id(model.stages[2][2].conv.weight)] == pytest.approx(0.5)
    assert scales[id(model.stages[2][1].layers.expand.conv.weight)] == pytest.approx(0.25)
    assert scales[id(model.stem.conv.weight)] == pytest.approx(0.5**7)


@pytest.mark.parametrize(
    ("options", "reductions", "pool"),
    [
        ({"stem": (8,)}, [2, 4, 8, 16], None),
        ({"stem": (8,), "stem_pool": max_pool}, [2, 8, 16, 32], "stem_pool"),
        ({"stem": (4, 8, 12)}, [2, 8, 16, 32], "stem_pool"),
        ({"stem": (4, 6, 8), "stem_pool": max_pool}, [2, 8, 16, 32], "stem_pool"),
    ],
)
def test_stems(options, reductions, pool):
    model = ByobNet(5, stages=ROWS, **options)
    maps = model.forward_intermediates(torch.zeros(2, 3, 64, 64), intermediates_only=True)
    sizes = [64 // each.shape[2] for each in maps]
    if pool is not None:  # the first stage has a stride of 2, so the pooled output is not a map
        assert model.get_submodule(pool)(model.stem(torch.zeros(2, 3, 64, 64))).shape[2] == 16
    assert sizes == model.feature_info.reduction() == reductions
    assert [each.shape[1] for each in maps] == model.feature_info.channels() == [8, 16, 32, 32]
    assert model.feature_info[0].module == "stem"


@pytest.mark.parametrize("name", ["gernet_s", "regnetz_b16"])
def test_gradient_checkpointing_computes_the_same(name):
    torch.manual_seed(0)
    model = materialize(get_model(name, num_classes=3), (2, 3, 64, 64))
    assert_checkpointing_computes_the_same(model, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["gernet_s", "eca_resnext26ts", "regnetz_005"])
def test_exported_and_folded_networks_compute_the_same(name):
    model = materialize(get_model(name, num_classes=5), (2, 3, 64, 64)).eval()
    parity.randomize(model)
    x = torch.randn(2, 3, 64, 64)
    folded = optimize_for_inference(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(program(x), expected)
        torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_groups_of_an_inverted_bottleneck():
    block = InvertedBottleneck(8, 16, stride=2, expansion_ratio=3, group_size=4)
    assert block.layers.conv.conv.weight.shape == (24, 4, 3, 3)
    assert "depthwise" not in block.layers._modules
    depthwise = InvertedBottleneck(8, 16, expansion_ratio=3)
    assert depthwise.layers.depthwise.conv.groups == 24
    from_output = InvertedBottleneck(8, 16, expansion_ratio=3, expand_from_output=True, group_size=6)
    assert from_output.layers.expand.conv.weight.shape == (48, 8, 1, 1)
    assert from_output.layers.conv.conv.groups == 8
    unexpanded = InvertedBottleneck(8, 16, expand_from_output=True)
    assert unexpanded.layers.expand.conv.out_channels == 16
    assert unexpanded(torch.zeros(2, 8, 8, 8)).shape == (2, 16, 8, 8)
    beginning = InvertedBottleneck(8, 16, dilation=4, input_dilation=2)
    assert beginning.layers.depthwise.conv.dilation == (2, 2)


@pytest.mark.parametrize(("se_last", "place", "channels"), [(True, 3, 12), (False, 2, 8)])
@pytest.mark.parametrize("squeeze_ratio", [None, 2])
def test_attention_follows_or_precedes_the_last_convolution(se_last, place, channels, squeeze_ratio):
    se_layer = partial(SqueezeExcitation, reduction_ratio=4)
    block = BottleneckBlock(6, 8, 12, se_layer=se_layer, se_last=se_last, squeeze_ratio=squeeze_ratio)
    assert [name for name, _ in block.layers.named_children()].index("se") == place
    assert block.layers.se.reduce.in_channels == channels
    assert block.layers.se.reduce.out_channels == (channels // 4 if squeeze_ratio is None else 3)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_a_block_has_the_same_weights_where_dilation_replaces_its_stride(block):
    strided, dilated = block(8, 4, 8, stride=2), block(8, 4, 8, dilation=2, input_dilation=1)
    assert strided.state_dict().keys() == dilated.state_dict().keys()
    assert isinstance(block(8, 4, 8, dilation=2).shortcut, nn.Identity)


def test_branches_with_a_shortcut_start_from_zero():
    model = materialize(ByobNet(5, stages=ROWS, zero_init=True), (2, 3, 32, 32))
    first, second = model.stages[2]
    assert first.layers.project.norm.weight.all()
    assert not second.layers.project.norm.weight.any()
    assert not model.stages[0][0].layers.conv2.norm.weight.any()
    assert not model.stages[1][0].layers.restore.norm.weight.any()
    plain = materialize(ByobNet(5, stages=ROWS, zero_init=False), (2, 3, 32, 32))
    assert plain.stages[2][1].layers.project.norm.weight.all()
    without = materialize(ByobNet(5, stages=ROWS, norm_layer=None), (2, 3, 32, 32))
    assert all(each.any() for name, each in without.named_parameters() if name.endswith("weight"))


def test_stochastic_depth_leaves_out_branches_with_a_shortcut_alone():
    model = materialize(get_model("regnetz_b16", drop_path_rate=0.2), (2, 3, 64, 64))
    blocks = [block for stage in model.stages for block in stage][:-1]
    rates = [block.layers.drop_path.rate if "drop_path" in block.layers._modules else None for block in blocks]
    assert rates[-1] == pytest.approx(0.2)
    assert [rate is None for rate in rates] == [not block.has_shortcut for block in blocks]


def test_squeeze_excitation_of_a_regnet_has_its_activation():
    """As in both zoos."""
    for options in ({}, {"inverted": True, "expansion_ratio": 2, "final_channels": 24}):
        model = materialize(RegNet(3, **WIDTHS, **options, squeeze_ratio=4, activation=nn.SiLU), (2, 3, 64, 64))
        kinds = {type(each.activation) for each in model.modules() if isinstance(each, SqueezeExcitation)}
        assert kinds == {nn.SiLU}
        assert not any(isinstance(each, nn.ReLU) for each in model.modules())


@pytest.mark.parametrize(("family", "rows"), [(ByobNet, ROWS), (MobileNet, [Stage(8)])])
def test_subclass_may_replace_the_rules_of_its_options(family, rows):
    own = type("Own", (family,), {"rules": {}})
    assert own(3, stages=rows)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(ValueError, match="Own: stages must be a sequence of at least one value"):
        own(3)


def test_default_regnet_is_regnetx_004():
    assert str(materialize(RegNet(), (1, 3, 32, 32))) == str(materialize(get_model("regnetx_004"), (1, 3, 32, 32)))


def test_inverted_blocks_of_a_regnet_end_without_an_activation():
    model = materialize(RegNet(3, **WIDTHS, inverted=True, expansion_ratio=2), (2, 3, 64, 64))
    assert all(isinstance(block, InvertedBottleneck) for stage in model.stages for block in stage)
    assert isinstance(model.final, nn.ReLU)  # that the blocks do not have
    x = torch.randn(2, 3, 64, 64)
    features = model.forward_features(x)
    assert features.min() == 0
    assert model.forward_intermediates(x, 1, intermediates_only=True)[0].min() < 0


def test_a_lazy_network_stays_lazy_where_groups_do_not_fit():
    model = ByobNet(5, stages=[Row(partial(LazyInvertedBottleneck, expansion_ratio=3, group_size=5), 16, stride=2)])
    with pytest.raises(ValueError, match="group_size must divide the 96 expanded channels, got 5"):
        model(torch.zeros(2, 3, 32, 32))
    assert is_lazy(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByobNet(), r"ByobNet: stages must be a sequence of at least one value, .*, got \(\)"),
        (lambda: ByobNet(stages=[]), r"ByobNet: stages must be a sequence of at least one value, .*, got \[\]"),
        (lambda: ByobNet(stages=ROWS, stem=()), r"ByobNet: stem must be a sequence of at least .*, got \(\)"),
        (lambda: ByobNet(stages=ROWS, stem=32), "ByobNet: stem must be a sequence of at least .*, got 32"),
        (lambda: ByobNet(stages=ROWS, final_channels=0), "final_channels must be a positive whole number, got 0"),
        (lambda: ByobNet(stages=ROWS, output_stride=4), "output_stride must be 8, 16 or 32, got 4"),
        (lambda: RegNet(**WIDTHS, expansion_ratio=0), "expansion_ratio must be positive, got 0"),
        (lambda: RegNet(**WIDTHS, final_channels=0), "final_channels must be a positive whole number, got 0"),
        (lambda: InvertedBottleneck(8, 8, group_size=3), "group_size must divide the 8 expanded channels, got 3"),
        (lambda: InvertedBottleneck(8, 8, group_size=0), "group_size must be a positive whole number, got 0"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
