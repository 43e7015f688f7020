"""materialize: a whole model at once, from shapes."""

import copy
import functools
import random

import numpy
import pytest
import torch
from torch import nn

from lazytorch import LazyModule, ShapeInferenceError, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation, LazyLinear, LazyReductionConv2d
from tests.catalogue import every_case


@every_case
@pytest.mark.parametrize("batch", [1, 3])
def test_builds_what_a_first_call_builds(case, batch):
    lazy = case.lazy()
    called = copy.deepcopy(lazy)
    state = torch.get_rng_state()
    assert materialize(lazy, (batch, *case.shape[1:])) is lazy
    torch.testing.assert_close(torch.get_rng_state(), state)
    assert not is_lazy(lazy)
    assert all(module.training for module in lazy.modules())
    counts = [int(value) for name, value in lazy.named_buffers() if name.endswith("num_batches_tracked")]
    assert not any(counts)
    called(case.input())
    torch.testing.assert_close(dict(lazy.named_parameters()), dict(called.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 48, 64)])
def test_weights_depend_on_the_seed_and_not_on_the_example(shape):
    def built(example):
        torch.manual_seed(0)
        model = nn.Sequential(
            LazyConvNormActivation(8), nn.Dropout(0.5), LazyConvNormActivation(4), nn.Flatten(2), LazyLinear(3)
        )
        model[4] = nn.Identity()
        example(model)
        return model.state_dict()

    expected = built(lambda model: materialize(model, (1, 3, 8, 8)))
    actual = built(lambda model: model(torch.randn(shape)))
    assert expected.keys() == actual.keys()
    for name in expected:
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_example_of_one_pixel_in_training_mode():
    model = nn.Sequential(LazyConvNormActivation(8, stride=2), LazyConvNormActivation(8, stride=2))
    materialize(model, (1, 3, 4, 4))
    assert model.training
    assert not is_lazy(model)


def test_uses_the_device_and_dtype_of_the_module():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), LazyConvNormActivation(8)).double()
    materialize(model, (1, 3, 4, 4))
    assert {value.dtype for value in model.parameters()} == {torch.float64}
    model = materialize(LazyConvNormActivation(8).half(), (1, 3, 4, 4))
    assert {value.dtype for value in model.parameters()} == {torch.float16}
    model = materialize(LazyConvNormActivation(8).to("meta"), (1, 3, 4, 4))
    assert all(value.is_meta for value in model.parameters())


def test_tensors_shapes_and_keywords():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.linear = LazyLinear(5)

        def forward(self, tokens, weights, *, scale):
            return self.linear(self.embed(tokens) * weights[..., None]) * scale

    model = materialize(Weighted(), torch.zeros(2, 3, dtype=torch.long), weights=(2, 3), scale=2.0)
    assert model.linear.in_features == 4


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"must be a module, got <class '.*Linear'>"):
        materialize(nn.Linear, (2, 3))
    for value in (3, nn.Linear, None):
        with pytest.raises(TypeError, match=r"is_lazy: the argument must be a module, got"):
            is_lazy(value)


def test_all_or_nothing():
    model = nn.Sequential(LazyConvNormActivation(6), nn.Sequential(nn.ReLU(), LazyReductionConv2d(4, kernel_size=1)))
    with pytest.raises(ShapeInferenceError, match="must be a multiple of reduction_ratio=4, got 6") as caught:
        materialize(model, (1, 3, 8, 8))
    assert caught.value.__notes__ == ["at 1.1"]
    assert all(isinstance(each, LazyModule) for each in (model[0], model[1][1]))
    model[0] = LazyConvNormActivation(8)
    materialize(model, (1, 3, 8, 8))
    assert model[1][1].out_channels == 2


def test_failure_in_a_plain_part_builds_nothing():
    model = nn.Sequential(LazyConvNormActivation(6), nn.Conv2d(5, 5, 1))
    with pytest.raises(RuntimeError, match="channels"):
        materialize(model, (1, 3, 8, 8))
    assert is_lazy(model)
    assert isinstance(model[0], LazyModule)


def test_part_that_the_forward_does_not_reach():
    class Partial(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = LazyLinear(3)
            self.unused = LazyLinear(3)

        def forward(self, x):
            return self.used(x)

    model = Partial()
    with pytest.raises(
        RuntimeError,
        match=r"materialize\(Partial\): the forward must reach every lazy module, got no call of unused\. Give an",
    ):
        materialize(model, (1, 3))
    assert isinstance(model.used, LazyModule)


def test_forward_that_depends_on_values_points_to_a_batch():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = LazyLinear(5)

        def forward(self, x):
            return self.linear(x) if x.sum() > 0 else x

    model = Picky()
    with pytest.raises(
        ShapeInferenceError,
        match=r"materialize\(Picky\): the forward must not depend on the values in tensors.* Call the model on a real",
    ):
        materialize(model, (2, 3))
    assert is_lazy(model)
    model(torch.ones(2, 3))
    assert not is_lazy(model)


def test_state_that_the_forward_updates_stays_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))
            self.register_buffer("mean", torch.zeros(()))
            self.seen = None
            self.linear = LazyLinear(5)

        def forward(self, x):
            self.calls += 1
            self.mean = 0.9 * self.mean + x.mean()
            self.seen = x
            return self.linear(x)

    model = Counting()
    materialize(model, (2, 3))
    assert (int(model.calls), float(model.mean)) == (0, 0.0)
    model(torch.ones(2, 3))
    assert int(model.calls) == 1
    torch.testing.assert_close(model.mean, torch.tensor(1.0))


class Mixed(nn.Sequential):
    """PyTorch's lazy modules beside ours."""

    def __init__(self, last):
        super().__init__(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), LazyConvNormActivation(8), nn.Flatten(), last)


def test_lazy_modules_of_pytorch():
    model = materialize(Mixed(nn.LazyLinear(3)), (2, 3, 8, 8))
    assert not is_lazy(model)
    assert [type(each) for each in model][:2] == [nn.Conv2d, nn.BatchNorm2d]
    assert vars(model[0]).keys() == vars(nn.Conv2d(3, 6, 3)).keys()
    assert int(model[1].num_batches_tracked) == 0
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(type(each) is nn.Parameter and each.grad is not None for each in model.parameters())


def test_lazy_modules_of_pytorch_are_lazy_again_if_it_fails():
    model = Mixed(nn.Linear(5, 5))
    with pytest.raises(RuntimeError, match=r"mat1 and mat2|same reduction dim"):
        materialize(model, (2, 3, 8, 8))
    assert isinstance(model[0], nn.LazyConv2d)
    assert isinstance(model[2], LazyModule)
    model[4] = nn.LazyLinear(3)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    assert not is_lazy(model)


def test_what_is_built_can_be_trained():
    with torch.inference_mode():
        model = materialize(nn.Sequential(LazyConvNormActivation(4)), (1, 3, 8, 8))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_channels_that_a_plain_norm_refuses():
    for norm in (nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True)):
        model = nn.Sequential(norm, LazyConvNormActivation(4))
        with pytest.raises((RuntimeError, ValueError)):
            materialize(model, (1, 4, 4, 4))
        assert is_lazy(model)
        materialize(model, (1, 3, 1, 1))


class Caching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = LazyLinear(3)
        self.cache = {}
        self.history = []

    def forward(self, x):
        size = x.size(-1)
        if size not in self.cache:
            self.cache[size] = torch.ones(size)
        self.history.append(x)
        return self.linear(x * self.cache[size]) * random.random() * numpy.random.rand() * torch.rand(())


def test_caches_and_the_random_state_of_pytorch_stay_as_they_were():
    """Those of Python and numpy are advanced by a forward that draws from them, as by any call."""
    model = Caching()
    random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
    materialize(model, (2, 3))
    assert (model.cache, model.history) == ({}, [])
    drawn = random.random(), numpy.random.rand(), torch.rand(())
    random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
    expected = [(random.random(), numpy.random.rand()) for _ in range(2)][1]
    assert drawn == (*expected, torch.rand(()))
    assert model(torch.ones(2, 3)).shape == (2, 3)


def test_the_random_states_of_python_and_numpy_are_not_used():
    states = random.getstate(), numpy.random.get_state()[1].tolist()
    materialize(nn.Sequential(LazyConvNormActivation(4), nn.Dropout(0.5)), (2, 3, 8, 8))
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_norms_that_average_over_all_batches(momentum):
    """Without a momentum, BatchNorm divides by the number of batches, of which there was none yet."""
    model = LazyConvNormActivation(4, norm_layer=functools.partial(nn.BatchNorm2d, momentum=momentum))
    assert is_lazy(model)
    assert materialize(copy.deepcopy(model).to("meta"), (1, 3, 8, 8)).norm.weight.is_meta
    assert materialize(model, (1, 3, 8, 8)).norm.num_batches_tracked == 0
    x = torch.randn(4, 3, 8, 8)
    model(x)
    assert model.norm.num_batches_tracked == 1
    expected = model.conv(x).mean((0, 2, 3)) * (momentum or 1)
    torch.testing.assert_close(model.norm.running_mean, expected.detach())
