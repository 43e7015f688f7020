"""A lazy module whose first call fails stays lazy, and the error states where and why."""

import contextlib
import pickle

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, ShapeInferenceError, UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation, LazyInvertedBottleneck, LazyReductionConv2d, LazySqueezeExcitation
from tests.modules import Block, LazyBlock, LazyOuter, Outer, every_depth, image

BAD = {
    "wrong rank": torch.zeros(5),
    "no channels": torch.zeros(2, 0, 16, 16),
    "None": None,
    "not a tensor": "image",
    "wrong dtype": torch.zeros(2, 3, 16, 16, dtype=torch.long),
}


def frozen(module):
    """All that is known of a module that is not built."""
    return pickle.dumps(module), [(id(each), type(each), set(vars(each))) for each in module.modules()]


@every_depth
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_builds_nothing(make, bad):
    lazy = make()
    before = frozen(lazy)
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError, TypeError, AttributeError)):
            lazy(bad)
        assert frozen(lazy) == before
    lazy(image())
    assert not is_lazy(lazy)


class Interrupting(LazyModule, Block):
    error = None

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        module_kwargs["in_channels"] = inputs[0].size(1)
        if self.error is not None:
            raise self.error
        return Block(**module_kwargs)


CALLS = {
    "call": lambda model: model(image()),
    "materialize": lambda model: materialize(model, (2, 3, 16, 16)),
}


def last_of_many(part):
    return nn.Sequential(LazyBlock(4), nn.Sequential(LazyOuter(), part))


ERRORS = pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit()], ids=repr)


@ERRORS
@pytest.mark.parametrize(
    ("wrap", "call"),
    [
        (lambda part: part, CALLS["call"]),
        (lambda part: part, CALLS["materialize"]),
        (last_of_many, CALLS["materialize"]),
    ],
    ids=["single, called", "single, materialized", "last of many, materialized"],
)
def test_exception_of_the_user_builds_nothing(wrap, call, error, monkeypatch):
    """A lazy module, and ``materialize``, are atomic."""
    lazy = wrap(Interrupting(out_channels=3))
    before = frozen(lazy)
    monkeypatch.setattr(Interrupting, "error", error)
    with pytest.raises(type(error)) as caught:
        call(lazy)
    assert caught.value is error
    assert frozen(lazy) == before
    monkeypatch.undo()
    lazy(image())
    assert not is_lazy(lazy)


@ERRORS
def test_a_plain_parent_called_directly_keeps_the_parts_before_the_one_that_fails(error, monkeypatch):
    """As with the lazy modules of torch.nn."""
    part = Interrupting(out_channels=3)
    model = last_of_many(part)
    before = frozen(part)
    monkeypatch.setattr(Interrupting, "error", error)
    with pytest.raises(type(error)) as caught:
        model(image())
    assert caught.value is error
    assert frozen(part) == before
    assert not is_lazy(model[0])
    assert not is_lazy(model[1][0])
    weight = model[0].project.weight
    monkeypatch.undo()
    model(image())
    assert not is_lazy(model)
    assert model[0].project.weight is weight


class Failing(Outer):
    def forward(self, x):
        super().forward(x)
        raise KeyboardInterrupt


class LazyFailing(LazyModule, Failing):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return Failing()


def test_a_lazy_module_whose_forward_fails_stays_lazy():
    model = nn.Sequential(LazyBlock(4), LazyFailing())
    before, part = frozen(model), frozen(model[1])
    with pytest.raises(KeyboardInterrupt):
        materialize(model, image())
    assert frozen(model) == before
    with pytest.raises(KeyboardInterrupt):
        model(image())
    assert frozen(model[1]) == part
    assert not is_lazy(model[0])


def test_hooks_and_their_handles_survive_a_failure():
    lazy = LazyReductionConv2d(4, kernel_size=1)
    calls = []
    handles = [
        lazy.register_forward_hook(lambda *_: calls.append("forward")),
        lazy.register_forward_pre_hook(lambda *_: calls.append("pre")),
    ]
    with pytest.raises(ShapeInferenceError):
        lazy(torch.zeros(2, 6, 8, 8))
    calls.clear()
    lazy(torch.zeros(2, 8, 8, 8))
    assert calls == ["pre", "forward"]
    for handle in handles:
        handle.remove()
    lazy(torch.zeros(2, 8, 8, 8))
    assert calls == ["pre", "forward"]


def test_what_an_earlier_call_built_stays():
    model = nn.Sequential(LazyConvNormActivation(6))
    model(image())
    weight = model[0].conv.weight
    model.append(LazyReductionConv2d(4, kernel_size=1))
    with pytest.raises(ShapeInferenceError):
        model(image())
    assert model[0].conv.weight is weight
    assert int(model[0].norm.num_batches_tracked) == 2
    assert isinstance(model[1], LazyModule)


def test_message_names_rule_value_input_and_place():
    model = nn.Sequential(LazyConvNormActivation(6), nn.ModuleDict({"se": LazyReductionConv2d(4, kernel_size=1)}))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = model

        def forward(self, x):
            return self.stages[1]["se"](self.stages[0](x))

    with pytest.raises(ShapeInferenceError) as caught:
        Model()(torch.zeros(2, 3, 8, 8))
    assert str(caught.value) == (
        "LazyReductionConv2d: the input channels must be a multiple of reduction_ratio=4, got 6 (input (2, 6, 8, 8))."
    )
    assert caught.value.__notes__ == ["at stages.1.se"]


def test_place_inside_lazy_parents():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.se = LazyReductionConv2d(4, kernel_size=1)

        def forward(self, x):
            return self.se(x)

    class LazyInner(LazyModule, Inner):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return Inner()

    with pytest.raises(ShapeInferenceError) as caught:
        nn.Sequential(nn.Identity(), LazyInner())(torch.zeros(2, 6, 8, 8))
    assert caught.value.__notes__ == ["at 1.se"]


def test_error_of_the_user_says_what_was_built_from_which_input(monkeypatch):
    monkeypatch.setattr(Interrupting, "error", ZeroDivisionError("mine"))
    with pytest.raises(ZeroDivisionError) as caught:
        nn.Sequential(Interrupting())(torch.zeros(2, 3, 8, 8))
    assert str(caught.value) == "mine"
    assert caught.value.__notes__ == ["at 0", "while Interrupting was built from input (2, 3, 8, 8)"]


@pytest.mark.parametrize(
    ("lazy", "x", "message"),
    [
        (
            LazyConvNormActivation(8),
            torch.zeros(3, 8),
            r"LazyConvNormActivation: the input must be \(batch, channels, length\) or "
            r"\(batch, channels, height, width\) or .*, got 2 dimensions \(input \(3, 8\)\)\.",
        ),
        (
            LazyReductionConv2d(4, 1),
            torch.zeros(3, 8, 8),
            r"LazyReductionConv2d: the input must be \(batch, channels, height, width\), got 3 dim.* \(3, 8, 8\)\)",
        ),
        (
            LazySqueezeExcitation(),
            torch.zeros(3, 0, 8, 8),
            r"LazySqueezeExcitation: the input must have at least one channel, got 0 \(input \(3, 0, 8, 8\)\)\.",
        ),
        (
            LazyInvertedBottleneck(8),
            [1],
            "LazyInvertedBottleneck: shapes are inferred from a tensor, got list as its first",
        ),
        (
            LazyConvNormActivation(8, (3, 3, 3)),
            torch.zeros(1, 3, 8, 8),
            r"ConvNormActivation: kernel_size must be one number or 2 of them, got \(3, 3, 3\)",
        ),
    ],
)
def test_messages(lazy, x, message):
    with pytest.raises(ValueError, match=message):
        lazy(x)


@every_depth
def test_attributes_that_do_not_exist_yet(make):
    lazy = next(each for each in make().modules() if isinstance(each, LazyModule))
    for name in ("conv", "weight"):
        with pytest.raises(AttributeError, match=rf"Lazy.* has no attribute '{name}' yet: .* before accessing it\."):
            getattr(lazy, name)
        assert not hasattr(lazy, name)


def test_an_object_whose_constructor_failed_has_no_attributes():
    """Debuggers and tracebacks show it."""
    made = LazyConvNormActivation.__new__(LazyConvNormActivation)
    with pytest.raises(AttributeError, match="'LazyConvNormActivation' object has no attribute"):
        repr(made)
    assert not hasattr(made, "weight")


def test_no_container_yet():
    lazy = LazyConvNormActivation(8)
    assert lazy
    for access in (len, list, lambda lazy: lazy[0], lambda lazy: lazy[:1], lambda lazy: nn.ReLU in lazy):
        with pytest.raises(UninitializedModuleError, match="has no items yet"):
            access(lazy)
    lazy(image())
    assert len(lazy) == 3


class Falling(nn.Module):
    """Continues without a part that fails."""

    def __init__(self, part, error):
        super().__init__()
        self.stem = LazyConvNormActivation(6)
        self.part = part
        self.error = error
        self.last = LazyConvNormActivation(2)

    def forward(self, x):
        x = self.stem(x)
        try:
            x = self.part(x)
        except self.error:
            x = 2 * x
        return self.last(x)


@pytest.mark.parametrize("part", [LazyReductionConv2d(4, kernel_size=1), nn.Conv2d(5, 5, 1)], ids=["lazy", "plain"])
@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential], ids=["alone", "in a parent"])
def test_exception_that_the_forward_catches_undoes_only_the_part_that_failed(part, wrap):
    model = Falling(part, (ValueError, RuntimeError))
    outer = wrap(model)
    outer(image()).sum().backward()
    assert model.stem.conv.weight.grad is not None
    assert model.last.conv.weight.grad is not None
    weight = model.stem.conv.weight
    outer(image())
    assert model.stem.conv.weight is weight


class InContext(nn.Module):
    """Fails in blocks that clean up but do not catch the error."""

    def __init__(self):
        super().__init__()
        self.stem = LazyConvNormActivation(6)
        self.part = LazyReductionConv2d(4, kernel_size=1)

    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            try:
                x = self.stem(x)
                return self.part(x)
            finally:
                x = 0


class LazyInContext(LazyModule, InContext):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return InContext()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("make", [InContext, LazyInContext])
def test_with_and_finally_make_no_difference(make, call):
    model = nn.Sequential(make())
    before = frozen(model)
    with pytest.raises(ShapeInferenceError):
        call(model)
    if make is LazyInContext or call is CALLS["materialize"]:
        assert frozen(model) == before
    else:
        assert [is_lazy(model[0].stem), is_lazy(model[0].part)] == [False, True]


class Suppressing(nn.Module):
    """Continues after a part that fails, without an except clause."""

    def __init__(self):
        super().__init__()
        self.stem = LazyConvNormActivation(6)
        self.part = LazyReductionConv2d(4, kernel_size=1)

    def forward(self, x):
        x = self.stem(x)
        with contextlib.suppress(ShapeInferenceError):
            x = self.part(x)
        return x


class LazySuppressing(LazyModule, Suppressing):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return Suppressing()


@pytest.mark.parametrize("make", [Suppressing, LazySuppressing])
def test_a_call_that_succeeds_builds_what_it_used(make):
    model = make()
    model(image()).sum().backward()
    assert [is_lazy(model.stem), is_lazy(model.part)] == [False, True]
    assert model.stem.conv.weight.grad is not None
    assert int(model.stem.norm.num_batches_tracked) == 1
