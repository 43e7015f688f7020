"""Load weights of torchvision, timm and files, and export them, with rules for names."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch._lazy.deferred import DeferredLoad
from lazytorch._lazy.scopes import warn
from lazytorch.errors import listed
from lazytorch.lazy_module import LazyModule
from lazytorch.materialize import survey
from lazytorch.models._weights.fitting import fit_input_channels
from lazytorch.models._weights.names import Rules
from lazytorch.models._weights.sources import Reference, State, Weights, inner_state, read, tensors_by_name
from lazytorch.models.backbone import Backbone
from lazytorch.models.building import built_for_weights
from lazytorch.models.first_call import FirstCall

__all__ = ["load_reference_state_dict", "load_weights", "reference_state_dict"]


OWN = Rules("")  # lazytorch's names
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")


def load_weights(model: Backbone, weights: Weights, num_classes: int | None) -> None:
    """Load published weights or a file into ``model``, which stays lazy and converts them to its first input.

    Args:
        model: The model.
        weights: The source of the weights.
        num_classes: The requested number of classes; None for that of the weights. If it is another number, the
            classifier keeps its own random weights.

    Raises:
        ValueError: If the file or the weights do not exist.
        RuntimeError: If the weights do not fit the model.
    """
    layouts, name, shown = [OWN, *model.reference_names.values()], None, repr(str(weights))
    publish: Any = getattr(weights, "get_state_dict", None)
    if isinstance(weights, Reference):
        given, layouts = weights.state_dict(), [model.reference_names[weights.source]]
    elif isinstance(weights, Enum) and callable(publish):
        require_source(model, "torchvision")
        given = tensors_by_name(publish(progress=True, check_hash=True), shown)
        layouts = [model.reference_names["torchvision"]]
    elif isinstance(weights, Mapping):
        shown = f"{{{listed(map(repr, weights))}}}"
        given = without_prefix(model, inner_state(weights, "weights"))
        given = {key: value.clone() for key, value in given.items()}
    else:
        given, name = read(path_of(weights))
        given = without_prefix(model, given)
    heads = [[layout.name(model, key) for key in CLASSIFIER] for layout in layouts]
    head = next((head for head in heads if head[0] in given), heads[0])
    classes = given[head[0]].size(0) if head[0] in given and given[head[0]].dim() >= 2 else 0
    kept = num_classes not in (None, classes)
    if kept:
        given = {name: value for name, value in given.items() if name not in head}
    elif num_classes is None:
        model.reset_classifier(classes)
    stem = copy.deepcopy(model.stem)
    load = partial(model.load_state_dict, strict=not kept, assign=True)
    try:
        load_fitted(model, given, layouts, CLASSIFIER if kept else (), f"weights {shown}", load)
    except RuntimeError as error:
        if name is not None:
            error.add_note(f"the file has the weights of {name!r}")
        raise
    model.stem = lazy_again(stem, model.stem)
    FirstCall(model)
    if kept and num_classes:
        warn(
            f"The weights {shown} have {classes} classes but num_classes={num_classes}: loaded the "
            "backbone only; the classifier is randomly initialized."
        )


def path_of(weights: object) -> Path:
    """The path of a file of weights; an error if the file is not found."""
    path = Path(weights).expanduser() if isinstance(weights, (str, PathLike)) else None
    if path is None or path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ValueError(
            "weights must be a file that ends in .safetensors, .pt or .pth, a state dict, one of torchvision's enums, "
            "or, for a model with a name, 'torchvision' or 'timm', also with a tag ('timm:a1_in1k'), got "
            f"{weights!r}."
        )
    if not path.is_file():
        raise ValueError(f"weights: file not found: {str(weights)!r}.")
    return path


def without_prefix(model: Backbone, given: State) -> State:
    """``given`` without prefixes of modules that contained the model, such as DistributedDataParallel's ``module.``."""
    own = dict(model.named_children())

    def known(firsts: set[str]) -> bool:
        layouts = model.reference_names.values()
        return all(first in own or any(rules.contains(first) for rules in layouts) for first in firsts)

    while True:
        given = {name: value for name, value in given.items() if name != "n_averaged"}  # of torch.optim.swa_utils
        inner = {name.partition(".")[2]: value for name, value in given.items()}
        firsts, then = ({name.partition(".")[0] for name in names} for names in (given, inner))
        if len(firsts) != 1 or "" in inner or (known(firsts) and not known(then)):
            return given
        given = inner


def lazy_again(stem: nn.Module, built: nn.Module) -> nn.Module:
    """Defer loading the weights of ``built`` into the lazy ``stem``, where they are converted to its input channels."""
    entries = built.state_dict()
    first = next((key for key, value in entries.items() if value.dim() > 2), "")
    for name, each in stem.named_modules():
        prefix = f"{name}." if name else ""
        below = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
        if isinstance(each, LazyModule) and below:
            fit = fit_input_channels if first.startswith(prefix) else None
            each._deferred.log_load(DeferredLoad(below, assign=True, fit=fit, complete=True))
            entries = {key: value for key, value in entries.items() if not key.startswith(prefix)}
    if entries:
        stem.load_state_dict(entries, strict=False, assign=True)
    return stem


def load_reference_state_dict(model: Backbone, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a torchvision or timm model into the same model of lazytorch.

    A lazy model is built first: the stem's weight determines the input channels and the number of spatial dimensions.
    All entries are checked before the model is changed. Their order does not matter.

    Args:
        model: The model.
        state_dict: The reference's ``state_dict()``.
        source: ``"torchvision"`` or ``"timm"``: the zoo of the names.

    Raises:
        TypeError: If ``model`` is not a model of ``lazytorch.models``.
        ValueError: If the zoo has no models of this family, or ``state_dict`` is not a mapping of names to tensors.
        RuntimeError: If entries are missing, unexpected or of another shape; the message lists them.

    Example:
        >>> import torchvision
        >>> from lazytorch.models import load_reference_state_dict, resnet18
        >>> model = resnet18()
        >>> load_reference_state_dict(model, torchvision.models.resnet18().state_dict(), "torchvision")
        >>> model.stem.conv
        Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    """
    require_source(model, source)
    what = f"load_reference_state_dict from {source}"
    given = tensors_by_name(state_dict, what)
    load_fitted(model, given, [model.reference_names[source]], (), what, model.load_state_dict)


def reference_state_dict(model: Backbone, source: str) -> State:
    """The model's ``state_dict()`` with the names and shapes of torchvision or timm.

    Args:
        model: The model, built or loaded.
        source: ``"torchvision"`` or ``"timm"``: the zoo of the returned names.

    Raises:
        TypeError: If ``model`` is not a model of ``lazytorch.models``.
        ValueError: If the zoo has no models of this family.
        UninitializedModuleError: If the model has no weights yet.

    Example:
        >>> import lazytorch, torchvision
        >>> from lazytorch.models import reference_state_dict, resnet18
        >>> model = lazytorch.materialize(resnet18(num_classes=10), (1, 3, 64, 64))
        >>> theirs = torchvision.models.resnet18(num_classes=10)
        >>> theirs.load_state_dict(reference_state_dict(model, "torchvision"))
        <All keys matched successfully>
    """
    require_source(model, source)
    rules, state = model.reference_names[source], model.state_dict()
    names = rules.names(model, state)
    result = OrderedDict((names[key], value.reshape(rules.shape(model, key, value))) for key, value in state.items())
    # The versions that torchvision's MNASNet and BatchNorm check.
    modules = {"", *(name.rpartition(".")[0] for name in result if name.endswith("num_batches_tracked"))}
    result._metadata = {name: {"version": 2} for name in modules}  # pyright: ignore[reportAttributeAccessIssue]
    return result


def require_source(model: Backbone, source: str) -> None:
    """Raise an error unless ``model`` is a model of lazytorch and the zoo has models of its family."""
    if not isinstance(model, Backbone):
        compiled = " Pass model._orig_mod." if hasattr(model, "_orig_mod") else ""
        raise TypeError(f"model must be a lazytorch.models.Backbone, got a {type(model).__name__}.{compiled}")
    if not isinstance(source, str) or source not in model.reference_names:
        known = " or ".join(map(repr, model.reference_names)) or "there is none"
        raise ValueError(f"{type(model).__name__}: source must be a zoo with such a model ({known}), got {source!r}.")


def load_fitted(
    model: Backbone,
    given: Mapping[str, Tensor],
    layouts: Sequence[Rules],
    kept: Collection[str],
    what: str,
    load: Callable[[State], Any],
) -> None:
    """Load the entries of ``given``, converted to the model's names, device and dtypes; build the model if it is lazy.

    Args:
        model: The model, lazy or not.
        given: Weights by name.
        layouts: The rules for the names that ``given`` may have.
        kept: Entries of the classifier that are not loaded.
        what: A description of the weights, for messages.
        load: Called with the entries after they have been checked. If it fails, the model is lazy again if it was
            before.

    Raises:
        RuntimeError: If entries do not fit. The model is not changed then.
    """
    if survey(model).device.type == "meta":
        raise RuntimeError(f"{what}: the model must have memory for values, got one on the meta device. Move it first.")

    def entry(key: str) -> Tensor | None:
        names = [layout.name(model, key) for layout in layouts]
        return next((given[name] for name in names if name in given), None)

    with built_for_weights(model, entry, lambda key: key not in kept):
        expected = {key: value for key, value in model.state_dict().items() if key not in kept}
        names: dict[Rules, dict[str, str]] = {}
        for layout in layouts:
            names[layout] = layout.names(model, expected)
            if given.keys() >= set(names[layout].values()):
                break
        layout = max(names, key=lambda layout: len(given.keys() & names[layout].values()))
        load(checked(model, given, layout, names[layout], expected, what))


def checked(
    model: Backbone,
    given: Mapping[str, Tensor],
    layout: Rules,
    there: Mapping[str, str],
    expected: State,
    what: str,
) -> State:
    """The entries of ``given``, converted to the names, devices and dtypes of ``expected``.

    Args:
        model: The model.
        given: Weights by their names in ``layout``.
        layout: The rules for these names.
        there: The names in ``layout``, by the model's names.
        expected: Entries of the model's state.
        what: A description of the weights, for messages.
    """
    state: State = {}
    missing, misshaped = [], []
    for key, name in there.items():
        value, own = given.get(name), expected[key]
        if value is None and key.endswith("num_batches_tracked"):  # as PyTorch does for older weights
            value = torch.zeros((), dtype=torch.int64, device="cpu")
        if value is None:
            missing.append(name)
        elif value.shape != (shape := layout.shape(model, key, own)) and not (
            # The 1x1 convolution there of a linear layer here, of weights for more dimensions.
            len(shape) > own.dim() and value.shape == (*shape, *[1] * (value.dim() - len(shape)))
        ):
            misshaped.append(f"{name} is {tuple(value.shape)}, must be {shape}")
        else:
            state[key] = value.reshape(own.shape).to(own.device, own.dtype)
    unexpected = given.keys() - set(there.values())
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(problems.values()):
        shown = "; ".join(f"{kind}: {listed(sorted(names))}" for kind, names in problems.items() if names)
        remedy = f" {getattr(model, 'remedy', '')}".rstrip() if missing and unexpected else ""
        raise RuntimeError(f"{what}: every entry must fit the model, got entries {shown}. Nothing was changed.{remedy}")
    return state
