"""The attributes that torchvision's and timm's networks have, and how to replace them here."""

import re

__all__ = ["replacement_of"]

# Patterns of names there; what to do here to replace the module.
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
    """How to replace here what ``name`` is in torchvision or timm; None if it is nothing there."""
    for pattern, way in REPLACEMENTS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            return way.format(*(int(each) - 1 for each in match.groups() if each is not None))
    return None
