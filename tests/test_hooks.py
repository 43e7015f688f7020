"""Hooks registered before the build fire from the first call on, once each, in the order of an eager module."""

import collections
import copy
import functools
import pickle
import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks

from lazytorch import LazyModule, lazify, materialize
from lazytorch.layers import LazyConvNormActivation
from tests.modules import Block, LazyBlock, every_depth, image

KINDS = {
    "forward": lambda module, hook, **options: module.register_forward_hook(hook, **options),
    "forward, with kwargs": lambda module, hook, **options: module.register_forward_hook(
        hook, with_kwargs=True, **options
    ),
    "forward, always": lambda module, hook, **options: module.register_forward_hook(hook, always_call=True, **options),
    "forward pre": lambda module, hook, **options: module.register_forward_pre_hook(hook, **options),
    "forward pre, with kwargs": lambda module, hook, **options: module.register_forward_pre_hook(
        hook, with_kwargs=True, **options
    ),
    "full backward": lambda module, hook, **options: module.register_full_backward_hook(hook, **options),
    "backward pre": lambda module, hook, **options: module.register_full_backward_pre_hook(hook, **options),
}


def run(module):
    module(image().requires_grad_()).sum().backward()


def register_all(module, calls):
    """Two hooks of each kind, and a third that goes first."""
    handles = []
    for kind, register in KINDS.items():
        for name, options in (("a", {}), ("b", {}), ("first", {"prepend": True})):

            def hook(module, *_, entry=f"{kind}: {name}"):
                calls.append(entry)

            handles.append(register(module, hook, **options))
    return handles


def test_fire_once_in_the_order_of_eager():
    lazy, lazy_calls = LazyBlock(4), []
    handles = register_all(lazy, lazy_calls)
    eager, eager_calls = Block(3, 4), []
    register_all(eager, eager_calls)
    run(lazy), run(eager)
    assert lazy_calls == eager_calls
    assert len(lazy_calls) == 3 * len(KINDS)
    run(lazy), run(eager)
    assert lazy_calls == eager_calls
    for handle in handles:
        handle.remove()
    run(lazy)
    assert lazy_calls == eager_calls


@every_depth
@pytest.mark.parametrize("kind", KINDS)
def test_fire_at_every_depth(make, kind):
    lazy, calls = make(), []
    lazies = [each for each in lazy.modules() if isinstance(each, LazyModule)]
    handles = [KINDS[kind](each, lambda module, *_: calls.append(module)) for each in lazies]
    run(lazy)
    assert sorted(map(id, calls)) == sorted(map(id, lazies))
    for handle in handles:
        handle.remove()
    run(lazy)
    assert len(calls) == len(lazies)


def test_pre_hook_that_changes_the_channels_is_seen():
    for position in (0, 1):
        lazy = LazyConvNormActivation(4)
        if position:
            lazy.register_forward_pre_hook(lambda *_: None)
        lazy.register_forward_pre_hook(lambda _, args: (args[0][:, :2],))
        lazy(image(3))
        assert lazy.conv.in_channels == 2


def test_pre_hook_with_kwargs_that_changes_the_input_is_seen():
    lazy = LazyBlock(4)
    lazy.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "x": kwargs["x"][:, :2]}), with_kwargs=True
    )
    lazy(x=image(3))
    assert lazy.conv.conv.in_channels == 2


def test_forward_hook_that_changes_the_output_counts_from_the_first_call():
    lazy = nn.Sequential(LazyConvNormActivation(4), LazyConvNormActivation(5))
    lazy[0].register_forward_hook(lambda module, args, output: output[:, :2])
    lazy(image())
    assert lazy[1].conv.in_channels == 2


def test_hook_that_removes_itself():
    lazy, calls = LazyBlock(4), []

    def once(*_):
        calls.append(1)
        handle.remove()

    handle = lazy.register_forward_hook(once)
    lazy(image()), lazy(image())
    assert calls == [1]


def test_removed_before_the_build():
    lazy, calls = LazyBlock(4), []
    for handle in register_all(lazy, calls):
        handle.remove()
    run(lazy)
    assert calls == []


@pytest.mark.parametrize("fail", [True, False])
def test_always_call(fail):
    lazy, calls = nn.Sequential(LazyBlock(4)), []
    lazy[0].register_forward_hook(lambda *_: calls.append(1), always_call=True)
    if fail:
        with pytest.raises(ValueError, match="tensor"):
            lazy(None)
    else:
        lazy(image())
    assert calls == [1]


def test_global_hooks():
    lazy, eager = LazyBlock(4), Block(3, 4)
    calls = {lazy: [], eager: []}
    handles = [
        register(lambda module, *_, kind=kind: calls[module].append(kind) if module in calls else None)
        for kind, register in {
            "forward pre": global_hooks.register_module_forward_pre_hook,
            "forward": global_hooks.register_module_forward_hook,
            "backward": global_hooks.register_module_full_backward_hook,
            "backward pre": global_hooks.register_module_full_backward_pre_hook,
        }.items()
    ]
    try:
        run(lazy), run(eager)
    finally:
        for handle in handles:
            handle.remove()
    assert calls[lazy] == calls[eager]
    assert sorted(calls[lazy]) == ["backward", "backward pre", "forward", "forward pre"]


def test_state_dict_hooks():
    lazy, calls = LazyBlock(4), []
    lazy.register_state_dict_pre_hook(lambda *_: calls.append("before saving"))
    lazy.register_state_dict_post_hook(lambda *_: calls.append("after saving"))
    lazy.register_load_state_dict_pre_hook(lambda *_: calls.append("before loading"))
    lazy.register_load_state_dict_post_hook(lambda *_: calls.append("after loading"))
    lazy.load_state_dict(Block(3, 4).state_dict())
    assert calls == ["before loading", "after loading"]
    lazy(image())
    assert calls == ["before loading", "after loading"]
    state = lazy.state_dict()
    lazy.load_state_dict(state)
    assert calls[2:] == ["before saving", "after saving", "before loading", "after loading"]


def test_load_hook_that_renames_keys():
    lazy = nn.Sequential(LazyBlock(4)).eval()
    source = Block(3, 4).eval()
    lazy[0].register_load_state_dict_pre_hook(
        lambda module, state, prefix, *_: [
            state.update({key.replace("old.", ""): state.pop(key)}) for key in list(state)
        ]
    )
    lazy.load_state_dict({f"0.old.{key}": value for key, value in source.state_dict().items()}, strict=False)
    x = image()
    torch.testing.assert_close(lazy(x), source(x))


def test_hooks_travel_with_copies():
    lazy = LazyBlock(4)
    lazy.register_forward_hook(double)
    copied, pickled = copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))
    x = image()
    torch.manual_seed(1)
    expected = lazy(x)
    for each in (copied, pickled):
        torch.manual_seed(1)
        torch.testing.assert_close(each(x), expected)


def double(module, args, output):
    return 2 * output


class SelfAware(nn.Module):
    """A target whose constructor stores references to itself in many ways, and one outside of itself."""

    registry: ClassVar[list[nn.Module]] = []

    def __init__(self, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 1)
        self.calls = []
        self.handles = [
            self.register_forward_hook(self.note),
            self.register_forward_pre_hook(functools.partial(self.note_pre, 3)),
            self.conv.register_forward_hook(lambda *_: self.calls.append(self)),
        ]
        self.conv.parent = weakref.ref(self)
        object.__setattr__(self.conv, "owner", self)
        self.bound = self.note
        self.held = [self, {"me": self}, (1, (self, 2)), {self}]
        self.registry.append(self)
        self.weak_method = weakref.WeakMethod(self.note)
        self.weak_containers = [
            weakref.WeakSet([self]),
            weakref.WeakValueDictionary(me=self),
            weakref.WeakKeyDictionary({self: 1}),
        ]

    def forward(self, x):
        return self.conv(x)

    def note(self, module, args, output):
        self.calls.append(self)

    def note_pre(self, number, module, args):
        self.calls.append(self)


class LazySelfAware(LazyModule, SelfAware):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return SelfAware(inputs[0].size(1))


def test_target_that_refers_to_itself():
    SelfAware.registry.clear()
    lazy, calls = nn.Sequential(LazySelfAware()), []
    lazy[0].register_forward_hook(lambda *_: calls.append("mine"))
    lazy(image())
    module = lazy[0]
    assert len(module.calls) == 3  # its pre-hook, its part's hook, its forward hook
    lazy(image())
    assert calls == ["mine"] * 2
    assert len(module.calls) == 6
    assert all(each is module for each in module.calls)
    assert module.conv.parent() is module
    assert module.conv.owner is module
    assert module.bound.__self__ is module
    assert module.held[0] is module
    assert module.held[1]["me"] is module
    assert module.held[2][1][0] is module
    assert module.held[3] == {module}
    (twin,) = SelfAware.registry  # not in the module's own state: it refers to the one that was constructed
    assert twin.conv is module.conv
    module.added_later = 3
    assert twin.added_later == 3
    assert module.weak_method().__self__ is module
    assert [next(iter(each)) for each in module.weak_containers] == [module, "me", module]
    assert module.weak_containers[1]["me"] is module
    for handle in module.handles:
        handle.remove()
    lazy(image())
    assert len(module.calls) == 6


class Hooked(nn.Module):
    """A target that registers hooks of every kind on itself, two of which change what passes through."""

    def __init__(self, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 1)
        self.calls = []
        for kind, register in KINDS.items():
            register(self, functools.partial(self.note, kind))
        self.register_forward_pre_hook(lambda _, args: 2 * args[0])
        self.register_forward_pre_hook(lambda _, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True)
        self.register_full_backward_hook(lambda _, inputs, outputs: (3 * inputs[0],))

    def note(self, kind, *_):
        self.calls.append(kind)

    def forward(self, x):
        return self.conv(x)


class LazyHooked(LazyModule, Hooked):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return Hooked(inputs[0].size(1))


def test_hooks_of_the_targets_constructor_count_from_the_first_call():
    lazy, mine, eager = LazyHooked(), [], Hooked(3)
    lazy.register_full_backward_hook(lambda *_: mine.append(1))
    lazy.load_state_dict(eager.state_dict())
    x = image()
    for _ in range(2):
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [lazy(inputs[0]), eager(inputs[1])]
        torch.testing.assert_close(*outputs, rtol=0, atol=0)
        for output in outputs:
            output.sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=0)
    assert lazy.calls == eager.calls
    assert len(lazy._forward_hooks) == len(eager._forward_hooks)
    assert mine == [1, 1]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_target_with_a_normed_weight(norm):
    class Normed(nn.Conv2d):
        def __init__(self, in_channels, out_channels):
            super().__init__(in_channels, out_channels, 1)
            norm(self)

    lazy = lazify(Normed, in_channels=1)(4)
    x = image()
    output = lazy(x)
    weight = lazy.weight
    torch.testing.assert_close(output, nn.functional.conv2d(x, weight, lazy.bias))
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in lazy.parameters())


def test_hooks_do_not_fire_for_what_is_only_materialized():
    lazy, calls = LazyBlock(4), []
    register_all(lazy, calls)
    materialize(lazy, (1, 3, 8, 8))
    calls.clear()
    run(lazy)
    assert len(calls) == 3 * len(KINDS)


class Slotted(nn.Linear):
    __slots__ = ("scale",)

    def __init__(self, in_features):
        super().__init__(in_features, 2)
        self.scale = 3.0

    def forward(self, x):
        return self.scale * super().forward(x)


class Bound(nn.Linear):
    """Keeps itself in a partial, and in containers of every kind."""

    def __init__(self, in_features):
        super().__init__(in_features, 2)
        self.me = functools.partial(scaled, self, other=self)
        self.kept = [collections.deque([self]), frozenset([self]), {self: 1, "b": self}]


def scaled(module, x, other):
    assert module is other
    return 2 * nn.functional.linear(x, module.weight)


def test_target_with_slots_and_partials():
    x = torch.ones(2, 3)
    lazy = lazify(Slotted, in_features=-1)()
    torch.testing.assert_close(lazy(x), 3 * nn.functional.linear(x, lazy.weight, lazy.bias))
    lazy = lazify(Bound, in_features=-1)()
    lazy(x)
    assert lazy.me.args[0] is lazy.me.keywords["other"] is lazy
    assert [next(iter(each)) is lazy for each in lazy.kept] == [True] * 3
    copied = copy.deepcopy(lazy)
    nn.init.zeros_(copied.weight)
    assert not copied.me(x).any()
    assert lazy.me(x).any()


def test_prepended_hooks_go_before_those_of_the_targets_constructor():
    orders = []
    for module in (LazyHooked(), Hooked(3)):
        order = []
        module.register_forward_hook(lambda *_, order=order: order.append("last"))
        module.register_forward_hook(lambda *_, order=order: order.append("first"), prepend=True)
        module(image())
        assert order == ["first", "last"]
        order += [getattr(hook, "func", hook).__name__ for hook in module._forward_hooks.values()]
        orders.append(order)
    assert orders[0] == orders[1]
    assert "note" in orders[0][3:-1]
