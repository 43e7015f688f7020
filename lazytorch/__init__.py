"""PyTorch layers and models that infer their input channels and number of spatial dimensions from the first input."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lazytorch import layers
from lazytorch.errors import ShapeInferenceError, UninitializedModuleError
from lazytorch.layers.bases import LazyConv2dExpansionModule, LazyConv2dInChannelModule, LazyConv2dReductionModule
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.lazify import lazify
from lazytorch.lazy_module import LazyModule
from lazytorch.materialize import is_lazy, materialize
from lazytorch.signature import create_lazy_signature
from lazytorch.summary import summary

if TYPE_CHECKING:
    from lazytorch import models

__all__ = [
    "LazyConv2dExpansionModule",
    "LazyConv2dInChannelModule",
    "LazyConv2dReductionModule",
    "LazyModule",
    "NamedSequential",
    "ShapeInferenceError",
    "UninitializedModuleError",
    "create_lazy_signature",
    "is_lazy",
    "layers",
    "lazify",
    "materialize",
    "models",
    "summary",
]
__version__ = "1.0.0rc1"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        """Import ``models`` when it is first used: the networks of the zoo take as long as everything else."""
        if name == "models":
            return import_module("lazytorch.models")
        raise AttributeError(f"module 'lazytorch' has no attribute {name!r}", name=name, obj=import_module("lazytorch"))
