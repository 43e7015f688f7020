"""After the first input nothing lazy is left."""

import gc
import pickle
import pickletools
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

import lazytorch
from lazytorch import LazyModule, is_lazy, lazify, materialize
from tests.modules import Block, LazyBlock, every_depth, image


@every_depth
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_every_part_is_as_built_by_hand(make, how):
    model = make()
    model(image()) if how == "call" else materialize(model, (2, 3, 16, 16))
    assert not is_lazy(model)
    for module in model.modules():
        plain = nn.Module()
        assert not isinstance(module, LazyModule)
        assert not [name for name in vars(module) if "lazy" in name or name in ("_initialize_hook", "_deferred")]
        assert all(type(parameter) is nn.Parameter for parameter in module.parameters())
        for name in vars(plain):
            assert type(vars(module)[name]) is type(vars(plain)[name])
            if "hooks" in name:
                assert not vars(module)[name]
        assert "forward" not in vars(module)
        assert type(module)._call_impl is nn.Module._call_impl
    assert model.state_dict().keys() == dict([*model.named_parameters(), *model.named_buffers()]).keys()
    # The strings of a pickle, among them the names of classes and of their modules.
    named = {argument for _, argument, _ in pickletools.genops(pickle.dumps(model)) if isinstance(argument, str)}
    named -= {"tests.modules"}
    assert [name for name in named if "lazy" in name.lower().replace("lazytorch", "") or "first_call" in name] == []


def test_order_of_vars_and_state_is_that_of_eager():
    lazy, eager = LazyBlock(4), Block(3, 4)
    lazy(image())
    eager(image())
    assert list(lazy.state_dict()) == list(eager.state_dict())
    assert vars(lazy).keys() == vars(eager).keys()
    assert lazy.state_dict()._metadata == eager.state_dict()._metadata


class Option:
    """An argument of a lazy module."""

    def __call__(self, x):
        return x


class Optional(nn.Module):
    """Uses an argument of its constructor, and does not store it."""

    def __init__(self, in_channels, option):
        super().__init__()
        self.conv = nn.Conv2d(option(in_channels), 4, 1)

    def forward(self, x):
        return self.conv(x)


def test_nothing_is_kept_alive():
    option = Option()
    lazy = lazify(Optional, in_channels=1)(option)
    x = image()
    arguments, gone = weakref.ref(option), weakref.ref(x)
    lazy(x)
    del x, option
    gc.collect()
    assert arguments() is None
    assert gone() is None
    module = weakref.ref(lazy)
    del lazy
    gc.collect()
    assert module() is None


def test_inputs_of_the_first_call_are_not_kept_beyond_it():
    model = nn.Sequential(LazyBlock(4), LazyBlock(3))
    x = image()
    gone = weakref.ref(x)
    with torch.no_grad():
        model(x)
    gc.disable()
    try:
        del x
        assert gone() is None
    finally:
        gc.enable()


def test_same_autograd_nodes():
    def nodes(output):
        seen, todo = set(), [output.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [each for each, _ in node.next_functions]
        return sorted(type(node).__name__ for node in seen)

    lazy, eager, x = LazyBlock(4), Block(3, 4), image()
    assert nodes(lazy(x)) == nodes(eager(x))
    assert nodes(lazy(x)) == nodes(eager(x))


def test_package_needs_torch_alone():
    code = (
        "import sys, torch; before = set(sys.modules); import lazytorch, lazytorch.models; "
        "print({name.split('.')[0] for name in set(sys.modules) - before} - {'lazytorch', 'torch'} - "
        "set(sys.stdlib_module_names))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_networks_are_imported_when_they_are_first_used():
    code = (
        "import sys, lazytorch; before = 'lazytorch.models' in sys.modules; "
        "print(before, 'models' in dir(lazytorch), lazytorch.models.list_models('resnet18'))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False True ['resnet18']"


def test_python_without_docstrings():
    code = "import lazytorch; print(lazytorch.summary(lazytorch.models.resnet18(), (1, 3, 64, 64)).parameters)"
    output = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "11689512"


def test_attribute_that_the_package_does_not_have():
    with pytest.raises(AttributeError, match=r"^module 'lazytorch' has no attribute 'materialise'$"):
        lazytorch.materialise  # noqa: B018
