"""Many threads make the first call at once."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation
from lazytorch.models import Backbone, get_model
from tests.modules import Block, LazyBlock, every_depth, image

THREADS = 16


def together(run):
    """Run ``run`` in many threads at once; what they return, and what they raise."""
    barrier, results, errors = threading.Barrier(THREADS), [], []

    def work(index):
        barrier.wait()
        try:
            results.append(run(index))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    return results, errors


@every_depth
def test_build_once_and_see_the_same_parameters(make):
    for _ in range(5):
        model, x = make().eval(), image()
        lazies = [each for each in model.modules() if isinstance(each, LazyModule)]
        calls = []
        for each in lazies:
            each.register_forward_hook(lambda module, *_, calls=calls: calls.append(module))
        results, errors = together(lambda index, model=model, x=x: (model(x), [id(p) for p in model.parameters()]))
        assert errors == []
        assert not is_lazy(model)
        for output, parameters in results:
            torch.testing.assert_close(output, results[0][0])
            assert parameters == [id(each) for each in model.parameters()]
        assert len(calls) == THREADS * len(lazies)


class Counted(LazyModule, Block):
    builds = 0

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        Counted.builds += 1
        return Block(inputs[0].size(1))


def test_built_once():
    Counted.builds = 0
    model = Counted()
    _, errors = together(lambda _: model(image()))
    assert errors == []
    assert Counted.builds == 1
    assert int(model.conv.norm.num_batches_tracked) <= THREADS


@pytest.mark.parametrize("attempt", range(5))
def test_bad_calls_beside_good_ones(attempt):
    model = Counted().eval()
    results, errors = together(lambda index: model(image() if index % 2 else torch.zeros(5)))
    assert len(results) == THREADS // 2
    assert len(errors) == THREADS // 2
    assert not is_lazy(model) or model(image()) is not None


def test_modules_constructed_in_threads_get_different_weights():
    models, _ = together(lambda _: Counted())
    weights = [(each(image()), each.project.weight)[1] for each in models]
    assert len({float(weight.detach().sum()) for weight in weights}) == THREADS


class Crowd(nn.Module):
    """A target that constructs its parts in threads, or builds them there, and waits for them."""

    def __init__(self, build=False):
        super().__init__()
        with ThreadPoolExecutor(4) as pool:
            self.parts = nn.ModuleList(pool.map(lambda _: LazyBlock(3), range(4)))
            if build:
                list(pool.map(lambda part: part(image()), self.parts))

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


class LazyCrowd(LazyModule, Crowd):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return Crowd(*module_args)


@pytest.mark.parametrize("build", [False, True])
def test_target_that_constructs_or_builds_lazy_modules_in_threads(build):
    model = LazyCrowd(build)
    thread = threading.Thread(target=model, args=(image(),), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert not is_lazy(model)


@pytest.fixture
def frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches", "uninitialized_is_nan", "two_threads")
@pytest.mark.parametrize("how", ["materialize", "call"])
def test_no_thread_computes_with_weights_that_are_not_initialized(how):
    """A thread that calls the network while another one builds it waits for the weights."""
    x = torch.zeros(1, 3, 32, 32)
    for _ in range(3):
        model = get_model("resnet18", num_classes=7).eval()
        building = [materialize] if how == "materialize" else []

        def run(index, model=model, building=building):
            for build in building[index:]:
                build(model, (1, 3, 32, 32))
            return model(x)

        results, errors = together(run)
        assert errors == []
        assert len(results) == THREADS
        assert not is_lazy(model)
        for output in results:
            torch.testing.assert_close(output, model(x))
        assert not any("forward" in vars(each) for each in model.modules())
        assert not any(value.isnan().any() for value in model.state_dict().values())


class Waiting(nn.Module):
    """Waits in its forward until another thread has used the network, and then fails."""

    def __init__(self):
        super().__init__()
        self.reached, self.used = threading.Event(), threading.Event()

    def forward(self, x):
        self.reached.set()
        assert self.used.wait(30)
        raise ValueError("too late")


def test_a_part_that_another_thread_has_called_stays_built():
    waiting, x = Waiting(), image()
    model = Backbone(
        stem=LazyConvNormActivation(8), stages=[[LazyConvNormActivation(8), waiting]],
        num_classes=2,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(model, x)
        assert waiting.reached.wait(30)
        y = model.stem(x)
        optimizer = torch.optim.SGD(model.stem.parameters(), lr=0.1)
        waiting.used.set()
        with pytest.raises(ValueError, match="too late"):
            failing.result(30)
    assert [is_lazy(model.stem), is_lazy(model.stages[0][0]), is_lazy(model.get_classifier())] == [False, True, True]
    assert optimizer.param_groups[0]["params"] == list(model.stem.parameters())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in model.stem.parameters())


class Meeting(LazyModule, Block):
    """Waits, while it is built, until another one is being built as well."""

    barrier: threading.Barrier

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        self.barrier.wait(30)
        return Block(inputs[0].size(1))


def test_two_modules_are_built_at_the_same_time():
    """No lock is held for more than one module."""
    Meeting.barrier = threading.Barrier(2)
    models = [Meeting() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        outputs = [pool.submit(each, image()) for each in models]
        assert [each.result(60).shape for each in outputs] == [(2, 6, 16, 16)] * 2
    assert not any(map(is_lazy, models))
