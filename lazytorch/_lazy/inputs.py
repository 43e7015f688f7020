"""Checks of inputs and their shapes: the number of spatial dimensions, and a missing batch dimension."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lazytorch._lazy.scopes import is_first_input, warn
from lazytorch.errors import ShapeInferenceError

__all__ = ["LAYOUTS", "require_call", "require_dims", "require_input"]

LAYOUTS = {
    1: "(batch, channels, length)",
    2: "(batch, channels, height, width)",
    3: "(batch, channels, depth, height, width)",
}


def require_dims(owner: str, spatial_dims: int | None) -> None:
    """Raise an error unless ``spatial_dims`` is 1, 2, 3 or None."""
    if spatial_dims is not None and (type(spatial_dims) is not int or spatial_dims not in LAYOUTS):
        raise ValueError(f"{owner}: spatial_dims must be 1, 2 or 3, got {spatial_dims!r}.")


def require_call(owner: str, module: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise an error if ``module`` is not a module, a shape is invalid, or the forward does not take these arguments.

    Args:
        owner: The name of the called function, with the module's class in parentheses, for messages.
        module: The module.
        inputs: The positional arguments of the forward, or their shapes.
        kwargs: The keyword arguments of the forward, or their shapes.
    """
    function = owner.partition("(")[0]
    if not isinstance(module, nn.Module):
        raise TypeError(f"{function}: the first argument must be a module, got {module!r}.")
    if len(inputs) > 1 and all(type(each) is int for each in inputs):
        raise TypeError(
            f"{owner}: the shape of an input must be one tuple, got {len(inputs)} numbers. Pass {tuple(inputs)}."
        )
    for each in (*inputs, *kwargs.values()):
        if isinstance(each, (tuple, list)) and all(type(size) is int for size in each) and min(each, default=0) < 0:
            raise ValueError(f"{owner}: the sizes of a shape must be at least 0, got {each}.")
    own = vars(module).get("forward")
    if module._forward_pre_hooks or not getattr(getattr(own, "__self__", None), "runs_forward_of_class", own is None):
        return  # hooks and other forwards may take other arguments than the class's forward
    signature = inspect.signature(type(module).forward)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    unknown = [name for name in kwargs if name not in signature.parameters and not takes_any]
    names = ", ".join([*signature.parameters][1:])
    remedy = f"Pass the input or its shape by position: {function}(model, (1, 3, 224, 224))."
    if unknown:
        raise TypeError(f"{owner}: the forward takes {names or 'nothing'}, got an argument {unknown[0]!r}. {remedy}")
    try:
        signature.bind(module, *inputs, **kwargs)
    except TypeError as error:
        raise TypeError(f"{owner}: the forward takes {names or 'nothing'}, got others: {error}. {remedy}") from None


def require_input(owner: str, shape: Sequence[int], spatial_dims: int | None) -> None:
    """Raise an error unless the input has ``spatial_dims`` spatial dimensions; any of 1, 2 and 3 if that is None.

    Without ``spatial_dims``, warn if the first input of a whole model looks like an image without a batch dimension.
    """
    require_dims(owner, spatial_dims)
    shape = tuple(shape)
    allowed = [1, 2, 3] if spatial_dims is None else [spatial_dims]
    if len(shape) - 2 not in allowed:
        shapes = " or ".join(LAYOUTS[dims] for dims in allowed)
        raise ShapeInferenceError(f"{owner}: the input must be {shapes}, got {len(shape)} dimensions (input {shape}).")
    if is_first_input() and spatial_dims is None and looks_unbatched(shape):
        warn(
            f"{owner}: the input {shape} was read as {LAYOUTS[1]}. For one image, add the batch dimension: "
            f"{(1, *shape)}. For signals, pass spatial_dims=1."
        )


def looks_unbatched(shape: Sequence[int]) -> bool:
    """Whether ``shape`` may be that of an image with 1 to 4 channels and without a batch dimension."""
    sides = shape[1:]
    return len(shape) == 3 and shape[0] <= 4 and min(sides) >= 16 and max(sides) <= 2 * min(sides)
