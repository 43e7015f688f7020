"""The first call under every mode of PyTorch, compilers and tracers included."""

import copy
import functools

import pytest
import torch
from torch import fx, nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from lazytorch import LazyModule, UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import LazyAdaptiveAvgPool, LazyConvNormActivation, LazyLinear, LazyReductionConv
from tests.catalogue import CASES, first_fast
from tests.modules import MAKERS, Block, LazyBlock, every_depth, image


def assert_trainable(model, x):
    model.train()(x).sum().backward()
    assert all(value.grad is not None and value.is_leaf and not value.is_inference() for value in model.parameters())
    assert all(type(value) is nn.Parameter for value in model.parameters())


@every_depth
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes(make, mode):
    model, x = make().eval(), image()
    expected = copy.deepcopy(model)(x)
    with mode():
        torch.testing.assert_close(model(x), expected)
    assert_trainable(model, x)


@every_depth
def test_constructed_in_inference_mode(make):
    with torch.inference_mode():
        model = make()
    assert_trainable(model, image())


@every_depth
def test_autocast(make):
    model, x = make(), image()
    expected = copy.deepcopy(model)
    materialize(expected, (2, 3, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        output = model.apply(orthogonal).eval()(x)
    expected.apply(orthogonal)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert output.dtype == torch.bfloat16
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert ours.shape == theirs.shape
        assert torch.isfinite(ours).all()


def orthogonal(module):
    if isinstance(module, nn.Conv2d):
        nn.init.orthogonal_(module.weight)


@every_depth
def test_meta_device(make):
    model, x = make().eval(), image()
    with torch.device("meta"):
        output = model(x)
    assert not output.is_meta
    assert all(not value.is_meta for value in model.parameters())


@every_depth
def test_a_call_with_fake_tensors_leaves_no_fake_parameters(make):
    model = make()
    mode = FakeTensorMode()
    with mode, pytest.raises(Exception, match=r"(?i)fake"):
        model(torch.empty(2, 3, 16, 16))
    assert is_lazy(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model.eval()(torch.empty(2, 3, 16, 16)).shape[0] == 2
    assert_trainable(model, image())


@every_depth
def test_constructed_under_fake_tensors(make):
    with FakeTensorMode():
        model = make()
    assert_trainable(model, image())


@every_depth
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
def test_function_transforms(make, transform):
    model, x = make().eval(), image()
    eager = materialize(copy.deepcopy(model), (2, 3, 16, 16))

    def run(module):
        if transform == "grad":
            return torch.func.grad(lambda x: module(x).sum())(x)
        if transform == "jvp":
            return torch.func.jvp(module, (x,), (torch.ones_like(x),))[1]
        return torch.func.vmap(lambda x: module(x[None])[0])(x)

    torch.testing.assert_close(run(model), run(eager))
    assert_trainable(model, x)


@every_depth
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(make, reentrant):
    model, x = make(), image().requires_grad_()
    eager = materialize(copy.deepcopy(model), (2, 3, 16, 16))
    gradients = []
    for module in (model, eager):
        torch.manual_seed(3)
        checkpoint(module, x, use_reentrant=reentrant).sum().backward()
        gradients.append([value.grad for value in module.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()


class Free(LazyModule):
    """Inherits no target."""

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return nn.Linear(inputs[0].size(-1), *module_args)


COMPILED = {
    **MAKERS,
    "no target": lambda: Free(4),
    "no target in a parent": lambda: nn.Sequential(Free(4), LazyReductionConv(3, 1), LazyAdaptiveAvgPool(2)),
    "linear": lambda: LazyLinear(4),
}


@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
@pytest.mark.parametrize("dynamic", first_fast([None, False, True]))
@pytest.mark.parametrize("how", ["torch.compile", "module.compile"])
def test_compile_a_model_never_called(make, dynamic, how):
    model, x = make().eval(), image()
    eager = materialize(copy.deepcopy(model), (2, 3, 16, 16))
    expected = [eager(each) for each in (x, x, torch.ones(4, 3, 16, 16))]

    lazy_parts = len([each for each in model.modules() if isinstance(each, LazyModule)])

    def frames(module, most):
        torch._dynamo.reset()
        counter = CompileCounter()
        options = {"backend": counter, "fullgraph": True, "dynamic": dynamic}
        compiled = torch.compile(module, **options) if how == "torch.compile" else module
        if how == "module.compile":
            module.compile(**options)
        torch.testing.assert_close(compiled(x), expected[0])
        torch.testing.assert_close(compiled(x), expected[1])
        assert counter.frame_count <= most
        if dynamic:
            torch.testing.assert_close(compiled(torch.ones(4, 3, 16, 16)), expected[2])
            assert counter.frame_count <= most
        return counter.frame_count

    # On older versions, ``compile`` of a container of torch.nn compiles the parts in it that are not of torch.nn, each
    # as a graph: a lazy part is one more, when it is built.
    in_parts = type(model) is nn.Sequential and how == "module.compile" and not compiles_containers()
    more = lazy_parts if in_parts else 0
    assert frames(model, 1 + more) == frames(eager, 1) + more
    assert not is_lazy(model)


@functools.cache
def compiles_containers():
    """Whether this version of PyTorch compiles a container of torch.nn by its method ``compile``."""
    container, counter = nn.Sequential(nn.ReLU()), CompileCounter()
    container.compile(backend=counter)
    container(torch.zeros(1))
    return counter.frame_count == 1


@pytest.mark.parametrize("hooked", [False, True])
def test_compile_runs_hooks_once(hooked):
    model, calls = LazyBlock(4).eval(), []
    if hooked:
        model.register_forward_pre_hook(lambda _, args: (args[0][:, :2],))
    model.register_forward_hook(lambda *_: calls.append(1))
    model.compile(backend="eager")
    model(image())
    assert calls == [1]
    model(image())
    assert calls == [1, 1]
    assert model.conv.conv.in_channels == (2 if hooked else 3)


def test_compile_before_materialize_takes_effect():
    counts = []
    for model in (LazyBlock(4).eval(), Block(3, 4).eval()):
        torch._dynamo.reset()
        counter = CompileCounter()
        model.compile(backend=counter)
        materialize(model, (2, 3, 16, 16))
        model(image())
        counts.append(counter.frame_count)
    assert counts[0] == counts[1] <= 1


def test_compile_that_fails_leaves_it_lazy():
    model = LazyBlock(4)
    model.compile(backend="eager")
    for bad in (None, torch.zeros(5)):
        with pytest.raises((ValueError, RuntimeError, AttributeError)):
            model(bad)
        assert is_lazy(model)
    model(image())


@pytest.mark.parametrize("how", ["torch.compile", "module.compile", "in a function"])
def test_compile_that_fails_in_a_later_part_leaves_that_part_lazy(how):
    """A plain parent keeps the parts before it, compiled or not."""
    model = nn.Sequential(LazyBlock(6), nn.Sequential(LazyReductionConv(kernel_size=3, reduction_ratio=4)))
    compiled = torch.compile(model if how == "torch.compile" else lambda x: model(x), backend="eager")
    if how == "module.compile":
        compiled = model
        model.compile(backend="eager")
    with pytest.raises(RuntimeError, match="multiple of reduction_ratio=4, got 6"):
        compiled(image())
    assert [is_lazy(model[0]), is_lazy(model[1])] == [False, True]
    model[1][0] = LazyReductionConv(kernel_size=3, reduction_ratio=3)
    assert compiled(image()).shape == model(image()).shape
    assert not is_lazy(model)


@pytest.mark.slow
def test_compile_with_inductor_trains():
    model = nn.Sequential(LazyConvNormActivation(4), LazyBlock(3))
    compiled = torch.compile(model)
    x = image()
    compiled(x).sum().backward()
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compile_the_whole_catalogue(case):
    model, x, counter = case.lazy().eval(), case.input(), CompileCounter()
    eager = materialize(copy.deepcopy(model), case.shape)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    torch.testing.assert_close(compiled(x), eager(x))
    torch.testing.assert_close(compiled(x), eager(x))
    assert counter.frame_count == 1


TRACERS = {
    "fx": lambda model, x: fx.symbolic_trace(model),
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "strict export": lambda model, x: torch.export.export(model, (x,), strict=True).module(),
    "jit": lambda model, x: torch.jit.trace(model, x),
}


@every_depth
@pytest.mark.filterwarnings("ignore:`torch.jit.trace", "ignore:.*TracerWarning")
@pytest.mark.parametrize("trace", TRACERS.values(), ids=TRACERS)
def test_tracers_refuse_before_the_build_and_work_after_it(make, trace):
    model, x = make().eval(), image()
    # PyTorch's own refusals come first, where it has them.
    refusals = [r"Lazy\w+ has no .* yet: .* Call lazytorch\.materialize", "has uninitialized param", "Expected lazy"]
    with pytest.raises(Exception, match="|".join(refusals)):
        trace(model, x)
    assert is_lazy(model)
    expected = model(x)
    traced = trace(model, x)
    torch.testing.assert_close(traced(x), expected)
    assert "lazy" not in str(getattr(traced, "graph", "")).lower().replace("lazytorch", "")


def test_traced_graph_is_that_of_eager():
    lazy, eager = LazyBlock(4), Block(3, 4)
    lazy(image())
    assert str(fx.symbolic_trace(lazy).graph) == str(fx.symbolic_trace(eager).graph)
    exported = [str(torch.export.export(each.eval(), (image(),)).graph) for each in (lazy, eager)]
    assert exported[0] == exported[1]


def test_functional_call_before_the_build_is_refused():
    model = nn.Sequential(LazyBlock(4))
    with pytest.raises(UninitializedModuleError, match="materialize"):
        torch.func.grad(lambda parameters: torch.func.functional_call(model, parameters, image()).sum())(
            dict(model.named_parameters())
        )
    assert is_lazy(model)
    model(image())


def test_partial_and_module_arguments():
    lazy = LazyConvNormActivation(4, activation=functools.partial(nn.ReLU, inplace=True))
    assert "partial(ReLU, inplace=True)" in repr(lazy)
    assert lazy(image()).min() >= 0
