"""Attributes of torchvision's and timm's networks, and what to use instead."""

import re

from torch import nn

from lazytorch._init.initialize import known

__all__ = ["refuse_name"]

# Patterns of attribute names in torchvision and timm, and what to use in lazytorch instead.
REPLACEMENTS = {
    "fc|classifier|last_linear": "reset_classifier(num_classes), or assign model.head.classifier",
    "conv1|bn1|act1|relu|conv_stem": "model.stem",
    "maxpool": "model.stem_pool",
    r"layer(\d+)|s(\d+)": "model.stages[{}]",
    "blocks|layers|features|trunk_output": "model.stem or model.stages[index]",
    "conv_head|bn2|norm_head": "model.final or model.head.pooled",
    "avgpool|global_pool": "model.head.pool",
}


def refuse_name(model: nn.Module, name: str) -> None:
    """Raise an error for an attribute of networks in torchvision or timm, unless a user's class may have it."""
    for pattern, way in REPLACEMENTS.items() if type(model) in known else ():
        match = re.fullmatch(pattern, name)
        if match is not None:
            way = way.format(*(int(each) - 1 for each in match.groups() if each is not None))
            kind = type(model).__name__
            raise AttributeError(f"{kind} has no {name!r}, unlike networks of other libraries. Use {way}.")
