"""A zoo model's first call builds it from the shape of the input, then computes; the code of users sees one call."""

import copy
import pickle
import pickletools
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation, LazyInvertedBottleneck
from lazytorch.models import Backbone, get_model

pytestmark = pytest.mark.usefixtures("two_threads")


def image(batch=4):
    return torch.randn(batch, 5, 32, 32)


@pytest.fixture
def convolutions(monkeypatch):
    """For each call of a convolution: whether its input is a real tensor, and whether ``watched`` is lazy."""
    convolve = nn.functional.conv2d

    class Calls(list):
        watched: nn.Module

    calls = Calls()

    def recording(*args, **kwargs):
        calls.append((type(args[0]) is torch.Tensor, is_lazy(calls.watched)))
        return convolve(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "conv2d", recording)
    return calls


def assert_built_from_shape(calls):
    """The convolutions ran on shapes until nothing was lazy, then on the input, once."""
    real = [is_real for is_real, _ in calls]
    assert 0 < real.count(False) == real.count(True)
    assert real == sorted(real)
    assert not any(lazy for is_real, lazy in calls if is_real)


def assert_built_by_the_call(calls):
    assert [is_real for is_real, _ in calls] == [True] * len(calls)
    assert calls[0][1]


def test_the_first_call_builds_from_the_shape_of_its_input(convolutions):
    model = convolutions.watched = get_model("resnet18", num_classes=3)
    model(image())
    assert_built_from_shape(convolutions)
    assert len(convolutions) == 2 * 20
    convolutions.clear()
    model(image())
    assert convolutions == [(True, False)] * 20


def test_weights_and_statistics_are_those_of_materialize_and_one_call(uninitialized_is_nan):
    x = image()
    torch.manual_seed(0)
    model = get_model("resnet18", num_classes=3)
    torch.manual_seed(0)
    other = materialize(get_model("resnet18", num_classes=3), (1, 5, 32, 32))
    results = []
    for each in (model, other):
        torch.manual_seed(1)
        results.append((each(x), torch.rand(1)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert model.stem.norm.num_batches_tracked == 1
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


BUILDS = {
    "call": lambda model: model(image()),
    "materialize": lambda model: materialize(model, (1, 5, 32, 32)),
    "materialized within another": lambda model: materialize(nn.Sequential(model), (1, 5, 32, 32)),
    "called within another": lambda model: nn.Sequential(model)(image()),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_no_trace_of_the_first_call_is_left(name, build):
    model = get_model(name, num_classes=3)
    build(model)
    assert not is_lazy(model)
    built = Backbone(stem=nn.Identity(), stages=[], num_classes=0)
    materialize(built, (1, 3, 8, 8))
    assert vars(model).keys() == vars(built).keys()
    assert not any("forward" in vars(each) for each in model.modules())
    assert model.forward.__func__ is Backbone.forward
    named = {value for _, value, _ in pickletools.genops(pickle.dumps(model)) if isinstance(value, str)}
    assert type(model).__module__ in named
    assert [name for name in named if "lazy" in name.lower().replace("lazytorch", "") or "first_call" in name] == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_of_a_model_that_was_never_called(convolutions, name, duplicate):
    model = get_model(name, num_classes=3).eval()
    copied = duplicate(model)
    assert is_lazy(copied)
    x, outputs = image(), []
    for each in (copied, model):
        convolutions.watched = each
        outputs.append(each(x))
        assert_built_from_shape(convolutions)
        convolutions.clear()
        assert "forward" not in vars(each)
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_a_copy_is_not_built_with_its_original():
    model = get_model("resnet18", num_classes=3)
    copied = copy.deepcopy(model)
    model(image())
    assert is_lazy(copied)
    assert copied(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def hook_on_part(model, seen):
    model.stages[0].register_forward_hook(lambda _, args, __: seen.append(type(args[0])))


def hook_on_lazy_part(model, seen):
    model.stem.register_forward_pre_hook(lambda _, args: seen.append(type(args[0])))


def users_part(model, seen):
    class Look(nn.Module):
        def forward(self, x):
            seen.append(type(x))
            return x

    model.final = Look()


def users_lazy_block(model, seen):
    class Look(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels, 1, 1))

        def forward(self, x):
            seen.append(type(x))
            return x * self.scale

    class LazyLook(LazyModule, Look):
        def get_initialized_module(self, inputs, module_args, module_kwargs):
            return Look(inputs[0].size(1))

    model.final = LazyLook()


def own_method(model, seen):
    head = model.forward_head
    model.forward_head = lambda x, pre_logits=False: (seen.append(type(x)), head(x, pre_logits))[1]


def own_forward(model, seen):
    forward = model.forward_features
    model.forward_features = lambda x: (seen.append(type(x)), forward(x))[1]


def own_norm(model, seen):
    def norm(channels):
        seen.append(torch.Tensor)
        return nn.BatchNorm2d(channels)

    model.stem = LazyConvNormActivation(64, norm_layer=norm)


def own_class(model, seen):
    class Own(Backbone):
        def forward_features(self, x):
            seen.append(type(x))
            return super().forward_features(x)

    model.__class__ = Own


WATCHERS = [
    hook_on_part,
    hook_on_lazy_part,
    users_part,
    users_lazy_block,
    own_method,
    own_forward,
    own_norm,
    own_class,
]


@pytest.mark.parametrize("watch", WATCHERS)
def test_code_of_users_sees_the_input_once_and_no_shapes(convolutions, watch):
    model, seen = get_model("resnet18", num_classes=3), []
    convolutions.watched = model
    watch(model, seen)
    model(image())
    assert seen == [torch.Tensor]
    assert_built_by_the_call(convolutions)
    assert not is_lazy(model)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_on_all_modules_see_the_input_once(convolutions, register):
    model, seen = get_model("resnet18", num_classes=3), []
    convolutions.watched = model
    handle = register(lambda module, args, *_: seen.append((module, type(args[0]))))
    try:
        model(image())
    finally:
        handle.remove()
    assert_built_by_the_call(convolutions)
    assert {kind for _, kind in seen} == {torch.Tensor}
    modules = [module for module, _ in seen]
    found = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    assert [modules.count(each) for each in found] == [1] * 20


@pytest.mark.parametrize("watch", WATCHERS)
def test_with_code_of_users_a_call_that_fails_leaves_the_model_lazy(watch):
    model, seen = get_model("resnet18", num_classes=3), []
    watch(model, seen)
    model.head = nn.Sequential(model.head, nn.Linear(7, 7))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        model(image())
    lazy = [each for each in model.modules() if isinstance(each, LazyModule)]
    assert len(lazy) > 8
    assert all(map(is_lazy, (model, model.stem, *model.stages, model.head)))
    model.head = nn.Sequential(model.head[0], nn.Linear(3, 7))
    model.forward_head = model.head
    assert model(image()).shape == (4, 7)


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "autocast", "vmap", "double"])
def test_modes(how):
    model, x = get_model("resnet18", num_classes=3).eval(), image()
    if how == "vmap":
        assert torch.func.vmap(model)(x[None]).shape == (1, 4, 3)
    elif how == "double":
        assert model.double()(x.double()).dtype == torch.float64
    else:
        mode = torch.autocast("cpu", torch.bfloat16) if how == "autocast" else getattr(torch, how)()
        with mode:
            y = model(x)
        assert y.dtype == (torch.bfloat16 if how == "autocast" else torch.float32)
    assert not is_lazy(model)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    model.train()(x.to(next(model.parameters()).dtype)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def state_of(model):
    """All that is known of a model that was never called."""
    return pickle.dumps(model), [(id(each), type(each), set(vars(each))) for each in model.modules()]


def test_a_failing_first_call_leaves_the_model_lazy():
    model = get_model("resnet18", num_classes=3)
    before = state_of(model)
    for _ in range(2):
        with pytest.raises(Exception, match="dimensions") as error:
            model(torch.zeros(4, 5))
        assert any(note.startswith("at stem") for note in error.value.__notes__)
        assert state_of(model) == before
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied.eval()(x := image()), model.eval()(x), rtol=0, atol=0)


def test_a_call_that_fails_after_the_build_leaves_the_model_lazy(convolutions):
    """BatchNorm refuses one value a channel in training, which shapes do not show."""
    model = convolutions.watched = get_model("resnet18", num_classes=3)
    before = state_of(model)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.zeros(1, 3, 32, 32))
    assert (True, False) in convolutions  # it was built
    assert state_of(model) == before
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_an_interrupted_first_call_leaves_the_model_lazy(monkeypatch):
    model, convolve, calls = get_model("resnet18", num_classes=3), torch.conv2d, []
    before = state_of(model)

    def interrupted(*args):
        calls.append(type(args[0]))
        if calls.count(torch.Tensor) == 5:
            raise KeyboardInterrupt
        return convolve(*args)

    monkeypatch.setattr(nn.functional, "conv2d", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model(image())
    assert state_of(model) == before
    assert all(is_lazy(each) for each in (model, model.stem, model.get_classifier()))
    monkeypatch.undo()
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 3)


def test_a_network_of_a_user_is_atomic_as_well():
    """Its parts before the one that fails are lazy again, unlike those of a plain parent."""
    model = Backbone(
        stem=LazyConvNormActivation(8), stages=[[LazyInvertedBottleneck(8), nn.Conv2d(5, 8, 1)]],
        num_classes=2,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="to have 5 channels"):
        model(image())
    assert is_lazy(model.stem)
    assert is_lazy(model.stages[0][0])
    model.stages[0][1] = nn.Conv2d(8, 8, 1)
    assert model(image()).shape == (4, 2)


def test_a_model_that_was_pickled_by_its_parts_alone_can_be_called():
    """Without its own ``forward``, as if it had been called before."""
    model = get_model("resnet18", num_classes=3)
    del model.forward
    assert model(image()).shape == (4, 3)
    assert not is_lazy(model)


def test_threads_build_once(convolutions):
    for _ in range(3):
        model = convolutions.watched = get_model("resnet18", num_classes=3).eval()
        convolutions.clear()
        x, outputs, barrier = image(), [], threading.Barrier(8)

        def call(model=model, x=x, outputs=outputs, barrier=barrier):
            barrier.wait()
            outputs.append((model(x), [id(each) for each in model.parameters()]))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(timeout=60)
        assert len(outputs) == 8
        assert [is_real for is_real, _ in convolutions].count(False) == 20
        for output, parameters in outputs:
            torch.testing.assert_close(output, outputs[0][0])
            assert parameters == outputs[0][1]


def test_a_failing_thread_does_not_undo_what_another_one_uses():
    model = get_model("resnet18", num_classes=3).eval()
    x, outputs, errors, barrier = image(), [], [], threading.Barrier(8)

    def call(index):
        barrier.wait()
        try:
            outputs.append(model(x if index % 2 else torch.zeros(5)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=60)
    assert (len(outputs), len(errors)) == (4, 4)
    assert not is_lazy(model)
    for output in outputs:
        torch.testing.assert_close(output, model(x))


def test_a_function_applied_before_sees_every_module_once_with_its_values():
    model, seen = get_model("resnet18", num_classes=3), []
    model.apply(lambda module: seen.append((type(module), [type(each) for each in module.parameters(recurse=False)])))
    early = len(seen)
    model(image())
    assert 0 < early < len(seen)
    assert sorted(map(str, seen)) == sorted(
        str((type(each), [type(parameter) for parameter in each.parameters(recurse=False)])) for each in model.modules()
    )


def test_what_is_compiled_first_is_one_graph():
    torch._dynamo.reset()
    model, x = get_model("resnet10t", num_classes=3).eval(), image()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, model(x))
    torch.testing.assert_close(y, compiled(x))
    assert not is_lazy(model)


def test_nothing_of_dynamo_is_imported():
    code = (
        "import sys, torch, lazytorch; from lazytorch.models import get_model; "
        "lazytorch.materialize(get_model('resnet10t'), (1, 3, 64, 64)); "
        "get_model('mobilenet_v2')(torch.zeros(2, 3, 64, 64)); "
        "lazytorch.summary(get_model('mobilenet_v3_small'), (1, 3, 64, 64)); "
        "print(sorted(name for name in sys.modules if name.startswith('torch._dynamo')))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
