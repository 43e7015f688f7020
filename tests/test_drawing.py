"""Weights are drawn once, by the network's scheme or PyTorch's own, and not at all where a load overwrites them."""

import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lazytorch import materialize
from lazytorch.drawing import side_by_side
from lazytorch.layers import ConvNormActivation, LazyConvNormActivation, LazySqueezeExcitation, SqueezeExcitation
from lazytorch.models import Backbone, get_model

SHAPE = (1, 3, 64, 64)
NAMES = ["mobilenet_v2", "resnet18", "seresnext50_32x4d", "efficientnet_b0", "ecaresnet26t"]


def values_drawn(call):
    """How many random values ``call`` draws."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
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


def test_a_drawing_that_fails_is_not_passed_over():
    def fail():
        raise RuntimeError("no such distribution")

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for jobs in ([fail], [fail, fail], [lambda: None, fail, lambda: None]):
            with pytest.raises(RuntimeError, match="no such distribution"):
                side_by_side(jobs)
    finally:
        torch.set_num_threads(threads)
