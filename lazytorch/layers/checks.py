"""Rules for the arguments of layers and models: what kind of value each must have.

A rule is called with the name, the value and the owner of an argument; it returns the value, or raises an error.
``lazytorch.layers.rules.checked`` gives a class the rules of its constructor. A lazy class has the rules of the class
that it builds, so its arguments are checked when it is constructed.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from torch import nn

from lazytorch._lazy.show import show
from lazytorch.arguments import Rule

Sizes = int | Sequence[int]  # one number, or one for each spatial dimension
Padding = Sizes | str | None


def who(owner: object) -> str:
    """The name of an argument's owner in messages."""
    return owner if isinstance(owner, str) else owner.__name__ if isinstance(owner, type) else type(owner).__name__


def each(value: Sizes) -> tuple[int, ...]:
    """The numbers in ``value``: one, or one for each spatial dimension."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)  # pyright: ignore[reportReturnType]


def along(owner: object, name: str, value: Sizes, dims: int) -> tuple[int, ...]:
    """The numbers in ``value``, one for each of ``dims`` dimensions."""
    values = each(value)
    if len(values) not in (1, dims) or (isinstance(value, Sequence) and len(values) != dims):
        raise ValueError(f"{who(owner)}: {name} must be one number or {dims} of them, got {value!r}.")
    return values * (dims // len(values))


def largest(value: Sizes) -> int:
    """The largest number in ``value``."""
    return max(each(value))


def is_number(value: object, kind: type = Real) -> bool:
    """Whether ``value`` is a number, also one of another library such as NumPy; those take longer to recognize."""
    python = type(value) is int or (type(value) is float and kind is Real)
    return python or (isinstance(value, kind) and not isinstance(value, bool))


def numeric(wanted: str, holds: Callable[[Any], bool], kind: type = Real) -> Rule:
    """The rule of a number.

    Args:
        wanted: What the number must be, for messages.
        holds: Whether a number is valid.
        kind: ``Integral`` for whole numbers.
    """

    def of_value(name: str, value: Any, owner: object) -> Any:
        if not is_number(value, kind) or not holds(value):
            raise ValueError(f"{who(owner)}: {name} must be {wanted}, got {value!r}.")
        return value

    return of_value


number = numeric("a number", lambda value: True)
positive = numeric("positive", lambda value: 0 < value < math.inf)
positive_whole = numeric("a positive whole number", lambda value: value > 0, Integral)
whole = numeric("a whole number of at least 0", lambda value: value >= 0, Integral)
fraction = numeric("from 0 to 1", lambda value: 0 <= value <= 1)
fraction_below_one = numeric("from 0 to below 1", lambda value: 0 <= value < 1)


def at_least(lowest: float) -> Rule:
    """The rule of a number that is at least ``lowest``."""
    return every(number, numeric(f"at least {lowest}", lambda value: value >= lowest))


def above(bound: float) -> Rule:
    """The rule of a number above ``bound``."""
    return every(number, numeric(f"above {bound}", lambda value: value > bound))


def every(*rules: Rule) -> Rule:
    """The rule of a value for which several rules hold."""

    def of_value(name: str, value: Any, owner: object) -> Any:
        for rule in rules:
            rule(name, value, owner)
        return value

    return of_value


def flag(name: str, value: Any, owner: object) -> Any:
    """``value``, which must be True or False."""
    if not isinstance(value, Integral) or value not in (0, 1):
        raise TypeError(f"{who(owner)}: {name} must be True or False, got {show(value)}.")
    return value


def module(name: str, value: Any, owner: object) -> Any:
    """``value``, which must be a module."""
    if not isinstance(value, nn.Module):
        what = f" Call it: {value.__name__}(...)." if isinstance(value, type) else ""
        raise TypeError(f"{who(owner)}: {name} must be a module, got {show(value)}.{what}")
    return value


def optional(rule: Rule) -> Rule:
    """The rule of a value that may also be None."""

    def of_value(name: str, value: Any, owner: object) -> Any:
        return None if value is None else rule(name, value, owner)

    return of_value


def sizes(rule: Rule) -> Rule:
    """The rule of one number, or one for each spatial dimension."""

    def of_each(name: str, value: Any, owner: object) -> Any:
        if type(value) is int or not isinstance(value, Sequence) or isinstance(value, str):
            return rule(name, value, owner)
        if not 1 <= len(value) <= 3:
            raise ValueError(f"{who(owner)}: {name} must be one number, or one for each dimension, got {value!r}.")
        for number in value:
            rule(name, number, owner)
        return value

    return of_each


positive_sizes = sizes(positive_whole)


def odd(name: str, value: Any, owner: object) -> Any:
    """``value``, the size of a kernel, which must be odd to keep the size of the input."""
    if any(size % 2 == 0 for size in each(positive_sizes(name, value, owner))):
        raise ValueError(f"{who(owner)}: {name} must be odd to keep the size, got {value}.")
    return value


def padding(name: str, value: Any, owner: object) -> Any:
    """``value``, which must be a number of pixels, one for each dimension, ``"same"`` or ``"valid"``."""
    if not isinstance(value, str):
        return sizes(whole)(name, value, owner)
    if value not in ("same", "valid"):
        raise ValueError(f"{who(owner)}: {name} must be a whole number, 'same' or 'valid', got {value!r}.")
    return value


odd_number = every(positive_whole, odd)  # the size of a kernel in all dimensions


def choice(*values: object) -> Rule:
    """The rule of one of these values."""
    *most, last = map(repr, values)

    def of_value(name: str, value: Any, owner: object) -> Any:
        if not any(value is one or (type(value) is type(one) and value == one) for one in values):
            raise ValueError(f"{who(owner)}: {name} must be {', '.join(most)} or {last}, got {value!r}.")
        return value

    return of_value


def several(rule: Rule, example: str) -> Rule:
    """The rule of a sequence of at least one value.

    Args:
        rule: The rule of the values.
        example: A valid value, for messages.
    """

    def of_each(name: str, value: Any, owner: object) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value or hasattr(value, "_fields"):
            raise ValueError(
                f"{who(owner)}: {name} must be a sequence of at least one value, such as {example}, got {show(value)}."
            )
        for index, part in enumerate(value):
            rule(f"{name}[{index}]", part, owner)
        return value

    return of_each


def divides(owner: object, channels: int, *groups: int) -> None:
    """The rule of channels and groups: the product of ``groups`` must divide ``channels``."""
    if channels % math.prod(groups):
        counts = " * ".join(str(count) for count in groups if count > 1)
        raise ValueError(f"{who(owner)}: groups must divide the channels, got {counts} for {channels}.")


def strided_same(owner: object, padding: Padding, stride: Sizes) -> None:
    """The rule of ``padding`` and ``stride``: the padding ``"same"`` requires a stride of 1."""
    if padding == "same" and largest(stride) > 1:
        raise ValueError(
            f"{who(owner)}: padding='same' needs a stride of 1, as in torch.nn, got {stride!r}. Leave padding out for "
            "half of the kernel on every side, or pass conv_layer=SameConv2d for TensorFlow's padding."
        )
