"""How a lazy module is called: arguments, once, and what it becomes."""

import copy

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, is_lazy, materialize
from tests.modules import Block, every_depth, image


class Attention(nn.Module):
    def __init__(self, query_size, key_size):
        super().__init__()
        self.query, self.key = nn.Linear(query_size, 4), nn.Linear(key_size, 4)

    def forward(self, query, key, mode="dot", *rest, temperature=1.0, **options):
        return self.query(query) @ self.key(key).T / temperature


class LazyAttention(LazyModule, Attention):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        LazyAttention.seen = inputs
        return Attention(inputs[0].size(-1), inputs[1].size(-1))


QUERY, KEY = torch.zeros(2, 5), torch.zeros(3, 7)


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((QUERY, KEY), {}, (QUERY, KEY)),
        ((QUERY,), {"key": KEY}, (QUERY, KEY)),
        ((), {"key": KEY, "query": QUERY}, (QUERY, KEY)),
        ((QUERY, KEY, "sum"), {}, (QUERY, KEY, "sum")),
        ((QUERY, KEY), {"mode": "sum", "temperature": 2.0}, (QUERY, KEY, "sum")),
        ((QUERY, KEY, "sum", 1, None), {"more": 3}, (QUERY, KEY, "sum", 1, None)),
    ],
    ids=["positional", "mixed", "keyword", "not a tensor", "keyword only", "variadic"],
)
def test_arguments_come_in_positional_order(args, kwargs, expected):
    LazyAttention()(*args, **kwargs)
    assert all(ours is theirs for ours, theirs in zip(LazyAttention.seen, expected, strict=True))


def test_gap_is_filled_with_the_default():
    class Gap(LazyModule, nn.Linear):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            self.__class__.seen = inputs
            return GapTarget()

        def forward(self, x, scale=2, shift=0):
            raise NotImplementedError

    class GapTarget(nn.Module):
        def forward(self, x, scale=2, shift=0):
            return x * scale + shift

    assert Gap()(3, shift=1) == 7
    assert Gap.seen == (3, 2, 1)


def test_keyword_only_arguments_reach_an_override_that_asks():
    class Asking(LazyAttention):
        def get_initialized_module(self, inputs, module_args, module_kwargs, input_kwargs):
            Asking.seen = inputs, input_kwargs
            return Attention(inputs[0].size(-1), inputs[1].size(-1))

    Asking()(QUERY, temperature=2.0, key=KEY, more=3)
    (query, key), keywords = Asking.seen
    assert query is QUERY
    assert key is KEY
    assert keywords == {"temperature": 2.0, "more": 3}


@pytest.mark.parametrize(
    "call", [lambda lazy: lazy(), lambda lazy: lazy(QUERY, keys=KEY), lambda lazy: lazy(query=QUERY)]
)
def test_missing_argument_is_a_type_error_and_leaves_it_lazy(call):
    class Strict(nn.Linear):
        def forward(self, query, key):
            return query

    class LazyStrict(LazyModule, Strict):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return Strict(inputs[0].size(-1), 3)

    lazy = LazyStrict()
    with pytest.raises((TypeError, IndexError)):
        call(lazy)
    assert is_lazy(lazy)


@every_depth
def test_first_call_equals_eager_and_happens_once(make):
    lazy = make()
    eager = materialize(copy.deepcopy(lazy), (2, 3, 16, 16))
    calls = []
    lazy.apply(lambda module: module.register_forward_hook(lambda module, *_: calls.append(module)))
    x = image()
    torch.manual_seed(5)
    actual = lazy(x)
    torch.manual_seed(5)
    torch.testing.assert_close(actual, eager(x), rtol=0, atol=0)
    torch.testing.assert_close(lazy.state_dict(), eager.state_dict(), rtol=0, atol=0)
    assert {int(value) for name, value in lazy.named_buffers() if "batches" in name} == {1}
    assert len(calls) == len(set(calls)) == len(list(lazy.modules()))


def test_target_need_not_be_a_base():
    class Free(LazyModule):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return nn.Sequential(nn.Linear(inputs[0].size(-1), 4), nn.ReLU())

    class Misled(Free, nn.Linear):
        pass

    for lazy_class in (Free, Misled):
        lazy = lazy_class()
        assert lazy(torch.ones(2, 3)).shape == (2, 4)
        assert lazy(torch.ones(2, 3)).min() >= 0
        assert type(lazy) is nn.Sequential
        assert Free()(input=torch.ones(2, 3)).shape == (2, 4)


def test_lazy_that_builds_lazy_goes_on_until_it_is_plain():
    class Twice(LazyModule):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return Once(*module_args).half()

    class Once(LazyModule, Block):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return Block(inputs[0].size(1), *module_args)

    lazy = nn.Sequential(Twice(4)).eval()
    assert lazy(image().half()).dtype == torch.half
    assert type(lazy[0]) is Block
    assert not lazy[0].conv.norm.training


def test_code_for_the_first_lazytorch_runs():
    class Wide(LazyModule, nn.Conv2d):
        def __init__(self, ratio, *args, **kwargs):
            kwargs["ratio"] = ratio
            super().__init__(*args, **kwargs)

        def get_initialized_module(self, inputs, module_args, module_kwargs):
            assert len(inputs) == 1
            assert inputs[0].dim() == 4
            ratio = module_kwargs.pop("ratio")
            channels = inputs[0].size(1)
            return nn.Conv2d(channels, channels * ratio, *module_args, **module_kwargs)

    lazy = Wide(2, 3, padding=1)
    with pytest.raises(AssertionError):
        lazy(torch.zeros(3, 8, 8))
    assert lazy(torch.zeros(1, 3, 8, 8)).shape == (1, 6, 8, 8)


def test_must_be_overridden_and_must_return_a_new_module():
    class Nothing(LazyModule):
        pass

    class Itself(LazyModule):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return self

    class Number(LazyModule):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return 3

    with pytest.raises(NotImplementedError, match="Nothing must override get_initialized_module"):
        Nothing()(1)
    with pytest.raises(TypeError, match=r"Itself\.get_initialized_module must return a new module, got Itself"):
        Itself()(1)
    with pytest.raises(TypeError, match=r"Number\.get_initialized_module must return a new module, got int"):
        Number()(1)


def test_a_direct_call_of_forward_builds_the_module():
    lazy = LazyAttention()
    output = lazy.forward(QUERY, KEY)
    assert type(lazy) is Attention
    torch.testing.assert_close(output, lazy(QUERY, KEY))
