"""Benchmark lazytorch against torchvision, timm and PyTorch's own lazy modules.

    python scripts/benchmark.py --rows build,load --models resnet18 --rounds 3     # a look, in half a minute
    python scripts/benchmark.py --plot benchmark.svg --markdown > table.md         # all but compilation; half an hour
    python scripts/benchmark.py --rows compiled-eval,compiled-step                 # compiles every model; long
    python scripts/benchmark.py --device cuda --rows eval,step,deploy              # on an accelerator

Every round measures lazytorch and its peers one after the other. In each round, lazytorch's value is divided by the
peer's value; the reported ratio is the median over the rounds, so that changes of the machine's speed affect it little.
Times are wall seconds, memory is in bytes. The row "depth" measures how cost grows with the number of layers.
"""

import argparse
import gc
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from tqdm import tqdm

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lazytorch
from scripts.benchmarking.depth import Curve, exponent, measure_depths
from scripts.benchmarking.measure import Comparison, compare, geometric_mean
from scripts.benchmarking.plot import plot
from scripts.benchmarking.rows import MODELS, ROWS

UNMARKED = [name for name in (*ROWS, "depth") if not name.startswith("compiled")]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="rows: " + "; ".join(f"{name}: {row.what}" for name, row in ROWS.items()),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--rows", default=",".join(UNMARKED), help="what to measure, with commas between (default: all but compiled)"
    )
    parser.add_argument(
        "--models", default=",".join(MODELS), help="of which models, with commas between (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that does not (default: 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default: its own)")
    parser.add_argument("--device", default="cpu", help="for the rows that run networks (default: cpu)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as JSON")
    form.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios, and cost over depth; .svg or .png")
    return parser


def measure(rows: Sequence[str], models: Sequence[str], rounds: int, device: str) -> tuple[list[Comparison], dict]:
    """All comparisons, and the cost by depth if the row "depth" is in ``rows``."""
    comparisons: list[Comparison] = []
    depths: dict[str, Curve] = {}
    pairs = [(row, model) for row in rows if row != "depth" for model in models_of(row, models)]
    total = (len(pairs) + ("depth" in rows)) * (rounds + 1)
    with tqdm(total=total, unit="round", disable=None) as progress:

        def tick() -> None:
            progress.update()

        for row, model in pairs:
            progress.set_description(f"{row}, {model}")
            with ROWS[row].contenders(model, device) as (calls, unit, note):
                comparisons += compare(row, model, calls, rounds, tick, unit, note)
            gc.collect()  # networks contain reference cycles
        if "depth" in rows:
            progress.set_description("depth")
            depths = measure_depths(rounds, tick)
    return comparisons, depths


def models_of(row: str, models: Sequence[str]) -> Iterable[str]:
    own = ROWS[row].models
    return models if own is None else own


def verdicts(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """For every row and peer: the geometric mean and the worst ratio of the models, and the required ratios."""
    result = []
    for row, peer in dict.fromkeys((each.row, each.peer) for each in comparisons):
        those = [each for each in comparisons if (each.row, each.peer) == (row, peer)]
        mean, worst = geometric_mean([each.ratio for each in those]), max(those, key=lambda each: each.ratio)
        wanted_mean, wanted_worst = ROWS[row].wanted[peer]
        holds = mean <= (wanted_mean or mean) and worst.ratio <= (wanted_worst or worst.ratio)
        if wanted_mean is wanted_worst is None:
            holds = None
        result.append(
            {
                "row": row,
                "peer": peer,
                "mean": mean,
                "wanted_mean": wanted_mean,
                "worst": worst.ratio,
                "worst_model": worst.model,
                "wanted_worst": wanted_worst,
                "holds": holds,
            }
        )
    return result


def amount(value: float, unit: str) -> str:
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else f"{value * 1e3:,.1f} ms"


def wanted(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def tables(comparisons: Sequence[Comparison], depths: dict[str, Curve]) -> list[list[list[str]]]:
    """The cells of the tables: verdicts, single figures, cost over depth."""
    summary = [["row", "against", "mean", "wanted", "worst", "wanted", "of", "holds"]]
    summary += [
        [
            each["row"],
            each["peer"],
            f"{each['mean']:.2f}",
            wanted(each["wanted_mean"]),
            f"{each['worst']:.2f}",
            wanted(each["wanted_worst"]),
            each["worst_model"],
            {True: "yes", False: "no", None: "-"}[each["holds"]],
        ]
        for each in verdicts(comparisons)
    ]
    single = [["row", "model", "against", "ours", "theirs", "ratio", "quartiles", "note"]]
    single += [
        [
            each.row,
            each.model,
            each.peer,
            amount(each.ours, each.unit),
            amount(each.theirs, each.unit),
            f"{each.ratio:.2f}",
            f"{each.low:.2f} to {each.high:.2f}",
            each.note,
        ]
        for each in comparisons
    ]
    growth = [["depth", "milliseconds by depth", "exponent"]]
    growth += [
        [name, ", ".join(f"{depth}: {time * 1e3:.1f}" for depth, time in curve.items()), f"{exponent(curve):.2f}"]
        for name, curve in depths.items()
    ]
    return [each for each in (summary, single, growth) if len(each) > 1]


def as_text(cells: list[list[str]], markdown: bool) -> str:
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def machine(options: argparse.Namespace) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if options.device != "cpu":
        name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    versions = {each.__name__: str(each.__version__) for each in (lazytorch, torch, torchvision, timm)}
    return {
        "machine": name,
        "threads": options.threads,
        "rounds": options.rounds,
        "python": platform.python_version(),
    } | versions


def checked(parser: argparse.ArgumentParser, option: str, text: str, known: Iterable[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"argument --{option}: must be of {', '.join(known)}, got {unknown[0]!r}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    rows = checked(parser, "rows", options.rows, [*ROWS, "depth"])
    models = checked(parser, "models", options.models, MODELS)
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"argument --{name}: must be at least 1, got {getattr(options, name)}")
    if options.plot is not None and options.plot.suffix not in (".svg", ".png"):
        parser.error(f"argument --plot: must end in .svg or .png, got {options.plot}")
    if options.device != "cpu":
        rows = [row for row in rows if row in ROWS and ROWS[row].on_accelerators]
        if not rows:
            parser.error("argument --device: none of the rows runs networks, for which alone an accelerator is used")
    torch.set_num_threads(options.threads)
    try:
        comparisons, depths = measure(rows, models, options.rounds, options.device)
    except KeyboardInterrupt:
        sys.exit("\nStopped: nothing is shown of what was measured so far.")
    about = machine(options)
    if options.json:
        found = [each._asdict() for each in comparisons]
        print(json.dumps({"about": about, "rows": verdicts(comparisons), "models": found, "depths": depths}, indent=2))
    else:
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        for cells in tables(comparisons, depths):
            print("\n" + as_text(cells, options.markdown))
    if options.plot is not None:
        plot(comparisons, depths, {row: ROWS[row].wanted for row in ROWS}, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
