"""lazify: a lazy class from any module class."""

import copy
import inspect
import pickle

import pytest
import timm.layers
import torch
import torchvision
from torch import nn

from lazytorch import ShapeInferenceError, is_lazy, lazify, materialize

LazyLSTM = lazify(nn.LSTM, input_size=-1)


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (lambda: lazify(nn.Linear, in_features=-1)(5), (2, 7), lambda: nn.Linear(7, 5)),
        (lambda: lazify(nn.GroupNorm, num_channels=1)(2), (2, 6, 4), lambda: nn.GroupNorm(2, 6)),
        (lambda: lazify(nn.GroupNorm, num_channels=1)(num_groups=3), (2, 6, 4), lambda: nn.GroupNorm(3, 6)),
        (
            lambda: lazify(nn.LayerNorm, normalized_shape=lambda inputs: inputs[0].shape[1:])(eps=1e-3),
            (2, 6, 4),
            lambda: nn.LayerNorm([6, 4], eps=1e-3),
        ),
        (
            lambda: lazify(timm.layers.SqueezeExcite, channels=1)(rd_ratio=0.5),
            (2, 8, 4, 4),
            lambda: timm.layers.SqueezeExcite(8, rd_ratio=0.5),
        ),
        (
            lambda: lazify(torchvision.ops.Conv2dNormActivation, in_channels=1)(8, 3),
            (2, 6, 4, 4),
            lambda: torchvision.ops.Conv2dNormActivation(6, 8, 3),
        ),
    ],
    ids=["Linear", "GroupNorm", "GroupNorm by keyword", "LayerNorm", "timm", "torchvision"],
)
def test_builds_what_is_built_by_hand(make, shape, expected):
    lazy, eager = make(), expected()
    x = torch.randn(shape)
    assert "=?" in repr(lazy)
    output = lazy(x)
    assert repr(lazy) == repr(eager)
    eager.load_state_dict(lazy.state_dict())
    eager(x) if eager.training else None
    torch.testing.assert_close(output, eager(x))


def test_several_outputs():
    lstm = LazyLSTM(hidden_size=5, batch_first=True)
    output, (state, _) = lstm(torch.randn(2, 3, 4))
    assert output.shape == (2, 3, 5)
    assert state.shape == (1, 2, 5)
    assert type(lstm) is nn.LSTM


def test_signature_is_that_of_the_class_less_what_is_inferred():
    lazy_linear = lazify(nn.Linear, in_features=-1)
    assert list(inspect.signature(lazy_linear).parameters) == ["out_features", "bias", "device", "dtype"]
    with pytest.raises(TypeError, match=r"Linear.__init__\(\) got an unexpected keyword argument 'biass'"):
        lazy_linear(5, biass=False)


def test_wrong_parameter_name_fails_at_once():
    with pytest.raises(TypeError, match=r"Linear takes in_features, .*no parameter 'in_channels' to infer"):
        lazify(nn.Linear, in_channels=1)


def test_no_rule_fails_at_once():
    with pytest.raises(TypeError, match="at least one parameter must be inferred, got none"):
        lazify(nn.Linear)


def test_wrong_rule_fails_at_once():
    with pytest.raises(TypeError, match="in_features must be inferred by a dimension or a function, got 'last'"):
        lazify(nn.Linear, in_features="last")


def test_dimension_that_the_input_lacks():
    lazy = lazify(nn.GroupNorm, num_channels=1)(2)
    with pytest.raises(ShapeInferenceError, match=r"num_channels is dimension 1 of the input, which has 1 .*\(5,\)"):
        lazy(torch.zeros(5))
    with pytest.raises(ShapeInferenceError, match="shapes are inferred from a tensor, got NoneType"):
        lazy(None)
    assert is_lazy(lazy)


@pytest.mark.parametrize("make", [lambda: LazyLSTM(5), lambda: lazify(nn.LSTM, input_size=-1)(5)], ids=["named", "not"])
def test_pickles_and_copies(make):
    lazy = make()
    x = torch.randn(2, 3, 4)
    made = [pickle.loads(pickle.dumps(lazy)), copy.deepcopy(lazy)]
    expected = lazy(x)[0]
    for each in made:
        assert is_lazy(each)
        torch.testing.assert_close(each(x)[0], expected, rtol=0, atol=0)
    assert type(pickle.loads(pickle.dumps(lazy))) is nn.LSTM


class Variadic(nn.Linear):
    """A constructor that takes more than it names."""

    def __init__(self, in_features, out_features, *rest, scale=1.0, **options):
        super().__init__(in_features, out_features, **options)
        self.rest, self.scale = rest, scale


def test_variadic_constructor():
    lazy = lazify(Variadic, in_features=-1)(2, "more", "still more", scale=2.0, bias=False)
    lazy(torch.ones(1, 3))
    assert (lazy.in_features, lazy.out_features, lazy.bias) == (3, 2, None)
    assert (lazy.rest, lazy.scale) == (("more", "still more"), 2.0)


@pytest.mark.parametrize("what", [nn.LazyLinear, LazyLSTM])
def test_what_is_lazy_already_is_refused(what):
    with pytest.raises(TypeError, match=f"must not be lazy already, got {what.__name__}"):
        lazify(what, in_features=-1)


def test_what_is_no_module_class_is_refused():
    with pytest.raises(TypeError, match=r"must be a module class, got <class 'int'>"):
        lazify(int, x=1)


def test_an_unbatched_image_needs_the_dimension_from_the_end():
    x = torch.zeros(3, 32, 32)
    assert lazify(nn.Conv2d, in_channels=-3)(8, 3)(x).shape == (8, 30, 30)
    assert lazify(nn.Conv2d, in_channels=-3)(8, 3)(x[None]).shape == (1, 8, 30, 30)
    lazy = nn.Sequential(lazify(nn.Conv2d, in_channels=1)(8, 3))
    for run in (lazy, lambda x: materialize(lazy, tuple(x.shape))):
        with pytest.raises(RuntimeError, match="to have 32 channels, but got 3 channels") as error:
            run(x)
        assert "after LazyConv2d was built from input (3, 32, 32)" in error.value.__notes__
        assert is_lazy(lazy)


class Registered(nn.Linear):
    """A class whose subclasses take a keyword in their class statement."""

    names: tuple[str, ...] = ()

    def __init_subclass__(cls, name="", **kwargs):
        super().__init_subclass__(**kwargs)
        cls.names = (*cls.names, name)


def test_keywords_of_a_class_statement_reach_the_target():
    class Named(lazify(Registered, in_features=-1), name="mine"):
        pass

    assert Named.names[-1] == "mine"
    assert Named(5)(torch.zeros(2, 7)).shape == (2, 5)
