"""Write the documentation pages of the zoo: the table, the charts, and the reference of the builders.

    python scripts/zoo_pages.py                             # from docs/parity.json; seconds
    python scripts/parity.py --json > runs/parity.json      # every name; about half an hour on one core
    python scripts/zoo_pages.py --parity runs/parity.json   # with the verdicts of that run

docs/parity.json stores the results of scripts/parity.py, with the versions of the packages. docs/zoo_weights.json
stores what the installed torchvision and timm state about their weights (tags, licences, accuracy); it is updated at
every run, without downloads. Everything else is computed from the registry. --parity accepts several files with results
for parts of the zoo; other names keep their verdict.
"""

import argparse
import functools
import inspect
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lazytorch
from lazytorch.models import get_model, list_models, references
from scripts.zoo_pictures import Point, chart, logarithmic, percent
from scripts.zoo_weights import published

DOCS = Path(__file__).parent.parent / "docs"
API = DOCS / "api"
PARITY = DOCS / "parity.json"
WEIGHTS = DOCS / "zoo_weights.json"
NUM_CLASSES = 1000
IMAGE = (1, 3, 224, 224)
PACKAGES = ("lazytorch", "torch", "torchvision", "timm")
INTRODUCTION = """\
Functions of `lazytorch.models`. Each takes the options of the class that it returns, except those that define the
model. The [table of the zoo](../zoo.md#table-of-all-models) lists sizes, accuracies and weights."""
STAGES_INTRODUCTION = """\
Each is a tuple in `lazytorch.models`, the `stages` of a [MobileNet](models.md#lazytorch.models.MobileNet)."""


class Family(NamedTuple):
    """Models of one paper.

    Families of the same ``kind`` have the same colour in the charts. ``dimensions`` are the supported numbers of
    spatial dimensions.
    """

    patterns: str
    name: str
    kind: str
    paper: str
    identifier: str
    dimensions: str = "1, 2, 3"


# The first family with a pattern that matches a name is its family.
FAMILIES = [
    Family("mobilenetv1_*", "MobileNetV1", "MobileNet", "Howard et al. 2017", "1704.04861"),
    Family("mobilenet_v2 mobilenetv2_*", "MobileNetV2", "MobileNet", "Sandler et al. 2018", "1801.04381"),
    Family("mobilenet_v3_* mobilenetv3_*", "MobileNetV3", "MobileNet", "Howard et al. 2019", "1905.02244"),
    Family("mobilenetv4_*", "MobileNetV4", "MobileNet", "Qin et al. 2024", "2404.10518"),
    Family("mobilenet_edgetpu_*", "MobileNet-EdgeTPU", "MobileNet", "Gupta & Akin 2020", "2003.02838"),
    Family("lcnet_*", "PP-LCNet", "MobileNet", "Cui et al. 2021", "2109.15099"),
    Family("mixnet_*", "MixNet", "MobileNet", "Tan & Le 2019", "1907.09595"),
    Family("rexnet*", "ReXNet", "MobileNet", "Han et al. 2021", "2007.00992"),
    Family("shufflenet_v2_*", "ShuffleNetV2", "ShuffleNetV2", "Ma et al. 2018", "1807.11164"),
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
    Family("gc_efficientnetv2_*", "GC-EfficientNetV2", "EfficientNetV2", "Cao et al. 2019", "1904.11492"),
    Family("efficientnet_*", "EfficientNet", "EfficientNet", "Tan & Le 2019", "1905.11946"),
    Family("gernet_*", "GENet", "ResNet", "Lin et al. 2020", "2006.14090"),
    Family("gcresne*", "GC-ResNet", "ResNet", "Cao et al. 2019", "1904.11492"),
    Family("resnetv2_*_bit", "BiT", "ResNetV2", "Kolesnikov et al. 2020", "1912.11370"),
    Family("resnetv2_*", "ResNetV2", "ResNetV2", "He et al. 2016", "1603.05027"),
    Family("*resnet3[23]ts *resnext26ts", "ResNet-TS", "ResNet", "He et al. 2018", "1812.01187"),
    Family("regnetz_*", "RegNetZ", "RegNet", "Dollár et al. 2021", "2103.06877"),
    Family("regnet*", "RegNet", "RegNet", "Radosavovic et al. 2020", "2003.13678"),
    Family("convnextv2_*", "ConvNeXt V2", "ConvNeXt", "Woo et al. 2023", "2301.00808"),
    Family("convnext_*", "ConvNeXt", "ConvNeXt", "Liu et al. 2022", "2201.03545"),
    Family("resnetrs*", "ResNet-RS", "ResNet-RS", "Bello et al. 2021", "2103.07579"),
    Family("ecaresne*", "ECA-ResNet", "SE- and ECA-ResNet", "Wang et al. 2020", "1910.03151"),
    Family("seresne* senet* legacy_se*", "SE-ResNet", "SE- and ECA-ResNet", "Hu et al. 2018", "1709.01507"),
    Family("res2ne*", "Res2Net", "ResNet", "Gao et al. 2019", "1904.01169"),
    Family("resnest*", "ResNeSt", "ResNet", "Zhang et al. 2020", "2004.08955"),
    Family("skresne*", "SKNet", "ResNet", "Li et al. 2019", "1903.06586"),
    Family("resnetaa* resnetblur*", "Anti-aliased ResNet", "ResNet", "Zhang 2019", "1904.11486"),
    Family("resnext*", "ResNeXt", "ResNeXt", "Xie et al. 2017", "1611.05431"),
    Family("wide_resnet*", "Wide ResNet", "ResNet", "Zagoruyko & Komodakis 2016", "1605.07146"),
    Family("resnet*_gn", "ResNet, group norm", "ResNet", "Wu & He 2018", "1803.08494"),
    Family("resnet*[cdst]", "ResNet-C and -D", "ResNet", "He et al. 2018", "1812.01187"),
    Family("resnet*", "ResNet", "ResNet", "He et al. 2015", "1512.03385"),
    Family("densenet*", "DenseNet", "DenseNet", "Huang et al. 2017", "1608.06993"),
    Family("alexnet", "AlexNet", "AlexNet and VGG", "Krizhevsky 2014", "1404.5997"),
    Family("squeezenet*", "SqueezeNet", "SqueezeNet", "Iandola et al. 2016", "1602.07360"),
    Family("vgg*", "VGG", "AlexNet and VGG", "Simonyan & Zisserman 2014", "1409.1556"),
    Family("repvgg_*", "RepVGG", "RepVGG", "Ding et al. 2021", "2101.03697"),
    Family("mobileone_*", "MobileOne", "RepVGG", "Vasu et al. 2023", "2206.04040"),
]
COLUMNS = {
    "Model": "---",
    "Family": "---",
    "Parameters, M": "--:",
    "MACs, M": "--:",
    "Top-1, %": "--:",
    "Weights": "---",
    "Dimensions": "---",
    "Paper": "---",
    "Equal to": "---",
}
# Okabe and Ito's colours, which colour-blind readers can distinguish, on light and dark backgrounds.
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
    "ShuffleNetV2": "#808000",
    "DenseNet": "#f0e442",
    "AlexNet and VGG": "#7ba05b",
    "SqueezeNet": "#17becf",
    "ResNetV2": "#a63d40",
    "RepVGG": "#9d4edd",
}
# Models whose names are shown in the charts: above the point to its left, or below the point to its right.
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
    "shufflenet_v2_x1_0": "above",
    "alexnet": "below",
    "regnety_2560": "above",
}
LABELLED_WITH_ACCURACY = {
    "alexnet": "below",
    "squeezenet1_1": "above",
    "vgg16": "below",
    "resnet18": "below",
    "densenet121": "below",
    "mobilenet_v3_small": "below",
    "efficientnet_b0": "above",
    "efficientnet_v2_l": "above",
    "regnet_y_128gf": "above",
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
    name = name.removeprefix("tf_")  # the same network with TensorFlow's padding
    return next(each for each in FAMILIES if any(fnmatchcase(name, pattern) for pattern in each.patterns.split()))


def read() -> list[dict[str, Any]]:
    """The last results of scripts/parity.py: a comparison for each model and reference."""
    return json.loads(PARITY.read_text()) if PARITY.exists() else []


def merged(old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All comparisons in the order of the zoo's names; new comparisons replace old ones."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    found = {(each["name"], each["reference"]): each for each in old}
    found |= {(each["name"], each["reference"]): {**each, "versions": versions} for each in new}
    wanted = [(name, f"{zoo} {called}") for name in list_models() for zoo, called in references(name).items()]
    return [found[each] for each in wanted if each in found]


class Model(NamedTuple):
    """A row of the table; ``weights`` are the published weights by zoo, as returned by ``published``."""

    name: str
    family: Family
    parameters: int
    macs: int
    comparisons: list[dict[str, Any]]
    weights: dict[str, list[dict[str, Any]]]


@functools.cache
def size_of(name: str) -> tuple[int, int]:
    """The parameters and multiply-accumulates (MACs) of a model with 1000 classes."""
    summary = lazytorch.summary(get_model(name, num_classes=NUM_CLASSES), IMAGE)
    return summary.parameters, summary.macs


def models(found: Sequence[dict[str, Any]], stated: Mapping[str, Any]) -> list[Model]:
    """Every model of the zoo.

    Args:
        found: The results of scripts/parity.py.
        stated: The result of ``published``.
    """
    weights: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for each in stated["weights"]:
        weights.setdefault(each["name"], {}).setdefault(each["source"], []).append(each)
    rows = []
    for name in list_models():
        comparisons = [each for each in found if each["name"] == name]
        if len(comparisons) != len(references(name)):
            raise ValueError(f"{PARITY.name} lacks {name}: run scripts/parity.py {name} --json; see --help.")
        rows.append(Model(name, family(name), *size_of(name), comparisons, weights.get(name, {})))
    return rows


def table(rows: Iterable[Model]) -> str:
    """The table, in Markdown."""
    lines = [tuple(COLUMNS), tuple(COLUMNS.values())]
    for row in rows:
        problems = [problem for each in row.comparisons for problem in each["problems"]]
        computed = all(each["output"] is not None for each in row.comparisons)
        zoos = ", ".join(references(row.name))
        top1 = recommended(row).get("top1")
        lines.append(
            (
                f"[{row.name}](api/{page_of(row.family)}#lazytorch.models.{row.name})",
                row.family.name,
                f"{row.parameters / 1e6:,.2f}",
                f"{row.macs / 1e6:,.0f}",
                "-" if top1 is None else f"{top1:.1f}",
                ", ".join(f"{zoo}{licences(each)}" for zoo, each in row.weights.items()) or "-",
                row.family.dimensions,
                f"[{row.family.paper}](https://arxiv.org/abs/{row.family.identifier})",
                f"differs: {', '.join(problems)}" if problems else zoos if computed else f"{zoos}, in structure",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def recommended(row: Model) -> dict[str, Any]:
    """The information of torchvision about the weights that it recommends; empty if it has none."""
    return row.weights.get("torchvision", [{}])[0]


def licences(weights: Sequence[dict[str, Any]]) -> str:
    """The licences that a zoo states for its weights, those of recommended weights first; empty if it states none."""
    counts: dict[str | None, int] = {}
    for each in weights:
        counts[each["licence"]] = counts.get(each["licence"], 0) + 1
    first = weights[0]["licence"]
    shown = [
        name_of(licence) if licence == first else f"{count} of {len(weights)}: {name_of(licence)}"
        for licence, count in counts.items()
        if licence is not None
    ]
    return f" ({'; '.join(shown)})" if shown else ""


def name_of(licence: str) -> str:
    """The name of a licence, as a link if the zoo states its address."""
    return f"[{licence.split('/')[4]} licence]({licence})" if licence.startswith("https://github.com/") else licence


def run_of(found: Sequence[dict[str, Any]]) -> str:
    """The versions and the results of the runs that the verdicts are from."""
    runs = sorted({", ".join(f"{name} {number}" for name, number in each["versions"].items()) for each in found})
    equal = sum(each["equal"] for each in found)
    largest = max(each[kind] or 0 for each in found for kind in ("output", "gradient"))
    return (
        f"{equal} of {len(found)} comparisons found both equal, with {'; or '.join(runs)}.\n"
        f"The largest difference of any output or gradient, over the largest value, was {largest:.1g}.\n"
    )


def title(row: Model, *, top1: bool = False) -> str:
    """The tooltip of a model in the charts; with ``top1``, for the image size of its accuracy."""
    best = recommended(row)
    macs, side = (best["macs"], best["side"]) if top1 else (row.macs, IMAGE[-1])
    words = f"{row.name}: {row.parameters / 1e6:,.2f} M parameters, {macs / 1e6:,.0f} M MACs at {side} pixels"
    return f"{words}, top-1 {best['top1']:.1f} %" if top1 else words


def picture(rows: Sequence[Model], *, legend: bool = True) -> str:
    """The chart of parameters against MACs, with logarithmic axes."""
    x = logarithmic("parameters", [row.parameters for row in rows])
    y = logarithmic(
        "MACs of one image of 224x224 pixels" if legend else "MACs of one image",
        [row.macs for row in rows],
    )
    points = [Point(row.name, row.family.kind, row.parameters, row.macs, title(row)) for row in rows]
    return chart(points, x, y, COLOURS, LABELLED, legend=legend)


def accuracy(rows: Iterable[Model], size: str) -> str:
    """The accuracy of torchvision's weights against parameters, or MACs for an image of the stated size."""
    rows = [row for row in rows if recommended(row).get("top1")]
    label = "parameters" if size == "parameters" else "MACs of one image"
    sizes = [row.parameters if size == "parameters" else recommended(row)["macs"] for row in rows]
    top1 = [recommended(row)["top1"] for row in rows]
    points = [
        Point(row.name, row.family.kind, x, y, title(row, top1=True))
        for row, x, y in zip(rows, sizes, top1, strict=True)
    ]
    y_axis = percent("top-1 accuracy", top1)
    return chart(points, logarithmic(label, sizes), y_axis, COLOURS, LABELLED_WITH_ACCURACY, legend=False)


def charts(rows: Sequence[Model]) -> str:
    """The charts of the page, in tabs, and the legend that they share."""
    tabs = {
        "Accuracy, MACs": accuracy(rows, "macs"),
        "Accuracy, parameters": accuracy(rows, "parameters"),
        "MACs, parameters": picture(rows, legend=False),
    }
    lines = ['<div class="zoo-charts" markdown>', ""]
    for name, svg in tabs.items():
        lines += [f'=== "{name}"', "", '    <figure markdown="0">']
        lines += [f"    {line}" for line in svg.splitlines()] + ["    </figure>", ""]
    kinds = [f'<li><i style="background:{colour}"></i>{kind}</li>' for kind, colour in COLOURS.items()]
    return "\n".join([*lines, '<ul class="zoo-legend" markdown="0">', *kinds, "</ul>", "", "</div>"]) + "\n"


def builders() -> dict[Path, str]:
    """The reference of every model and every table of stages, in Markdown: a page for each kind of network."""
    names: dict[str, list[str]] = {}  # by family
    for name in list_models():
        names.setdefault(family(name).name, []).append(name)
    written: dict[Path, list[str]] = {}
    for each in sorted(FAMILIES, key=lambda each: each.name != each.kind):  # the family that names the page first
        lines = written.setdefault(API / page_of(each), [f"# {each.kind} models", "", INTRODUCTION])
        lines += ["", f"## {each.name}", "", f"[{each.paper}](https://arxiv.org/abs/{each.identifier})."]
        for name in names[each.name]:
            lines += entry(name)
    lines = written.setdefault(API / "zoo_stages.md", ["# Tables of stages", "", STAGES_INTRODUCTION])
    for name in sorted(set(lazytorch.models.__all__)):
        if isinstance(getattr(lazytorch.models, name), (list, tuple)):
            lines += table_entry(name)
    return {path: "\n".join(lines) + "\n" for path, lines in written.items()}


def page_of(each: Family) -> str:
    """The name of the page with the builders of a family."""
    return f"zoo_{re.sub('[^a-z0-9]+', '_', each.kind.lower())}.md"


def entry(name: str) -> list[str]:
    """The heading of a model, what it equals, and the example of its docstring."""
    build = getattr(lazytorch.models, name)
    example = re.search(r"^Example:\n((?:    .*\n?)+)", build.__doc__, re.MULTILINE)
    if example is None:
        raise ValueError(f"The docstring of {name} has no example.")
    code = [line.removeprefix("    ") for line in example[1].splitlines()]
    kind = inspect.signature(build).return_annotation.__name__
    equals = " and ".join(
        f"`{called}` of {' and '.join(zoo for zoo, other in references(name).items() if other == called)}"
        for called in dict.fromkeys(references(name).values())
    )
    article = "an" if kind[0] in "AEIOU" else "a"
    what = f"Returns {article} [{kind}](models.md#lazytorch.models.{kind}) equal to {equals}."
    return ["", f"### {name} {{ #lazytorch.models.{name} }}", "", what, "", "```python", *code, "", "```"]


def table_entry(name: str) -> list[str]:
    """The heading of a table of stages, and a network of it."""
    rows = getattr(lazytorch.models, name)
    channels = [(row if isinstance(row, lazytorch.models.Stage) else row[-1]).out_channels for row in rows]
    code = [
        f">>> from lazytorch.models import {name}, MobileNet",
        f">>> MobileNet(10, stages={name}).feature_info.channels()[-1]",
        str(lazytorch.models.MobileNet(10, stages=rows).feature_info.channels()[-1]),
    ]
    what = f"{len(rows)} stages with {', '.join(f'{each:g}' for each in channels)} output channels."
    return ["", f"## {name} {{ #lazytorch.models.{name} }}", "", what, "", "```python", *code, "", "```"]


def as_lines(found: Iterable[Any]) -> str:
    """A list as JSON, with a line for each element."""
    return "[\n" + ",\n".join(json.dumps(each, allow_nan=False) for each in found) + "\n]"


def pages(found: Sequence[dict[str, Any]], stated: Mapping[str, Any]) -> dict[Path, str]:
    """The text of each page by its path; the arguments are those of ``models``."""
    rows = models(found, stated)
    versions = json.dumps(stated["versions"])
    return {
        PARITY: as_lines(found) + "\n",
        WEIGHTS: f'{{"versions": {versions}, "weights": {as_lines(stated["weights"])}}}\n',
        DOCS / "zoo_table.md": table(rows),
        DOCS / "zoo_run.md": run_of(found),
        DOCS / "zoo_charts.md": charts(rows),
        DOCS / "zoo.svg": picture(rows),
        **builders(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    found = read()
    for path in options.parity:
        found = merged(found, json.loads(path.read_text()))
    try:
        written = pages(found, published())
    except ValueError as error:
        sys.exit(str(error))
    for path, contents in written.items():
        path.write_text(contents)
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
