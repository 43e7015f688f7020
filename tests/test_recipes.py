"""What is made by a recipe is what the constructor makes."""

import itertools
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lazytorch import materialize, recipes
from lazytorch.drawing import Drawing, putting_off, recipe_of
from lazytorch.layers import (
    BlurPool,
    BottleneckBlock,
    ConvNormActivation,
    EfficientChannelAttention,
    InvertedBottleneck,
    SqueezeExcitation,
)
from lazytorch.models import get_model
from lazytorch.recipes import Question, Recipe, call_key

CPU, META = torch.device("cpu"), torch.device("meta")
CASES = [
    *itertools.product(
        [nn.Conv1d, nn.Conv2d, nn.Conv3d], [(4, 6, 3)], [{}, {"bias": False, "groups": 2, "padding": 1}]
    ),
    (nn.Conv2d, (4, 6, (3, 1), (2, 1), "valid", 2), {"padding_mode": "circular"}),
    (nn.Linear, (4, 6), {}),
    (nn.Linear, (4, 6, False), {}),
    (nn.BatchNorm1d, (4,), {"eps": 1e-3, "momentum": None}),
    (nn.BatchNorm2d, (4, 1e-3), {"affine": False}),
    (nn.BatchNorm3d, (4,), {"track_running_stats": False}),
    (ConvNormActivation, (4, 6), {"norm_layer": partial(nn.BatchNorm2d, eps=1e-3), "spatial_dims": 3}),
    (SqueezeExcitation, (16,), {"gate": nn.Hardsigmoid}),
    (EfficientChannelAttention, (16,), {}),
    (InvertedBottleneck, (8, 8), {"expansion_ratio": 6, "se_layer": SqueezeExcitation, "drop_path_rate": 0.1}),
    (BottleneckBlock, (8, 4, 16), {"stride": 2}),
    (BlurPool, (8,), {}),
]


@pytest.fixture(autouse=True)
def constructors_as_found(monkeypatch):
    """What another test's package has replaced for the whole process counts as PyTorch's."""
    monkeypatch.setattr(
        recipes, "CONSTRUCTORS", [(owner, name, getattr(owner, name)) for owner, name, _ in recipes.CONSTRUCTORS]
    )


def test_the_first_of_its_kind_is_what_the_constructor_made():
    recipe_of.cache_clear()
    made = [construct(BottleneckBlock, 8, 4, 16, stride=2) for _ in range(3)]
    assert recipe_of.cache_info().hits >= 2
    assert facts(made[0]) == facts(made[1]) == facts(made[2])
    drawings = [Drawing(CPU, constants=constants) for constants in (True, True, False)]
    recipe_of.cache_clear()
    for drawing, count in zip(drawings, (8, 8, 4), strict=True):  # convolutions and norms, or convolutions
        with putting_off(drawing):
            drawing.construct(BottleneckBlock, 8, 4, 16, stride=2)
        assert len(drawing.put_off) == count
        assert len({id(module) for module, _ in drawing.put_off}) == count


def construct(layer, *args, device=CPU, constants=False, **kwargs):
    drawing = Drawing(device, constants=constants)
    with device, putting_off(drawing):
        return drawing.construct(layer, *args, **kwargs)


def facts(module):
    """All that a module is, but for values."""

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


@pytest.mark.parametrize(("layer", "args", "kwargs"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_is_what_the_constructor_makes(layer, args, kwargs, dtype):
    torch.set_default_dtype(dtype)
    try:
        eager, copies = layer(*args, **kwargs), [construct(layer, *args, **kwargs) for _ in range(2)]
        empty = construct(layer, *args, device=META, constants=True, **kwargs)
    finally:
        torch.set_default_dtype(torch.float32)
    for copied in copies:
        assert facts(copied) == facts(eager)
    assert facts(empty.to_empty(device="cpu")) == facts(eager)
    constants = {name for name, each in eager.named_modules() if "BatchNorm" in type(each).__name__}
    for name, value in eager.state_dict().items():
        if name.rpartition(".")[0] in constants:
            torch.testing.assert_close(copies[0].state_dict()[name], value, rtol=0, atol=0)


def test_copies_share_nothing():
    first, second = (construct(nn.BatchNorm2d, 4) for _ in range(2))
    with torch.no_grad():
        first.weight.fill_(7)
        first.running_mean.fill_(7)
    first.register_forward_hook(lambda *_: None)
    first.extra = nn.Identity()
    assert (second.weight == 1).all()
    assert (second.running_mean == 0).all()
    assert not second._forward_hooks
    assert not second._modules
    third = construct(nn.BatchNorm2d, 4)
    assert facts(third) == facts(nn.BatchNorm2d(4))
    for layer, args in ((nn.BatchNorm2d, (4,)), (nn.Conv2d, (4, 6, 1)), (nn.Linear, (4, 6))):
        one, other = (vars(construct(layer, *args)) for _ in range(2))
        mutable = [name for name, value in one.items() if type(value).__hash__ is None]
        assert len(mutable) > 10
        assert not any(one[name] is other[name] for name in mutable)


def test_numbers_of_another_type_are_others():
    whole = construct(nn.BatchNorm2d, 4, 1)
    real = construct(nn.BatchNorm2d, 4, 1.0)
    assert (type(whole.eps), type(real.eps)) == (int, float)


@pytest.mark.parametrize("args", [(4, 6, [3, 3]), (4, 6, torch.Size([3, 3])), (4, 6, "x")])
def test_arguments_that_are_no_keys_reach_the_constructor(args):
    if args[2] != "x":
        assert facts(construct(nn.Conv2d, *args)) == facts(nn.Conv2d(*args))
    else:
        with pytest.raises(TypeError):
            construct(nn.Conv2d, *args)


def test_what_holds_more_than_layers_has_no_recipe():
    """A buffer's values, say, or a part of a user's, are made by the constructor alone."""
    made = construct(BlurPool, 8)
    assert recipe_of(Question(call_key(BlurPool, (8,), {}), lambda: made)) is None
    torch.testing.assert_close(made.state_dict(), BlurPool(8).state_dict())
    for module in (nn.Embedding(3, 2), nn.GroupNorm(2, 4), nn.Sequential(Own(2, 2)), *map(holding, MUTABLE)):
        with pytest.raises(ValueError):  # noqa: PT011 - it is for the one who asks alone
            Recipe(module)


def test_a_recipe_draws_nothing():
    state = torch.get_rng_state()
    construct(BlurPool, 24)
    construct(BottleneckBlock, 24, 12, 48)
    assert torch.equal(torch.get_rng_state(), state)


MUTABLE = [torch.zeros(1), [torch.zeros(1)], {"part": nn.ReLU()}, (1, [2])]


def holding(value):
    module = nn.ReLU()
    vars(module)["held"] = value
    return module


def test_a_device_and_a_dtype_are_the_callers():
    make = partial(Drawing(CPU, constants=False).construct, nn.Conv2d, 4, 6, 1, dtype=torch.float64)
    for device in (META, CPU, META, CPU):
        weight = make(device=str(device)).weight
        assert (weight.device, weight.dtype) == (device, torch.float64)
    assert [make().weight.dtype for _ in range(2)] == [torch.float64] * 2


def test_a_refusal_is_the_constructors():
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        construct(nn.Conv2d, 4, 6, 1, groups=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'biass'"):
        construct(nn.Conv2d, 4, 6, 1, biass=3)


def test_who_watches_constructors_sees_every_parameter(monkeypatch):
    names = [name for name, _ in materialize(get_model("resnet18"), (1, 3, 64, 64)).named_parameters()]
    seen = []
    handle = register_module_parameter_registration_hook(lambda *args: seen.append(args[1]))
    try:
        materialize(get_model("resnet18"), (1, 3, 64, 64))
    finally:
        handle.remove()
    assert len(seen) == len(names)
    built = []
    original = nn.Conv2d.__init__
    monkeypatch.setattr(nn.Conv2d, "__init__", lambda self, *a, **k: (built.append(self), original(self, *a, **k))[1])
    model = materialize(get_model("resnet18"), (1, 3, 64, 64))
    assert len(built) == sum(isinstance(each, nn.Conv2d) for each in model.modules())


def test_what_was_compiled_leaves_recipes_as_they_were():
    """The first compilation of a process replaces nn.Module.__init__."""
    torch.compile(nn.Linear(2, 2), backend="eager")(torch.ones(1, 2))
    recipe_of.cache_clear()
    first, second = (construct(SqueezeExcitation, 16) for _ in range(2))
    assert recipe_of.cache_info().hits > 0
    assert facts(first) == facts(second) == facts(SqueezeExcitation(16))


class Own(ConvNormActivation):
    pass


def test_what_was_replaced_for_a_while_is_not_remembered(monkeypatch):
    recipe_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["lazytorch.layers.bottleneck"], "ConvNormActivation", Own)
        assert any(type(each) is Own for each in materialize(get_model("resnet50"), (1, 3, 64, 64)).modules())
    assert not any(type(each) is Own for each in materialize(get_model("resnet50"), (1, 3, 64, 64)).modules())


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("owner", [SqueezeExcitation, nn.ReLU, nn.modules.batchnorm._NormBase])
def test_constructors_that_are_replaced_are_called(monkeypatch, owner, cached):
    recipe_of.cache_clear()
    if cached:
        materialize(get_model("mobilenet_v3_small"), (1, 3, 64, 64))
    calls, original = [], owner.__init__
    with monkeypatch.context() as patch:
        patch.setattr(owner, "__init__", lambda self, *a, **k: (calls.append(self), original(self, *a, **k))[1])
        model = materialize(get_model("mobilenet_v3_small"), (1, 3, 64, 64))
        assert len(calls) == sum(isinstance(each, owner) for each in model.modules()) > 0
    materialize(get_model("mobilenet_v3_small"), (1, 3, 64, 64))
    assert len(calls) == sum(isinstance(each, owner) for each in model.modules())


@pytest.mark.parametrize("cached", [True, False])
def test_values_that_are_replaced_are_taken(monkeypatch, cached):
    recipe_of.cache_clear()
    if cached:
        materialize(get_model("resnet18"), (1, 3, 64, 64))

    def reset(self):
        with torch.no_grad():
            self.weight.fill_(0.5)

    with monkeypatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "reset_parameters", reset)
        model = materialize(get_model("resnet18", zero_init=False), (1, 3, 64, 64))
    assert (model.stem.conv.norm.weight == 0.5).all()
    after = materialize(get_model("resnet18"), (1, 3, 64, 64))
    assert (after.stem.conv.norm.weight == 1).all()
