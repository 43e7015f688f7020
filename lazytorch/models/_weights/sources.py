"""Sources of weights: torchvision, timm and files."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazytorch.errors import listed

__all__ = ["Reference", "State", "Weights", "inner_state", "read"]

State = dict[str, Tensor]
# Entries of a checkpoint in which training scripts save the weights; averaged weights first.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# torchvision's published DenseNets have names that are older than its module names: norm.1 is now norm1.
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class Reference:
    """Weights that torchvision or timm publishes for a model.

    Args:
        name: The name of the model.
        known: The names of the model in the zoos that have it, by zoo.
        source: The zoo, ``"torchvision"`` or ``"timm"``.
        tag: The zoo's name of the weights; None for those that it recommends.
    """

    name: str
    known: Mapping[str, str]
    source: str
    tag: str | None = None

    def __str__(self) -> str:
        return ":".join(filter(None, [self.source, self.tag]))

    def state_dict(self) -> State:
        """The weights with the zoo's names, downloaded by its package or from its cache."""
        if self.source not in self.known:
            raise ValueError(
                f"{self.name}: {self.source} has no model of that name, got weights={self.source!r}; it is one of "
                f"{' and '.join(self.known)}."
            )
        load = torchvision_state_dict if self.source == "torchvision" else timm_state_dict
        try:
            return load(self.known[self.source], self.tag)
        except ModuleNotFoundError as error:
            error.add_note(f"{self.source} publishes the weights: pip install 'lazytorch[references]'")
            raise


# The types of the option ``weights``; the enum is one of torchvision's.
Weights = str | Path | Reference | Mapping[str, Tensor] | Enum


def torchvision_state_dict(name: str, tag: str | None) -> State:
    from torchvision.models import get_model_weights

    published = get_model_weights(name)
    if tag is not None and tag not in published.__members__:
        raise ValueError(f"torchvision has no weights {tag!r} for {name}; it has {listed(published.__members__)}.")
    weights: Any = published.DEFAULT if tag is None else published[tag]  # pyright: ignore[reportAttributeAccessIssue]
    return renamed(weights.get_state_dict(progress=True, check_hash=True))


def timm_state_dict(name: str, tag: str | None) -> State:
    import timm

    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if not tags or tag not in (None, *tags):
        asked = "weights" if tag is None else f"weights {tag!r}"
        raise ValueError(f"timm has no {asked} for {name}; it has {listed(tags) or 'none'}.")
    return timm.create_model(name if tag is None else f"{name}.{tag}", pretrained=True).state_dict()


def renamed(state: Mapping[str, Tensor]) -> State:
    """``state`` with old names replaced by current ones."""
    return {OLD_NAME.sub(r"\1\2", name): value for name, value in state.items()}


def tensors_by_name(content: object, where: str) -> State:
    """``content``, which must be a mapping of names to dense tensors with values.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: weights must be tensors by name, got a {type(content).__name__}.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{where}: weights must be tensors by name, got {name!r}: a {type(value).__name__}.")
        if value.layout is not torch.strided or value.is_meta or value.is_complex():
            what = "meta" if value.is_meta else value.layout if value.layout is not torch.strided else value.dtype
            raise ValueError(f"{where}: weights must be dense, real and with values, got {name}, which is {what}.")
    return renamed(content)


def read(path: Path) -> tuple[State, str | None]:
    """The tensors in a file by name, and the name of their model if the file contains it; no code in it is executed."""
    name = None
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
                name = model_named_in(file.metadata() or {})
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            name = content.get("arch") if isinstance(content, Mapping) else None
    except Exception as error:  # a broken file can raise any error
        reason = re.sub(r"\x1b\[\d*m", "", str(error)).partition("\n")[0]
        raise ValueError(
            f"{path}: a file of weights must contain only tensors, because no code in it is executed, got one that "
            f"cannot be read ({type(error).__name__}: {reason}). Save model.state_dict()."
        ) from error
    return inner_state(content, str(path)), name if isinstance(name, str) else None


def model_named_in(metadata: Mapping[str, str]) -> Any:
    """The name of the model in a file's metadata, from ``scripts/train.py`` or as ``arch`` from another script."""
    with contextlib.suppress(ValueError, AttributeError):
        return json.loads(metadata.get("lazytorch", "{}")).get("model", metadata.get("arch"))
    return None


def inner_state(content: object, where: str) -> State:
    """The tensors by name in a checkpoint, which may also contain other objects."""
    inner = content
    while isinstance(inner, Mapping):
        content = inner
        inner = next((inner[name] for name in CONTAINERS if isinstance(inner.get(name), Mapping)), None)
    return tensors_by_name(content, f"{where} (also below {', '.join(CONTAINERS)})")
