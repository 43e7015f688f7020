"""Freezing: parts of a network without gradients and in evaluation."""

from collections.abc import Iterable

from torch import nn

from lazytorch._init.initialize import known
from lazytorch.lazy_module import LazyModule

__all__ = ["Freezing"]


class Freezing:
    """The parts of a network that are frozen, and what to undo.

    Attributes:
        parts: The frozen modules.
        changed: The parameters that had gradients before: their modules and names. A module that was lazy is here
            without a name, for all parameters that it has since then.
    """

    def __init__(self) -> None:
        self.parts: list[nn.Module] = []
        self.changed: list[tuple[nn.Module, str | None]] = []

    def freeze(self, parts: Iterable[nn.Module]) -> None:
        """Freeze these parts, and no others."""
        for module, name in self.changed:
            named = module._parameters.get(name) if name is not None else None
            if named is not None:
                named.requires_grad_(True)
            elif name is None:
                module.requires_grad_(True)
        self.parts, self.changed = list(parts), []
        for each in dict.fromkeys(each for part in self.parts for each in part.modules()):
            for name, parameter in each._parameters.items():
                if parameter is not None and parameter.requires_grad:
                    self.changed.append((each, None if isinstance(each, LazyModule) else name))
                    parameter.requires_grad_(False)
        self.evaluate()

    def evaluate(self) -> None:
        """Set the frozen parts to evaluation."""
        for part in self.parts:
            part.eval()


known.add(Freezing)
