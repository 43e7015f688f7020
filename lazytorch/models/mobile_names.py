"""What torchvision and timm call the modules of a network of inverted bottlenecks.

Each of these takes the table with one row a block, and gives the names there by the names here.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lazytorch.layers import (
    LazyFusedInvertedBottleneck,
    LazyInvertedBottleneck,
    LazyUniversalInvertedBottleneck,
)
from lazytorch.models.backbone import Names
from lazytorch.models.mobile import Stage

__all__ = ["in_both", "in_efficientnet", "in_mnasnet", "in_mobilenet_v2", "in_mobilenet_v3", "in_timm"]

Table = Sequence[Sequence[Stage]]

# The parts of each kind of block, in order, and what timm calls their convolution and norm.
TIMM = {
    "expanded": {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")},
    "not expanded": {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")},
    "fused": {"conv": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")},
    "one convolution": {"conv": ("conv", "bn1")},
    "universal": {
        part: (f"{theirs}.conv", f"{theirs}.bn")
        for part, theirs in {
            "start": "dw_start",
            "expand": "pw_exp",
            "depthwise": "dw_mid",
            "project": "pw_proj",
        }.items()
    },
}


def kind(row: Stage) -> str | None:
    """Which of ``TIMM`` a row's blocks are; None for one that the zoos do not have."""
    block, options = (row.block.func, row.block.keywords) if isinstance(row.block, partial) else (row.block, {})
    if block is LazyInvertedBottleneck:
        return "expanded" if row.expansion_ratio != 1 or options.get("expand_always") else "not expanded"
    if block is LazyFusedInvertedBottleneck:
        return "fused" if row.expansion_ratio != 1 or options.get("project_always") else "one convolution"
    return "universal" if block is LazyUniversalInvertedBottleneck else None


def each_block(table: Table) -> Iterator[tuple[int, int, int, Stage, dict[str, tuple[str, str]]]]:
    """Stage, place in it, place in the network, row and parts of every block of a known kind."""
    count = 0
    for stage, rows in enumerate(table):
        for place, row in enumerate(rows):
            found = kind(row)
            if found is not None:
                yield stage, place, count, row, TIMM[found]
            count += 1


def in_timm(table: Table) -> dict[str, Names]:
    """The names in timm's EfficientNet and MobileNetV3."""
    names: dict[str, str | tuple[str, int]] = {
        "stem.conv": "conv_stem",
        "stem.norm": "bn1",
        "final.conv": "conv_head",
        "final.norm": "bn2",
        "head.pooled.conv": "conv_head",
        "head.pooled.norm": "norm_head",
        "head.hidden.linear": ("conv_head", 2),
        "head.classifier": "classifier",
    }
    for stage, place, _, _, parts in each_block(table):
        here, there = f"stages.{stage}.{place}.layers", f"blocks.{stage}.{place}"
        for part, (conv, norm) in parts.items():
            names[f"{here}.{part}.conv"] = f"{there}.{conv}"
            names[f"{here}.{part}.norm"] = f"{there}.{norm}"
        names[f"{here}.se.reduce"] = f"{there}.se.conv_reduce"
        names[f"{here}.se.expand"] = f"{there}.se.conv_expand"
    return {"timm": names}


def numbered(
    names: dict[str, str | tuple[str, int]], here: str, there: str, row: Stage, parts: dict[str, tuple[str, str]]
) -> None:
    """Add a block whose parts are numbered there: a convolution and a norm each, squeeze-excitation before the last."""
    order = list(parts)
    if row.se_layer is not None:
        order.insert(len(order) - 1, "se")
    for index, part in enumerate(order):
        if part == "se":
            names[f"{here}.se.reduce"] = f"{there}.{index}.fc1"
            names[f"{here}.se.expand"] = f"{there}.{index}.fc2"
        else:
            names[f"{here}.{part}.conv"] = f"{there}.{index}.0"
            names[f"{here}.{part}.norm"] = f"{there}.{index}.1"


def in_mobilenet_v2(table: Table) -> dict[str, Names]:
    """The names in torchvision's MobileNetV2: blocks are counted through, the projection is no part of its own."""
    last = sum(map(len, table)) + 1
    names: dict[str, str | tuple[str, int]] = {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "final.conv": f"features.{last}.0",
        "final.norm": f"features.{last}.1",
        "head.classifier": "classifier.1",
    }
    for stage, place, count, row, parts in each_block(table):
        here, there = f"stages.{stage}.{place}.layers", f"features.{count + 1}.conv"
        numbered(names, here, there, row, parts)
        names[f"{here}.project.conv"] = f"{there}.{len(parts) - 1}"
        names[f"{here}.project.norm"] = f"{there}.{len(parts)}"
    return {"torchvision": names}


def in_mobilenet_v3(table: Table) -> dict[str, Names]:
    """The names in torchvision's MobileNetV3: blocks are counted through, the last stage is one convolution."""
    names: dict[str, str | tuple[str, int]] = {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "head.pooled.conv": ("classifier.0", 0),
        "head.hidden.linear": "classifier.0",
        "head.classifier": "classifier.3",
    }
    for stage, place, count, row, parts in each_block(table):
        here, there = f"stages.{stage}.{place}.layers", f"features.{count + 1}"
        if "conv" in parts:
            names |= {f"{here}.conv.conv": f"{there}.0", f"{here}.conv.norm": f"{there}.1"}
        else:
            numbered(names, here, f"{there}.block", row, parts)
    return {"torchvision": names}


def in_efficientnet(table: Table) -> dict[str, Names]:
    """The names in torchvision's EfficientNet."""
    names: dict[str, str | tuple[str, int]] = {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "final.conv": f"features.{len(table) + 1}.0",
        "final.norm": f"features.{len(table) + 1}.1",
        "head.classifier": "classifier.1",
    }
    for stage, place, _, row, parts in each_block(table):
        numbered(names, f"stages.{stage}.{place}.layers", f"features.{stage + 1}.{place}.block", row, parts)
    return {"torchvision": names}


def in_mnasnet(table: Table) -> dict[str, Names]:
    """The names in torchvision's MNASNet: layers of the stem, the first block and the end are counted through."""
    names: dict[str, str | tuple[str, int]] = {
        "stem.conv": "layers.0",
        "stem.norm": "layers.1",
        "stages.0.0.layers.depthwise.conv": "layers.3",
        "stages.0.0.layers.depthwise.norm": "layers.4",
        "stages.0.0.layers.project.conv": "layers.6",
        "stages.0.0.layers.project.norm": "layers.7",
        "final.conv": f"layers.{len(table) + 7}",
        "final.norm": f"layers.{len(table) + 8}",
        "head.classifier": "classifier.1",
    }
    for stage, place, _, _, parts in each_block(table[1:]):
        for index, part in enumerate(parts):
            here, there = f"stages.{stage + 1}.{place}.layers.{part}", f"layers.{stage + 8}.{place}.layers"
            names |= {f"{here}.conv": f"{there}.{3 * index}", f"{here}.norm": f"{there}.{3 * index + 1}"}
    return {"torchvision": names}


def in_both(table: Table, torchvision: Callable[[Table], dict[str, Names]]) -> dict[str, Names]:
    """The names in timm and, by one of these functions, in torchvision."""
    return in_timm(table) | torchvision(table)
