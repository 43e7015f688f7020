"""Attributes of torchvision's and timm's networks, and what to use instead."""

import re

__all__ = ["replacement_of"]

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


def replacement_of(name: str) -> str | None:
    """What to use instead of the attribute ``name`` of networks in torchvision or timm; None if they have none."""
    for pattern, way in REPLACEMENTS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            return way.format(*(int(each) - 1 for each in match.groups() if each is not None))
    return None
