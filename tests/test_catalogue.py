"""The invariants that hold for every lazy layer and model."""

import copy
import io
import pickle
import pickletools
import re

import pytest
import torch
from torch import nn

import lazytorch
from lazytorch import LazyModule, UninitializedModuleError, is_lazy, layers, materialize, models
from tests.catalogue import LAYER_CASES, LAYERS, MODELS, Case, every_case, every_network

every_layer = pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)


def test_every_public_lazy_layer_and_model_is_listed():
    lazy_names = {name for name in layers.__all__ if name.startswith("Lazy")}
    assert {layer.lazy_class.__name__ for layer in LAYERS} == lazy_names
    tools = {
        "get_model",
        "inflate_state_dict",
        "list_models",
        "load_reference_state_dict",
        "optimize_for_inference",
        "reduce_state_dict",
        "reference_state_dict",
        "references",
    }
    assert set(MODELS) == {name for name in models.__all__ if name.islower()} - tools


def test_every_name_of_the_contract_is_public():
    names = """LazyModule create_lazy_signature lazify materialize is_lazy NamedSequential summary
        LazyConv2dInChannelModule LazyConv2dExpansionModule LazyConv2dReductionModule
        UninitializedModuleError ShapeInferenceError layers models"""
    assert set(lazytorch.__all__) == set(names.split())
    thirteen = """LazyConvNormActivation LazyBottleneckBlock LazyInvertedBottleneck LazyDepthwiseConv2d
        LazyPointwiseConv2d LazyDepthSepConv2d LazySqueezeExcitation LazyExpansionConv2d LazyExpansionPointwiseConv2d
        LazyExpansionDepthSepConv2d LazyReductionConv2d LazyReductionPointwiseConv2d LazyReductionDepthSepConv2d"""
    twins = """ConvNormActivation BottleneckBlock InvertedBottleneck DepthwiseConv2d PointwiseConv2d DepthSepConv2d
        SqueezeExcitation"""
    assert {*thirteen.split(), *twins.split()} <= set(layers.__all__)
    for module in (lazytorch, layers, models):
        assert len(module.__all__) == len(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)


def test_dir_shows_the_public_names_only():
    assert dir(lazytorch) == sorted([*lazytorch.__all__, "__version__"])
    for module in (layers, models):
        assert set(dir(module)) == set(module.__all__)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.lazy_class.__name__)
def test_two_dimensional_layers_have_a_twin_of_any_rank(layer):
    name = layer.lazy_class.__name__
    if name.endswith("2d"):
        assert layer.ranks == (2,)
        assert name.removesuffix("2d") in layers.__all__


def run(module, x):
    """Output, gradient of the input and gradients of the parameters, from one random state."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    output = module(x)
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return output, x.grad, {name: parameter.grad for name, parameter in module.named_parameters()}


@every_case
def test_first_call_equals_eager(case: Case):
    x = case.input()
    lazy, eager = case.lazy(), case.eager()
    # A copy gets the same weights: so they are known before the first call of the one that is compared.
    eager.load_state_dict(materialize(copy.deepcopy(lazy), case.shape).state_dict())
    actual, expected = run(lazy, x), run(eager, x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    torch.testing.assert_close(lazy.state_dict(), eager.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(run(lazy.eval(), x), run(eager.eval(), x), rtol=0, atol=0)


def is_random(tensor: torch.Tensor) -> bool:
    return tensor.numel() > 1 and not torch.equal(tensor, tensor.flatten()[0].expand_as(tensor))


@every_case
def test_initial_values_have_the_distribution_that_eager_has(case: Case):
    """Of every tensor, over several modules: the constants, or the bound and standard deviation."""
    count = 40 if case in LAYER_CASES else 1
    lazy, eager = [case.lazy() for _ in range(count)], [case.eager() for _ in range(count)]
    states = [[materialize(each, case.shape).state_dict() for each in modules] for modules in (lazy, eager)]
    assert states[0][0].keys() == states[1][0].keys()
    for key in states[0][0]:
        ours, theirs = (torch.stack([state[key] for state in each]).double() for each in states)
        assert ours.shape == theirs.shape
        assert is_random(ours) == is_random(theirs)
        if not is_random(theirs):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        elif theirs.numel() >= 1000:
            uncertain = 5 / theirs.numel() ** 0.5  # five standard errors of a standard deviation, or more
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=uncertain)
            assert (ours.mean() - theirs.mean()).abs() < theirs.std() * uncertain * 2**0.5
            is_uniform = theirs.abs().max() < 2 * theirs.std()
            assert (ours.abs().max() < 2 * ours.std()) == is_uniform
            if is_uniform:
                assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)


@every_case
def test_equal_seeds_give_equal_weights(case: Case):
    states = []
    for draws in (0, 7):
        torch.manual_seed(3)
        lazy = case.lazy()
        torch.randn(draws)
        states.append(materialize(lazy, case.shape).state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


@every_network()
def test_layers_of_no_network_run_their_default_initialization(name: str, monkeypatch):
    """An init function would overwrite it. Functions of torch.nn.init are what it calls."""
    called = []
    for function in ("kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, function, lambda *args, function=function, **kwargs: called.append(function))
    with torch.device("meta"):
        model = materialize(models.get_model(name, num_classes=3), (1, 3, 64, 64))
    assert not is_lazy(model)
    assert called == []


@every_case
def test_becomes_exactly_what_is_built_by_hand(case: Case):
    lazy, eager = case.lazy(), case.eager()
    lazy(case.input())
    assert not is_lazy(lazy)
    assert repr(lazy) == repr(eager)
    eager(case.input())
    pairs = list(zip(lazy.named_modules(), eager.named_modules(), strict=True))
    for (name, ours), (other, theirs) in pairs:
        assert name == other
        assert type(ours) is type(theirs)
        assert not isinstance(ours, LazyModule)
        assert vars(ours).keys() == vars(theirs).keys()
        assert {key: len(value) for key, value in vars(ours).items() if "hooks" in key} == {
            key: len(value) for key, value in vars(theirs).items() if "hooks" in key
        }
    named = {value for _, value, _ in pickletools.genops(pickle.dumps(lazy)) if isinstance(value, str)}
    assert [name for name in named if "lazy" in name.lower().replace("lazytorch", "") or "first_call" in name] == []


@every_case
def test_builds_once_and_runs_its_forward_once(case: Case, monkeypatch):
    builds, calls = [], []
    for cls in {type(each) for each in case.lazy().modules() if isinstance(each, LazyModule)}:
        original = cls.get_initialized_module

        def counting(self, inputs, module_args, module_kwargs, original=original):
            builds.append(type(self))
            return original(self, inputs, module_args, module_kwargs)

        monkeypatch.setattr(cls, "get_initialized_module", counting)
    lazy = case.lazy()
    count = sum(isinstance(each, LazyModule) for each in lazy.modules())
    lazy.apply(lambda module: module.register_forward_hook(lambda *_: calls.append(module)))
    lazy(case.input())
    assert len(builds) == count
    assert sorted(map(id, calls)) == sorted(map(id, lazy.modules()))
    batches = {int(value) for name, value in lazy.named_buffers() if name.endswith("num_batches_tracked")}
    assert batches <= {1}
    lazy(case.input())
    assert len(builds) == count


@every_case
def test_every_parameter_gets_a_gradient(case: Case):
    _, _, gradients = run(lazy := case.lazy(), case.input())
    assert gradients.keys() == dict(lazy.named_parameters()).keys()
    assert [name for name, gradient in gradients.items() if gradient is None] == []


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_before_the_build_is_that_of_what_is_built(case: Case, dtype):
    lazy, eager, x = case.lazy().to(dtype), case.eager().to(dtype), case.input().to(dtype)
    try:
        eager(x)
    except NotImplementedError as error:  # PyTorch lacks the operator for that dtype
        with pytest.raises(NotImplementedError, match=re.escape(str(error))):
            lazy(x)
        return
    assert lazy(x).dtype == dtype
    assert {name: value.dtype for name, value in lazy.state_dict().items()} == {
        name: value.dtype for name, value in eager.state_dict().items()
    }


@every_case
@pytest.mark.parametrize("how", ["to", "context"])
def test_device_before_the_build_is_that_of_what_is_built(case: Case, how):
    if how == "to":
        lazy = case.lazy().to("meta")
    else:
        with torch.device("meta"):
            lazy = case.lazy()
    assert lazy(case.input().to("meta")).is_meta
    assert all(value.is_meta for value in (*lazy.parameters(), *lazy.buffers()))


@pytest.mark.gpu
@every_case
def test_accelerator_before_the_build_is_that_of_what_is_built(case: Case):
    device = torch.accelerator.current_accelerator()
    lazy = case.lazy().to(device)
    assert lazy(case.input().to(device)).device.type == device.type
    assert all(value.device.type == device.type for value in (*lazy.parameters(), *lazy.buffers()))


def copies(module: nn.Module) -> list[nn.Module]:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]


@every_case
def test_copies_before_the_build_are_lazy_and_become_the_same(case: Case):
    lazy = case.lazy().double().eval()
    x = case.input().double()
    made = copies(lazy)
    assert all(is_lazy(each) for each in made)
    expected = lazy(x)
    for each in made:
        torch.testing.assert_close(each(x), expected, rtol=0, atol=0)
        assert not is_lazy(each)
        assert all(ours is not theirs for ours, theirs in zip(each.parameters(), lazy.parameters(), strict=True))


@every_case
def test_copies_after_the_build_are_plain(case: Case):
    x = case.input()
    lazy = case.lazy().eval()
    expected = lazy(x)
    for each in copies(lazy):
        assert type(each) is type(lazy)
        torch.testing.assert_close(each(x), expected, rtol=0, atol=0)


@every_case
def test_repr_builds_nothing_and_shows_what_is_not_known(case: Case):
    lazy = case.lazy()
    text = repr(lazy)
    assert is_lazy(lazy)
    assert text.startswith(type(lazy).__name__)
    assert "=?" in text or not getattr(type(lazy).__init__, "inferred", ())


@every_layer
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros(2, 0, 8, 8), (ValueError, RuntimeError, TypeError)),
        (torch.zeros(5), (ValueError, RuntimeError, TypeError)),
        (None, (ValueError, RuntimeError, TypeError, AttributeError)),
        ("an image", (ValueError, RuntimeError, TypeError, AttributeError)),
    ],
    ids=["no channels", "wrong rank", "None", "str"],
)
def test_failed_first_call_leaves_it_lazy(case: Case, bad, error):
    if "LazyLinear" in case.name and isinstance(bad, torch.Tensor):
        pytest.skip("nn.Linear takes it")
    lazy = case.lazy()
    before = vars(lazy).copy(), pickle.dumps(lazy)
    with pytest.raises(error):
        lazy(bad)
    assert isinstance(lazy, LazyModule)
    assert (vars(lazy), pickle.dumps(lazy)) == before
    x = case.input()
    expected = copy.deepcopy(lazy)
    torch.testing.assert_close(lazy(x), expected(x), rtol=0, atol=0)


@every_case
def test_what_needs_parameters_refuses_before_the_build(case: Case):
    lazy = case.lazy()
    remedy = r"lazytorch\.materialize\(model, \(1, 3, 224, 224\)\)"
    with pytest.raises(
        UninitializedModuleError, match=f"Lazy.* has no parameters yet: .*{remedy} before making an opt"
    ):
        torch.optim.SGD(lazy.parameters(), lr=0.1)
    with pytest.raises(UninitializedModuleError, match=remedy):
        sum(parameter.numel() for parameter in lazy.parameters())
    if not case.eager().state_dict():  # has no state, ever
        assert lazy.state_dict() == {}
    else:
        with pytest.raises(UninitializedModuleError, match=f"has no state yet: .*{remedy}"):
            lazy.state_dict()
    assert is_lazy(lazy)


@every_case
def test_state_loaded_before_the_build_takes_effect(case: Case):
    x = case.input()
    source = case.lazy().eval()
    source(x)
    for value in source.state_dict().values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.1, 1)
    state = source.state_dict()
    lazy = case.lazy().eval()
    lazy.load_state_dict(state)
    torch.testing.assert_close(lazy(x), source(x), rtol=0, atol=0)
    torch.testing.assert_close(lazy.state_dict(), state, rtol=0, atol=0)


@every_case
def test_freezing_and_mode_before_the_build_take_effect(case: Case):
    lazy = case.lazy().eval().requires_grad_(False)
    lazy(case.input())
    assert not any(parameter.requires_grad for parameter in lazy.parameters())
    assert not any(module.training for module in lazy.modules())
