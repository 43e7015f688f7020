"""State dicts, copies and processes, before and after the build."""

import copy
import io
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

from lazytorch import UninitializedModuleError, is_lazy, lazify, materialize
from tests.modules import Block, LazyBlock, every_depth, image


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
    lazy.load_state_dict(state, assign=assign)
    assert is_lazy(lazy)
    torch.testing.assert_close(dict(lazy.state_dict()), dict(state), rtol=0, atol=0)
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
def test_strictness_asked_for_holds_at_the_build(damage, strict, alone):
    state = nn.Sequential(Block(3, 4)).state_dict()
    damage(state)
    eager, lazy = nn.Sequential(Block(3, 4)), nn.Sequential(LazyBlock(4))
    if alone:
        eager, lazy = eager[0], lazy[0]
        state = {key.removeprefix("0."): value for key, value in state.items()}
    lazy.load_state_dict(state, strict=strict)
    try:
        eager.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        wanted = str(error).split(":\n")[1].replace('"0.', '"').replace("for 0.", "for ")
        with pytest.raises(RuntimeError) as caught:
            lazy(image())
        assert str(caught.value) == f"Error(s) in loading state_dict for Block:\n{wanted}"
        assert is_lazy(lazy)
        with pytest.raises(RuntimeError):
            lazy(image())
        lazy.load_state_dict(state if damage is not misshaped else {}, strict=False)
        if damage is not misshaped:
            return
    else:
        lazy.eval()(image())
        actual = lazy.state_dict()
        for key, value in eager.state_dict().items():
            if not key.endswith("project.weight"):
                torch.testing.assert_close(actual[key], value, rtol=0, atol=0)


def test_later_load_mends_an_earlier_one():
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


def test_version_of_the_state_is_kept():
    """BatchNorm before version 2 had no num_batches_tracked: such a state is complete, a newer one is not."""
    for version, complete in ((None, True), (2, False)):
        state = nn.Sequential(Block(3, 4)).state_dict()
        del state["0.conv.norm.num_batches_tracked"]
        state._metadata["0.conv.norm"] = {} if version is None else {"version": version}
        lazy = nn.Sequential(LazyBlock(4))
        lazy.load_state_dict(state)
        if complete:
            lazy(image())
        else:
            with pytest.raises(RuntimeError, match=r'Missing.*"conv.norm.num_batches_tracked"'):
                lazy(image())


def test_loading_keeps_its_place_between_other_deeds():
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
def test_state_of_what_is_neither_built_nor_loaded_is_refused(make):
    with pytest.raises(UninitializedModuleError, match=r"has no state yet: .* before state_dict\(\)"):
        make().state_dict()


@every_depth
def test_loaded_state_travels_with_copies(make):
    source, lazy = source_of(make), make().eval()
    lazy.load_state_dict(source.state_dict())
    x = image()
    for each in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))):
        torch.testing.assert_close(each(x), source(x))
        assert is_lazy(lazy)


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


def test_load_that_has_nothing_for_it_is_none():
    lazy = nn.Sequential(nn.Linear(2, 2), LazyBlock(4))
    lazy.load_state_dict(nn.Sequential(nn.Linear(2, 2)).state_dict(), strict=False)
    with pytest.raises(UninitializedModuleError, match="has no state yet"):
        lazy.state_dict()


class CopiesItself(nn.Linear):
    def __deepcopy__(self, memo):
        raise NotImplementedError(self.weight)

    def __getstate__(self):
        raise NotImplementedError(self.weight)


def test_targets_own_way_to_copy_counts_after_the_build_alone():
    lazy = lazify(CopiesItself, in_features=-1)(2)
    copied = copy.deepcopy(lazy)
    copied(torch.ones(1, 3))
    with pytest.raises(NotImplementedError):
        copy.deepcopy(copied)
