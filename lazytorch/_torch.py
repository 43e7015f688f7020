"""The names of PyTorch without a documented contract that lazytorch imports; each may be missing.

A missing name is None. It costs the refinement that its comment names, and nothing else (tests/test_private_names.py).
"""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = [
    "disable_current_modes",
    "disable_torch_function",
    "disabled_torch_function",
    "dispatch_mode",
    "fake_tensor",
    "has_any_global_hook",
    "len_torch_dispatch_stack",
    "peek_interpreter_stack",
    "temporarily_clear_interpreter_stack",
]

F = TypeVar("F", bound=Callable[..., Any])


def optional(module: str, name: str) -> Any:
    """``name`` of ``module``, or None if this version of PyTorch has no such name."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


# A first call within torch.func.grad, vmap or jvp builds plain parameters. Tried on 2.8 and 2.14, as all below.
peek_interpreter_stack = optional("torch._C._functorch", "peek_interpreter_stack")
temporarily_clear_interpreter_stack = optional("torch._functorch.pyfunctorch", "temporarily_clear_interpreter_stack")
# A module constructed or built under FakeTensorMode gets real parameters.
disable_current_modes = optional("torch.utils._python_dispatch", "_disable_current_modes")
# The line above costs nothing where there is no such mode.
len_torch_dispatch_stack = optional("torch._C", "_len_torch_dispatch_stack")
# Global hooks that change the input of a lazy module are run before the build.
has_any_global_hook = optional("torch.nn.modules.module", "_has_any_global_hook")
# Constructors of lazytorch's layers run without a detour through the mode that computes shapes.
disable_torch_function = optional("torch._C", "DisableTorchFunction")
# Attributes of tensors that have a shape alone are read without a detour through Python.
disabled_torch_function = optional("torch._C", "_disabled_torch_function_impl")
# materialize and summary know the shapes that operators without a rule return.
fake_tensor = optional("torch._subclasses", "fake_tensor")
dispatch_mode = optional("torch.utils._python_dispatch", "TorchDispatchMode")


def graph_break() -> None:
    """End Dynamo's graph: a module that is constructed in a compiled function is not part of one.

    A function, as importing ``torch._dynamo`` takes a second; Dynamo alone calls it, and has imported it.
    """
    torch._dynamo.graph_break()


def constant_in_graphs(method: F) -> F:
    """Mark a method that Dynamo calls when it traces, and whose result is a constant of the graph.

    ``torch.compiler.assume_constant_result`` sets this attribute too, but imports ``torch._dynamo``.
    """
    vars(method)["_dynamo_marked_constant"] = True
    return method
