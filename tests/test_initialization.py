"""Parameters are initialized once, from a seed drawn at construction; a load is not preceded by an initialization."""

import copy
import dataclasses
import functools
import inspect
import itertools
import math
import sys
import threading

import pytest
import torch
from torch import nn
from torch._C._profiler import _ExperimentalConfig
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.profiler import ProfilerActivity, profile

import lazytorch
from lazytorch import LazyModule, is_lazy, lazify, materialize
from lazytorch.layers import (
    BasicBlock,
    BlurPool,
    BottleneckBlock,
    ConvNormActivation,
    EfficientChannelAttention,
    GlobalContext,
    InvertedBottleneck,
    LazyConvNormActivation,
    LazySqueezeExcitation,
    PointwiseConv,
    PreActivationBlock,
    SqueezeExcitation,
    StdConv2d,
)
from lazytorch.models import Backbone, ResNet, get_model

SHAPE = (1, 3, 64, 64)
NAMES = ["mobilenet_v2", "resnet18", "seresnext50_32x4d", "efficientnet_b0", "ecaresnet26t"]


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request):
    """Large tensors are initialized by one thread, or by two."""
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


def random_values(model):
    return sum(parameter.numel() for parameter in model.parameters() if is_random(parameter))


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# How often.


@pytest.mark.parametrize("name", NAMES)
def test_every_random_value_is_drawn_once(name):
    model = get_model(name)
    drawn = values_drawn(lambda: materialize(model, SHAPE))
    assert 0 < random_values(model) == drawn


def test_constructing_a_network_draws_no_weights():
    assert values_drawn(lambda: get_model("resnet18")) == 0


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_is_never_initialized(name, assign):
    state = materialize(get_model(name), SHAPE).state_dict()
    model = get_model(name)

    def load():
        model.load_state_dict(state, assign=assign)
        materialize(model, SHAPE)

    assert values_drawn(load) == 0
    assert_equal(model.state_dict(), state)


def test_what_a_file_contains_is_never_initialized(tmp_path, uninitialized_is_nan):
    state = materialize(get_model("resnet18", num_classes=5), SHAPE).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    models = []

    def load(**options):
        models.append(materialize(get_model("resnet18", weights=tmp_path / "weights.pt", **options), SHAPE))

    assert values_drawn(load) == 0
    assert_equal(models[0].state_dict(), state)
    with pytest.warns(UserWarning, match="num_classes=3"):
        drawn = values_drawn(lambda: load(num_classes=3))
    classifier = models[1].get_classifier()
    assert drawn == classifier.weight.numel() + classifier.bias.numel()
    assert is_random(classifier.weight)
    assert not any(value.isnan().any() for value in models[1].state_dict().values())


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_a_partial_load_initializes_the_rest_as_without_it(how, assign, uninitialized_is_nan):
    state = materialize(get_model("resnet18", num_classes=3), SHAPE).state_dict()
    part = {name: value.clone() for name, value in state.items() if name.endswith("conv.weight")}
    torch.manual_seed(1)
    expected = parameters(materialize(get_model("resnet18", num_classes=3), SHAPE))
    torch.manual_seed(1)
    model = get_model("resnet18", num_classes=3)

    def build():
        model.load_state_dict(dict(part), strict=False, assign=assign)
        assert not is_lazy(model)
        materialize(model, SHAPE) if how == "materialize" else model(torch.zeros(2, *SHAPE[1:]))

    drawn = values_drawn(build)
    assert len(part) == 20
    assert_equal({name: model.state_dict()[name] for name in part}, part)
    rest = {name: value for name, value in parameters(model).items() if name not in part}
    assert_equal(rest, {name: expected[name] for name in rest})
    assert drawn == sum(value.numel() for value in rest.values() if is_random(value)) > 0


def test_on_the_meta_device_nothing_is_drawn_and_every_tensor_exists():
    model = get_model("seresnext50_32x4d").to("meta")
    assert values_drawn(lambda: materialize(model, SHAPE)) == 0
    real = materialize(get_model("seresnext50_32x4d"), SHAPE).state_dict()
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in real.items()}
    assert all(tensor.is_meta for tensor in model.state_dict().values())


# On what the values depend.


def built_from_seed(name="resnet18", *, build=lambda model: materialize(model, SHAPE), before=lambda: None, seed=0):
    """The parameters of a network that is constructed after ``manual_seed``."""
    torch.manual_seed(seed)
    model = get_model(name, num_classes=3)
    before()
    build(model)
    assert not is_lazy(model)
    return parameters(model)


def build_backwards(model):
    """Build the parts of resnet18 from the last to the first, each from an input of the size that it has there."""
    materialize(model.head, (1, 512, 2, 2))
    for stage, (in_channels, out_channels) in zip(
        reversed(model.stages), [(256, 512), (128, 256), (64, 128), (64, 64)], strict=True
    ):
        materialize(stage[1], (1, out_channels, 4, 4))
        materialize(stage[0], (1, in_channels, 4, 4))
    materialize(model.stem_pool, (1, 64, 4, 4))
    materialize(model.stem, SHAPE)


WAYS = {
    "a call": {"build": lambda model: model(torch.zeros(2, 3, 64, 64))},
    "another size": {"build": lambda model: materialize(model, (4, 3, 96, 32))},
    "training off": {"build": lambda model: model.eval()(torch.ones(1, 3, 64, 64))},
    "numbers drawn since construction": {"before": lambda: torch.randn(7)},
    "another seed since construction": {"before": lambda: torch.manual_seed(5)},
    "another order": {"build": build_backwards},
    "no gradients": {"build": torch.no_grad()(lambda model: model(torch.zeros(2, 3, 64, 64)))},
    "inference mode": {"build": torch.inference_mode()(lambda model: model(torch.zeros(2, 3, 64, 64)))},
    "another thread": {"build": lambda model: in_thread(lambda: materialize(model, SHAPE))},
}


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("way", WAYS)
def test_weights_depend_on_the_seed_of_construction_alone(way):
    assert_equal(built_from_seed(**WAYS[way]), built_from_seed())


def test_another_seed_gives_other_weights():
    first, second = built_from_seed(), built_from_seed(seed=1)
    assert [name for name, value in first.items() if is_random(value) and torch.equal(value, second[name])] == []


@pytest.mark.parametrize("how", ["call", "materialize"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_weights_do_not_depend_on_the_number_of_threads(how, name):
    states = []
    for count in (1, 2, 3):
        torch.manual_seed(0)
        model = get_model(name)
        torch.set_num_threads(count)
        materialize(model, SHAPE) if how == "materialize" else model(torch.zeros(2, 3, 64, 64))
        states.append(parameters(model))
    assert_equal(states[1], states[0])
    assert_equal(states[2], states[0])


def test_copies_of_a_lazy_network_get_equal_weights():
    model = get_model("resnet18", num_classes=3)
    copies = [copy.deepcopy(model) for _ in range(2)]
    torch.randn(3)
    states = [parameters(materialize(each, SHAPE)) for each in (copies[0], model, copies[1])]
    assert_equal(states[0], states[1])
    assert_equal(states[2], states[1])


def test_two_networks_get_different_weights():
    first, second = (parameters(materialize(get_model("resnet18"), SHAPE)) for _ in range(2))
    assert [name for name, value in first.items() if is_random(value) and torch.equal(value, second[name])] == []


def test_no_two_weights_share_their_numbers():
    model = materialize(get_model("resnet18"), SHAPE)
    starts = [p.flatten()[:16] / p.flatten()[0] for p in model.parameters() if is_random(p) and p.numel() > 16]
    starts += [p.flatten()[1 << 18 :][:16] / p.flatten()[1 << 18] for p in model.parameters() if p.numel() > 1 << 19]
    assert len({tuple(start.tolist()) for start in starts}) == len(starts) > 20


@pytest.mark.parametrize("how", ["call", "materialize", "load"])
@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_not_touched_by_a_build(name, how):
    state_dict = materialize(get_model(name), SHAPE).state_dict()
    model = get_model(name).eval()
    state = torch.get_rng_state()
    if how == "load":
        del state_dict["head.classifier.weight"]
        model.load_state_dict(state_dict, strict=False)
    elif how == "call":
        model(torch.zeros(SHAPE))
    else:
        materialize(model, SHAPE)
    assert not is_lazy(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_threads_draw_their_own_numbers_during_a_build():
    """The sequence that this thread draws is that of its seed, though another thread builds a network meanwhile."""
    models = [get_model("resnet18") for _ in range(2)]
    builder = threading.Thread(target=lambda: [materialize(each, SHAPE) for each in models])
    torch.manual_seed(0)
    drawn = []
    builder.start()
    while builder.is_alive() or not drawn:
        drawn.append(float(torch.rand(())))
    builder.join()
    torch.manual_seed(0)
    assert drawn == [float(torch.rand(())) for _ in drawn]


def test_the_default_dtype_is_not_changed_during_a_build(monkeypatch):
    """It holds for the whole process, so that other threads would see the change."""
    seen = []

    def norm(channels):
        seen.append(torch.get_default_dtype())
        return nn.BatchNorm2d(channels)

    torch.set_default_dtype(torch.float64)
    try:
        model = network(
            norm_layer=lambda channels: (seen.append(torch.get_default_dtype()), nn.BatchNorm2d(channels))[1]
        )
        zoo = get_model("resnet10t", num_classes=3)
    finally:
        torch.set_default_dtype(torch.float32)

    def fail(*_):
        raise AssertionError("changed for every thread")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_default_dtype", fail)
        materialize(model, SHAPE)
        materialize(zoo, SHAPE)
    assert set(seen) == {torch.float32}
    for each in (model, zoo):
        tensors = (*each.parameters(), *each.buffers())
        assert {value.dtype for value in tensors if value.is_floating_point()} == {torch.float64}


# Init functions.


def halve(module):
    if isinstance(module, nn.Conv2d):
        module.weight.data.mul_(0.5)


def shift(module):
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight)
        with torch.no_grad():
            module.weight.add_(5)


def test_init_functions_run_in_order():
    """The later one decides, also where large tensors are initialized by threads."""

    def second(module):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 3.0)

    model = get_model("resnet18")
    model.apply(second)
    materialize(model, SHAPE)
    convs = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    assert len(convs) == 20
    assert all((conv.weight == 3).all() for conv in convs)


def test_of_two_init_functions_of_the_zoo_the_later_decides_and_each_value_is_drawn_once():
    model, other = get_model("resnet18"), get_model("mobilenet_v2")
    model.apply(other.initialize)
    drawn = values_drawn(lambda: materialize(model, SHAPE))
    assert drawn == random_values(model) > 0
    classifier = model.get_classifier()  # resnet18 leaves it to PyTorch, mobilenet_v2 does not
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not classifier.bias.any()


def test_what_is_done_between_the_init_function_and_the_build_finds_values():
    torch.manual_seed(0)
    plain = materialize(get_model("resnet18"), SHAPE)
    torch.manual_seed(0)
    model = get_model("resnet18").to(torch.float64).apply(halve)
    materialize(model, SHAPE)
    for name, value in plain.named_parameters():
        half = value.double() / 2 if "conv" in name and value.dim() == 4 else value.double()
        assert_equal(model.get_parameter(name), half)


@pytest.mark.parametrize("initialize", [halve, shift])
def test_an_init_function_that_reads_values_finds_the_default_ones(initialize, uninitialized_is_nan):
    model = Backbone(
        stem=LazyConvNormActivation(64, bias=True), stages=[[LazyConvNormActivation(64)]],
        num_classes=2, initialize=initialize,
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
    # What the function leaves alone is as PyTorch initializes it.
    bias = model.stem.conv.bias
    assert is_random(bias)
    assert bias.abs().max() <= 1 / math.sqrt(27)


def test_an_init_function_may_write_through_views():
    def initialize(module):
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                half = module.weight[:4]
                module.weight.normal_()
                half.fill_(0)

    model = Backbone(
        stem=LazyConvNormActivation(8), stages=[[LazyConvNormActivation(8)]],
        num_classes=2, initialize=initialize,
    )  # fmt: skip
    materialize(model, SHAPE)
    assert (model.stem.conv.weight[:4] == 0).all()
    assert (model.stem.conv.weight[4:] != 0).all()


def test_a_function_applied_between_the_init_function_and_a_load_sees_initialized_values():
    state = materialize(network(), SHAPE).state_dict()
    model, seen = network(zero_init=True), []

    def look(module):
        if isinstance(module, ConvNormActivation):
            seen.append(module.norm.weight.clone())

    model.stages.apply(look)
    model.load_state_dict(state)
    materialize(model, SHAPE)
    assert any((weight == 0).all() for weight in seen)
    assert_equal(model.state_dict(), state)


def test_a_function_applied_to_a_layer_before_a_load_sees_initialized_values():
    torch.manual_seed(0)
    expected = parameters(materialize(LazyConvNormActivation(8), (2, 6, 8, 8)))
    torch.manual_seed(0)
    lazy, seen = LazyConvNormActivation(8), []
    lazy.apply(lambda module: seen.append(module.weight.clone()) if isinstance(module, nn.Conv2d) else None)
    state = ConvNormActivation(6, 8).state_dict()
    lazy.load_state_dict(state)
    materialize(lazy, (2, 6, 8, 8))
    assert_equal(seen, [expected["conv.weight"]])
    assert_equal(lazy.state_dict(), state)


def test_an_init_function_reaches_lazy_parts_of_what_is_built():
    built = materialize(network(block=Nesting, expansion=1), SHAPE).stages[0][0]
    theirs = materialize(network(), SHAPE).stages[0][0].layers.conv
    assert built[1].conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    assert theirs.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)


def test_an_initialization_that_fails_is_an_error_and_leaves_the_network_lazy(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such distribution")

    model = get_model("resnet18", num_classes=3)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "normal_", fail)
        with pytest.raises(RuntimeError, match="no such distribution"):
            materialize(model, SHAPE)
    assert all(map(is_lazy, (model, model.stem, model.stages[0][0])))
    assert random_values(materialize(model, SHAPE)) > 0


# Code of users.


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
    """Builds a module that contains lazy ones."""

    def __init__(self, out_channels, **options):
        super().__init__(out_channels)

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


USERS = [{"se_layer": Scaled}, {"norm_layer": Norm(0.1)}, {"block": Nesting, "expansion": 1}]


@pytest.mark.parametrize("loads", [False, True])
@pytest.mark.parametrize("options", USERS, ids=["se_layer", "norm_layer", "block"])
def test_constructors_of_users_never_see_uninitialized_values(uninitialized_is_nan, loads, options):
    model = network(**options)
    if loads:
        stem = materialize(network(), SHAPE).stem.state_dict(prefix="stem.")
        model.load_state_dict(stem, strict=False)
    materialize(model, SHAPE)
    assert not any(value.isnan().any() for value in model.state_dict().values())


@pytest.mark.parametrize("options", USERS, ids=["se_layer", "norm_layer", "block"])
def test_what_constructors_of_users_draw_depends_on_the_seed_alone(options):
    states = []
    for draws in (0, 3):
        torch.manual_seed(0)
        model = network(**options)
        torch.randn(draws)
        state = torch.get_rng_state()
        materialize(model, SHAPE)
        assert torch.equal(torch.get_rng_state(), state)
        states.append(parameters(model))
    assert_equal(*states)


@pytest.mark.parametrize("way", ["call", "materialize"])
def test_lazy_parts_of_what_is_built_depend_on_the_outer_seed(way):
    states = []
    for draws in (0, 3):
        torch.manual_seed(0)
        model = LazyConvNormActivation(4, activation=LazySqueezeExcitation)
        torch.rand(draws)
        state = torch.get_rng_state()
        model(torch.zeros(2, 4, 8, 8)) if way == "call" else materialize(model, (2, 4, 8, 8))
        assert torch.equal(torch.get_rng_state(), state)
        states.append(parameters(model))
    assert_equal(*states)


def test_registration_hooks_see_every_parameter():
    names = [name for name, _ in materialize(get_model("resnet18"), SHAPE).named_parameters()]
    model, seen = get_model("resnet18"), []
    handle = register_module_parameter_registration_hook(lambda *args: seen.append(args[1]))
    try:
        materialize(model, SHAPE)
    finally:
        handle.remove()
    assert sorted(seen) == sorted(name.rpartition(".")[2] for name in names)


class Own(PointwiseConv):
    pass


def test_a_layer_that_is_replaced_for_a_while_is_not_remembered(monkeypatch):
    for describe in (materialize, lambda model, shape: lazytorch.summary(model, shape)):
        before = describe(get_model("resnet50"), SHAPE)
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["lazytorch.layers.bottleneck"], "PointwiseConv", Own)
            during = describe(get_model("resnet50"), SHAPE)
        after = describe(get_model("resnet50"), SHAPE)
        assert ["Own" in kinds(each) for each in (before, during, after)] == [False, True, False]


def kinds(described):
    if isinstance(described, nn.Module):
        return {type(each).__name__ for each in described.modules()}
    return {layer.kind for layer in described.layers}


@pytest.mark.parametrize("used_before", [True, False])
@pytest.mark.parametrize("owner", [SqueezeExcitation, nn.ReLU, nn.Conv2d, nn.modules.batchnorm._NormBase])
def test_constructors_that_are_replaced_are_called(monkeypatch, owner, used_before):
    if used_before:
        materialize(get_model("mobilenet_v3_small"), SHAPE)
    calls, original = [], owner.__init__
    with monkeypatch.context() as patch:
        patch.setattr(owner, "__init__", lambda self, *a, **k: (calls.append(self), original(self, *a, **k))[1])
        model = materialize(get_model("mobilenet_v3_small"), SHAPE)
        assert len(calls) == sum(isinstance(each, owner) for each in model.modules()) > 0
    materialize(get_model("mobilenet_v3_small"), SHAPE)
    assert len(calls) == sum(isinstance(each, owner) for each in model.modules())


@pytest.mark.parametrize("used_before", [True, False])
@pytest.mark.parametrize("owner", [nn.BatchNorm2d, nn.Conv2d])
def test_reset_parameters_that_is_replaced_is_called(monkeypatch, owner, used_before):
    def make():
        return nn.Sequential(LazyConvNormActivation(4), LazyConvNormActivation(4, 1))

    if used_before:
        materialize(make(), SHAPE)

    def reset(self):
        with torch.no_grad():
            self.weight.fill_(0.5)

    with monkeypatch.context() as patch:
        patch.setattr(owner, "reset_parameters", reset)
        model = materialize(make(), SHAPE)
    weights = [each.weight for each in model.modules() if type(each) is owner]
    assert len(weights) == 2
    assert all((weight == 0.5).all() for weight in weights)
    after = materialize(make(), SHAPE)
    assert not any((each.weight == 0.5).any() for each in after.modules() if type(each) is owner)


def test_reset_parameters_of_norms_that_is_replaced_is_called_in_a_network(monkeypatch):
    def reset(self):
        with torch.no_grad():
            self.weight.fill_(0.5)

    with monkeypatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "reset_parameters", reset)
        model = materialize(get_model("resnet18", zero_init=False), SHAPE)
        torch.manual_seed(0)
        layer = materialize(LazyConvNormActivation(4), SHAPE)
    assert (model.stem.norm.weight == 0.5).all()
    assert (layer.norm.weight == 0.5).all()
    assert (materialize(get_model("resnet18"), SHAPE).stem.norm.weight == 1).all()
    torch.manual_seed(0)
    after = materialize(LazyConvNormActivation(4), SHAPE)
    assert (after.norm.weight == 1).all()
    assert torch.equal(after.conv.weight, layer.conv.weight)  # other weights depend on the seed alone


# What is constructed.

CONSTRUCTED = [
    *itertools.product([nn.Conv1d, nn.Conv2d, nn.Conv3d], [(6, 3)], [{}, {"bias": False, "groups": 2, "padding": 1}]),
    (nn.Conv2d, (6, (3, 1), (2, 1), "valid", 2), {"padding_mode": "circular"}),
    (nn.Conv2d, (6, [3, 3]), {}),
    (nn.Conv2d, (6, torch.Size([3, 3])), {}),
    (nn.Linear, (6,), {}),
    (nn.Linear, (6, False), {}),
    (nn.BatchNorm1d, (), {"eps": 1e-3, "momentum": None}),
    (nn.BatchNorm2d, (1e-3,), {"affine": False}),
    (nn.BatchNorm2d, (1,), {}),
    (nn.BatchNorm3d, (), {"track_running_stats": False}),
    *[(nn.BatchNorm2d, (), {"bias": False})] * ("bias" in inspect.signature(nn.BatchNorm2d).parameters),
    (ConvNormActivation, (6,), {"norm_layer": functools.partial(nn.BatchNorm3d, eps=1e-3), "spatial_dims": 3}),
    (SqueezeExcitation, (2,), {"gate": nn.Hardsigmoid}),
    (EfficientChannelAttention, (), {}),
    (GlobalContext, (2,), {}),
    (PreActivationBlock, (4, 16), {"stride": 2, "se_layer": SqueezeExcitation}),
    (StdConv2d, (6, 3), {"eps": 1e-3}),
    (InvertedBottleneck, (4,), {"expansion_ratio": 6, "se_layer": SqueezeExcitation, "drop_path_rate": 0.1}),
    (BasicBlock, (4, 4), {}),
    (BottleneckBlock, (4, 16), {"stride": 2}),
    (BlurPool, (), {}),
]
INFERRED = {nn.Linear: "in_features", **dict.fromkeys([nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d], "num_features")}
CHANNELS = 4


def lazily(layer, *args, **kwargs):
    """``layer`` built by a lazy class of it."""
    dims = kwargs.get("spatial_dims", int(layer.__name__[-2]) if layer.__name__.endswith("d") else 2)
    name = INFERRED.get(layer, "in_channels")
    lazy = lazify(layer, **{name: 1})(*args, **kwargs)
    shape = (2, CHANNELS) if layer is nn.Linear else (2, CHANNELS, *(8,) * dims)
    return materialize(lazy, torch.empty(shape, device=kwargs.get("device"), dtype=kwargs.get("dtype")))


def facts(module):
    """All attributes of a module and its submodules, but for the values of tensors."""

    def fact(value):
        if isinstance(value, torch.Tensor):
            kind = type(value), value.shape, value.dtype, value.device, value.requires_grad, value.is_leaf
            return (*kind, value.stride(), value.grad_fn)
        if isinstance(value, nn.Module):
            return facts(value)
        if isinstance(value, dict):
            return type(value), [(key, fact(each)) for key, each in value.items()]
        return type(value), value

    return type(module), [(name, fact(value)) for name, value in vars(module).items()]


@pytest.mark.parametrize(("layer", "args", "kwargs"), CONSTRUCTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_built_has_the_attributes_that_the_constructor_sets(layer, args, kwargs, dtype):
    torch.set_default_dtype(dtype)
    try:
        eager, lazy = layer(CHANNELS, *args, **kwargs), [lazily(layer, *args, **kwargs) for _ in range(2)]
        with torch.device("meta"):
            empty = lazily(layer, *args, **kwargs)
    finally:
        torch.set_default_dtype(torch.float32)
    for each in (*lazy, empty.to_empty(device="cpu")):
        assert facts(each) == facts(eager)
    constants = {name for name, each in eager.named_modules() if "BatchNorm" in type(each).__name__}
    for name, value in eager.state_dict().items():
        if name.rpartition(".")[0] in constants:
            assert_equal(lazy[0].state_dict()[name], value)


def test_layers_built_from_equal_arguments_share_nothing():
    first, second = (lazily(nn.BatchNorm2d) for _ in range(2))
    with torch.no_grad():
        first.weight.fill_(7)
        first.running_mean.fill_(7)
    first.register_forward_hook(lambda *_: None)
    first.extra = nn.Identity()
    assert (second.weight == 1).all()
    assert (second.running_mean == 0).all()
    assert not second._forward_hooks
    assert not second._modules
    assert facts(lazily(nn.BatchNorm2d)) == facts(nn.BatchNorm2d(CHANNELS))
    for layer, args in ((nn.BatchNorm2d, ()), (nn.Conv2d, (6, 1)), (nn.Linear, (6,))):
        one, other = (vars(lazily(layer, *args)) for _ in range(2))
        mutable = [name for name, value in one.items() if type(value).__hash__ is None]
        assert len(mutable) > 10
        assert not any(one[name] is other[name] for name in mutable)


def test_a_device_and_a_dtype_that_are_arguments_are_used():
    for device in ("meta", "cpu", "meta", "cpu"):
        weight = lazily(nn.Conv2d, 6, 1, dtype=torch.float64, device=device).weight
        assert (weight.device.type, weight.dtype) == (device, torch.float64)
    assert lazily(nn.Conv2d, 6, 1).weight.dtype == torch.float32
    conv = lazily(nn.Conv2d, 6, 1, dtype=torch.float64)
    assert is_random(conv.weight)
    assert conv.weight.abs().max() <= 1 / math.sqrt(CHANNELS)


def test_a_refusal_is_that_of_the_constructor():
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        lazily(nn.Conv2d, 6, 1, groups=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'biass'"):
        lazily(nn.Conv2d, 6, 1, biass=3)
    with pytest.raises(ValueError, match="kernel_size must be a positive whole number, got 'x'"):
        lazily(nn.Conv2d, 6, "x")


def test_a_compilation_before_the_build_changes_nothing():
    """The first compilation of a process replaces nn.Module.__init__."""
    torch.compile(nn.Linear(2, 2), backend="eager")(torch.ones(1, 2))
    first, second = (lazily(SqueezeExcitation, 2) for _ in range(2))
    assert facts(first) == facts(second) == facts(SqueezeExcitation(CHANNELS, 2))
