"""The exceptions of lazytorch, and functions that format their messages."""

from collections.abc import Iterable

__all__ = ["ShapeInferenceError", "UninitializedAttributeError", "UninitializedModuleError", "listed", "not_yet"]


class UninitializedModuleError(RuntimeError):
    """An operation needs the parameters or submodules of a lazy module, which has not had its first input yet.

    Example:
        >>> import lazytorch
        >>> lazytorch.layers.LazyPointwiseConv(8).state_dict()
        Traceback (most recent call last):
        ...
        lazytorch.errors.UninitializedModuleError: LazyPointwiseConv has no state yet: it is built from its first \
input. Call lazytorch.materialize(model, (1, 3, 224, 224)) before state_dict(). To load weights, call load_state_dict, \
which needs no input.
    """


class UninitializedAttributeError(UninitializedModuleError, AttributeError):
    """An attribute of a lazy module does not exist before its first input; ``hasattr(lazy, "conv")`` is ``False``.

    Example:
        >>> import lazytorch
        >>> lazytorch.layers.LazyPointwiseConv(8).conv
        Traceback (most recent call last):
        ...
        lazytorch.errors.UninitializedAttributeError: LazyPointwiseConv has no attribute 'conv' yet: \
it is built from its first input. Call lazytorch.materialize(model, (1, 3, 224, 224)) before accessing it.
    """


class ShapeInferenceError(ValueError, RuntimeError):
    """A lazy module cannot infer its arguments from the first input.

    It is a ``ValueError``, which constructors raise, and a ``RuntimeError``, which PyTorch raises for wrong shapes.

    Example:
        >>> import lazytorch, torch
        >>> lazytorch.layers.LazyReductionConv2d(4, kernel_size=1)(torch.zeros(2, 6, 8, 8))
        Traceback (most recent call last):
        ...
        lazytorch.errors.ShapeInferenceError: LazyReductionConv2d: the input channels must be a multiple of \
reduction_ratio=4, got 6 (input (2, 6, 8, 8)).
    """


def not_yet(owner: str, missing: str, before: str) -> str:
    """The message of an ``UninitializedModuleError``: what ``owner`` does not have yet, why, and what to do."""
    built = "they are" if missing.endswith("s") else "it is"
    return (
        f"{owner} has no {missing} yet: {built} built from its first input. "
        f"Call lazytorch.materialize(model, (1, 3, 224, 224)) before {before}."
    )


def listed(names: Iterable[str]) -> str:
    """The first five names of a list, and the number of the others."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
