"""Rules for arguments that are classes or functions, such as a layer of torch.nn or a ``functools.partial`` of one."""

import contextlib
import functools
import inspect
import weakref
from typing import Any

from torch import nn

from lazytorch._lazy.show import show
from lazytorch.arguments import Rule
from lazytorch.layers.checks import who
from lazytorch.lazy_module import LazyModule


def maker(example: str) -> Rule:
    """The rule of a class or function that returns a layer; its parameters are not checked.

    Args:
        example: A valid value, for messages.
    """

    def of_maker(name: str, value: Any, owner: object) -> Any:
        if callable(value) and not isinstance(value, nn.Module):
            return value
        meant = f"nn.{type(value).__name__}" if type(value).__module__.startswith("torch.nn.") else example
        if isinstance(value, str):
            meant = next((f"nn.{each}" for each in vars(nn) if each.lower() == value.lower()), example)
        raise TypeError(
            f"{who(owner)}: {name} must be a class or function that makes it, got {value!r}. Pass one such as {meant}, "
            "or a functools.partial of it."
        )

    return of_maker


def factory(*positional: str, example: str, **keywords: str) -> Rule:
    """The rule of a class or function that returns a layer; its parameters are checked.

    Args:
        positional: The names of the positional arguments that it is called with.
        example: A valid value, for messages.
        keywords: The names of the keyword arguments that it is called with; the values are ignored.
    """
    names = ", ".join([*positional, *(f"{name}=..." for name in keywords)])
    called = f"called with ({names})" if names else "called without arguments"
    is_made = maker(example)
    last: Any = lambda: None  # noqa: E731 - weak reference to the last valid value, which a network passes to all blocks

    def of_factory(name: str, value: Any, owner: object) -> Any:
        nonlocal last
        if last() is value is not None:
            return value
        is_made(name, value, owner)
        refusal = refusal_of_call(value, len(positional), tuple(keywords))
        if refusal is not None:
            partial = f" functools.partial({show(value)}, ...)," if "missing" in refusal else ""
            raise TypeError(
                f"{who(owner)}: {name} must be a class or function that makes it when {called}, got {show(value)}: "
                f"{refusal}. Pass{partial} a function that calls it, or one such as {example}."
            )
        with contextlib.suppress(TypeError):  # it has no weak references
            last = weakref.ref(value)
        return value

    return of_factory


# The results of ``refusal_of_call``, by class or function, and then by the arguments of the call.
_refusals: weakref.WeakKeyDictionary[Any, dict[Any, str | None]] = weakref.WeakKeyDictionary()


def refusal_of_call(value: Any, positional: int, keywords: tuple[str, ...]) -> str | None:
    """Why ``value`` cannot be called with these numbers and names of arguments; None if it can be, or if unknown."""
    given: list[str] = []
    while isinstance(value, functools.partial):
        positional += len(value.args)
        given += value.keywords
        value = value.func
    if isinstance(value, type) and issubclass(value, LazyModule):
        return None  # it is replaced by the class that it builds, with arguments in another order
    call = positional, keywords, tuple(given)
    try:
        refusals = _refusals.setdefault(value, {})
    except TypeError:  # it has no hash, or no weak references
        return None
    if call not in refusals:
        refusal = None
        try:
            inspect.signature(value).bind(*range(positional), **dict.fromkeys((*given, *keywords)))
        except TypeError as error:
            refusal = str(error)
        except ValueError:  # it has no signature
            pass
        refusals[call] = refusal
    return refusals[call]
