"""Write the documentation's pages of the zoo: its table, its picture, and the reference of its builders.

    python scripts/zoo_pages.py                             # from docs/parity.json; seconds
    python scripts/parity.py --json > runs/parity.json      # every name; about half an hour on one core
    python scripts/zoo_pages.py --parity runs/parity.json   # with the verdicts of that run

What a run of scripts/parity.py found is kept in docs/parity.json, with the versions it was found with. All else follows
from the registry. Several files, of parts of the zoo, may follow --parity; other names keep their verdict.
"""

import argparse
import inspect
import json
import math
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import lazytorch
from lazytorch.models import get_model, list_models, references

DOCS = Path(__file__).parent.parent / "docs"
PARITY = DOCS / "parity.json"
NUM_CLASSES = 1000
PACKAGES = ("lazytorch", "torch", "torchvision", "timm")


class Family(NamedTuple):
    """Models of one paper; ``kind`` is what has one colour in the picture."""

    patterns: str
    name: str
    kind: str
    paper: str
    identifier: str


# The first that fits a name is its family.
FAMILIES = [
    Family("mobilenetv1_*", "MobileNetV1", "MobileNet", "Howard et al. 2017", "1704.04861"),
    Family("mobilenet_v2 mobilenetv2_*", "MobileNetV2", "MobileNet", "Sandler et al. 2018", "1801.04381"),
    Family("mobilenet_v3_* mobilenetv3_*", "MobileNetV3", "MobileNet", "Howard et al. 2019", "1905.02244"),
    Family("mobilenetv4_*", "MobileNetV4", "MobileNet", "Qin et al. 2024", "2404.10518"),
    Family("mobilenet_edgetpu_*", "MobileNet-EdgeTPU", "MobileNet", "Gupta & Akin 2020", "2003.02838"),
    Family("lcnet_*", "PP-LCNet", "MobileNet", "Cui et al. 2021", "2109.15099"),
    Family("mnasnet* semnasnet_*", "MNASNet", "MNASNet", "Tan et al. 2019", "1807.11626"),
    Family("fbnetv3_*", "FBNetV3", "MNASNet", "Dai et al. 2020", "2006.02049"),
    Family("hardcorenas_*", "HardCoRe-NAS", "MNASNet", "Nayman et al. 2021", "2102.11646"),
    Family("fbnetc_*", "FBNet", "MNASNet", "Wu et al. 2019", "1812.03443"),
    Family("spnasnet_*", "Single-Path NAS", "MNASNet", "Stamoulis et al. 2019", "1904.02877"),
    Family("tinynet_*", "TinyNet", "EfficientNet", "Han et al. 2020", "2010.14819"),
    Family(
        "efficientnetv2_* efficientnet_v2_*",
        "EfficientNetV2",
        "EfficientNetV2",
        "Tan & Le 2021",
        "2104.00298",
    ),
    Family("efficientnet_*", "EfficientNet", "EfficientNet", "Tan & Le 2019", "1905.11946"),
    Family("gernet_*", "GENet", "ResNet", "Lin et al. 2020", "2006.14090"),
    Family("*resnet3[23]ts *resnext26ts", "ResNet-TS", "ResNet", "He et al. 2018", "1812.01187"),
    Family("regnetz_*", "RegNetZ", "RegNet", "Dollár et al. 2021", "2103.06877"),
    Family("regnet*", "RegNet", "RegNet", "Radosavovic et al. 2020", "2003.13678"),
    Family("convnextv2_*", "ConvNeXt V2", "ConvNeXt", "Woo et al. 2023", "2301.00808"),
    Family("convnext_*", "ConvNeXt", "ConvNeXt", "Liu et al. 2022", "2201.03545"),
    Family("resnetrs*", "ResNet-RS", "ResNet-RS", "Bello et al. 2021", "2103.07579"),
    Family("ecaresne*", "ECA-ResNet", "SE- and ECA-ResNet", "Wang et al. 2020", "1910.03151"),
    Family("seresne* senet*", "SE-ResNet", "SE- and ECA-ResNet", "Hu et al. 2018", "1709.01507"),
    Family("resnetaa* resnetblur*", "Anti-aliased ResNet", "ResNet", "Zhang 2019", "1904.11486"),
    Family("resnext*", "ResNeXt", "ResNeXt", "Xie et al. 2017", "1611.05431"),
    Family("wide_resnet*", "Wide ResNet", "ResNet", "Zagoruyko & Komodakis 2016", "1605.07146"),
    Family("resnet*_gn", "ResNet, group norm", "ResNet", "Wu & He 2018", "1803.08494"),
    Family("resnet*[cdst]", "ResNet-C and -D", "ResNet", "He et al. 2018", "1812.01187"),
    Family("resnet*", "ResNet", "ResNet", "He et al. 2015", "1512.03385"),
    Family("densenet*", "DenseNet", "DenseNet", "Huang et al. 2017", "1608.06993"),
    Family("repvgg_*", "RepVGG", "RepVGG", "Ding et al. 2021", "2101.03697"),
    Family("mobileone_*", "MobileOne", "RepVGG", "Vasu et al. 2023", "2206.04040"),
    Family("vgg*", "VGG", "VGG", "Simonyan & Zisserman 2014", "1409.1556"),
]
COLUMNS = ("Model", "Family", "Paper", "Parameters, M", "Multiply-adds, M", "Ranks", "References", "Parity")
# Okabe and Ito's colours, which differ for every reader and on both backgrounds.
COLOURS = {
    "MobileNet": "#009e73",
    "MNASNet": "#8a8a8a",
    "EfficientNet": "#56b4e9",
    "EfficientNetV2": "#0072b2",
    "RegNet": "#8b4513",
    "ConvNeXt": "#e6007e",
    "ResNet": "#d55e00",
    "ResNeXt": "#e69f00",
    "SE- and ECA-ResNet": "#cc79a7",
    "ResNet-RS": "#8c7ae6",
    "DenseNet": "#1b1b1b",
    "VGG": "#7ba05b",
    "RepVGG": "#7f3c8d",
}
# Named in the picture; above the point to its left, or below to its right.
LABELLED = {
    "mobilenetv4_conv_small": "below",
    "mobilenet_v2": "above",
    "efficientnet_b0": "below",
    "efficientnet_b7": "below",
    "resnet50": "above",
    "efficientnetv2_xl": "below",
    "resnetrs420": "above",
    "densenet121": "above",
    "vgg16": "below",
    "regnety_2560": "above",
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--parity", nargs="+", type=Path, default=[], metavar="FILE", help="what scripts/parity.py --json printed"
    )
    return parser


def family(name: str) -> Family:
    """The family of a model; every model must have one."""
    name = name.removeprefix("tf_")  # with TensorFlow's padding
    return next(each for each in FAMILIES if any(fnmatchcase(name, pattern) for pattern in each.patterns.split()))


def read() -> list[dict[str, Any]]:
    """What the runs of scripts/parity.py found last: a comparison for each model and reference."""
    return json.loads(PARITY.read_text()) if PARITY.exists() else []


def merged(old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons by the names of the zoo, new ones in place of old ones."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    found = {(each["name"], each["reference"]): each for each in old}
    found |= {(each["name"], each["reference"]): {**each, "versions": versions} for each in new}
    wanted = [(name, f"{zoo} {called}") for name in list_models() for zoo, called in references(name).items()]
    return [found[each] for each in wanted if each in found]


class Model(NamedTuple):
    """A row of the table."""

    name: str
    family: Family
    parameters: int
    macs: int
    comparisons: list[dict[str, Any]]


def models(found: Sequence[dict[str, Any]]) -> list[Model]:
    """Every model of the zoo, with its usual 1000 classes; those that scripts/parity.py compares have 11."""
    rows = []
    for name in list_models():
        comparisons = [each for each in found if each["name"] == name]
        if len(comparisons) != len(references(name)):
            raise ValueError(f"{PARITY.name} lacks {name}: run scripts/parity.py {name} --json; see --help.")
        few = get_model(name, num_classes=0).hidden_channels
        more = few * (NUM_CLASSES - 11)
        first = comparisons[0]
        parameters = first["parameters"] + more + NUM_CLASSES - 11
        rows.append(Model(name, family(name), parameters, first["macs"] + more, comparisons))
    return rows


def table(rows: Iterable[Model]) -> str:
    """The table, in Markdown."""
    lines = [COLUMNS, ("---", "---", "---", "--:", "--:", "---", "---", "---")]
    for row in rows:
        problems = [problem for each in row.comparisons for problem in each["problems"]]
        computed = all(each["output"] is not None for each in row.comparisons)
        verdict = f"differs: {', '.join(problems)}" if problems else "equal" if computed else "equal in structure"
        lines.append(
            (
                f"[{row.name}](api_zoo.md#lazytorch.models.{row.name})",
                row.family.name,
                f"[{row.family.paper}](https://arxiv.org/abs/{row.family.identifier})",
                f"{row.parameters / 1e6:,.2f}",
                f"{row.macs / 1e6:,.0f}",
                "1, 2, 3",
                ", ".join(references(row.name)),
                verdict,
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def run_of(found: Sequence[dict[str, Any]]) -> str:
    """Which runs the verdicts are of, and what they found."""
    runs = sorted({", ".join(f"{name} {number}" for name, number in each["versions"].items()) for each in found})
    equal = sum(each["equal"] for each in found)
    largest = max(each[kind] or 0 for each in found for kind in ("output", "gradient"))
    return (
        f"{equal} of {len(found)} comparisons found both equal, with {'; or '.join(runs)}.\n"
        f"The largest difference of any output or gradient, over the largest value, was {largest:.1g}.\n"
    )


def picture(rows: Iterable[Model]) -> str:
    """Parameters against multiply-adds, both logarithmic, as an SVG that suits a light and a dark page."""
    width, height, left, right, top, bottom = 640, 500, 78, 24, 86, 52
    scales = {"x": (1e6, 2e9, left, width - right), "y": (1e7, 5e11, height - bottom, top)}

    def place(axis: str, value: float) -> float:
        low, high, start, end = scales[axis]
        if not low <= value <= high:
            raise ValueError(f"The picture must contain every model, got {value:g} outside of the {axis} axis.")
        return round(start + (end - start) * math.log10(value / low) / math.log10(high / low), 1)

    # A picture alone follows the reader's system; within a page, the page.
    style = "svg:root{color:#24292f}@media(prefers-color-scheme:dark){svg:root{color:#e6edf3}}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="13" '
        'font-family="system-ui, sans-serif" fill="currentColor" aria-label="Parameters against multiply-adds">',
        f"<style>{style}</style>",
    ]

    def line(x1: float, y1: float, x2: float, y2: float) -> str:
        return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor" stroke-opacity=".2"/>'

    def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{words}</text>'

    for value, words in {1e6: "1 M", 1e7: "10 M", 1e8: "100 M", 1e9: "1 G"}.items():
        x = place("x", value)
        parts += [line(x, top, x, height - bottom), text(x, height - bottom + 20, words)]
    for value, words in {1e7: "10 M", 1e8: "100 M", 1e9: "1 G", 1e10: "10 G", 1e11: "100 G"}.items():
        y = place("y", value)
        parts += [line(left, y, width - right, y), text(left - 8, y + 4, words, "end")]
    parts.append(text((left + width - right) / 2, height - 8, "parameters"))
    turned = f' transform="rotate(-90 14 {(top + height - bottom) / 2})"'
    parts.append(text(14, (top + height - bottom) / 2, "multiply-adds of one image of 224x224 pixels", more=turned))
    for index, (kind, colour) in enumerate(COLOURS.items()):
        x, y = left + 190 * (index % 3), 18 + 22 * (index // 3)
        parts += [f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/>', text(x + 11, y, kind, "start")]
    names = []
    for row in rows:
        x, y = place("x", row.parameters), place("y", row.macs)
        title = f"{row.name}: {row.parameters / 1e6:,.2f} M parameters, {row.macs / 1e6:,.0f} M multiply-adds"
        colour = COLOURS[row.family.kind]
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}" fill-opacity=".75"><title>{title}</title></circle>'
        )
        if row.name in LABELLED:
            x, y, anchor = (x - 7, y - 9, "end") if LABELLED[row.name] == "above" else (x + 7, y + 16, "start")
            names.append(text(x, round(y, 1), row.name, anchor, ' font-size="12"'))
    return "\n".join([*parts, *names, "</svg>"]) + "\n"


def builders() -> str:
    """The reference of every model and every table of stages, in Markdown."""
    builds = [getattr(lazytorch.models, name) for name in list_models()]
    kinds = sorted({inspect.signature(build).return_annotation.__name__ for build in builds})
    lines = [
        "---",
        "hide: [toc]",
        "---",
        "",
        "# Every model of the zoo",
        "",
        "Each is a function of `lazytorch.models`. Besides those that make the model what it is, its options are",
        f"those of its class: {', '.join(f'[{kind}](api.md#lazytorch.models.{kind})' for kind in kinds)}.",
    ]
    for each in FAMILIES:
        lines += ["", f"## {each.name}", "", f"[{each.paper}](https://arxiv.org/abs/{each.identifier})."]
        for name in list_models():
            if family(name) is each:
                lines += entry(name)
    lines += ["", "## Tables of stages"]
    for name in sorted(set(lazytorch.models.__all__)):
        if isinstance(getattr(lazytorch.models, name), (list, tuple)):
            lines += table_entry(name)
    return "\n".join(lines) + "\n"


def entry(name: str) -> list[str]:
    """The heading of a model, what it equals, and the example of its docstring."""
    build = getattr(lazytorch.models, name)
    example = re.search(r"^Example:\n((?:    .*\n?)+)", build.__doc__, re.MULTILINE)
    if example is None:
        raise ValueError(f"The docstring of {name} has no example.")
    code = [line.removeprefix("    ") for line in example[1].splitlines()]
    kind = inspect.signature(build).return_annotation.__name__
    what = f"A `{kind}`; the {name} of {' and '.join(references(name))}."
    return ["", f"### {name} {{ #lazytorch.models.{name} }}", "", what, "", "```python", *code, "", "```"]


def table_entry(name: str) -> list[str]:
    """The heading of a table of stages, and a network of it."""
    rows = getattr(lazytorch.models, name)
    channels = [(row if isinstance(row, lazytorch.models.Stage) else row[-1]).out_channels for row in rows]
    code = [
        f">>> from lazytorch.models import {name}, MobileNet",
        f">>> MobileNet(10, stages={name}).feature_info.channels()[-1]",
        str(channels[-1]),
    ]
    what = f"{len(rows)} stages, of {', '.join(map(str, channels))} channels."
    return ["", f"### {name} {{ #lazytorch.models.{name} }}", "", what, "", "```python", *code, "", "```"]


def pages(found: Sequence[dict[str, Any]]) -> dict[Path, str]:
    """What is written, by where."""
    rows = models(found)
    return {
        PARITY: "[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n",  # a line each
        DOCS / "zoo_table.md": table(rows),
        DOCS / "zoo_run.md": run_of(found),
        DOCS / "zoo.svg": picture(rows),
        DOCS / "api_zoo.md": builders(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    found = read()
    for path in options.parity:
        found = merged(found, json.loads(path.read_text()))
    try:
        written = pages(found)
    except ValueError as error:
        sys.exit(str(error))
    for path, contents in written.items():
        path.write_text(contents)
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
