"""A zoo model's first call builds it from shapes first, where nobody can tell."""

import copy
import pickle
import sys

import pytest
import torch
import torch._dynamo
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from lazytorch import ShapeInferenceError, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation
from lazytorch.models import get_model

MODULE = sys.modules["lazytorch.materialize"]
pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture
def built(monkeypatch):
    """How many models were built from shapes."""
    seen = []
    run = MODULE.run_on_shapes
    monkeypatch.setattr(MODULE, "run_on_shapes", lambda module, *rest: (seen.append(module), run(module, *rest))[1])
    return seen


def image(batch=4):
    return torch.randn(batch, 5, 32, 32)


def test_weights_and_statistics_are_those_of_a_build_and_one_call(built, undrawn_is_nan):
    x = image()
    torch.manual_seed(0)
    model = get_model("resnet18", num_classes=3)
    torch.manual_seed(0)
    other = materialize(get_model("resnet18", num_classes=3), (1, 5, 32, 32))
    built.clear()
    states = []
    for each in (model, other):
        torch.manual_seed(1)
        states.append((each(x), torch.rand(1)))
    assert built == [model]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert model.stem.conv.norm.num_batches_tracked == 1
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not any("forward" in vars(each) for each in model.modules())
    model(x)
    assert built == [model]


def hook_on_part(model, seen):
    model.stages[0].register_forward_hook(lambda _, args, __: seen.append(type(args[0])))


def hook_on_lazy_part(model, seen):
    model.stem.conv.register_forward_pre_hook(lambda _, args: seen.append(type(args[0])))


def users_part(model, seen):
    class Look(nn.Module):
        def forward(self, x):
            seen.append(type(x))
            return x

    model.final = Look()


def own_method(model, seen):
    head = model.forward_head
    model.forward_head = lambda x, pre_logits=False: (seen.append(type(x)), head(x, pre_logits))[1]


def own_norm(model, seen):
    def norm(channels):
        seen.append(torch.Tensor)
        return nn.BatchNorm2d(channels)

    model.stem = LazyConvNormActivation(64, norm_layer=norm)


@pytest.mark.parametrize("watch", [hook_on_part, hook_on_lazy_part, users_part, own_method, own_norm])
def test_who_looks_sees_the_input_once(built, watch):
    model, seen = get_model("resnet18", num_classes=3), []
    watch(model, seen)
    model(image())
    assert seen == [torch.Tensor]
    assert built == []
    assert not is_lazy(model)


def test_hooks_on_all_modules_see_the_input_once(built):
    model, seen = get_model("resnet18", num_classes=3), []
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        model(image())
    finally:
        handle.remove()
    assert built == []
    convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    assert [seen.count(each) for each in convolutions] == [1] * 20


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "autocast", "vmap", "double"])
def test_modes_are_met_as_ever(built, how):
    model, x = get_model("resnet18", num_classes=3).eval(), image()
    if how == "vmap":
        assert torch.func.vmap(model)(x[None]).shape == (1, 4, 3)
        assert built == []
    elif how == "double":
        assert model.double()(x.double()).dtype == torch.float64
    else:
        mode = torch.autocast("cpu", torch.bfloat16) if how == "autocast" else getattr(torch, how)()
        with mode:
            y = model(x)
        assert y.dtype == (torch.bfloat16 if how == "autocast" else torch.float32)
        assert built == [model]
    assert not any(parameter.is_inference() for parameter in model.parameters())
    model.train()(x.to(next(model.parameters()).dtype)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_failure_is_the_calls_own(built):
    model = get_model("resnet18", num_classes=3)
    state = pickle.dumps(model)
    for _ in range(2):
        with pytest.raises(Exception, match="dimensions") as error:
            model(torch.zeros(4, 5))
        assert any(note.startswith("at stem") for note in error.value.__notes__)
        assert pickle.dumps(model) == state
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied.eval()(x := image()), model.eval()(x), rtol=0, atol=0)
    assert built[-2:] == [copied, model]


def test_shapes_that_cannot_be_told_are_left_to_the_call(monkeypatch):
    def fail(*_):
        raise ShapeInferenceError("no shapes")

    monkeypatch.setattr(MODULE, "run_on_shapes", fail)
    model = get_model("resnet18", num_classes=3)
    assert model(image()).shape == (4, 3)


def test_a_call_that_fails_after_the_build_leaves_the_model_lazy(built):
    """BatchNorm refuses one value a channel in training, which shapes do not show."""
    model = get_model("resnet18", num_classes=3)
    state = pickle.dumps(model)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.zeros(1, 3, 32, 32))
    assert built == [model]
    assert pickle.dumps(model) == state
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_an_interrupted_first_call_leaves_the_model_lazy(built, monkeypatch):
    model, convolve, calls = get_model("resnet18", num_classes=3), torch.conv2d, []

    def interrupted(*args):
        calls.append(type(args[0]))
        if calls.count(torch.Tensor) == 5:
            raise KeyboardInterrupt
        return convolve(*args)

    monkeypatch.setattr(nn.functional, "conv2d", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model(image())
    assert built == [model]
    assert all(is_lazy(each) for each in (model, model.stem, model.get_classifier()))
    monkeypatch.undo()
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_models_of_before_there_was_such_a_build_can_be_called():
    model = get_model("resnet18", num_classes=3)
    del model.never_called
    assert model(image()).shape == (4, 3)


def test_what_is_compiled_first_is_built_by_the_compiler(built):
    model, x = get_model("resnet10t", num_classes=3).eval(), image()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, model(x))
    torch.testing.assert_close(y, compiled(x))
    assert built == []


def test_without_dynamo_nothing_is_imported_for_it(built, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    model = get_model("resnet10t", num_classes=3)
    model(image())
    assert built == []
    assert "torch._dynamo" not in sys.modules
