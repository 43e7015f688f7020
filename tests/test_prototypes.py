"""Layers of torch.nn that are copied are what their constructors make."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lazytorch import materialize
from lazytorch.models import get_model
from lazytorch.prototypes import construct

CPU = torch.device("cpu")
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
]


def facts(module):
    """All that a module is, but for values."""

    def fact(value):
        if isinstance(value, torch.Tensor):
            kind = type(value), value.shape, value.dtype, value.device, value.requires_grad, value.is_leaf
            return (*kind, value.stride(), value.grad_fn)
        if isinstance(value, dict):
            return type(value), [(key, fact(each)) for key, each in value.items()]
        return type(value), value

    return type(module), [(name, fact(value)) for name, value in vars(module).items()]


@pytest.mark.parametrize(("layer", "args", "kwargs"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_is_what_the_constructor_makes(layer, args, kwargs, dtype):
    torch.set_default_dtype(dtype)
    try:
        eager, copies = layer(*args, **kwargs), [construct(layer, args, kwargs, CPU, values=True) for _ in range(2)]
        empty = construct(layer, args, kwargs, torch.device("meta"), values=False)
    finally:
        torch.set_default_dtype(torch.float32)
    for copied in copies:
        assert facts(copied) == facts(eager)
    assert facts(empty.to_empty(device="cpu")) == facts(eager)
    if "Norm" in layer.__name__:
        torch.testing.assert_close(copies[0].state_dict(), eager.state_dict(), rtol=0, atol=0)


def test_copies_share_nothing():
    first, second = (construct(nn.BatchNorm2d, (4,), {}, CPU, values=True) for _ in range(2))
    with torch.no_grad():
        first.weight.fill_(7)
        first.running_mean.fill_(7)
    first.register_forward_hook(lambda *_: None)
    first.extra = nn.Identity()
    assert (second.weight == 1).all()
    assert (second.running_mean == 0).all()
    assert not second._forward_hooks
    assert not second._modules
    third = construct(nn.BatchNorm2d, (4,), {}, CPU, values=True)
    assert facts(third) == facts(nn.BatchNorm2d(4))
    for layer, args in ((nn.BatchNorm2d, (4,)), (nn.Conv2d, (4, 6, 1)), (nn.Linear, (4, 6))):
        one, other = (vars(construct(layer, args, {}, CPU, values=True)) for _ in range(2))
        mutable = [name for name, value in one.items() if type(value).__hash__ is None]
        assert len(mutable) > 10
        assert not any(one[name] is other[name] for name in mutable)


def test_numbers_of_another_type_are_others():
    whole = construct(nn.BatchNorm2d, (4, 1), {}, CPU, values=True)
    real = construct(nn.BatchNorm2d, (4, 1.0), {}, CPU, values=True)
    assert (type(whole.eps), type(real.eps)) == (int, float)


@pytest.mark.parametrize("args", [(4, 6, [3, 3]), (4, 6, "x")])
def test_arguments_that_are_no_keys_reach_the_constructor(args):
    if args[2] != "x":
        assert facts(construct(nn.Conv2d, args, {}, CPU, values=False)) == facts(nn.Conv2d(*args))
    else:
        with pytest.raises(TypeError):
            construct(nn.Conv2d, args, {}, CPU, values=False)


def test_a_refusal_is_the_constructors():
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        construct(nn.Conv2d, (4, 6, 1), {"groups": 3}, CPU, values=False)
    with pytest.raises(TypeError, match="unexpected keyword argument 'biass'"):
        construct(nn.Conv2d, (4, 6, 1), {"biass": 3}, CPU, values=False)


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
