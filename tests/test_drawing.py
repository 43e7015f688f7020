"""Weights are drawn once, by the network's scheme or PyTorch's own, and not at all where a load overwrites them."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from lazytorch import LazyModule, materialize
from lazytorch.drawing import Scheme
from lazytorch.layers import ConvNormActivation, LazyConvNormActivation, LazySqueezeExcitation, SqueezeExcitation
from lazytorch.models import Backbone, ResNet, get_model
from lazytorch.side_by_side import draw_now

SHAPE = (1, 3, 64, 64)
NAMES = ["mobilenet_v2", "resnet18", "seresnext50_32x4d", "efficientnet_b0", "ecaresnet26t"]


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request):
    """Weights are drawn in turn, or by one thread while another one builds."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def values_drawn(call):
    """How many random values ``call`` draws."""
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, experimental_config=everywhere) as profiler:
        call()
    drawn = [event for event in profiler.events() if event.name in ("aten::normal_", "aten::uniform_")]
    return sum(math.prod(event.input_shapes[0]) for event in drawn)


def is_random(tensor):
    return tensor.is_floating_point() and not torch.equal(tensor, tensor.flatten()[0].expand_as(tensor))


@pytest.mark.parametrize("name", NAMES)
def test_every_random_value_is_drawn_once(name):
    model = get_model(name)
    drawn = values_drawn(lambda: materialize(model, SHAPE))
    random = sum(parameter.numel() for parameter in model.parameters() if is_random(parameter))
    assert 0 < random == drawn


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_is_not_drawn(name, assign):
    state = materialize(get_model(name), SHAPE).state_dict()
    model = get_model(name)
    model.load_state_dict(state, assign=assign)
    assert values_drawn(lambda: materialize(model, SHAPE)) == 0
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_what_a_file_holds_is_not_drawn(tmp_path, undrawn_is_nan):
    state = materialize(get_model("resnet18", num_classes=5), SHAPE).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    models = []

    def load(**options):
        models.append(materialize(get_model("resnet18", weights=tmp_path / "weights.pt", **options), SHAPE))

    assert values_drawn(load) == 0
    torch.testing.assert_close(models[0].state_dict(), state, rtol=0, atol=0)
    with pytest.warns(UserWarning, match="the classifier starts afresh"):
        drawn = values_drawn(lambda: load(num_classes=3))
    classifier = models[1].get_classifier()
    assert drawn == classifier.weight.numel() + classifier.bias.numel()
    assert is_random(classifier.weight)
    assert not any(value.isnan().any() for value in models[1].state_dict().values())


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_what_a_partial_load_has_is_not_drawn_over(how, assign):
    state = materialize(get_model("resnet18", num_classes=3), SHAPE).state_dict()
    part = {name: value.clone() for name, value in state.items() if name.endswith("conv.weight")}
    model = get_model("resnet18", num_classes=3)
    model.load_state_dict(dict(part), strict=False, assign=assign)
    materialize(model, SHAPE) if how == "materialize" else model(torch.zeros(2, *SHAPE[1:]))
    assert len(part) == 20
    torch.testing.assert_close({name: model.state_dict()[name] for name in part}, part, rtol=0, atol=0)
    assert is_random(model.get_classifier().weight)


def test_two_schemes_draw_one_after_the_other():
    """What draws later overwrites, also where the first is drawn by another thread."""

    def second(module):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 3.0)

    for _ in range(5):
        model = get_model("resnet18")
        second.__module__ = "lazytorch.tests"
        model.apply(Scheme(second))
        materialize(model, SHAPE)
        convs = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
        assert len(convs) == 20
        assert all((conv.weight == 3).all() for conv in convs)


def test_what_is_done_between_scheme_and_build_finds_values():
    model = get_model("resnet18").to(torch.float64).apply(halve)
    torch.manual_seed(0)
    plain = materialize(get_model("resnet18"), SHAPE)
    torch.manual_seed(0)
    model = get_model("resnet18").to(torch.float64).apply(halve)
    materialize(model, SHAPE)
    for name, value in plain.named_parameters():
        half = value.double() / 2 if "conv" in name and value.dim() == 4 else value.double()
        torch.testing.assert_close(model.get_parameter(name), half)


def test_what_is_on_meta_is_not_drawn_and_has_every_tensor():
    model = get_model("seresnext50_32x4d").to("meta")
    assert values_drawn(lambda: materialize(model, SHAPE)) == 0
    real = materialize(get_model("seresnext50_32x4d"), SHAPE).state_dict()
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in real.items()}
    assert all(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize("how", ["call", "materialize"])
def test_weights_do_not_depend_on_the_threads_that_draw_them(how):
    states = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.manual_seed(0)
        model = get_model("resnet18")
        torch.set_num_threads(count)
        try:
            materialize(model, SHAPE) if how == "materialize" else model(torch.zeros(2, 3, 64, 64))
        finally:
            torch.set_num_threads(threads)
        states.append({name: each.clone() for name, each in model.named_parameters()})
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    torch.testing.assert_close(states[2], states[0], rtol=0, atol=0)


def test_no_two_weights_are_the_same_numbers():
    model = materialize(get_model("resnet18"), SHAPE)
    starts = [p.flatten()[:16] / p.flatten()[0] for p in model.parameters() if is_random(p) and p.numel() > 16]
    starts += [p.flatten()[1 << 18 :][:16] / p.flatten()[1 << 18] for p in model.parameters() if p.numel() > 1 << 19]
    assert len({tuple(start.tolist()) for start in starts}) == len(starts) > 20


def halve(module):
    if isinstance(module, nn.Conv2d):
        module.weight.data.mul_(0.5)


def shift(module):
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight)
        with torch.no_grad():
            module.weight.add_(5)


@pytest.mark.parametrize("initialize", [halve, shift])
def test_a_scheme_that_reads_values_finds_them_drawn(initialize):
    model = Backbone(
        stem=LazyConvNormActivation(64, bias=True), stages=[[LazyConvNormActivation(64)]],
        channels=[64], reductions=[1], num_features=64, num_classes=2, initialize=initialize,
    )  # fmt: skip
    materialize(model, SHAPE)
    conv = model.stages[0][0].conv.requires_grad_(False)
    bound = 1 / math.sqrt(conv.weight[0].numel())
    if initialize is halve:
        assert conv.weight.abs().max() == pytest.approx(bound / 2, rel=1e-2)
        assert conv.weight.std() == pytest.approx(bound / 2 / math.sqrt(3), rel=2e-2)
    else:
        assert conv.weight.mean() == pytest.approx(5, abs=0.05)
        assert conv.weight.std() == pytest.approx(1, rel=2e-2)
    # What the scheme leaves alone is as PyTorch draws it.
    bias = model.stem.conv.bias
    assert is_random(bias)
    assert bias.abs().max() <= 1 / math.sqrt(27)


EAGER = {
    "norm": (ConvNormActivation, LazyConvNormActivation, (8, 3), ["norm."]),
    "bias": (ConvNormActivation, LazyConvNormActivation, (8, 3), ["conv.bias"]),
    "last": (SqueezeExcitation, LazySqueezeExcitation, (2,), ["expand."]),
    "first": (SqueezeExcitation, LazySqueezeExcitation, (2,), ["reduce.", "expand.weight"]),
}


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("case", EAGER)
def test_what_a_partial_load_leaves_is_what_the_eager_module_would_have_drawn(case, assign):
    eager_class, lazy_class, args, loaded = EAGER[case]
    options = {"bias": True} if eager_class is ConvNormActivation else {}
    other = eager_class(6, *args, **options).state_dict()
    part = {name: value + 1 for name, value in other.items() if name.startswith(tuple(loaded))}
    modules = []
    for make in (lambda: eager_class(6, *args, **options), lambda: lazy_class(*args, **options)):
        torch.manual_seed(0)
        module = make()
        module.load_state_dict({name: value.clone() for name, value in part.items()}, strict=False, assign=assign)
        modules.append(module)
    eager, lazy = modules
    assert part
    lazy(torch.zeros(2, 6, 8, 8))
    for name, value in eager.named_parameters():
        torch.testing.assert_close(lazy.get_parameter(name), value, rtol=0, atol=0)


def test_what_is_done_before_a_partial_load_finds_values():
    modules = []
    for make in (lambda: ConvNormActivation(6, 8), lambda: LazyConvNormActivation(8)):
        torch.manual_seed(0)
        module = make().apply(halve)
        module.load_state_dict({"norm.bias": torch.ones(8)}, strict=False)
        modules.append(module)
    eager, lazy = modules
    lazy(torch.zeros(2, 6, 8, 8))
    for name, value in eager.named_parameters():
        torch.testing.assert_close(lazy.get_parameter(name), value, rtol=0, atol=0)


class Scaled(nn.Module):
    """Attention of a user, whose constructor reads weights of ours."""

    def __init__(self, channels, spatial_dims=2):
        super().__init__()
        self.se = SqueezeExcitation(channels, 4, spatial_dims=spatial_dims)
        self.twin = copy.deepcopy(self.se)
        with torch.no_grad():
            self.se.expand.weight.mul_(0.01)
        self.se.reduce.weight.data.fill_(3)

    def forward(self, x):
        return self.twin(self.se(x))


class Nesting(LazyModule):
    """Builds a module that holds lazy ones."""

    def __init__(self, channels, *args, **kwargs):
        super().__init__(channels)

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return nn.Sequential(nn.Conv2d(inputs[0].size(1), *module_args, 1), LazyConvNormActivation(*module_args))


@dataclasses.dataclass
class Norm:
    """A callable without a hash."""

    eps: float

    def __call__(self, channels):
        return nn.BatchNorm2d(channels, eps=self.eps)


def network(**options):
    return ResNet(2, depths=(1,), widths=(16,), stem=(8,), **options)


@pytest.mark.parametrize("loads", [False, True])
def test_what_users_construct_is_never_seen_undrawn(undrawn_is_nan, loads):
    for options in ({"se_layer": Scaled}, {"norm_layer": Norm(0.1)}, {"block": Nesting, "expansion": 1}):
        model = network(**options)
        if loads:
            model.load_state_dict({"stages.0.0.nothing": torch.zeros(1)}, strict=False)
        materialize(model, SHAPE)
        assert not any(value.isnan().any() for value in model.state_dict().values())


def test_a_scheme_reaches_lazy_parts_of_what_is_built():
    built = materialize(network(block=Nesting, expansion=1), SHAPE).stages[0][0]
    theirs = materialize(network(), SHAPE).stages[0][0].layers.conv
    assert built[1].conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    assert theirs.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)


def test_a_users_scheme_may_write_through_views():
    def initialize(module):
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                half = module.weight[:4]
                module.weight.normal_()
                half.fill_(0)

    model = Backbone(
        stem=LazyConvNormActivation(8), stages=[[LazyConvNormActivation(8)]], channels=[8], reductions=[1],
        num_features=8, num_classes=2, initialize=initialize,
    )  # fmt: skip
    materialize(model, SHAPE)
    assert (model.stem.conv.weight[:4] == 0).all()
    assert (model.stem.conv.weight[4:] != 0).all()


def test_what_reads_weights_between_scheme_and_load_finds_those_of_the_scheme():
    state = materialize(network(), SHAPE).state_dict()
    model, seen = network(zero_init=True), []

    def look(module):
        if isinstance(module, ConvNormActivation):
            seen.append(module.norm.weight.clone())

    model.stages.apply(look)
    model.load_state_dict(state)
    materialize(model, SHAPE)
    assert any((weight == 0).all() for weight in seen)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_streams_of_the_scheme_are_not_that_of_the_constructor():
    torch.manual_seed(0)
    model = get_model("resnet10t")
    state = model.stem.conv1._pending.random_state
    materialize(model, SHAPE)
    torch.set_rng_state(state)
    weight = model.stem.conv1.conv.weight
    expected = torch.empty(weight.shape).normal_(0, float(math.sqrt(2 / (weight.size(0) * 9))))
    assert not torch.allclose(expected, weight)


def test_a_drawing_that_fails_is_not_passed_over():
    def fail():
        raise RuntimeError("no such distribution")

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for jobs in ([fail], [fail, fail], [lambda: None, fail, lambda: None]):
            with pytest.raises(RuntimeError, match="no such distribution"):
                draw_now(jobs)
    finally:
        torch.set_num_threads(threads)
