"""show: format a value as in source code."""

import functools
from types import BuiltinFunctionType, FunctionType
from typing import Any

__all__ = ["show"]

LONG = 100  # a sequence with more characters is shown as its number of rows


def show(value: object) -> str:
    """``repr``, but with classes and functions by name, and a long sequence as its number of rows."""
    if isinstance(value, functools.partial):
        arguments = [*map(show, value.args), *(f"{key}={show(each)}" for key, each in value.keywords.items())]
        return f"partial({', '.join([show(value.func), *arguments])})"
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return value.__name__
    if type(value) in (list, tuple):
        first: Any = value
        while type(first) in (list, tuple) and first:
            first = first[0]
        if hasattr(first, "_asdict"):
            return f"<{len(value)} rows>"  # pyright: ignore[reportArgumentType]
        rows = ", ".join(map(show, value))  # pyright: ignore[reportArgumentType]
        if len(rows) > LONG:
            return f"<{len(value)} rows>"  # pyright: ignore[reportArgumentType]
        return f"[{rows}]" if isinstance(value, list) else f"({rows}{',' * (len(value) == 1)})"  # pyright: ignore[reportArgumentType]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return f"{type(value).__name__}({', '.join(map(show, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{show(key)}: {show(each)}' for key, each in value.items())}}}"
    return f"<{type(value).__name__}>" if type(value).__repr__ is object.__repr__ else repr(value)
