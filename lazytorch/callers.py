"""Who is calling: some of PyTorch's functions ask of a module what it cannot answer to them alone."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch import nn

__all__ = ["callers", "frame_of", "is_asked_by"]


def callers() -> Iterator[FrameType]:
    """The running frames, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def frame_of(function: Callable[..., Any]) -> FrameType | None:
    """The innermost running frame of ``function``."""
    return next((frame for frame in callers() if frame.f_code is function.__code__), None)


def is_asked_by(packages: str | tuple[str, ...]) -> bool:
    """Whether one of these packages calls a module: its method, or what that calls in turn."""
    ours_or_the_modules = ("lazytorch.callers", "lazytorch.placeholder", "lazytorch.recording", nn.Module.__module__)
    names = (frame.f_globals.get("__name__", "") for frame in callers())
    return next((name for name in names if name not in ours_or_the_modules), "").startswith(packages)
