"""create_lazy_signature: what a lazy class shows, and what its constructor refuses."""

import inspect
import pydoc

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, create_lazy_signature
from lazytorch.layers import DepthSepConv2d, LazyDepthSepConv2d
from lazytorch.layers.bases import LazyConvInChannelModule
from tests.catalogue import LAYERS

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.lazy_class.__name__)


@create_lazy_signature(exclude=["in_channels"])
class LazyConv2d(LazyModule, nn.Conv2d):
    """A lazy convolution."""

    def get_initialized_module(self, inputs, module_args, module_kwargs):
        return nn.Conv2d(inputs[0].size(1), *module_args, **module_kwargs)


def test_is_that_of_the_target_without_what_is_inferred():
    target = inspect.signature(nn.Conv2d)
    expected = [parameter for name, parameter in target.parameters.items() if name != "in_channels"]
    assert list(inspect.signature(LazyConv2d).parameters.values()) == expected


def test_parameters_of_the_lazy_class_come_first():
    @create_lazy_signature(exclude=["in_channels"])
    class Wide(LazyConv2d):
        def __init__(self, width, *args, **kwargs):
            super().__init__(width * 8, *args, **kwargs)

    assert list(inspect.signature(Wide).parameters)[:3] == ["width", "out_channels", "kernel_size"]


def test_what_is_built_shows_its_own():
    conv = LazyConv2d(8, 3)
    conv(torch.zeros(1, 3, 8, 8))
    assert inspect.signature(type(conv)) == inspect.signature(nn.Conv2d)


def test_help_describes_the_arguments_that_are_left():
    text = pydoc.plain(pydoc.render_doc(LazyDepthSepConv2d))
    assert "DepthSepConv2d`` that infers its input channels" in text
    assert "out_channels: Channels of the output." in text
    assert "Howard et al. 2017" in text
    assert "Channels of the input." not in text
    assert LazyDepthSepConv2d.__doc__.count("Example:") == 1
    of_torch = LazyConv2d.__doc__
    assert "kernel_size (int or tuple): Size of the convolving kernel" in of_torch
    assert "in_channels (int)" not in of_torch


def test_help_shows_it():
    assert "LazyConv2d(out_channels: int" in pydoc.plain(pydoc.render_doc(LazyConv2d))


def test_subclass_with_its_own_constructor_shows_its_own():
    class Pointwise(LazyConv2d):
        def __init__(self, out_channels):
            super().__init__(out_channels, 1)

    assert str(inspect.signature(Pointwise)) == "(out_channels)"
    assert Pointwise(4)(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((8, 3), {"strid": 2}),
        ((8,), {}),
        ((), {"kernel_size": 3}),
        ((8, 3), {"out_channels": 8}),
    ],
    ids=["misspelt", "missing", "missing first", "twice"],
)
def test_wrong_arguments_fail_as_the_target_would(args, kwargs):
    with pytest.raises(TypeError) as theirs:
        nn.Conv2d(3, *args, **kwargs)
    with pytest.raises(TypeError) as ours:
        LazyConv2d(*args, **kwargs)
    message = str(theirs.value).partition(". Did you mean")[0]  # Python 3.13 and later suggest names
    assert str(ours.value).startswith(message)
    assert ("strid" in kwargs) == str(ours.value).endswith(". Did you mean 'stride'?")


def test_inferred_argument_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'in_channels'"):
        LazyConv2d(in_channels=3, out_channels=8, kernel_size=3)


@every_layer
def test_every_layer_shows_documented_parameters(layer):
    signature = inspect.signature(layer.lazy_class)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    assert not {"in_channels", "channels", "in_features"} & set(signature.parameters)
    rank_free = issubclass(layer.lazy_class, LazyConvInChannelModule) and not layer.lazy_class.spatial_dims
    assert ("spatial_dims" in signature.parameters) is rank_free
    assert not rank_free or signature.parameters["spatial_dims"].default is None
    with pytest.raises(TypeError, match="unexpected keyword argument 'kernel_sise'"):
        layer.lazy_class(*layer.args, **layer.kwargs, kernel_sise=3)


def test_fixed_rank_takes_no_spatial_dims():
    assert "spatial_dims" not in inspect.signature(DepthSepConv2d).parameters
    for make in (lambda: DepthSepConv2d(3, 8, spatial_dims=3), lambda: LazyDepthSepConv2d(8, spatial_dims=3)):
        with pytest.raises(TypeError, match=r"DepthSepConv2d.__init__\(\) got an unexpected .*'spatial_dims'"):
            make()


def test_optional_parameters_are_inferred_unless_given():
    @create_lazy_signature(exclude=["in_channels"], optional=["groups", "scale"])
    class Lazy(LazyModule, nn.Conv2d):
        """A convolution, by default depthwise."""

        def get_initialized_module(self, inputs, module_args, module_kwargs):
            module_kwargs.pop("scale", None)
            groups = module_kwargs.pop("groups", None) or inputs[0].size(1)
            return nn.Conv2d(inputs[0].size(1), *module_args, groups=groups, **module_kwargs)

    parameters = inspect.signature(Lazy).parameters
    assert [parameters[name].default for name in ("groups", "scale")] == [None, None]
    assert repr(Lazy(4, 1)) == "Lazy(in_channels=?, groups=?, scale=?, out_channels=4, kernel_size=1)"
    assert repr(Lazy(4, 1, scale=2)) == "Lazy(in_channels=?, groups=?, out_channels=4, kernel_size=1, scale=2)"
    for lazy, groups in ((Lazy(4, 1), 2), (Lazy(4, 1, groups=1), 1)):
        lazy(torch.zeros(1, 2, 4, 4))
        assert lazy.groups == groups


def test_unknown_name_to_exclude_is_refused():
    with pytest.raises(TypeError, match=r"Conv2d takes in_channels, .*; it has no parameter 'in_features' to infer"):
        create_lazy_signature(exclude=["in_features"])(LazyConv2d)


def test_without_parentheses_it_says_so():
    with pytest.raises(TypeError, match=r"@create_lazy_signature\(exclude=\[...\]\)"):
        create_lazy_signature(LazyConv2d)


def test_without_a_target_it_asks_for_one():
    class Rootless(LazyModule):
        pass

    with pytest.raises(
        TypeError,
        match=r"Rootless: a lazy class must have a module class to build among its bases, got none\. Pass target=",
    ):
        create_lazy_signature()(Rootless)
