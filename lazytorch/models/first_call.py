"""FirstCall: the first call of a network builds all its lazy modules; if it fails, none is built."""

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch._lazy.scopes import all_or_nothing, undo_on_failure
from lazytorch._shapes.mode import ShapeMode, current_mode
from lazytorch.materialize import is_lazy, run_on_shapes, runs_known_code, survey

__all__ = ["FirstCall", "lock_of", "waiting"]


@known_code
class FirstCall:
    """Replaces the ``forward`` of a network until its first call, which builds all lazy modules in it, or none.

    If the network runs only code of lazytorch and torch.nn, it is built from the shape of the input and then called.
    Otherwise its lazy modules are built during the call.

    Args:
        module: The network.

    Attributes:
        compile: The arguments of ``compile``, if it was called before the first call.
        shape: The shape of the last call's input.
    """

    runs_forward_of_class = True

    def __init__(self, module: nn.Module) -> None:
        self.reference = weakref.ref(module)  # weak, because the module refers to this object
        self.compile: tuple[Any, Any] | None = None
        self.shape: tuple[int, ...] | None = None
        self.lock = threading.RLock()
        vars(module).update(forward=self.forward, built_from=None)

    @property
    def module(self) -> nn.Module:
        module = self.reference()
        assert module is not None
        return module

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "compile": self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.reference, self.compile, self.lock = weakref.ref(state["module"]), state["compile"], threading.RLock()
        self.shape = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(type(self.module).forward, args, kwargs, (args, kwargs))

    def call(self, method: Callable[..., Any], args: Any, kwargs: Any, forward_args: tuple[Any, Any]) -> Any:
        """Build the network, and call a method of its class.

        Args:
            method: The method, which is called with the network as the first argument.
            args: The other positional arguments of the method.
            kwargs: The keyword arguments of the method.
            forward_args: The arguments of the network's ``forward``, from which it is built.
        """
        module = self.module
        if torch.compiler.is_compiling():
            return method(module, *args, **kwargs)
        inputs = (each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor))
        self.shape = next((tuple(each.shape) for each in inputs), None)
        with all_or_nothing(is_first_call=True):
            undo_on_failure(self)
            if current_mode() is not None:
                with self.lock:
                    return method(module, *args, **kwargs)
            self.build(*forward_args)
            return method(module, *args, **kwargs)

    def build(self, args: Any, kwargs: Any) -> None:
        """Build the network from the shape of the input, if it runs only code of lazytorch and torch.nn."""
        with self.lock:  # user code never runs in this block, so it cannot cause a deadlock
            surveyed = survey(self.module)
            if surveyed.lazy and not surveyed.lazy_of_torch and runs_known_code(surveyed):
                run_on_shapes(self.module, surveyed, args, kwargs, ShapeMode(type(self.module).__name__))

    def undo(self) -> None:
        """Do nothing: after a failed first call, this object remains the ``forward``."""

    def keep(self) -> None:
        if waiting(self.module) is self and not is_lazy(self.module):
            vars(self.module).pop("forward", None)
            vars(self.module)["built_from"] = self.shape
            vars(self.module)["freezing"].name_built()
            if self.compile is not None:
                self.module.compile(*self.compile[0], **self.compile[1])


def waiting(module: nn.Module) -> FirstCall | None:
    owner = getattr(vars(module).get("forward"), "__self__", None)
    return owner if isinstance(owner, FirstCall) else None


def lock_of(module: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """The lock for which first calls of ``module`` by other threads wait; no lock if it has been built."""
    first_call = waiting(module)
    return contextlib.nullcontext() if first_call is None else first_call.lock
