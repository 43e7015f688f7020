"""Context managers: undo builds of a failed call, disable PyTorch's modes, fork the random state."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from lazytorch import _torch
from lazytorch._init.initialize import thread_local
from lazytorch._shapes.mode import without_shapes

DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "xla", "ipu", "maia", "privateuseone")
AUTOCAST = tuple(filter(torch.amp.is_autocast_available, DEVICE_TYPES))

_local = threading.local()


class Built(Protocol):
    """A module that was built in a block of ``all_or_nothing``."""

    def undo(self) -> None:
        """Make the module lazy again."""
        ...

    def keep(self) -> None:
        """Keep the module built; called when the block ends without an error."""
        ...


@contextlib.contextmanager
def all_or_nothing(*, keep: bool = False, is_first_call: bool = False) -> Iterator[None]:
    """If this block raises an error, make the modules lazy again that this thread built in it.

    Args:
        keep: Whether to call ``keep`` at the end of this block instead of the outermost one.
        is_first_call: Whether the block is the first call of a whole model.
    """
    outermost = getattr(_local, "built", None) is None
    if outermost:
        _local.built, _local.awaits_input = [], is_first_call
    built: list[Built] = _local.built
    before = len(built)
    try:
        yield
    except BaseException:
        while len(built) > before:
            built.pop().undo()
        raise
    finally:
        if outermost:
            _local.built, _local.awaits_input = None, False
        if outermost or keep:
            for each in built[before:]:
                each.keep()


def undo_on_failure(built: Built) -> None:
    """Undo ``built`` if the enclosing ``all_or_nothing`` fails."""
    _local.built.append(built)


def is_first_input() -> bool:
    """Whether this function is called for the first time within the first call of a whole model."""
    is_first = getattr(_local, "awaits_input", False)
    _local.awaits_input = False
    return is_first


def warn(message: str) -> None:
    """Issue a warning for the line that called lazytorch or a module."""
    depth, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("lazytorch.", "torch.")):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, stacklevel=depth)


def notify_built(module: nn.Module, built: Built) -> None:
    """Call ``undo_on_failure(built)``, and then this thread's watcher with ``module``, which was built."""
    undo_on_failure(built)
    watch = getattr(_local, "watch", None)
    if watch is not None:
        watch(module)


def watching_builds(watch: Callable[[nn.Module], None]) -> AbstractContextManager[None]:
    """Call ``watch`` with every module that this thread builds in the block, before its forward runs."""
    return thread_local(_local, "watch", watch)


@contextlib.contextmanager
def outside_modes() -> Iterator[None]:
    """Disable fake tensors, function transforms, inference mode and autocast, so that new parameters are trainable."""
    with contextlib.ExitStack() as stack:
        if _torch.peek_interpreter_stack() is not None:
            stack.enter_context(_torch.temporarily_clear_interpreter_stack())
        if _torch.len_torch_dispatch_stack():
            stack.enter_context(_torch.disable_current_modes())
        stack.enter_context(without_shapes())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device_type in AUTOCAST:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


@contextlib.contextmanager
def fork_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators in this block, and restore them after it; other threads see the seeded state."""
    accelerated = device.type not in ("cpu", "meta")
    devices = range(torch.get_device_module(device).device_count()) if accelerated else []
    with torch.random.fork_rng(devices, device_type=device.type if accelerated else "cuda"):
        torch.default_generator.manual_seed(seed)
        if accelerated:
            torch.get_device_module(device).manual_seed_all(seed)
        yield


def path_in_running_model(module: nn.Module) -> str:
    """The name of ``module`` in the outermost running module that contains it, or ``""``; for messages."""
    path = ""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is getattr(nn.Module._call_impl, "__code__", None):
            outer = frame.f_locals.get("self")
            names = outer.named_modules() if isinstance(outer, nn.Module) else ()
            path = next((name for name, each in names if each is module), "") or path
        frame = frame.f_back
    return path
