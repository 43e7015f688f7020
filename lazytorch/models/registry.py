"""The registry: every model of the zoo by its name."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, overload

from lazytorch._lazy.show import show
from lazytorch.arguments import INPUT_CHANNELS, close_to, explained
from lazytorch.layers.checks import flag
from lazytorch.models._weights.sources import Reference
from lazytorch.models.backbone import Backbone
from lazytorch.models.features import Features

__all__ = ["get_model", "list_models", "model", "references", "rows_of"]

P = ParamSpec("P")
Q = ParamSpec("Q")
N = TypeVar("N", bound=Backbone)


class Entry(NamedTuple):
    """The builder of a model, and the names of the model in torchvision and timm."""

    build: Callable[..., Backbone]
    references: dict[str, str]


_entries: dict[str, Entry] = {}


def model(
    name: str,
    family: Callable[P, N],
    sources: Iterable[str],
    /,
    *options: Mapping[str, Any],
    **config: Any,
) -> Callable[P, N]:
    """Register a model, and return its builder: the constructor of the family, with other default values.

    Args:
        name: The name of the model, also in torchvision and timm.
        family: The class of the network; the builder has the parameters of its constructor.
        sources: The zoos that have a model of that name.
        options: The options that define this model; later ones replace earlier ones.
        config: More options, which replace ``options``.
    """
    config = {key: value for each in (*options, config) for key, value in each.items()}
    signature, sections = about(family)
    references = dict.fromkeys(sources, name)
    check = signature.replace(
        parameters=[
            each.replace(default=config[each.name]) if each.name in config else each
            for each in signature.parameters.values()
        ],
        return_annotation=family,
    )

    def build(*args: P.args, **kwargs: P.kwargs) -> N:
        try:
            options = {**config, **check.bind(*args, **kwargs).arguments}
        except TypeError as error:
            raise TypeError(f"{name}() {explained(error, check, INPUT_CHANNELS)}") from None
        weights = options.get("weights")
        if isinstance(weights, str) and weights.partition(":")[0] in ("torchvision", "timm"):
            options["weights"] = Reference(name, references, *weights.split(":", 1))
        return family(**options)  # pyright: ignore[reportCallIssue]

    shown = ", ".join(f"{key}={show(value)}" for key, value in config.items())
    example = f">>> import lazytorch\n    >>> model = lazytorch.models.{name}(num_classes=10)"
    build.__module__ = "lazytorch.models"
    build.__name__ = build.__qualname__ = name
    build.__signature__ = check  # pyright: ignore[reportAttributeAccessIssue]
    build.__doc__ = f"``{family.__name__}({shown})``, the {name} of {' and '.join(references)}.\n\n{sections}"
    build.__doc__ += f"Example:\n    {example}\n"
    _entries[name] = Entry(build, references)
    return build


def rows_of(family: Callable[P, N]) -> Callable[[Callable[Q, tuple[Any, ...]]], Callable[Q, Callable[P, N]]]:
    """Decorator of a function that takes the name of a model, and its columns in a table of models.

    The function returns the sources and the options, the other arguments of ``model``. A call of the decorated function
    registers the model, and returns its builder.
    """

    def decorate(columns: Callable[..., tuple[Any, ...]]) -> Callable[..., Callable[P, N]]:
        return lambda name, *args, **kwargs: model(name, family, *columns(name, *args, **kwargs))

    return decorate


@functools.cache
def about(family: Callable[..., Backbone]) -> tuple[inspect.Signature, str]:
    """The signature of a family, and the sections of its docstring."""
    return inspect.signature(family), (inspect.getdoc(family) or "").partition("\n\n")[2].partition("Example:")[0]


def list_models(include: str | Iterable[str] | None = None, exclude: str | Iterable[str] | None = None) -> list[str]:
    """The names of the zoo's models, in alphabetical order, with numbers in numerical order.

    Args:
        include: A pattern with the wildcards ``*``, ``?`` and ``[...]``, or several patterns; names that match one of
            them are listed. By default, or if the list of patterns is empty, all names are listed.
        exclude: A pattern or several patterns; names that match one of them are not listed.

    Example:
        >>> from lazytorch.models import list_models
        >>> list_models("resnet1*", exclude=["*t", "*[csd]"])
        ['resnet18', 'resnet101', 'resnet152']
    """
    included, excluded = patterns(include or "*") or ["*"], patterns(exclude or ())

    def fits(name: str, wanted: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in wanted)

    names = [name for name in _entries if fits(name, included) and not fits(name, excluded)]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def patterns(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


@overload
def get_model(
    name: str, *, features_only: Literal[False] = False, out_indices: None = None, **config: Any
) -> Backbone: ...


@overload
def get_model(
    name: str, *, features_only: Literal[True], out_indices: Sequence[int] | None = None, **config: Any
) -> Features: ...


def get_model(
    name: str, *, features_only: bool = False, out_indices: Sequence[int] | None = None, **config: Any
) -> Backbone | Features:
    """Construct the model of that name.

    Args:
        name: One of ``list_models()``.
        features_only: Whether to return a ``Features``, which computes feature maps instead of classes.
        out_indices: The indices of the feature maps in the model's ``feature_info``, which may be negative. By default
            all.
        config: The options of the function of that name in ``lazytorch.models``, such as ``num_classes`` and
            ``weights``.

    Raises:
        ValueError: If no model has that name, or there is no such feature map.
        TypeError: If the model has no option of a name in ``config``, or ``out_indices`` are given without
            ``features_only``.

    Example:
        >>> import torch
        >>> from lazytorch.models import get_model
        >>> get_model("resnet18", num_classes=10)(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
        >>> get_model("resnet19")
        Traceback (most recent call last):
        ...
        ValueError: get_model: no model is named 'resnet19'. Did you mean 'resnet18'? ...
    """
    flag("features_only", features_only, "get_model")
    if out_indices is not None and not features_only:
        raise TypeError(
            f"get_model: out_indices must be None without features_only, got {out_indices!r}. Pass features_only=True."
        )
    backbone = entry(name, "get_model").build(**config)
    return Features(backbone, out_indices) if features_only else backbone


def references(name: str) -> dict[str, str]:
    """The models of torchvision and timm that compute the same as the model of that name, by zoo.

    Raises:
        ValueError: If no model has that name.

    Example:
        >>> from lazytorch.models import references
        >>> references("resnet18"), references("resnet18d")
        ({'torchvision': 'resnet18', 'timm': 'resnet18'}, {'timm': 'resnet18d'})
    """
    return dict(entry(name, "references").references)


def entry(name: str, asked: str) -> Entry:
    if not isinstance(name, str) or name not in _entries:
        if not isinstance(name, str):
            raise TypeError(f"{asked}: the name of a model must be a string, got {show(name)}.")
        known, _, tag = name.partition(".")
        if known in _entries:
            raise ValueError(f"{asked}: a name has no tag, got {name!r}. Pass weights='timm:{tag}' to {known!r}.")
        close = close_to(name, _entries) or close_to(name.lower(), _entries)
        meant = f" Did you mean {close!r}?" if close else ""
        raise ValueError(f"{asked}: no model is named {name!r}.{meant} lazytorch.models.list_models() lists them all.")
    return _entries[name]
