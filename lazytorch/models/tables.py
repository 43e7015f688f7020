"""Rules for arguments of networks that have one entry for each stage: tables of rows, and sequences of numbers."""

from collections.abc import Sequence
from typing import Any

from lazytorch._lazy.show import show
from lazytorch.arguments import Rule
from lazytorch.layers.checks import Sizes, several, who

__all__ = ["a_stride_each", "as_many", "one_or_several", "table_of"]


def table_of(row: type, *, several_rows: bool = False) -> Rule:
    """The rule of a table.

    Args:
        row: The class of its rows.
        several_rows: Whether a sequence of rows is allowed in place of a row.
    """
    name = row.__name__
    what = f"a {name}, or a sequence of them" if several_rows else f"a {name}"

    def of_row(label: str, value: Any, owner: object) -> Any:
        parts = value if several_rows and isinstance(value, Sequence) and not isinstance(value, row) else [value]
        if not parts or not all(isinstance(part, row) for part in parts):
            raise TypeError(f"{who(owner)}: {label} must be {what}, got {show(value)}. Write {name}(...).")
        return value

    return several(of_row, f"[{name}(...), {name}(...)]")


def one_or_several(rule: Rule) -> Rule:
    """The rule of one value, or one for each stage."""
    of_each = several(rule, "one for each stage")

    def of_value(name: str, value: Any, owner: object) -> Any:
        return (of_each if isinstance(value, Sequence) and not isinstance(value, str) else rule)(name, value, owner)

    return of_value


def a_stride_each(owner: object, depths: Sequence[int], strides: Sequence[Sizes] | None) -> None:
    """The rule of ``depths`` and ``strides``, which must have the same length."""
    if strides is not None and len(depths) != len(strides):
        raise ValueError(
            f"{who(owner)}: depths and strides must have the same length, got {len(depths)} and {len(strides)}."
        )


def as_many(owner: object, depths: Sequence[int], widths: Sequence[int]) -> None:
    """The rule of ``depths`` and ``widths``, which must have the same length."""
    if len(depths) != len(widths):
        raise ValueError(
            f"{who(owner)}: depths and widths must have the same length, got {len(depths)} and {len(widths)}."
        )
