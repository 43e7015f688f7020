"""Faults that earlier versions had, each by the behaviour that a user sees."""

import contextlib
import copy
import gc
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import traceback
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import lazytorch
from lazytorch import LazyModule, ShapeInferenceError, UninitializedModuleError, is_lazy, lazify, materialize, summary
from lazytorch.layers import LazyConvNormActivation, LazyPointwiseConv2d
from lazytorch.models import get_model
from tests.catalogue import first_fast

LazyLinear = lazify(nn.Linear, in_features=-1)
SHAPE = (1, 3, 32, 32)
SECONDS = 30  # how long a thread waits before the test fails


def run(code, **environment):
    """The output of a fresh process that runs ``code``."""
    root = Path(lazytorch.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@contextlib.contextmanager
def modified(change, value, before):
    """Call ``change`` with ``value`` for the duration of the block, and with ``before`` at its end."""
    change(value)
    try:
        yield
    finally:
        change(before)


def small_resnet():
    return get_model("resnet10t", num_classes=3)


def block_state():
    """The entries of a built ``LazyPointwiseConv2d(4)`` for inputs of 3 channels."""
    state = materialize(LazyPointwiseConv2d(4), SHAPE).state_dict()
    return {name: value + 1 for name, value in state.items()}


# What is loaded


@pytest.fixture
def swapped_parameters():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def test_load_is_kept_when_pytorch_swaps_parameters(swapped_parameters):
    """Every entry keeps its value, under each flag of PyTorch and with ``assign``."""
    state = {name: value.clone() for name, value in materialize(small_resnet(), SHAPE).state_dict().items()}
    expected = copy.deepcopy(state)
    model = small_resnet()
    model.load_state_dict(state, assign=True)
    materialize(model, SHAPE)
    torch.testing.assert_close(dict(model.state_dict()), expected, rtol=0, atol=0)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)


CHANGES = {
    "conversion": lambda module: module.half(),
    "function": lambda module: module.apply(lambda each: [nn.init.zeros_(p) for p in each.parameters(recurse=False)]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_state_dict_of_a_loaded_lazy_module_is_refused_or_right(change):
    """A function or conversion after the load is not missing in ``state_dict()``."""
    eager, lazy, state = materialize(LazyPointwiseConv2d(4), SHAPE), LazyPointwiseConv2d(4), block_state()
    for module in (eager, lazy):
        module.load_state_dict(state)
        change(module)
    with contextlib.suppress(UninitializedModuleError):
        torch.testing.assert_close(dict(lazy.state_dict()), dict(eager.state_dict()), rtol=0, atol=0)
    materialize(lazy, SHAPE)
    torch.testing.assert_close(dict(lazy.state_dict()), dict(eager.state_dict()), rtol=0, atol=0)


def test_state_dict_after_a_partial_load_is_refused():
    lazy = LazyPointwiseConv2d(4)
    lazy.load_state_dict({"conv.weight": torch.zeros(4, 3, 1, 1)}, strict=False)
    with pytest.raises(UninitializedModuleError, match=r"has no state yet: .* before state_dict\(\)"):
        lazy.state_dict()


def test_load_of_nothing_lists_everything_as_missing():
    model = small_resnet()
    missing, unexpected = model.load_state_dict({}, strict=False)
    assert not unexpected
    assert is_lazy(model)
    lazy = [name for name, module in model.named_modules() if isinstance(module, LazyModule)]
    built = materialize(model, SHAPE)
    assert set(missing) == {f"{name}.*" for name in lazy if built.get_submodule(name).state_dict()}


def test_load_before_the_build_returns_what_the_built_model_returns():
    """Missing and unexpected names, and every loaded value, are those of a model that was built before."""
    state = dict(materialize(small_resnet(), SHAPE).state_dict())
    del state["head.classifier.bias"]
    state["elsewhere"] = torch.zeros(1)
    built, lazy = materialize(small_resnet(), SHAPE), small_resnet()
    expected = built.load_state_dict(state, strict=False)
    assert lazy.load_state_dict(state, strict=False) == expected
    assert expected.missing_keys == ["head.classifier.bias"]
    assert expected.unexpected_keys == ["elsewhere"]
    loaded = lazy.state_dict()
    for name in state.keys() - {"elsewhere"}:
        torch.testing.assert_close(loaded[name], state[name], rtol=0, atol=0)


def test_load_builds_for_the_channels_and_dimensions_of_the_checkpoint():
    state = materialize(small_resnet(), (1, 5, 64)).state_dict()
    model = small_resnet()
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"
    assert not is_lazy(model)
    assert model(torch.zeros(2, 5, 64)).shape == (2, 3)


def test_load_that_does_not_fit_leaves_the_model_lazy():
    state = dict(materialize(small_resnet(), SHAPE).state_dict())
    state["head.classifier.weight"] = torch.zeros(7, 5)
    model = small_resnet()
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.classifier\.weight"):
        model.load_state_dict(state)
    assert is_lazy(model.stem)
    assert is_lazy(model.get_classifier())
    model(torch.zeros(2, 1, 32, 32))
    assert next(model.parameters()).size(1) == 1


def test_lazy_part_without_any_entry_is_listed_as_missing():
    """Under a plain parent a load that has nothing for a lazy part returns the part's name."""
    model = nn.Sequential(LazyPointwiseConv2d(4), LazyPointwiseConv2d(4))
    state = {f"0.{name}": value for name, value in block_state().items()}
    assert model.load_state_dict(state, strict=False).missing_keys == ["1.*"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "1\.\*"'):
        model.load_state_dict(state)


@pytest.mark.parametrize("strict", [False, True])
def test_lazy_part_with_some_entries_checks_them_all_at_the_build(strict):
    model = nn.Sequential(LazyPointwiseConv2d(4))
    state = {f"0.{name}": value for name, value in block_state().items()}
    del state["0.norm.bias"]
    model.load_state_dict(state, strict=strict)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "norm\.bias"') as error:
        materialize(model, SHAPE)
    assert any("materialize before load_state_dict" in note for note in error.value.__notes__)
    assert is_lazy(model)


def test_load_with_assign_after_a_move_to_meta():
    state = materialize(nn.Sequential(LazyPointwiseConv2d(4)), SHAPE).state_dict()
    model = nn.Sequential(LazyPointwiseConv2d(4)).to("meta")
    model.load_state_dict(state, assign=True)
    materialize(model, SHAPE)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def test_values_that_a_load_hook_writes_through_data_are_kept():
    """A hook that runs after a load and writes to ``.data`` has the last word."""
    state = dict(materialize(small_resnet(), SHAPE).state_dict())
    del state["head.classifier.weight"]
    model = small_resnet()

    def fill(module, incompatible):
        module.get_classifier().weight.data.fill_(0.5)
        incompatible.missing_keys.clear()

    model.register_load_state_dict_post_hook(fill)
    model.load_state_dict(state)
    materialize(model, SHAPE)
    assert torch.equal(model.get_classifier().weight, torch.full_like(model.get_classifier().weight, 0.5))


# What the user put on a lazy module


@pytest.fixture
def extended():
    """A lazy layer with a submodule, a parameter and a buffer of the user's."""
    lazy = LazyLinear(4)
    lazy.extra = nn.Linear(2, 2)
    lazy.scale = nn.Parameter(torch.ones(1))
    lazy.register_buffer("shift", torch.ones(1))
    return lazy


def test_conversion_and_function_act_on_what_the_user_added(extended):
    visited = []
    extended.double().apply(lambda module: visited.append(type(module)))
    assert {extended.extra.weight.dtype, extended.scale.dtype, extended.shift.dtype} == {torch.float64}
    assert visited == [nn.Linear]


def test_load_has_entries_for_what_the_user_added(extended):
    eager = copy.deepcopy(extended)
    eager(torch.zeros(2, 3))
    state = {name: value + 1 for name, value in eager.state_dict().items()}
    extended.load_state_dict(state)
    assert torch.equal(extended.scale, torch.full((1,), 2.0))
    extended(torch.zeros(2, 3))
    torch.testing.assert_close(dict(extended.state_dict()), state, rtol=0, atol=0)


def test_device_and_dtype_of_parameters_follow_conversions():
    model = nn.Sequential(LazyLinear(4)).to("meta").double()
    parameter = next(model.parameters())
    assert (parameter.device.type, parameter.dtype) == ("meta", torch.float64)


READS = {
    "data": lambda parameter: parameter.data,
    "count": lambda parameter: parameter.data.numel(),
    "fill": lambda parameter: parameter.data.normal_(),
    "average": lambda parameter: parameter.data.mul_(0.9).add_(torch.zeros(1), alpha=0.1),
    "set": lambda parameter: setattr(parameter, "data", torch.zeros(1)),
    "nbytes": lambda parameter: parameter.nbytes,
    "ndim": lambda parameter: parameter.ndim,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_values_of_the_placeholder_are_refused(read):
    parameter = next(LazyLinear(4).parameters())
    with torch.no_grad(), pytest.raises(UninitializedModuleError, match="LazyLinear has no parameters yet"):
        read(parameter)


def test_any_function_that_apply_is_given_is_repeated_on_the_built_module():
    """``Module._apply`` is the base of conversions, but what it is given need not be one."""
    lazy = LazyLinear(4)
    lazy._apply(lambda tensor: tensor * 0)
    lazy(torch.ones(2, 3))
    assert not lazy.weight.any()
    assert not lazy.bias.any()


WALKS = {
    "named_children": lambda module: list(module.named_children()),
    "children": lambda module: list(module.children()),
    "replacement": lambda module: replace_activations(nn.Sequential(module)),
    "SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm,
}


def replace_activations(module):
    """Replace activations recursively, as in tutorials."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.GELU())
        replace_activations(child)


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_walking_the_submodules_of_a_lazy_module_is_refused(walk):
    with pytest.raises(UninitializedModuleError, match=r"has no submodules yet: .* before walking them"):
        walk(LazyPointwiseConv2d(4))


# Calls that fail


class Attempts(nn.Module):
    """Calls ``first`` and then ``second``, and ignores a ``ValueError``."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        with contextlib.suppress(ValueError):
            x = self.first(x)
            x = self.second(x)
        return x


def test_parts_that_a_successful_call_used_stay_built():
    """The graph of the output refers to the parameters of the model."""
    model = Attempts(LazyLinear(4), LazyPointwiseConv2d(4))  # the second one refuses vectors
    model(torch.ones(2, 3)).sum().backward()
    assert [is_lazy(part) for part in (model.first, model.second)] == [False, True]
    assert model.first.weight.grad is not None


class Filters(nn.Module):
    """Raises again what is not about memory, as training loops do."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        try:
            return self.parts(x)
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
        except KeyError:
            return x


@pytest.mark.parametrize("parent", [nn.Sequential, Filters])
def test_plain_parent_keeps_the_parts_before_the_failure(parent):
    """As with PyTorch's lazy modules, whether or not an ``except`` surrounds the call."""
    model = parent(LazyLinear(4), LazyPointwiseConv2d(4))  # the second one refuses vectors
    with pytest.raises(ShapeInferenceError, match="the input must be"):
        model(torch.ones(2, 3))
    assert [is_lazy(each) for each in model.modules() if isinstance(each, (nn.Linear, LazyModule))] == [False, True]


@pytest.mark.parametrize("parent", [nn.Sequential, Filters])
def test_materialize_is_atomic_for_plain_parents(parent):
    """All parts stay lazy, whether or not an ``except`` surrounds the call."""
    model = parent(LazyLinear(4), LazyPointwiseConv2d(4))
    with pytest.raises(ShapeInferenceError, match="the input must be"):
        materialize(model, (2, 3))
    assert all(is_lazy(each) for each in model.modules() if isinstance(each, (nn.Linear, LazyModule)))


class Filtered(Filters):
    def __init__(self, features):
        super().__init__(nn.Linear(features, 4), LazyLinear(4), LazyPointwiseConv2d(4))


def test_lazy_module_is_atomic_whatever_surrounds_its_parts():
    lazy = lazify(Filtered, features=-1)()
    with contextlib.suppress(RuntimeError):
        lazy(torch.ones(2, 3))
    assert isinstance(lazy, LazyModule)


class StoppedError(Exception):
    """What hooks of these tests raise."""


class Watched(nn.Module):
    """Stops in the thread called ``"fails"`` until ``go``; then its lazy part raises an error there."""

    inside: threading.Event
    go: threading.Event

    def __init__(self, features=None):
        super().__init__()
        self.linear = LazyLinear(4) if features is None else nn.Linear(features, 4)
        self.part = LazyPointwiseConv2d(4)

    def forward(self, x):
        x = self.linear(x)
        if threading.current_thread().name == "fails":
            self.inside.set()
            assert self.go.wait(SECONDS)
            x = self.part(x)  # it refuses vectors
        return x


FAILING_CALLS = {
    "plain parent": (Watched, lambda model: model(torch.ones(2, 3))),
    "lazy module": (lazify(Watched, features=-1), lambda model: model(torch.ones(2, 3))),
    "materialize": (Watched, lambda model: materialize(model, (2, 3))),
}


@pytest.mark.parametrize(("make", "call"), FAILING_CALLS.values(), ids=FAILING_CALLS)
def test_failure_in_one_thread_keeps_what_another_thread_used(make, call, monkeypatch):
    """The parameters of a call that returned are still those of the model."""
    inside, go = threading.Event(), threading.Event()
    monkeypatch.setattr(Watched, "inside", inside, raising=False)
    monkeypatch.setattr(Watched, "go", go, raising=False)
    model, errors = make(), []

    def fail():
        try:
            call(model)
        except ShapeInferenceError as error:
            errors.append(error)

    thread = threading.Thread(target=fail, name="fails")
    thread.start()
    assert inside.wait(SECONDS)
    model(torch.ones(2, 3)).sum().backward()
    used = dict(model.linear.named_parameters())
    go.set()
    thread.join(SECONDS)
    assert errors
    assert not is_lazy(model.linear)
    assert all(used[name] is each and each.grad is not None for name, each in model.linear.named_parameters())


def test_failing_first_call_of_a_network_keeps_what_another_thread_used():
    model = small_resnet().eval()

    def call_the_stem_elsewhere(*_):
        thread = threading.Thread(target=model.stem, args=(torch.ones(SHAPE),))
        thread.start()
        thread.join(SECONDS)
        raise StoppedError

    model.head.register_forward_hook(call_the_stem_elsewhere)
    with pytest.raises(StoppedError):
        model(torch.ones(SHAPE))
    assert not is_lazy(model.stem)
    assert is_lazy(model.stages)


def test_hook_that_removed_itself_in_a_failing_call_stays_removed():
    lazy, calls = LazyLinear(4), []

    def once(module, args, output):
        calls.append(module)
        module.marked = True
        handle.remove()
        raise StoppedError

    handle = lazy.register_forward_hook(once)
    with pytest.raises(StoppedError):
        lazy(torch.ones(2, 3))
    assert is_lazy(lazy)
    assert lazy.marked
    lazy(torch.ones(2, 3))
    assert calls == [lazy]


def test_traceback_has_the_files_of_the_functions_that_ran():
    """No frame of another file claims to be in PyTorch's."""
    with pytest.raises(ZeroDivisionError) as error:
        LazyConvNormActivation(4, norm_layer=lambda channels: channels / 0)(torch.zeros(SHAPE))
    frames = [frame for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_globals["__name__"].startswith("lazytorch")]
    assert ours
    assert {frame.f_code.co_filename == frame.f_globals["__file__"] for frame in ours} == {True}


# Targets with references to themselves


class Closes(nn.Module):
    """Opens a file, which its finalizers close."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 4)
        self.file = io.StringIO()
        self.finalized = []
        weakref.finalize(self, self.finalized.append, "finalize")

    def __del__(self):
        self.file.close()

    def forward(self, x):
        return self.linear(x)


def test_finalizers_run_when_the_module_ends_and_not_before():
    lazy = lazify(Closes, features=-1)()
    lazy(torch.zeros(2, 3))
    gc.collect()
    assert not lazy.file.closed
    assert not lazy.finalized
    file, finalized = lazy.file, lazy.finalized
    del lazy
    gc.collect()
    assert file.closed
    assert finalized == ["finalize"]


class Registers(nn.Module):
    """Keeps itself in a registry that was there before, and its own bound method."""

    registry: dict[str, nn.Module]

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 4)
        self.operations = {"run": self.run}
        self.known = self.registry
        self.known["module"] = self

    def run(self, x):
        return self.linear(x)

    def forward(self, x):
        return self.operations["run"](x)


def test_references_are_found_without_searching_the_memory(monkeypatch):
    """A first call costs the same whatever else the process has in memory."""
    monkeypatch.setattr(Registers, "registry", {}, raising=False)
    monkeypatch.setattr(gc, "get_referrers", lambda *_: pytest.fail("searched the memory"))
    monkeypatch.setattr(gc, "get_objects", lambda *_: pytest.fail("searched the memory"))
    lazy = lazify(Registers, features=-1)()
    lazy(torch.zeros(2, 3))
    assert lazy.operations["run"].__self__ is lazy


def test_references_are_found_in_objects_that_the_garbage_collector_does_not_see(monkeypatch):
    monkeypatch.setattr(Registers, "registry", {"first": [None]}, raising=False)
    gc.freeze()
    try:
        lazy = lazify(Registers, features=-1)()
        lazy(torch.zeros(2, 3))
    finally:
        gc.unfreeze()
    assert lazy.known is Registers.registry
    assert lazy.known["module"] is lazy


class Slotted(nn.Linear):
    """Keeps a value in a slot with a private name."""

    __slots__ = ("__scale",)

    def __init__(self, features):
        super().__init__(features, 4)
        self.__scale = 2.0

    def forward(self, x):
        return super().forward(x) * self.__scale


def test_values_in_slots_with_private_names_are_kept():
    lazy = lazify(Slotted, features=-1)()
    x = torch.ones(2, 3)
    torch.testing.assert_close(lazy(x), 2 * nn.functional.linear(x, lazy.weight, lazy.bias))


# Threads and random numbers


class Observes(nn.Module):
    """Stores the default dtype of another thread while it is constructed."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 4)
        with ThreadPoolExecutor(1) as pool:
            self.seen = pool.submit(torch.get_default_dtype).result(SECONDS)

    def forward(self, x):
        return self.linear(x)


def test_default_dtype_of_other_threads_stays_during_a_build():
    with modified(torch.set_default_dtype, torch.float64, torch.get_default_dtype()):
        lazy = lazify(Observes, features=-1)()
    lazy(torch.ones(2, 3, dtype=torch.float64))
    assert lazy.linear.weight.dtype is torch.float64
    assert lazy.seen is torch.float32


def test_random_numbers_of_other_threads_stay_during_a_build():
    """Another thread draws, while a layer of the package is built, what it would have drawn otherwise."""
    lazy, drawn = LazyPointwiseConv2d(4), []
    torch.manual_seed(1)
    expected = torch.rand(6)

    def draw_elsewhere(*_):
        if not drawn:
            with ThreadPoolExecutor(1) as pool:
                drawn.append(pool.submit(torch.rand, 3).result(SECONDS))

    handle = register_module_parameter_registration_hook(draw_elsewhere)
    try:
        torch.manual_seed(1)
        lazy(torch.zeros(SHAPE))
    finally:
        handle.remove()
    torch.testing.assert_close(torch.cat([*drawn, torch.rand(3)]), expected, rtol=0, atol=0)


class Parallel(nn.Module):
    """Builds lazy parts in threads, and waits for them."""

    def __init__(self, features):
        super().__init__()
        self.parts = nn.ModuleList([LazyLinear(4), LazyLinear(4)])
        pool = ThreadPoolExecutor(2)
        calls = [pool.submit(part, torch.zeros(1, features)) for part in self.parts]
        pool.shutdown(wait=False)
        for each in calls:
            each.result(10)

    def forward(self, x):
        return sum(part(x) for part in self.parts)


def test_constructor_may_wait_for_threads_that_build():
    lazy = lazify(Parallel, features=-1)()
    assert lazy(torch.ones(2, 3)).shape == (2, 4)
    assert not is_lazy(lazy)


@pytest.mark.parametrize("device_type", ["cpu", "xpu", "mps", "hpu"])
def test_no_autocast_of_any_device_type_during_a_build(device_type):
    seen = []

    class Observer(nn.Linear):
        def __init__(self, features):
            super().__init__(features, 4)
            seen.append(torch.is_autocast_enabled(device_type))

    before = torch.is_autocast_enabled(device_type)
    with modified(lambda value: torch.set_autocast_enabled(device_type, value), True, before):
        lazify(Observer, features=-1)()(torch.ones(2, 3))
        assert torch.is_autocast_enabled(device_type)
    assert seen == [False]


def test_pickle_of_a_lazy_network_is_small():
    """A lazy part takes a seed along, not the 5,056 bytes of a generator's state."""
    model = get_model("resnet152")
    parts = sum(isinstance(module, LazyModule) for module in model.modules())
    assert len(pickle.dumps(model)) < 3000 * parts


def test_network_is_built_before_its_first_call_whatever_else_was_imported():
    code = """
        import torch
        {}
        from lazytorch import is_lazy
        from lazytorch.models import get_model
        torch.set_num_threads(2)
        model, lazy = get_model("resnet10t", num_classes=3), []
        def pack(tensor):  # runs when an operator of the first call saves a tensor for the gradient
            lazy.append(is_lazy(model))
            return tensor
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.zeros(2, 3, 64, 64))
        print(lazy[0])
    """
    assert run(code.format("")) == run(code.format("import torch._dynamo")) == "False"


# Other packages


def test_methods_of_module_may_be_wrapped_by_other_packages():
    """As profilers do: they pass ``*args, **kwargs`` on, and were imported before."""
    code = """
        import functools, torch
        from torch import nn
        for name in ("load_state_dict", "_call_impl", "__call__", "_apply"):
            def wrap(method):
                @functools.wraps(method)
                def wrapper(*args, **kwargs):
                    return method(*args, **kwargs)
                return wrapper
            setattr(nn.Module, name, wrap(getattr(nn.Module, name)))
        from lazytorch import is_lazy
        from lazytorch.layers import LazyPointwiseConv2d
        model = nn.Sequential(LazyPointwiseConv2d(4), LazyPointwiseConv2d(4))
        model(torch.zeros(1, 3, 8, 8))
        lazy = nn.Sequential(LazyPointwiseConv2d(4), LazyPointwiseConv2d(4)).double()
        lazy.load_state_dict(model.state_dict())
        lazy.eval()(torch.zeros(1, 3, 8, 8).double())
        expected = model.double().state_dict()
        print(is_lazy(lazy), all(torch.equal(value, expected[name]) for name, value in lazy.state_dict().items()))
    """
    assert run(code) == "False True"


class Shared(nn.Module, PyTorchModelHubMixin):
    """A model that the Hub's mixin saves."""

    def __init__(self, features: int, classes: int = 2):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        return self.linear(x)


def test_hub_mixin_saves_all_arguments_of_the_built_module(tmp_path):
    """The eager class loads what the lazified class saved, with its inferred arguments."""
    lazy = lazify(Shared, features=-1)(classes=5)
    lazy(torch.zeros(2, 3))
    lazy.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"features": 3, "classes": 5}
    loaded = Shared.from_pretrained(tmp_path)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(lazy.state_dict()), rtol=0, atol=0)


@contextlib.contextmanager
def init_empty_weights():
    """What accelerate's context manager of that name does."""
    register = nn.Module.register_parameter

    def register_empty(module, name, param):
        register(module, name, param)
        if param is not None:
            cls = type(module._parameters[name])
            kwargs = module._parameters[name].__dict__
            kwargs["requires_grad"] = param.requires_grad
            module._parameters[name] = cls(module._parameters[name].to("meta"), **kwargs)

    nn.Module.register_parameter = register_empty
    try:
        yield
    finally:
        nn.Module.register_parameter = register


CHOICES = {
    "context": lambda: torch.device("meta"),
    "default": lambda: modified(torch.set_default_device, "meta", None),
    "accelerate": init_empty_weights,
}
CONSTRUCTED = {"layer": lambda: LazyPointwiseConv2d(4), "network": small_resnet, "lazified": lambda: LazyLinear(4)}


@pytest.mark.parametrize("make", CONSTRUCTED.values(), ids=CONSTRUCTED)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_parameters_are_where_the_module_was_constructed(choice, make):
    with choice():
        module = make()
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    materialize(module, SHAPE)
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


def test_lazy_base_after_the_target_is_refused_when_the_class_is_made():
    with pytest.raises(
        TypeError, match=r"a lazy base class must come before .* Write class Wrong\(LazyModule, Linear\)"
    ):

        class Wrong(nn.Linear, LazyModule):
            pass


# torch.compile


def test_lazy_module_constructed_in_a_compiled_function():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: LazyLinear(4)(x), backend="eager")
    assert compiled(torch.ones(2, 3)).shape == (2, 4)


# materialize


class Caches(nn.Module):
    """Stores tensors in every kind of container, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.linear = LazyLinear(4)
        self.attribute = None
        self.register_buffer("buffer", None)
        self.calls = 0
        self.recent, self.seen, self.nested = deque(maxlen=2), set(), [[], {"inner": []}]

    def forward(self, x):
        self.calls += 1
        self.attribute = x
        if self.buffer is None:
            self.buffer = torch.zeros_like(x)
        self.recent.append(x)
        self.seen.add(x)
        self.nested[0].append(x)
        self.nested[1]["inner"].append(x)
        return self.linear(x + self.buffer)


def test_materialize_puts_back_what_a_forward_stores():
    model, outputs = Caches(), []
    model.register_forward_hook(lambda module, args, output: outputs.append(output))
    materialize(model, (2, 3))
    assert model.attribute is None
    assert model.buffer is None
    assert model.calls == 0
    assert (list(model.recent), model.seen, model.nested, outputs) == ([], set(), [[], {"inner": []}], [])
    x = torch.ones(2, 3)
    assert model(x).shape == (2, 4)
    assert model.attribute is x
    assert torch.equal(model.buffer, torch.zeros(2, 3))
    assert model.calls == len(outputs) == 1


class Rewrites(nn.Module):
    """Replaces what its own tensors contain and their shapes and flags, in every call."""

    def __init__(self):
        super().__init__()
        self.linear = LazyLinear(4)
        self.register_buffer("mean", torch.ones(3))
        self.scale = nn.Parameter(torch.ones(2, 3))

    def forward(self, x):
        self.mean.data = x.mean(0)
        self.mean.unsqueeze_(0)
        self.scale.requires_grad = False
        return self.linear(x * self.scale)


def test_materialize_leaves_the_models_own_tensors():
    model = Rewrites()
    mean, scale = model.mean, model.scale
    materialize(model, (2, 3))
    assert model.mean is mean
    assert model.scale is scale
    torch.testing.assert_close(mean, torch.ones(3), rtol=0, atol=0)
    assert scale.requires_grad
    assert model(torch.full((2, 3), 5.0)).shape == (2, 4)
    torch.testing.assert_close(model.mean, torch.full((1, 3), 5.0), rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_materialize_leaves_the_statistics_of_batch_norm(momentum):
    norm = nn.BatchNorm2d(3, momentum=momentum)
    expected = copy.deepcopy(norm.state_dict())
    materialize(nn.Sequential(norm, LazyPointwiseConv2d(4)).train(), (2, 3, 8, 8))
    torch.testing.assert_close(dict(norm.state_dict()), dict(expected), rtol=0, atol=0)


def test_nothing_of_the_first_call_is_left_in_a_network():
    """A network that was called, and one that was materialized, have the attributes of a plain module."""
    for build in (lambda model: model(torch.zeros(SHAPE)), lambda model: materialize(model, SHAPE)):
        model = small_resnet().eval()
        build(model)
        assert model.forward.__func__ is type(model).forward
        assert "forward" not in vars(model)
        assert not {name for name in vars(model).keys() - vars(nn.Module()).keys() if "call" in name}
        assert b"FirstCall" not in pickle.dumps(model)


# summary


class Scaled(nn.Module):
    """A lazy layer, and tensors as plain attributes."""

    def __init__(self):
        super().__init__()
        self.conv = LazyPointwiseConv2d(4)
        self.scale = torch.ones(3, 1, 1)
        self.shifts = {"first": [torch.ones(3, 1, 1)]}

    def forward(self, x):
        return self.conv(x * self.scale + self.shifts["first"][0])


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())


class Nested(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.LazyBatchNorm2d(), LazyPointwiseConv2d(4))

    def forward(self, x):
        return self.parts(x)


SUMMARIZED = {
    "plain attributes": (Scaled, [(1, 4, 32, 32)]),
    "inference mode": (made_in_inference_mode, [(1, 4, 30, 30)]),
    "by a build": (lambda: nn.Sequential(lazify(Nested, channels=1)()), [(1, 4, 30, 30)]),
}


@pytest.mark.parametrize(("make", "shapes"), SUMMARIZED.values(), ids=SUMMARIZED)
def test_summary_of_tensors_and_modules_of_every_origin(make, shapes):
    model = make()
    summarized = summary(model, SHAPE)
    assert summarized.layers[0].output_shapes == shapes
    assert is_lazy(model)
    assert summarized.parameters > 0


class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = LazyLinear(4)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


def test_errors_of_summary_name_summary():
    with pytest.raises(ShapeInferenceError, match=r"summary\(ReadsValues\): the forward must not depend on the values"):
        summary(ReadsValues(), (2, 3))


def test_summary_and_build_follow_a_global_name_that_was_replaced(monkeypatch):
    """Whatever was summarized or built before, the code that is there now decides."""
    module = sys.modules["lazytorch.layers.bottleneck"]

    class Replaced(module.PointwiseConv):
        pass

    expected = [layer.kind for layer in summary(get_model("resnet26t"), SHAPE).layers]
    assert "PointwiseConv" in expected
    materialize(get_model("resnet26t"), SHAPE)
    monkeypatch.setattr(module, "PointwiseConv", Replaced)
    assert "Replaced" in [layer.kind for layer in summary(get_model("resnet26t"), SHAPE).layers]
    built = materialize(get_model("resnet26t"), SHAPE)
    assert Replaced in {type(each) for each in built.modules()}
    monkeypatch.undo()
    assert [layer.kind for layer in summary(get_model("resnet26t"), SHAPE).layers] == expected


def test_summary_follows_a_class_that_was_changed(monkeypatch):
    model = nn.Sequential(LazyConvNormActivation(4), LazyConvNormActivation(4))
    expected = summary(model, SHAPE).parameters
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x)[..., ::2])
    assert summary(model, SHAPE).layers[0].output_shapes == [(1, 4, 32, 8)]
    monkeypatch.undo()
    assert summary(model, SHAPE).layers[0].output_shapes == [(1, 4, 32, 32)]
    assert summary(model, SHAPE).parameters == expected


def test_summary_follows_a_hook_of_all_modules():
    model = nn.Sequential(LazyPointwiseConv2d(4), LazyPointwiseConv2d(4))
    summary(model, SHAPE)

    def halve(module, args, output):
        return output[..., ::2] if isinstance(module, nn.Conv2d) else output

    handle = nn.modules.module.register_module_forward_hook(halve)
    try:
        assert summary(model, SHAPE).layers[0].output_shapes == [(1, 4, 32, 8)]
    finally:
        handle.remove()
    assert summary(model, SHAPE).layers[0].output_shapes == [(1, 4, 32, 32)]


def test_summary_does_not_try_again_after_an_error(monkeypatch):
    """An error is raised where it occurs first, not hidden behind a slower way."""
    calls = []

    def fail(self, *args):
        calls.append(self)
        raise ZeroDivisionError

    monkeypatch.setattr(LazyPointwiseConv2d, "get_initialized_module", fail)
    with pytest.raises(ZeroDivisionError):
        summary(nn.Sequential(LazyPointwiseConv2d(4)), SHAPE)
    assert len(calls) == 1


# Imports


@pytest.mark.parametrize(
    "name",
    first_fast(
        [
            "mobilenet_v2",
            "resnet18",
            "efficientnet_b0",
            "vgg11",
            "densenet121",
            "res2net50_48w_2s",
            "resnest14d",
            "skresnet18",
            "legacy_seresnet18",
            "mobileone_s4",
        ],
        3,
    ),
)
def test_networks_are_built_called_and_summarized_without_dynamo(name):
    code = f"""
        import sys, torch, lazytorch
        from lazytorch.models import get_model
        model = get_model("{name}", num_classes=3)
        lazytorch.summary(model, (1, 3, 64, 64))
        lazytorch.materialize(model, (1, 3, 64, 64))
        model(torch.zeros(2, 3, 64, 64))
        get_model("{name}", num_classes=3)(torch.zeros(2, 3, 64, 64))
        print([name for name in sys.modules if name.startswith("torch._dynamo")])
    """
    assert run(code) == "[]"
