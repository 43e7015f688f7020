"""A first call that fails leaves the whole model as lazy as it was."""

import dis
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from types import FrameType, MethodType
from typing import Any

from torch import nn
from torch._guards import CompileContext
from torch.utils.hooks import BackwardHook

__all__ = ["as_one_call", "on_failure", "path_in_running_model", "run_constructors_hooks"]

# By the identity of an object that lives exactly as long as the outermost module call: that object, and how to undo
# what was built in it. An entry goes when the call ends, so nothing is kept of a call that succeeded.
_undo: dict[int, tuple[weakref.ref[Any], list[Callable[[], None]]]] = {}
# The outermost call, while one of ours is running in this thread: below it, it need not be looked for again.
_local = threading.local()


def on_failure(undo: Callable[[], None]) -> None:
    """Have ``undo`` called if the outermost module call that is running now fails."""
    token = outermost_call()
    if token is not None:
        key = id(token)
        if key not in _undo:
            _undo[key] = weakref.ref(token, lambda _: _undo.pop(key, None)), []
        _undo[key][1].append(undo)


def as_one_call(call: Callable[[], Any]) -> Any:
    """Call ``call``; if it raises, undo what was built in it, and in all of the outermost call if that fails as well.

    A plain parent is not asked, so whether the exception will leave it is read from the code that is running: it will
    not if it may be caught by an ``except`` on its way out.
    """
    token = _Token()
    enclosing = getattr(_local, "outermost", None)
    outermost = _local.outermost = outermost_call()
    done = len(_undo[id(outermost)][1]) if id(outermost) in _undo else 0
    try:
        return call()
    except BaseException:
        _, undos = _undo.get(id(outermost), (None, []))
        while len(undos) > (done if may_be_caught() else 0):
            undos.pop()()
        raise
    finally:
        _local.outermost = enclosing
        del token, outermost, enclosing  # the traceback of an exception may keep this frame


def may_be_caught() -> bool:
    """Whether, between here and the outermost module call, an ``except`` stands around what is running."""
    found = False
    for frame in running_frames():
        if frame.f_code is nn.Module._call_impl.__code__:
            if found:
                return True
        elif frame.f_code.co_filename not in (__file__, nn.Module._call_impl.__code__.co_filename):
            by_dynamo = frame.f_globals.get("__name__", "").startswith("torch._dynamo.")  # it only adds to the message
            found = found or (not by_dynamo and is_inside_except(frame))
    return False


def is_inside_except(frame: FrameType) -> bool:
    """Whether an ``except`` of ``frame`` covers what it is doing: not a ``with`` or ``finally``, which raise again."""
    entries = dis._parse_exception_table(frame.f_code)  # pyright: ignore[reportAttributeAccessIssue]
    targets = {entry.target for entry in entries if entry.start <= frame.f_lasti < entry.end}
    if not targets:
        return False
    operations = [(each.offset, each.opname) for each in dis.get_instructions(frame.f_code)]
    for target in targets:
        handler = [name for offset, name in operations if offset >= target]
        ends = handler.index("RERAISE") if "RERAISE" in handler else len(handler)
        if "POP_EXCEPT" in handler[:ends]:
            return True
    return False


def outermost_call() -> Any:
    """An object that lives exactly as long as the outermost module call running in this thread, or None.

    A plain parent knows nothing of lazytorch, but ``nn.Module._call_impl`` holds one bound method for each call; where
    that is itself traced by Dynamo, Dynamo holds one context for each trace.
    """
    token = getattr(_local, "outermost", None)
    if token is not None:
        return token
    for frame in running_frames():
        if frame.f_code is as_one_call.__code__:
            token = frame.f_locals["token"]
        elif frame.f_globals.get("__name__") == "torch._dynamo.convert_frame":
            token = CompileContext.try_get()
        elif frame.f_code is nn.Module._call_impl.__code__:
            forward, module = frame.f_locals["forward_call"], frame.f_locals["self"]
            if isinstance(forward, MethodType) and "forward" not in vars(module):  # an instance's own outlives the call
                token = forward
    return token


def run_constructors_hooks(
    module: nn.Module, known: set[int], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Any, Any] | None:
    """Run what the target's constructor registered, which ``nn.Module._call_impl`` listed before it was there.

    Args:
        module: The module, just built.
        known: The ids of the hooks that it had before.
        args: The call's arguments.
        kwargs: Its keyword arguments.

    Returns:
        What is to take the place of both, if a hook says so.
    """
    changed = False
    for key, hook in list(module._forward_pre_hooks.items()):
        if key not in known:
            with_kwargs = key in module._forward_pre_hooks_with_kwargs
            result = hook(module, args, kwargs) if with_kwargs else hook(module, args)
            if result is not None:
                changed = True
                args, kwargs = result if with_kwargs else (result if isinstance(result, tuple) else (result,), kwargs)
    backward = [hook for key, hook in module._backward_hooks.items() if key not in known]
    before = [hook for key, hook in module._backward_pre_hooks.items() if key not in known]
    if backward or before:
        changed = True
        watch = BackwardHook(module, backward, before)
        args = watch.setup_input_hook(args)

        def finish(_: nn.Module, __: Any, output: Any) -> Any:
            handle.remove()
            return watch.setup_output_hook(output)

        handle = module.register_forward_hook(finish)
    return (args, kwargs) if changed else None


def path_in_running_model(module: nn.Module) -> str:
    """Where ``module`` stands in the outermost running module that holds it: ``stages.2.0.se``, or ``""``."""
    path = ""
    for frame in running_frames():
        if frame.f_code is nn.Module._call_impl.__code__:
            names = (name for name, each in frame.f_locals["self"].named_modules() if each is module)
            path = next(names, "") or path
    return path


def running_frames() -> list[FrameType]:
    """The frames of this thread, innermost first."""
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


class _Token:
    """An object that lives as long as one call."""
