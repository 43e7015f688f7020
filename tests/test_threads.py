"""Many threads make the first call at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.forwards import DrawnForward
from lazytorch.models import get_model
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


def test_construction_in_threads_draws_apart():
    models, _ = together(lambda _: Counted())
    weights = [(each(image()), each.project.weight)[1] for each in models]
    assert len({float(weight.detach().sum()) for weight in weights}) == THREADS


class Crowd(nn.Module):
    """A target that makes its parts in threads, and waits for them."""

    def __init__(self):
        super().__init__()
        with ThreadPoolExecutor(4) as pool:
            self.parts = nn.ModuleList(pool.map(lambda _: LazyBlock(3), range(4)))

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


class LazyCrowd(LazyModule, Crowd):
    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return Crowd()


def test_target_that_makes_lazy_modules_in_threads():
    model = LazyCrowd()
    thread = threading.Thread(target=model, args=(image(),), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert not is_lazy(model)


@pytest.mark.parametrize("how", ["materialize", "call"])
def test_no_thread_computes_with_weights_that_are_not_drawn(how, undrawn_is_nan, two_threads):
    """Weights are drawn while more is built: a thread that comes in meanwhile waits for those that it needs."""
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


def test_a_thread_waits_for_the_weights_of_a_part():
    drawn = threading.Event()
    weight = torch.full((1,), float("nan"))

    class Slow:
        def __call__(self):
            assert drawn.wait(30)
            weight.fill_(1)

    part = nn.Conv2d(1, 1, 1)
    vars(part)["forward"] = DrawnForward(part, [Slow()])
    x = torch.ones(1, 1, 1, 1)
    assert part(x).shape == x.shape  # the thread that builds goes on
    assert weight.isnan()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(part, x)
        assert not other.done()
        drawn.set()
        torch.testing.assert_close(other.result(30), type(part).forward(part, x))
    assert weight == 1
