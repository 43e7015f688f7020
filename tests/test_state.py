"""State dicts, copies and processes, before and after the build."""

import copy
import io
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, UninitializedModuleError, is_lazy, lazify, materialize
from lazytorch.layers import LazyAdaptiveAvgPool, LazyBlurPool
from tests.modules import Block, LazyBlock, every_depth, image, tiny_mobilenet


def source_of(make):
    """A built twin with every parameter and buffer randomised."""
    source = materialize(make(), (2, 3, 16, 16)).eval()
    for value in source.state_dict().values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.1, 1)
    return source


@every_depth
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("parent", [False, True])
def test_loading_takes_effect_at_the_build(make, assign, parent):
    source = source_of(make)
    wrap = nn.Sequential if parent else (lambda module: module)
    state = wrap(source).state_dict()
    lazy = wrap(make()).eval()
    assert str(lazy.load_state_dict(state, assign=assign)) == "<All keys matched successfully>"
    if make is tiny_mobilenet and not parent:  # a network of the zoo is built by the load
        assert not is_lazy(lazy)
        torch.testing.assert_close(lazy.state_dict(), state, rtol=0, atol=0)
    else:
        assert is_lazy(lazy)
        with pytest.raises(UninitializedModuleError, match=r"has no state yet: .* before state_dict\(\)"):
            lazy.state_dict()
    x = image()
    torch.testing.assert_close(lazy(x), source(x))
    torch.testing.assert_close(lazy.state_dict(), state, rtol=0, atol=0)
    if assign:
        assert all(
            value.data_ptr() == state[name].data_ptr() for name, value in lazy.state_dict().items() if value.numel()
        )


def test_loading_copies_what_is_loaded():
    state = Block(3, 4).state_dict()
    lazy = LazyBlock(4)
    lazy.load_state_dict(state)
    expected = copy.deepcopy(state)
    for value in state.values():
        value.zero_()
    lazy.eval()(image())
    torch.testing.assert_close(lazy.state_dict(), expected, rtol=0, atol=0)


def missing(state):
    del state["0.project.weight"]


def unexpected(state):
    state["0.project.more"] = torch.zeros(3)


def misshaped(state):
    state["0.project.bias"] = torch.zeros(7)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("damage", [missing, unexpected, misshaped])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a parent"])
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_a_lazy_module_that_finds_entries_checks_them_in_full_at_the_build(damage, strict, alone, how):
    state = nn.Sequential(Block(3, 4)).state_dict()
    complete = copy.deepcopy(state)
    damage(state)
    eager, lazy = nn.Sequential(Block(3, 4)), nn.Sequential(LazyBlock(4))
    if alone:
        eager, lazy = eager[0], lazy[0]
        state, complete = ({key.removeprefix("0."): value for key, value in each.items()} for each in (state, complete))
    with pytest.raises(RuntimeError) as refused:
        eager.load_state_dict(state)
    expected = str(refused.value).split(":\n")[1].replace('"0.', '"').replace("for 0.", "for ")
    lazy.load_state_dict(state, strict=strict)
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            lazy(image()) if how == "call" else materialize(lazy, (2, 3, 16, 16))
        assert str(caught.value) == f"Error(s) in loading state_dict for Block:\n{expected}"
        note = "To load a part of the entries, call lazytorch.materialize before load_state_dict."
        assert note in caught.value.__notes__
        assert is_lazy(lazy)
    lazy.load_state_dict(complete, strict=strict)
    materialize(lazy, (2, 3, 16, 16))
    torch.testing.assert_close(dict(lazy.state_dict()), dict(complete), rtol=0, atol=0)


@pytest.mark.parametrize("damage", [missing, unexpected])
def test_a_part_of_the_entries_is_loaded_after_materialize(damage):
    state = nn.Sequential(Block(3, 4)).state_dict()
    damage(state)
    eager, lazy = nn.Sequential(Block(3, 4)), materialize(nn.Sequential(LazyBlock(4)), (2, 3, 16, 16))
    assert lazy.load_state_dict(state, strict=False) == eager.load_state_dict(state, strict=False)
    for key in state.keys() & lazy.state_dict().keys():
        torch.testing.assert_close(lazy.state_dict()[key], state[key], rtol=0, atol=0)


def complete(state):
    return state


def without(*names):
    def change(state):
        return {key: value for key, value in state.items() if not any(name in key for name in names)}

    return change


CHANGES = {
    "complete": complete,
    "no classifier": without("classifier"),
    "no bias": without("classifier.bias"),
    "no stem": without("stem."),
    "no norm of the stem": without("stem.norm"),
    "unknown": lambda state: {**state, "stem.more": torch.zeros(3), "more": torch.zeros(1)},
    "no classifier and unknown": lambda state: {**without("classifier")(state), "fc.weight": torch.zeros(3)},
    "other classes": lambda state: {**state, "head.classifier.bias": torch.zeros(7)},
    "other stem": lambda state: {**state, "stem.conv.weight": torch.zeros(5, 3, 3, 3)},
    "no matrix": lambda state: {**state, "stem.conv.weight": torch.zeros(5)},
    "nothing": lambda state: {},
}


def outcome_of_load(model, state, strict):
    try:
        return model.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize(
    ("change", "strict"),
    [
        pytest.param(change, strict, id=f"{name}-{strict}")
        for name, change in CHANGES.items()
        for strict in (True, False)
        if strict or name not in ("no stem", "nothing")
    ],
)
def test_a_network_that_was_never_called_loads_as_a_built_one(change, strict):
    state = change(dict(source_of(tiny_mobilenet).state_dict()))
    torch.manual_seed(1)
    built = materialize(tiny_mobilenet(), (2, 3, 16, 16))
    torch.manual_seed(1)
    lazy = tiny_mobilenet()
    before = pickle.dumps(lazy)
    actual = outcome_of_load(lazy, state, strict)
    expected = outcome_of_load(built, state, strict)
    assert actual == expected
    if isinstance(expected, str):
        assert is_lazy(lazy)
        assert pickle.dumps(lazy) == before
    else:
        assert not is_lazy(lazy)
        torch.testing.assert_close(lazy.state_dict(), built.state_dict(), rtol=0, atol=0)


def test_a_network_is_built_for_the_input_of_its_stem_weight():
    for shape in ((2, 5, 16, 16), (2, 1, 16), (2, 2, 16, 16, 16)):
        source, lazy = materialize(tiny_mobilenet(), shape).eval(), tiny_mobilenet().eval()
        lazy.load_state_dict(source.state_dict())
        assert not is_lazy(lazy)
        x = torch.randn(shape)
        torch.testing.assert_close(lazy(x), source(x), rtol=0, atol=0)


def test_a_network_without_a_stem_weight_lists_its_lazy_parts_as_missing():
    lazy = tiny_mobilenet().eval()
    parts = [name for name, each in lazy.named_modules() if isinstance(each, LazyModule) and each.has_state]
    result = lazy.load_state_dict({}, strict=False)
    assert is_lazy(lazy)
    assert (result.missing_keys, result.unexpected_keys) == ([f"{name}.*" for name in parts], [])
    assert {"stem.*", "stages.0.0.*", "head.classifier.*"} <= set(result.missing_keys)
    assert lazy(torch.zeros(2, 1, 16)).shape == (2, 3)


def test_a_network_given_all_but_the_stem_is_not_built_and_keeps_what_was_loaded():
    """The channels of its input are not known."""
    state, lazy = without("stem.")(source_of(tiny_mobilenet).state_dict()), tiny_mobilenet().eval()
    result = lazy.load_state_dict(state, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["stem.*"], [])
    assert is_lazy(lazy)
    lazy(torch.zeros(2, 1, 16, 16))
    torch.testing.assert_close(without("stem.")(lazy.state_dict()), state, rtol=0, atol=0)


def test_a_network_given_a_part_of_the_stem_without_its_weight_refuses_at_the_build():
    state, lazy = without("stem.conv")(source_of(tiny_mobilenet).state_dict()), tiny_mobilenet()
    lazy.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "conv.weight"') as error:
        lazy(image())
    assert "To load a part of the entries, call lazytorch.materialize before load_state_dict." in error.value.__notes__
    assert is_lazy(lazy)


def test_a_lazy_module_without_entries_is_listed_as_missing():
    model = nn.Sequential(nn.Linear(2, 2), LazyBlock(4))
    state = nn.Sequential(nn.Linear(2, 2)).state_dict()
    result = model.load_state_dict(state, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["1.*"], [])
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "1\.\*"'):
        model.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "\*"'):
        LazyBlock(4).load_state_dict({})
    with pytest.raises(UninitializedModuleError, match="has no state yet"):
        model.state_dict()
    model = nn.Sequential(LazyAdaptiveAvgPool(1), LazyBlurPool())
    assert str(model.load_state_dict({})) == "<All keys matched successfully>"


def test_later_load_replaces_an_earlier_one():
    lazy = nn.Sequential(LazyBlock(4)).eval()
    good, bad = nn.Sequential(Block(3, 4)).state_dict(), nn.Sequential(Block(3, 5)).state_dict()
    lazy.load_state_dict(bad)
    with pytest.raises(RuntimeError, match="size mismatch"):
        lazy(image())
    lazy.load_state_dict(good)
    lazy(image())
    torch.testing.assert_close(lazy.state_dict(), good, rtol=0, atol=0)


def test_unexpected_keys_beside_a_lazy_module_are_reported_at_once():
    lazy = nn.Sequential(LazyBlock(4))
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "1\.weight"'):
        lazy.load_state_dict({"1.weight": torch.zeros(1)})


@pytest.mark.parametrize("version", [None, 2])
def test_state_without_counters_of_batches_is_complete(version):
    """BatchNorm before version 2 had no num_batches_tracked; a lazy module does not see the version."""
    state = nn.Sequential(Block(3, 4)).state_dict()
    del state["0.conv.norm.num_batches_tracked"]
    state._metadata["0.conv.norm"] = {} if version is None else {"version": version}
    lazy = nn.Sequential(LazyBlock(4))
    lazy.load_state_dict(state)
    lazy(image())
    assert int(lazy[0].conv.norm.num_batches_tracked) == 1


def test_loading_keeps_its_place_between_other_deferred_calls():
    state = Block(3, 4).state_dict()
    lazy = LazyBlock(4).eval()
    lazy.load_state_dict(state)
    lazy.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Conv2d) else None)
    lazy.half()
    lazy(image().half())
    assert bool((lazy.project.weight == 1).all())
    torch.testing.assert_close(lazy.project.bias, state["project.bias"].half())
    lazy = LazyBlock(4).eval()
    lazy.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Conv2d) else None)
    lazy.load_state_dict(state)
    lazy(image())
    torch.testing.assert_close(lazy.state_dict(), state, rtol=0, atol=0)


@every_depth
def test_state_of_what_is_not_built_is_refused(make):
    with pytest.raises(UninitializedModuleError, match=r"has no state yet: .* before state_dict\(\)"):
        make().state_dict()


@every_depth
def test_loaded_state_travels_with_copies(make):
    source, lazy = source_of(make), make().eval()
    lazy.load_state_dict(source.state_dict())
    x = image()
    for each in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))):
        assert is_lazy(each) is (make is not tiny_mobilenet)
        torch.testing.assert_close(each(x), source(x))
    assert is_lazy(lazy) is (make is not tiny_mobilenet)


@every_depth
@pytest.mark.parametrize("moved", [False, True])
def test_torch_save(make, moved):
    lazy = make().to(torch.float64) if moved else make()
    x = image().double() if moved else image()
    file = io.BytesIO()
    torch.save(lazy, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert is_lazy(loaded)
    torch.testing.assert_close(loaded.eval()(x), lazy.eval()(x), rtol=0, atol=0)


def call_in_child(module, x, queue):
    with torch.no_grad():
        queue.put((is_lazy(module), module(x).numpy()))


@pytest.mark.parametrize("built", [False, True])
def test_spawned_process(built):
    module, x = nn.Sequential(LazyBlock(4)).double().eval(), image().double()
    expected = copy.deepcopy(module)(x)
    if built:
        module(x)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=call_in_child, args=(module, x, queue))
    process.start()
    was_lazy, output = queue.get(timeout=60)
    process.join(timeout=60)
    assert process.exitcode == 0
    assert was_lazy is not built
    torch.testing.assert_close(torch.tensor(output), expected.detach())


@every_depth
def test_copies_of_a_lazy_module_share_nothing(make):
    lazy = make()
    copied = copy.deepcopy(lazy)
    copied.half().eval().requires_grad_(False)
    lazy(image())
    assert {value.dtype for value in lazy.parameters()} == {torch.float32}
    assert all(value.requires_grad for value in lazy.parameters())
    assert lazy.training
    assert is_lazy(copied)


class CopiesItself(nn.Linear):
    def __deepcopy__(self, memo):
        raise NotImplementedError(self.weight)

    def __getstate__(self):
        raise NotImplementedError(self.weight)


def test_a_targets_own_way_to_copy_is_used_after_the_build_alone():
    lazy = lazify(CopiesItself, in_features=-1)(2)
    copied = copy.deepcopy(lazy)
    copied(torch.ones(1, 3))
    with pytest.raises(NotImplementedError):
        copy.deepcopy(copied)
