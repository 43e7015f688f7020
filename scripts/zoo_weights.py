"""The published weights of the zoo's models, as torchvision and timm state them; see scripts/zoo_pages.py."""

import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from lazytorch.models import list_models, references

__all__ = ["published"]


def published() -> dict[str, Any]:
    """All weights of every model, recommended weights first, and the versions of torchvision and timm.

    Nothing is downloaded. ``licence`` is None if the zoo states none. Only torchvision states ``top1`` (the accuracy on
    ImageNet-1K in percent), ``side`` (the image size in pixels) and ``macs`` (multiply-accumulates of one image).
    """
    of_zoo = {"torchvision": of_torchvision, "timm": of_timm}
    found = [
        {"name": name, "source": source, **weights}
        for name in list_models()
        for source, called in references(name).items()
        for weights in of_zoo[source](called)
    ]
    return {"versions": {source: version(source) for source in of_zoo}, "weights": found}


def of_torchvision(name: str) -> Iterator[dict[str, Any]]:
    import torchvision

    weights = torchvision.models.get_model_weights(name)
    default = getattr(weights, "DEFAULT", None)
    for each in sorted(weights, key=lambda each: each is not default):
        meta = each.meta
        top1 = meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1", math.nan)
        yield {
            "tag": each.name,
            "licence": meta.get("license"),
            "top1": None if math.isnan(top1) else top1,
            "side": getattr(each.transforms, "keywords", {}).get("crop_size"),
            "macs": round(meta["_ops"] * 1e9) if "_ops" in meta else None,
        }


def of_timm(name: str) -> Iterator[dict[str, Any]]:
    import timm

    default = timm.models.get_pretrained_cfg(name)
    tags = [each.partition(".")[2] for each in timm.models.list_pretrained(name) if each.partition(".")[0] == name]
    for tag in sorted(tags, key=lambda tag: default is None or tag != default.tag):
        config = timm.models.get_pretrained_cfg(f"{name}.{tag}")
        yield {"tag": tag, "licence": getattr(config, "license", None)}
