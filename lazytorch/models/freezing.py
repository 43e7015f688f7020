"""Freezing: keep parts of a network without gradients and in evaluation mode."""

from collections.abc import Iterable

from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch._lazy.unbuilt import PLACEHOLDER
from lazytorch.lazy_module import LazyModule

__all__ = ["Freezing"]


@known_code
class Freezing:
    """The frozen parts of a network, and the parameters to unfreeze later.

    Attributes:
        parts: The frozen modules.
        changed: The modules and names of parameters that required gradients before they were frozen.
    """

    def __init__(self) -> None:
        self.parts: list[nn.Module] = []
        self.changed: list[tuple[nn.Module, str]] = []

    def freeze(self, parts: Iterable[nn.Module]) -> None:
        """Freeze these parts, and unfreeze all others."""
        self.name_built()
        for module, name in self.changed:
            moved = (f"{name}_", f"parametrizations.{name}.")  # renamed by pruning, weight_norm or parametrizations
            for each, parameter in module.named_parameters():
                if each == name or each.startswith(moved):
                    parameter.requires_grad_(True)
        self.parts, self.changed = list(parts), []
        for each in dict.fromkeys(each for part in self.parts for each in part.modules()):
            for name, parameter in each._parameters.items():
                if parameter is not None and parameter.requires_grad:
                    self.changed.append((each, name))
                    parameter.requires_grad_(False)

    def name_built(self) -> None:
        """Replace the placeholders of modules that have been built by their parameters."""
        named: list[tuple[nn.Module, str]] = []
        for module, name in self.changed:
            if name != PLACEHOLDER or isinstance(module, LazyModule):
                named.append((module, name))
                continue
            for each in module.modules():
                parameters = each._parameters.items()
                named += [(each, key) for key, value in parameters if value is not None and not value.requires_grad]
        self.changed = named

    def evaluate(self) -> None:
        """Set the frozen parts to evaluation mode."""
        for part in self.parts:
            part.eval()
