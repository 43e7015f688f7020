"""Checks of the numbers that layers are constructed with."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeVar

__all__ = ["Sizes", "each", "largest", "positive", "positive_whole", "whole"]

T = TypeVar("T", int, float)
Sizes = int | Sequence[int]  # one number, or one for each spatial dimension


def each(value: Sizes) -> tuple[int, ...]:
    """The numbers in ``value``: one, or one for each spatial dimension."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)  # pyright: ignore[reportReturnType]


def largest(value: Sizes) -> int:
    """The largest number in ``value``."""
    return max(each(value))


def positive(name: str, value: T, owner: object, kind: type = Real) -> T:
    """``value``, which must be a positive number."""
    if type(value) is int and value > 0:
        return value
    if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
        what = "a positive whole number" if kind is Integral else "positive"
        raise ValueError(f"{type(owner).__name__.removeprefix('Lazy')}: {name} must be {what}, got {value!r}.")
    return value


def whole(name: str, value: int, owner: object) -> int:
    """``value``, which must be a whole number of at least 0: padding, classes."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{type(owner).__name__}: {name} must be a whole number of at least 0, got {value!r}.")
    return value


def positive_whole(name: str, value: int, owner: object) -> int:
    """``value``, which must be a positive whole number: channels, pixels."""
    return positive(name, value, owner, Integral)
