"""The one parameter of a lazy module: it stands for those that there are none of yet, so that nobody overlooks them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._pytree import tree_leaves

from lazytorch.callers import callers, frame_of, is_asked_by
from lazytorch.errors import UninitializedModuleError
from lazytorch.pending import Pending, not_yet

__all__ = ["PendingParameter", "PendingParameters"]

# Whose classes copy a model to average its weights: torch's AveragedModel, timm's ModelEma.
AVERAGING = ("torch.optim.swa_utils", "timm.utils.model_ema")


class PendingParameters(dict[str, Any]):
    """The ``_parameters`` of a lazy module: what looks there for a weight by name is told that there is none yet."""

    def __init__(self, pending: Pending) -> None:
        super().__init__(_pending_parameter=PendingParameter(pending))  # pyright: ignore[reportArgumentType]

    def __missing__(self, name: str) -> Any:
        raise self["_pending_parameter"].refusal(f"asking for {name!r}")

    def items(self) -> Any:
        if is_asked_by("torchinfo"):  # it would count none, or the parts of a layer for one
            raise self["_pending_parameter"].refusal("counting them")
        return super().items()

    def __contains__(self, name: object) -> bool:
        if frame_of(register_parametrization) is not None:
            raise self["_pending_parameter"].refusal(f"parametrizing {name!r}")
        return super().__contains__(name)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self["_pending_parameter"].pending,), None, None, iter(list(self.items()))


class PendingParameter(UninitializedParameter):
    """Stands for the parameters that a lazy module does not have yet, so that nobody overlooks them.

    What can be kept for later is (``requires_grad``); everything else raises ``UninitializedModuleError``.
    """

    pending: Pending

    def __new__(cls, pending: Pending) -> "PendingParameter":
        self = cls._make_subclass(cls, torch.empty(0), True)
        self.pending = pending
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "PendingParameter":
        if is_being_averaged():
            raise self.refusal("making an average of them")
        return memo.setdefault(id(self), type(self)(copy.deepcopy(self.pending, memo)))  # pyright: ignore[reportArgumentType]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.pending,)

    @property
    def requires_grad(self) -> bool:
        asked = [args[0] for method, args, _ in self.pending.deeds if method == "requires_grad_"]
        return asked[-1] if asked else True

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.pending.log("requires_grad_", bool(value))

    def requires_grad_(self, requires_grad: bool = True) -> "PendingParameter":  # pyright: ignore[reportIncompatibleMethodOverride]
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:  # asked by every optimizer  # pyright: ignore[reportIncompatibleVariableOverride]
        raise self.refusal("making an optimizer")

    @property
    def shape(self) -> torch.Size:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise self.refusal("asking for their shapes")

    def share_memory_(self) -> "PendingParameter":
        raise self.refusal("sharing them")

    def refusal(self, what: str) -> UninitializedModuleError:
        return UninitializedModuleError(not_yet(self.pending.owner, "parameters", what))

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return super().__torch_function__(func, types, args, kwargs)
        except ValueError:
            held = next(each for each in tree_leaves((args, kwargs)) if isinstance(each, cls))
            raise held.refusal(f"calling {getattr(func, '__name__', func)}") from None


def is_being_averaged() -> bool:
    """Whether a class that averages weights is being constructed."""
    for frame in callers():
        if frame.f_code.co_name == "__init__" and frame.f_globals.get("__name__") in AVERAGING:
            return True
    return False
