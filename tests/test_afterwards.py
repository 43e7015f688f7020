"""After the first input nothing lazy is left."""

import gc
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, first_call, materialize
from tests.modules import Block, LazyBlock, every_depth, image


@every_depth
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_every_part_is_as_built_by_hand(make, how):
    model = make()
    model(image()) if how == "call" else materialize(model, (2, 3, 16, 16))
    gc.collect()  # calls that failed in other tests live as long as their tracebacks
    assert not any(undos for _, undos in first_call._undo.values())
    for module in model.modules():
        plain = nn.Module()
        assert not isinstance(module, LazyModule)
        assert not {"_pending", "_initialize_hook", "_pending_parameter"} & (
            vars(module).keys() | vars(module)["_parameters"].keys()
        )
        for name in vars(plain):
            assert type(vars(module)[name]) is type(vars(plain)[name])
            if "hooks" in name:
                assert not vars(module)[name]
        assert "forward" not in vars(module)
        assert type(module)._call_impl is nn.Module._call_impl
    assert not [name for name in model.state_dict() if "pending" in name]
    assert b"lazytorch.pending" not in pickle.dumps(model)
    assert b"lazytorch.lazy_module" not in pickle.dumps(model)


def test_order_of_vars_and_state_is_that_of_eager():
    lazy, eager = LazyBlock(4), Block(3, 4)
    lazy(image())
    eager(image())
    assert list(lazy.state_dict()) == list(eager.state_dict())
    assert vars(lazy).keys() == vars(eager).keys()
    assert lazy.state_dict()._metadata == eager.state_dict()._metadata


def test_nothing_is_kept_alive():
    lazy = LazyBlock(4)
    x = image()
    pending = weakref.ref(lazy._pending)
    gone = weakref.ref(x)
    lazy(x)
    del x
    gc.collect()
    assert pending() is None
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
        "import sys, torch; before = set(sys.modules); import lazytorch; "
        "print({name.split('.')[0] for name in set(sys.modules) - before} - {'lazytorch', 'torch'} - "
        "set(sys.stdlib_module_names))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
