"""Weights of images for networks of signals and volumes."""

from collections.abc import Mapping
from typing import Any

import lazytorch
from lazytorch.models import Backbone, inflate_state_dict, reduce_state_dict
from scripts.training.errors import RunError
from scripts.training.processes import say
from scripts.training.sources import KINDS

CONVERSIONS = {
    1: (reduce_state_dict, "each kernel is summed along its height"),
    3: (inflate_state_dict, "each kernel is repeated along the depth and divided by the number of repetitions"),
}
SIDE = 64  # pixels; every network of the zoo accepts images of this size


def spatial_dims_of(model: Backbone) -> int:
    """The number of spatial dimensions of a model that has loaded weights."""
    return max(each.dim() for each in model.stages.parameters()) - 2


def converted(
    model: Backbone, weights: str, description: Mapping[str, Any], channels: int, spatial_dims: int
) -> Backbone:
    """The model with weights for inputs of ``spatial_dims`` dimensions, lazy.

    Args:
        model: A lazy model that has loaded weights.
        weights: Where they are from.
        description: What rebuilds the model.
        channels: Those of its input, to which the first convolution is fitted.
        spatial_dims: The number of spatial dimensions of its input.

    Raises:
        RunError: If the weights are neither of images nor of such inputs.
    """
    given = spatial_dims_of(model)
    if given == spatial_dims:
        return model
    if given != 2:
        kinds = " or ".join(dict.fromkeys(("images", KINDS[spatial_dims])))
        raise RunError(f"--weights must be of {kinds} for {KINDS[spatial_dims]}, got {weights} of {KINDS[given]}.")
    convert, rule = CONVERSIONS[spatial_dims]
    say(f"the weights {weights} are of images: {rule}")
    state = convert(lazytorch.materialize(model, (1, channels, SIDE, SIDE)).state_dict())
    config = {**description["model_option"], "num_classes": model.num_classes}
    return lazytorch.models.get_model(description["model"], weights=state, **config)
