"""Undocumented names of PyTorch that lazytorch uses; a version of PyTorch may lack any of them.

A missing name is None, or a function without effect. Only the behaviour that its comment describes is then lost
(tests/test_private_names.py).
"""

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

__all__ = [
    "disable_current_modes",
    "disable_torch_function",
    "disabled_torch_function",
    "fake_tensor",
    "has_any_global_hook",
    "len_torch_dispatch_stack",
    "peek_interpreter_stack",
    "temporarily_clear_interpreter_stack",
]

F = TypeVar("F", bound=Callable[..., Any])


def optional(module: str, name: str, otherwise: Any = None) -> Any:
    """``name`` of ``module``, or ``otherwise`` if this version of PyTorch has no such name."""
    try:
        return getattr(importlib.import_module(module), name, otherwise)
    except ImportError:
        return otherwise


# A first call within torch.func.grad, vmap or jvp builds plain parameters. All names here were tried on 2.8 and 2.14.
peek_interpreter_stack = optional("torch._C._functorch", "peek_interpreter_stack", lambda: None)
temporarily_clear_interpreter_stack = optional(
    "torch._functorch.pyfunctorch", "temporarily_clear_interpreter_stack", nullcontext
)
# A module constructed or built under FakeTensorMode gets real parameters.
disable_current_modes = optional("torch.utils._python_dispatch", "_disable_current_modes", nullcontext)
# ``disable_current_modes``, which is slow, is called only if a mode is active.
len_torch_dispatch_stack = optional("torch._C", "_len_torch_dispatch_stack", lambda: 1)
# A lazy module is built after global hooks, which may change its input.
has_any_global_hook = optional("torch.nn.modules.module", "_has_any_global_hook", lambda: False)
# Known code on plain CPU tensors bypasses ShapeMode and tensor subclasses, which is faster.
disable_torch_function = optional("torch._C", "DisableTorchFunction", nullcontext)
# Attributes of a ShapeTensor are read without a call of __torch_function__, which is faster.
disabled_torch_function = optional("torch._C", "_disabled_torch_function_impl")
# materialize and summary compute the output shapes of operators that have no rule in lazytorch/_shapes.
fake_tensor = optional("torch._subclasses", "fake_tensor")


def graph_break() -> None:
    """End Dynamo's graph, so that a lazy module that a compiled function constructs is not part of a graph.

    ``torch._dynamo`` is not imported here, which takes a second: only Dynamo calls this, and it has imported it.
    """
    torch._dynamo.graph_break()


def constant_in_graphs(method: F) -> F:
    """Mark a method that Dynamo calls while it traces, to store the result in the graph as a constant.

    ``torch.compiler.assume_constant_result`` sets the same attribute, but imports ``torch._dynamo``.
    """
    vars(method)["_dynamo_marked_constant"] = True
    return method
