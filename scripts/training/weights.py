"""Models and their weights: what rebuilds a model is in the file of its weights."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import lazytorch
from lazytorch.models import Backbone
from scripts.training import checkpoints, dimensions
from scripts.training.errors import RunError, listed
from scripts.training.options import Options
from scripts.training.sources import Data

DESCRIPTION = "lazytorch"  # the entry of a weights file's metadata that says what rebuilds its model
Description = dict[str, Any]


def describe(data: Data, options: Options) -> Description:
    """What rebuilds the model of a checkpoint or of a file of weights, in plain values."""
    description = {
        "model": options.model,
        "model_option": dict(options.model_option),
        "classes": list(data.classes),
        "channels": data.channels,
        "image_size": data.image_size if isinstance(data.image_size, int) else list(data.image_size),
        "mean": list(data.mean),
        "deviation": list(data.deviation),
        "seed": options.seed,  # of the split
    }
    if not data.photographs:
        description |= {"spatial_dims": data.spatial_dims, "resample": data.resample, "multi_label": data.multi_label}
    return description


def described(weights: str | Path | None) -> Description | None:
    """The description in a file of weights or a checkpoint; None if it is of no run of this script.

    Raises:
        RunError: If the file cannot be read.
    """
    path = Path(weights or "")
    if not path.is_file():
        return None
    try:
        if path.suffix == ".ckpt":
            return checkpoints.read(path)["run"]["description"]
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                content = (file.metadata() or {}).get(DESCRIPTION)
            return None if content is None else json.loads(content)
    except (OSError, KeyError, ValueError, SafetensorError, checkpoints.DamagedError) as error:
        raise RunError(f"{path} must be a checkpoint or a file of weights, got one that is not: {error}.") from error
    return None


def require_model(options: Options) -> None:
    """Refuse options that the model does not have, before anything is read.

    Raises:
        RunError: With what the model has.
    """
    unbuilt({"model": options.model, "model_option": options.model_option, "classes": []})


def description_of(path: Path) -> Description:
    """The description in a checkpoint or a file of weights of a run.

    Raises:
        RunError: If the file is neither.
    """
    if not path.is_file():
        raise RunError(f"{path} must be a checkpoint or a file of weights of scripts/train.py, got no file.")
    description = described(path)
    if description is None:
        raise RunError(
            f"{path} must be a checkpoint or a file of weights of scripts/train.py, got one without its description."
        )
    return description


def load(path: Path, description: Description) -> Backbone:
    """The model of a checkpoint or a file of weights of a run.

    Raises:
        RunError: If the file does not fit the description.
    """
    if path.suffix == ".safetensors":
        state = read(path)
    else:
        entries = checkpoints.read(path)["state_dict"]
        prefix = "average.module." if any(name.startswith("average.module.") for name in entries) else "model."
        state = {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
    model = build(description)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        entries = [each.strip() for each in str(error).splitlines()[1:]]
        options = ", ".join(f"{name}={value}" for name, value in description["model_option"].items())
        raise RunError(
            f"{path} must have the weights of {description['model']}({options}), got others: {listed(entries)}"
        ) from error
    return model


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file.

    Raises:
        RunError: If the file cannot be read.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} must be a file of weights, got one that cannot be read: {error}.") from error


def published(data: Data, options: Options) -> tuple[Backbone, Description]:
    """A model with weights that are of no run of this script, with as many classes as the data.

    Raises:
        RunError: If the weights have another number of classes.
    """
    description = describe(data, options)
    model = with_weights({**description, "classes": None}, options.weights)
    if model.num_classes != len(data.classes):
        raise RunError(
            f"--data: the weights {options.weights} are of {model.num_classes} classes, got {options.data} with "
            f"{len(data.classes)}."
        )
    return built(model, description), description


def unbuilt(description: Description, weights: str | None = None) -> Backbone:
    """The model that ``describe`` describes, lazy; with the classes of the weights if it has none."""
    classes = description["classes"]
    config: dict[str, Any] = {**description["model_option"], "num_classes": None if classes is None else len(classes)}
    try:
        return lazytorch.models.get_model(description["model"], weights=weights, **config)
    except (TypeError, ValueError, RuntimeError, ImportError, OSError) as error:
        raise RunError(f"The model {description['model']} cannot be built: {error}") from error


def spatial_dims(description: Description) -> int:
    return description.get("spatial_dims", 2)  # the weights of photographs have no such entry


def with_weights(description: Description, weights: str | None) -> Backbone:
    """The lazy model that ``describe`` describes, with weights converted to the number of dimensions of its input."""
    model = unbuilt(description, weights)
    if weights is None:
        return model
    channels, dims = description["channels"], spatial_dims(description)
    try:
        return dimensions.converted(model, weights, description, channels, dims)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"The model {description['model']} cannot be built: {error}") from error


def input_shape(description: Description) -> tuple[int, ...]:
    """The shape of one sample, as a batch."""
    size = description["image_size"]
    return 1, description["channels"], *((size, size) if isinstance(size, int) else size)


def build(description: Description, weights: str | None = None, *, new_classifier: bool = False) -> Backbone:
    """The model that ``describe`` describes, built.

    Args:
        description: What rebuilds it.
        weights: Those that it starts from.
        new_classifier: Whether the classifier is initialized, also where that of the weights would fit.
    """
    model = with_weights(description, weights)
    if new_classifier:
        model.reset_classifier(len(description["classes"]))
    return built(model, description)


def built(model: Backbone, description: Description) -> Backbone:
    try:
        return lazytorch.materialize(model, input_shape(description), spatial_dims=spatial_dims(description))
    except (ValueError, RuntimeError) as error:
        shape = " x ".join(map(str, input_shape(description)[1:]))
        raise RunError(
            f"The model {description['model']} cannot be built for samples of {shape}: {error}. If they are too small, "
            "give a larger --image-size."
        ) from error


def require_classes(there: Description, data: Data, options: Options) -> None:
    """Refuse to evaluate weights on data of other classes or channels.

    Raises:
        RunError: With both.
    """
    if there["classes"] != data.classes:
        raise RunError(
            f"--data: the weights {options.weights} are of the {len(there['classes'])} classes "
            f"{listed(there['classes'])}, got {options.data} with the {len(data.classes)} classes "
            f"{listed(data.classes)}."
        )
    here = describe(data, options)
    if kind_of_samples(there) != kind_of_samples(here):
        raise RunError(
            f"--data: the weights {options.weights} are of {kind_of_samples(there)}, got {options.data} with "
            f"{kind_of_samples(here)}."
        )
    if data.channels > there["channels"] or ("spatial_dims" in there and data.channels != there["channels"]):
        plural = "s" if "spatial_dims" in there and there["channels"] > 1 else ""
        raise RunError(
            f"--data: the weights {options.weights} are of samples with {there['channels']} channel{plural}, got "
            f"{options.data} with {data.channels} channels."
        )


def kind_of_samples(description: Description) -> str:
    """What messages call samples of the kind that weights are of."""
    if "spatial_dims" not in description:
        return "photographs"
    several = " with several classes a sample" if description.get("multi_label") else ""
    return f"arrays of {description['spatial_dims']} spatial dimensions{several}"


def safetensors_file(state: dict[str, Tensor], description: Description) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return safetensors.torch.save(tensors, {DESCRIPTION: json.dumps(description)})
