"""How the shape of an input is read: its number of spatial dimensions, and images without a batch dimension."""

from collections.abc import Sequence

from lazytorch._lazy.scopes import is_first_input, warn
from lazytorch.errors import ShapeInferenceError

__all__ = ["LAYOUTS", "require_dims", "require_input"]

LAYOUTS = {
    1: "(batch, channels, length)",
    2: "(batch, channels, height, width)",
    3: "(batch, channels, depth, height, width)",
}


def require_dims(owner: str, spatial_dims: int | None) -> None:
    """Refuse a number of spatial dimensions that is not 1, 2, 3 or None."""
    if spatial_dims is not None and (type(spatial_dims) is not int or spatial_dims not in LAYOUTS):
        raise ValueError(f"{owner}: spatial_dims must be 1, 2 or 3, got {spatial_dims!r}.")


def require_input(owner: str, shape: Sequence[int], spatial_dims: int | None) -> None:
    """Refuse an input that has not ``spatial_dims`` spatial dimensions, or none of 1, 2 and 3.

    Without ``spatial_dims``, warn if the first input of a whole model looks like an image without a batch dimension.
    """
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
    """Whether this may be the shape of an image of 1 to 4 channels, without a batch dimension."""
    sides = shape[1:]
    return len(shape) == 3 and shape[0] <= 4 and min(sides) >= 16 and max(sides) <= 2 * min(sides)
