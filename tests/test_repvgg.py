"""RepVGG and MobileOne: their branches, what they are folded into, and weights that timm has re-parameterized."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
from timm.utils.model import reparameterize_model
from torch import nn

from lazytorch import materialize
from lazytorch.layers import ConvNormActivation, LazyMultiBranchConv, MultiBranchConv, SameConv2d, SqueezeExcitation
from lazytorch.layers.multi_branch_conv import Branches
from lazytorch.models import (
    Features,
    RepVGG,
    get_model,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from scripts import parity
from tests.catalogue import first_fast
from tests.families import assert_checkpointing_computes_the_same

NAMES = ["repvgg_a0", "mobileone_s0"]
SMALL = {"depths": (2, 3), "widths": (8, 16)}
VARIANTS = {
    "plain": SMALL | {"groups": 4, "se_layer": partial(SqueezeExcitation, reduction_ratio=4)},
    "separable": SMALL | {"separable": True, "branches": 3, "se_layer": SqueezeExcitation, "se_blocks": (0, 1)},
}
SIDES = {1: (64,), 2: (32, 40), 3: (16, 16, 24)}


def with_weights_of_timm(name, ours=None, **options):
    """Both networks with the same random weights, in evaluation."""
    theirs = timm.create_model(name, num_classes=5, **options).eval()
    parity.randomize(theirs)
    model = get_model(name, num_classes=5, **(ours or options)).eval()
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    return model, theirs


def assert_same(actual, expected, tolerance=1e-4):
    assert expected.std() > 0
    scale = expected.abs().max()
    torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=tolerance)


def after_training(model, x, steps=3):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("trained", [False, True])
def test_folded_branches_compute_the_same(variant, rank, trained):
    x = torch.randn(4, 3, *SIDES[rank])
    model = materialize(RepVGG(5, **VARIANTS[variant]), x).eval()
    if trained:
        after_training(model, x)
    else:
        parity.randomize(model)
    folded = optimize_for_inference(model)
    plain = RepVGG(5, **VARIANTS[variant], reparameterized=True, weights=folded.state_dict()).eval()
    assert not any(isinstance(each, (Branches, nn.modules.batchnorm._NormBase)) for each in folded.modules())
    assert any(isinstance(each, Branches) for each in model.modules())
    with torch.no_grad():
        assert_same(folded(x), model(x))
        torch.testing.assert_close(plain(x), folded(x))
    assert plain.state_dict().keys() == folded.state_dict().keys()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups": 2},
        {"stride": 2},
        {"dilation": 2},
        {"branches": 3, "groups": 8},
        {"kernel_size": 1, "branches": 2},
        {"kernel_size": (1, 5)},
        {"norm_layer": None},
        {"norm_layer": partial(nn.BatchNorm2d, eps=0.1, affine=False)},
        {"conv_layer": SameConv2d},
        {"conv_layer": partial(nn.Conv2d, padding_mode="reflect")},
        {"drop_path_rate": 0.5},
        {"se_layer": SqueezeExcitation, "activation": None},
    ],
    ids=str,
)
def test_a_folded_layer_computes_the_same(options):
    layer = MultiBranchConv(8, 8, **options)
    parity.randomize(layer)
    x = torch.randn(2, 8, 9, 12)
    folded = optimize_for_inference(layer.requires_grad_(False))
    assert type(folded.conv) in (nn.Conv2d, SameConv2d)
    assert not any(each.requires_grad for each in folded.parameters())
    assert ("identity" in layer.conv) == ("stride" not in options)
    assert_same(folded(x), layer.eval()(x))


def hooked(layer):
    layer.conv["0"].register_forward_hook(lambda _, __, output: output + 1)


def hooked_as_a_whole(layer):
    layer.conv.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],))


def another_norm(layer):
    layer.conv["identity"] = nn.GroupNorm(2, 8)


def another_norm_of_a_convolution(layer):
    layer.conv["pointwise"].norm = nn.GroupNorm(2, 8)
    layer.conv["pointwise"].conv.bias = nn.Parameter(torch.ones(8))


def norm_without_statistics(layer):
    layer.conv["identity"] = nn.BatchNorm2d(8, track_running_stats=False)


def another_branch(layer):
    layer.conv["0"] = nn.Conv2d(8, 8, 5, padding=2)


def further_branch(layer):
    layer.conv["last"] = ConvNormActivation(8, 8, 1, activation=None)


def of_another_size(layer):
    layer.conv["0"].conv = nn.Conv2d(8, 8, 3, padding=2, dilation=2)


def parametrized(layer):
    nn.utils.parametrizations.weight_norm(layer.conv["0"].conv)


@pytest.mark.parametrize(
    "change",
    [
        hooked,
        hooked_as_a_whole,
        another_norm,
        another_norm_of_a_convolution,
        norm_without_statistics,
        another_branch,
        further_branch,
        of_another_size,
        parametrized,
    ],
)
def test_branches_that_no_convolution_computes_stay(change):
    layer = MultiBranchConv(8, 8)
    parity.randomize(layer)
    change(layer)
    x = torch.randn(2, 8, 6, 6)
    folded = optimize_for_inference(layer)
    assert isinstance(folded.conv, Branches)
    assert_same(folded(x), layer.eval()(x))


def test_branches_that_see_other_pixels_stay():
    """With TensorFlow's padding and a stride, the center of the kernel is not the pixel of the 1x1 kernel."""
    layer = MultiBranchConv(8, 16, stride=2, conv_layer=SameConv2d)
    parity.randomize(layer)
    x = torch.randn(2, 8, 12, 12)
    folded = optimize_for_inference(layer)
    assert isinstance(folded.conv, Branches)
    assert_same(folded(x), layer.eval()(x))


@pytest.mark.parametrize("name", [*NAMES, "mobileone_s4"])
def test_weights_that_timm_reparameterized(name, tmp_path):
    model, theirs = with_weights_of_timm(name)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        folded = reparameterize_model(theirs)
        state = folded.state_dict()
        assert "stem.reparam_conv.weight" in state
        ours = get_model(name, num_classes=5, reparameterized=True)
        load_reference_state_dict(ours, state, "timm")
        torch.testing.assert_close(ours.eval()(x), folded(x))
        assert_same(ours(x), expected)
        torch.save(state, tmp_path / "weights.pth")
        gray = get_model(name, reparameterized=True, weights=tmp_path / "weights.pth").eval()
        assert_same(gray(x[:, :1]), folded(x[:, :1].expand(-1, 3, -1, -1)))
        # And back: what we fold has timm's names of it.
        folded.load_state_dict(reference_state_dict(optimize_for_inference(model), "timm"))
        assert_same(folded(x), expected)


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s1"])
def test_weights_of_the_other_form_name_the_option(name):
    model, theirs = with_weights_of_timm(name)
    branched = theirs.state_dict()
    folded = reparameterize_model(theirs).state_dict()
    message = "Re-parameterized weights need reparameterized=True, weights with branches reparameterized=False"
    for state, options in (
        (folded, {}),
        (optimize_for_inference(model).state_dict(), {}),
        (branched, {"reparameterized": True}),
        (model.state_dict(), {"reparameterized": True}),
    ):
        with pytest.raises(RuntimeError, match=message):
            get_model(name, weights=state, **options)
    with pytest.raises(RuntimeError, match=message):
        load_reference_state_dict(get_model(name, num_classes=5), folded, "timm")
    with pytest.raises(RuntimeError, match=r"of another shape: .* Nothing was changed\.$"):
        load_reference_state_dict(get_model(name, num_classes=6), branched, "timm")


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s1"])
def test_weights_there_and_back(name, tmp_path):
    model = materialize(get_model(name, num_classes=5), (1, 3, 64, 64)).eval()
    parity.randomize(model)
    theirs = timm.create_model(name, num_classes=5).eval()
    theirs.load_state_dict(reference_state_dict(model, "timm"))
    back = get_model(name, num_classes=5)
    load_reference_state_dict(back, theirs.state_dict(), "timm")
    torch.testing.assert_close(back.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    gray = get_model(name, weights=tmp_path / "weights.pth").eval()
    x = torch.randn(2, 1, 64, 64)
    assert_same(gray(x), theirs(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("options", [{}, {"out_indices": (1, -1)}, {"out_indices": (0,)}], ids=str)
@pytest.mark.parametrize("name", first_fast(NAMES))
def test_feature_maps_are_those_of_timm(name, options):
    backbone, whole = with_weights_of_timm(name)
    theirs = timm.create_model(name, features_only=True, **options)
    ours = Features(backbone, options.get("out_indices"))
    x = torch.randn(2, 3, 64, 64)
    indices = list(options.get("out_indices", range(5)))
    torch.testing.assert_close(ours(x), whole.forward_intermediates(x, indices=indices, intermediates_only=True))
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_repvgg_equals_timms_also_folded(output_stride):
    model, theirs = with_weights_of_timm("repvgg_a0", output_stride=output_stride)
    found = parity.difference(model, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    assert model.feature_info[-1].reduction == output_stride
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_same(optimize_for_inference(model)(x), model.eval()(x))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("options", [{}, {"reparameterized": True}], ids=str)
def test_a_dilated_mobileone_computes_the_pixels_between(output_stride, options):
    """In timm its kernels do not dilate."""
    strided, dilated = (
        get_model("mobileone_s1", num_classes=0, output_stride=each, **options).eval() for each in (32, output_stride)
    )
    x = torch.randn(1, 3, 128, 128)
    parity.randomize(materialize(strided, x))
    dilated.load_state_dict(strided.state_dict())
    with torch.no_grad():
        outputs, step = dilated.forward_features(x), 32 // output_stride
        assert outputs.shape[2:] == (128 // output_stride,) * 2
        assert_same(outputs[..., ::step, ::step], strided.forward_features(x))


@pytest.mark.parametrize("name", NAMES)
def test_rates_of_stochastic_depth_are_timms(name):
    theirs = timm.create_model(name, drop_path_rate=0.3)
    model = materialize(get_model(name, drop_path_rate=0.3), (1, 3, 64, 64))
    expected = [getattr(block.drop_path, "drop_prob", None) for stage in theirs.stages for block in stage]
    blocks = [block.conv for stage in model.stages for block in stage]
    rates = [block["drop_path"].rate if "drop_path" in block else None for block in blocks]
    assert rates[1] is None or rates[1] > 0
    assert [rate if rate is None else pytest.approx(rate) for rate in rates] == expected
    assert rates.count(None) > 3


def test_stochastic_depth_leaves_the_identity():
    layer = MultiBranchConv(4, 4, drop_path_rate=0.999, activation=None).train()
    x = torch.randn(8, 4, 6, 6)
    torch.testing.assert_close(layer(x), layer.conv["identity"](x))
    assert not torch.equal(layer.eval()(x), layer.conv["identity"](x))
    assert "drop_path" not in MultiBranchConv(4, 4, stride=2, drop_path_rate=0.5).conv


def test_branches():
    def branches(*args, **options):
        return list(MultiBranchConv(*args, **options).conv)

    assert branches(4, 4) == ["pointwise", "0", "identity"]
    assert branches(4, 8, branches=2) == ["pointwise", "0", "1"]
    assert branches(4, 4, 1, branches=2) == ["0", "1", "identity"]
    assert branches(4, 4, stride=(1, 2)) == ["pointwise", "0"]
    assert branches(4, 4, dilation=2, input_dilation=1) == ["pointwise", "0"]
    assert MultiBranchConv(4, 4, dilation=4, input_dilation=2).conv["0"].conv.dilation == (2, 2)
    layer = LazyMultiBranchConv(6, reparameterized=True, groups=2, drop_path_rate=0.5)
    assert layer(torch.zeros(2, 4, 8, 8, 8)).shape == (2, 6, 8, 8, 8)
    assert layer.conv.bias is not None
    assert layer.conv.groups == 2


def test_groups_attention_and_widths():
    model = materialize(RepVGG(5, **VARIANTS["plain"]), (1, 3, 32, 32))
    assert [block.conv["0"].conv.groups for stage in model.stages for block in stage] == [1, 4, 1, 4, 1]
    assert [block.conv["pointwise"].conv.groups for block in model.stages[1]] == [1, 4, 1]
    assert all("se" in block._modules for block in [model.stem, *model.stages[0], *model.stages[1]])
    model = materialize(RepVGG(5, **VARIANTS["separable"]), (1, 3, 32, 32))
    assert "se" not in model.stem._modules
    assert ["se" in block._modules for block in [*model.stages[0], *model.stages[1]]] == [False] * 8 + [True] * 2
    assert [len(block.conv) for block in model.stages[1]] == [4, 3, 5, 4, 5, 4]
    assert list(model.stem.conv) == ["pointwise", "0"]
    assert materialize(RepVGG(5, depths=(1,), widths=(96,)), (1, 3, 32, 32)).feature_info.channels() == [64, 96]


@pytest.mark.parametrize("options", [{}, {"reparameterized": True}], ids=str)
@pytest.mark.parametrize("separable", [False, True])
def test_initial_norms_are_around_a_tenth_in_repvgg_alone(separable, options):
    model = materialize(RepVGG(5, depths=(2, 2), widths=(256, 256), separable=separable, **options), (1, 3, 32, 32))
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert bool(norms) is not bool(options)
    for norm in norms:
        weight, bias = norm.weight.detach(), norm.bias.detach()
        found = [float(each) for each in (weight.mean(), weight.std(), bias.mean(), bias.std())]
        assert found == pytest.approx([1, 0, 0, 0] if separable else [0.1, 0.1, 0, 0.1], abs=0.05)
    if options:
        conv = model.stages[1][-1].conv
        assert conv.bias.eq(0).all()
        assert float(conv.weight.detach().std()) == pytest.approx((2 / conv.weight[:, 0].numel()) ** 0.5, rel=0.1)


def test_freezing_and_layer_decay():
    model = materialize(RepVGG(5, **VARIANTS["plain"]), (2, 3, 32, 32))
    model.freeze_stages(1)
    before = {key: value.clone() for key, value in model.named_buffers() if key.startswith(("stem", "stages.0"))}
    model.train()(torch.randn(2, 3, 32, 32))
    assert before
    assert all(torch.equal(model.get_buffer(key), value) for key, value in before.items())
    assert not any(each.requires_grad for each in [*model.stem.parameters(), *model.stages[0].parameters()])
    assert all(each.requires_grad for each in model.stages[1].parameters())
    scales = {
        id(parameter): group["lr_scale"]
        for group in timm.optim.param_groups_layer_decay(model.requires_grad_(), layer_decay=0.5)
        for parameter in group["params"]
    }
    last, first = model.stages[1][-1].conv, model.stem.conv
    assert scales[id(last["0"].conv.weight)] == scales[id(last["identity"].weight)] == pytest.approx(0.5)
    assert scales[id(first["pointwise"].conv.weight)] == pytest.approx(0.5**6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_checkpointing_computes_the_same(variant):
    model = materialize(RepVGG(3, **VARIANTS[variant]), (2, 3, 32, 32))
    assert_checkpointing_computes_the_same(model, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(("variant", "counts"), [("plain", (24, 18)), ("separable", (41, 15))])
def test_branched_and_folded_networks_are_exported(variant, counts):
    x = torch.randn(2, 3, 32, 32)
    model = materialize(RepVGG(5, **VARIANTS[variant]), x).eval()
    parity.randomize(model)
    for each in (model, optimize_for_inference(model)):
        program = torch.export.export(each, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        kernels = [node for node in program.graph.nodes if node.op == "call_function" and "conv" in str(node.target)]
        convolutions = sum(isinstance(part, nn.Conv2d) for part in each.modules())
        assert len(kernels) == convolutions == (counts[0] if each is model else counts[1])
        with torch.no_grad():
            again = torch.randn(3, 3, 32, 32)
            assert_same(program.module()(again), model(again))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepVGG(depths=(1, 2), widths=(8,)), "depths and widths must have the same length, got 2 and 1"),
        (lambda: RepVGG(**SMALL, se_blocks=(1,)), "depths and se_blocks must have the same length, got 2 and 1"),
        (lambda: RepVGG(**SMALL, se_blocks=(1, -1)), r"se_blocks\[1\] must be a whole number of at least 0, got -1"),
        (lambda: RepVGG(**SMALL, branches=0), "RepVGG: branches must be a positive whole number, got 0"),
        (lambda: RepVGG(**SMALL, groups=3), "groups must divide the channels, got 3 for 8"),
        (lambda: RepVGG(**SMALL, reparameterized=True, drop_path_rate=0.1), "must be 0 without residual branches"),
        (lambda: RepVGG(**SMALL, output_stride=4), "output_stride must be 8, 16 or 32, got 4"),
        (lambda: LazyMultiBranchConv(8, 4), "kernel_size must be odd to keep the size, got 4"),
        (lambda: LazyMultiBranchConv(8, branches=0), "LazyMultiBranchConv: branches must be a positive whole number"),
        (lambda: MultiBranchConv(4, 8, drop_path_rate=1), "drop_path_rate must be from 0 to below 1, got 1"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("option", ["separable", "reparameterized"])
def test_wrong_kinds(option):
    with pytest.raises(TypeError, match=f"RepVGG: {option} must be True or False, got 'no'"):
        RepVGG(**SMALL, **{option: "no"})
    with pytest.raises(TypeError, match=r"'inference_mode'\. Did you mean 'reparameterized'\?"):
        get_model("repvgg_a0", inference_mode=True)
