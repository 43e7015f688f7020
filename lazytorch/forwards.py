"""Forwards that stand in for a module's own while it is built."""

import threading
from collections.abc import Sequence
from typing import Any

from torch import nn

from lazytorch.pending import plain_torch
from lazytorch.side_by_side import Batch

__all__ = ["CallForward", "DrawnForward"]


class CallForward:
    """The forward of whatever a module has become by the time it is called."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


class DrawnForward:
    """The forward of a module whose weights are being drawn: threads other than the one that builds it wait for them.

    Args:
        module: The module.
        draws: What draws its weights, or waits until that is done.
    """

    def __init__(self, module: nn.Module, draws: Sequence[Batch]) -> None:
        self.module = module
        self.draws = draws
        self.thread = threading.get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            with plain_torch():
                for draw in self.draws:
                    draw()
        return type(self.module).forward(self.module, *args, **kwargs)

    def drop(self) -> None:
        if vars(self.module).get("forward") is self:
            del vars(self.module)["forward"]
