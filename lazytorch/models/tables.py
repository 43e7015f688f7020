"""Rules for arguments of networks that have one entry for each stage: tables of rows, and sequences of numbers."""

from collections.abc import Sequence
from typing import Any

from lazytorch._lazy.show import show
from lazytorch.arguments import Rule, ValueRules
from lazytorch.layers.checks import several, who

__all__ = ["one_or_several", "same_length", "table_of"]


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


def same_length(first: str, second: str) -> ValueRules:
    """The rule of two sequences that must have the same length, by their names; the second may be None."""

    def of_both(owner: object, ones: Sequence[Any], others: Sequence[Any] | None) -> None:
        if others is not None and len(ones) != len(others):
            raise ValueError(
                f"{who(owner)}: {first} and {second} must have the same length, got {len(ones)} and {len(others)}."
            )

    return {(first, second): of_both}
