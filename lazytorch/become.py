"""become: a lazy module takes over the state, class and identity of the module that was built for it."""

import collections
import functools
import gc
import sys
import weakref
from collections.abc import Callable, Iterable
from types import CellType, FrameType, MethodType
from typing import Any

from torch import nn

__all__ = ["HOOKS", "MODULE_STATE", "become"]

MODULE_STATE = vars(nn.Module())
HOOKS = [name for name in MODULE_STATE if name.endswith("_hooks") or "_hooks_" in name]
CONTENTS = ["_parameters", "_buffers", "_modules"]
FLAGS = ["training", "_is_full_backward_hook"]


def become(
    module: nn.Module, holder: list[nn.Module], *, dropped: set[str], dropped_hook: int, prepended: set[int]
) -> Callable[[], None]:
    """Make ``module`` the module in ``holder``, at once and for every thread; return how to undo it.

    What was set on ``module`` meanwhile is kept: attributes, parts, and hooks in the order that an eager module would
    have them in: those registered with ``prepend``, those of the target's constructor, all others.

    Args:
        module: The module whose identity is kept.
        holder: A list that holds the only reference its caller has to the new module.
        dropped: The names of attributes and parameters that belonged to the lazy module alone.
        dropped_hook: The id of the hook that did.
        prepended: The ids of the hooks that were registered with ``prepend=True``.
    """
    old_class, old_state, new_state = type(module), vars(module), vars(holder[0])
    registered = {name: dict(old_state[name]) for name in HOOKS}

    def undo() -> None:
        for name, hooks in registered.items():
            old_state[name].clear()
            old_state[name].update(hooks)
        object.__setattr__(module, "__dict__", old_state)
        object.__setattr__(module, "__class__", old_class)

    try:
        # The constructor may have stored references to the module that it made, or to its hook dicts.
        if sys.getrefcount(holder[0]) > ALONE or weak_references(holder[0]):
            redirect(holder[0], module, keep=holder)
        for name in HOOKS:
            # Handles refer to the hook dicts that the lazy module had: those stay.
            own, theirs = old_state[name], new_state[name]
            if theirs:
                first = {key: hook for key, hook in own.items() if key in prepended}
                merged = {**first, **theirs, **own}
                own.clear()
                own.update(merged)
                redirect(theirs, own)
            own.pop(dropped_hook, None)
            new_state[name] = own
        for name in CONTENTS:
            new_state[name].update({key: each for key, each in old_state[name].items() if key not in dropped})
        new_state["_non_persistent_buffers_set"] |= old_state["_non_persistent_buffers_set"]
        for name, value in old_state.items():
            set_by_user = name not in MODULE_STATE or (name in FLAGS and value != MODULE_STATE[name])
            if set_by_user and name not in dropped:
                new_state[name] = value
        for slot in slots(type(holder[0])):
            if hasattr(holder[0], slot):
                object.__setattr__(module, slot, getattr(holder[0], slot))
        # One dict, shared: a reference to the built module that escaped all the same sees the state as it is.
        object.__setattr__(module, "__dict__", new_state)
        object.__setattr__(module, "__class__", type(holder[0]))
    except BaseException:
        undo()
        raise
    return undo


_holder = [object()]
ALONE = sys.getrefcount(_holder[0])


def slots(cls: type) -> list[str]:
    """The names that the classes of the package's users keep outside of ``__dict__``."""
    declared = (vars(base).get("__slots__", ()) for base in cls.__mro__)
    names = [name for each in declared for name in ([each] if isinstance(each, str) else each)]
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def redirect(old: object, new: object, keep: object = None) -> None:
    """Make everything that refers to ``old`` refer to ``new``, except the list ``keep``.

    Immutable holders (tuples, bound methods, partials, weak references) are replaced in turn in what holds them.
    """
    # No closure here may hold ``old``: its cell would be found, and filled with ``new``, half-way.
    for reference in weak_references(old):
        redirect(reference, retargeted(reference, new))
    for holder in gc.get_referrers(old):
        if holder is keep or isinstance(holder, FrameType):
            continue
        match holder:
            case dict():
                keys = replaced(holder, old, new)
                if id(new) in map(id, keys):
                    items = list(zip(keys, holder.values(), strict=True))
                    holder.clear()
                    holder.update(items)
                for key, value in list(holder.items()):
                    if value is old:
                        holder[key] = new
            case list() | collections.deque():
                for index, value in enumerate(holder):
                    if value is old:
                        holder[index] = new
            case set():
                holder.remove(old)
                holder.add(new)
            case tuple():
                redirect(holder, tuple.__new__(type(holder), replaced(holder, old, new)))
            case frozenset():
                redirect(holder, frozenset(replaced(holder, old, new)))
            case MethodType():
                redirect(holder, MethodType(holder.__func__, new))
            case functools.partial():
                func: Any
                func, *args = replaced((holder.func, *holder.args), old, new)
                # Its tuple of arguments may itself be what is replaced: then it has been, in what holds it, by this.
                whole = new if holder.args is old else tuple(args)
                holder.__setstate__((func, whole, holder.keywords, vars(holder)))  # pyright: ignore[reportAttributeAccessIssue]
            case CellType():
                holder.cell_contents = new
            case _:
                for key, value in list(getattr(holder, "__dict__", {}).items()):
                    if value is old:
                        vars(holder)[key] = new


def weak_references(target: object) -> list[weakref.ref[Any]]:
    """The weak references to ``target``; Dynamo's, which tag every module that is made, are of no account."""
    found = weakref.getweakrefs(target)
    return [each for each in found if not getattr(each.__callback__, "__module__", "").startswith("torch._dynamo")]


def replaced(items: Iterable[Any], old: object, new: object) -> list[Any]:
    return [new if each is old else each for each in items]


def retargeted(reference: weakref.ref[Any], new: object) -> weakref.ref[Any]:
    """A weak reference of the same kind to ``new``."""
    if isinstance(reference, weakref.WeakMethod):
        return weakref.WeakMethod(MethodType(reference._func_ref(), new))  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(reference, weakref.KeyedRef):
        return weakref.KeyedRef(new, reference.__callback__, reference.key)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return weakref.ref(new, reference.__callback__)
