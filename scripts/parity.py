"""Compare models of the zoo with their references in torchvision and timm: weights, outputs and gradients.

    python scripts/parity.py resnet18                          # both zoos, a few seconds
    python scripts/parity.py                                   # every name; minutes
    python scripts/parity.py "resnet*" --source timm --markdown

It compares the names, shapes and initial distributions of parameters and buffers, and multiply-accumulates (MACs) at
224x224 pixels. With all parameters and buffers randomised, it compares the output and every gradient in evaluation and
in training, the BatchNorm buffers after a training step, and the output for an image of an odd size, if the reference
supports it. If these differ in single precision, they are compared in double precision, because a training step with
two images can amplify rounding errors. All networks have 11 classes. If both zoos have a name, our initial weights and
rates of dropout and stochastic depth are torchvision's: timm's initial weights are then not compared, and its network
gets the same rates. The exit status is 1 if any model differs. Requires torchvision and timm, and downloads nothing.
"""

import argparse
import contextlib
import gc
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import regnet
from tqdm import tqdm

import lazytorch
from lazytorch.models import (
    Backbone,
    get_model,
    list_models,
    load_reference_state_dict,
    reference_state_dict,
    references,
)
from lazytorch.models.registry import entry

NUM_CLASSES = 11
# Both networks compute the same operations, some in another form; rounding errors are smaller in almost all networks.
TOLERANCE = 1e-4
STANDARD_ERRORS = 6
MANY = 32  # the number of values from which their standard deviation is meaningful
COLUMNS = ("model", "reference", "parameters", "MACs", "output", "gradient", "verdict")


class Comparison(NamedTuple):
    """The result for one model. Differences are the largest, relative to the largest value; None if not computed."""

    name: str
    reference: str
    parameters: int
    macs: int
    output: float | None
    gradient: float | None
    problems: list[str]

    @property
    def cells(self) -> list[str]:
        differences = ["-" if each is None else f"{each:.1e}" for each in (self.output, self.gradient)]
        verdict = "differs: " + ", ".join(self.problems) if self.problems else "equal"
        if self.output is None:
            verdict += " in structure"
        return [self.name, self.reference, f"{self.parameters:,}", f"{self.macs:,}", *differences, verdict]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", default=["*"], help="models, or patterns with wildcards (default: all)")
    parser.add_argument("--source", choices=["torchvision", "timm"], help="compare with this zoo alone")
    parser.add_argument(
        "--size", type=int, default=64, help="side of the images that are computed, in pixels (default: 64)"
    )
    parser.add_argument("--structure", action="store_true", help="compute nothing: names, shapes and MACs only")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the results as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


def make_reference(name: str, source: str, **options: Any) -> nn.Module:
    """The reference as its zoo constructs it, with random weights."""
    if source == "torchvision":
        with regnet_widths_on_cpu():
            return torchvision.models.get_model(name, weights=None, **options)
    return timm.create_model(name, pretrained=False, **options)


@contextlib.contextmanager
def regnet_widths_on_cpu() -> Iterator[None]:
    """Allow constructing torchvision's RegNet on the meta device, although it reads its widths from tensor values."""
    compute = regnet.BlockParams.from_init_params

    def on_cpu(*args: Any, **options: Any) -> regnet.BlockParams:
        with torch.device("cpu"):
            return compute(*args, **options)

    with mock.patch.object(regnet.BlockParams, "from_init_params", on_cpu):
        yield


def rates(name: str) -> dict[str, float]:
    """Dropout and stochastic depth of one of our models, as timm calls them; its own models have none by default."""
    options = inspect.signature(entry(name, "parity").build).parameters
    given = {"drop_rate": options["dropout"].default, "drop_path_rate": options["drop_path_rate"].default}
    return {option: rate for option, rate in given.items() if rate}  # networks without branches have no drop_path_rate


def compare(name: str, source: str, *, size: int = 64, structure: bool = False, **options: Any) -> Comparison:
    """Compare one model with its reference.

    Args:
        name: The name of the model.
        source: The zoo of the reference.
        size: Side of the images that are computed, in pixels.
        structure: Whether to compare only names, shapes and MACs, and compute nothing.
        options: Other options of our model, to test that a difference is found.
    """
    theirs_called = references(name)[source]
    # Rates are options of training: a name that both zoos have has torchvision's, and timm's network is given them.
    given = {"num_classes": NUM_CLASSES} | (rates(name) if source == "timm" else {})
    problems: list[str] = []
    with torch.device("meta"):
        ours = get_model(name, num_classes=NUM_CLASSES, **options)
        theirs = make_reference(theirs_called, source, **given)
    ours = lazytorch.materialize(ours, (1, 3, 224, 224))
    shapes = [
        {key: tuple(value.shape) for key, value in state.items()}
        for state in (reference_state_dict(ours, source), theirs.state_dict())
    ]
    macs = [multiply_adds(each.eval()) for each in (ours, theirs)]
    parameters = [sum(each.numel() for each in network.parameters()) for network in (ours, theirs)]
    problems += ["names"] * (len(ours.state_dict()) != len(shapes[1]))
    problems += ["shapes"] * (shapes[0] != shapes[1])
    problems += ["parameters"] * (parameters[0] != parameters[1])
    problems += ["MACs"] * (macs[0] != macs[1])
    output = gradient = None
    if not structure and "shapes" not in problems:
        torch.manual_seed(0)
        ours = lazytorch.materialize(get_model(name, num_classes=NUM_CLASSES, **options), (1, 3, size, size))
        theirs = make_reference(theirs_called, source, **given)
        # If both zoos have the name, our initial weights are torchvision's, so they are not compared with timm's.
        if source == "torchvision" or "torchvision" not in references(name):
            same = alike(reference_state_dict(ours, source), theirs.state_dict())
            problems += ["initial distributions"] * (not same)
        randomize(theirs)
        load_reference_state_dict(ours, theirs.state_dict(), source)
        found = difference(ours, theirs, source, size)
        if not max(found.values()) <= TOLERANCE:  # in double precision, a difference of rounding errors is negligible
            load_reference_state_dict(ours.double(), theirs.double().state_dict(), source)
            found = difference(ours, theirs, source, size)
        problems += [kind for kind, value in found.items() if not value <= TOLERANCE]
        output, gradient = (
            max(value for kind, value in found.items() if what in kind) for what in ("output", "gradient")
        )
    return Comparison(name, f"{source} {theirs_called}", parameters[0], macs[0], output, gradient, problems)


def multiply_adds(network: nn.Module) -> int:
    """MACs of one image of 224x224 pixels."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() // 2


def alike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether constants are equal, and random values have the same means and standard deviations, up to chance.

    Entries with too few values are combined with other entries of the same shape.
    """
    drawn: dict[object, list[tuple[Tensor, Tensor]]] = {}
    for key, value in ours.items():
        other = theirs[key]
        if (other == other.flatten()[0]).all():
            if not torch.equal(value.flatten(), other.flatten()):
                return False
        else:
            drawn.setdefault(key if value.numel() >= MANY else value.shape, []).append((value, other))
    for pairs in drawn.values():
        # Double precision of one group at a time: of a whole network it would not fit in memory.
        mine, other = (torch.cat([each.double().flatten() for each in values]) for values in zip(*pairs, strict=True))
        # The standard errors of the means and standard deviations of both samples, relative to the standard deviation.
        bound = STANDARD_ERRORS * (2 / len(mine)) ** 0.5
        if not (mine.mean() - other.mean()).abs() <= bound * other.std():
            return False
        if len(mine) >= MANY and not (mine.std() / other.std() - 1).abs() <= bound:
            return False
    return True


def randomize(network: nn.Module) -> None:
    """Randomise every parameter and buffer, because initial statistics hide errors of eps or momentum.

    The scales keep activations finite through hundreds of blocks, and the effect of every branch measurable.
    """
    torch.manual_seed(0)
    for key, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        if value.dim() > 1:
            nn.init.normal_(value, std=value[0].numel() ** -0.5)
        elif key.endswith(("bias", "mean")):
            nn.init.uniform_(value, -1, 1)
        elif key.endswith("var"):  # small, so that eps has an effect
            nn.init.uniform_(value, 0.02, 2)
        else:
            nn.init.uniform_(value, 0.5, 1)


def difference(ours: Backbone, theirs: nn.Module, source: str, size: int) -> dict[str, float]:
    """The largest relative differences, by what was compared."""
    torch.manual_seed(1)
    dtype = next(ours.parameters()).dtype
    x = torch.randn(2, 3, size, size, dtype=dtype)
    as_there = reference_state_dict(ours, source)
    there = dict(zip(ours.state_dict(), as_there, strict=True))
    found = difference_of_pass(ours.eval(), theirs.eval(), there, x)
    found |= difference_of_pass(ours.train(), theirs.train(), there, x)
    odd = torch.randn(1, 3, *[size + 11 - size % 2] * 2, dtype=dtype)
    with torch.no_grad(), contextlib.suppress(RuntimeError):  # some references do not run at odd sizes
        expected = theirs.eval()(odd)
        found["output at an odd size"] = relative([(output_of(ours.eval(), odd), expected)])
    buffers = {there[key]: value for key, value in ours.named_buffers() if key in there}
    expected_buffers = dict(theirs.named_buffers())
    found["buffers"] = max((relative([(value, expected_buffers[key])]) for key, value in buffers.items()), default=0.0)
    return found


def difference_of_pass(ours: nn.Module, theirs: nn.Module, there: dict[str, str], x: Tensor) -> dict[str, float]:
    """The largest relative differences of outputs and gradients; ``there`` are the names of our entries there.

    Their gradients are compared as they are computed, because those of two networks may not fit in memory.
    """
    gradients: dict[str, Tensor] = {}
    output = one_pass(ours, x, lambda key, value: gradients.update({there.get(key, key): value}))
    largest = {key: float(value.abs().max()) for key, value in gradients.items()}
    worst = 0.0

    def compare_gradient(key: str, expected: Tensor) -> None:
        nonlocal worst
        value = gradients.pop(key, None)
        if value is not None and value.numel() == expected.numel():  # a linear layer may be a convolution there
            value = value.reshape(expected.shape)
        # Before a BatchNorm, the gradient of a bias is rounding errors: it is compared with that of its layer's weight.
        least = largest.get(f"{key.removesuffix('bias')}weight", 0.0) if key.endswith(".bias") else 0.0
        worst = max(worst, relative([(value, expected)], least))

    expected = one_pass(theirs, x, compare_gradient)
    mode = "training" if ours.training else "evaluation"
    return {
        f"output in {mode}": relative([(output, expected)]),
        f"gradient in {mode}": float("inf") if gradients else worst,
    }


def output_of(network: nn.Module, x: Tensor) -> Tensor | None:
    """The output, None if the network does not run."""
    try:
        return network(x)
    except RuntimeError:
        return None


def one_pass(network: nn.Module, x: Tensor, take_gradient: Callable[[str, Tensor], None]) -> Tensor:
    """Output; the gradients are given to a function by their names, that of the input is called ``input``."""
    torch.manual_seed(2)
    x = x.clone().requires_grad_()

    def taking(key: str) -> Callable[[Tensor], None]:
        def take(parameter: Tensor) -> None:
            assert parameter.grad is not None
            take_gradient(key, parameter.grad)
            parameter.grad = None

        return take

    leaves = {"input": x, **dict(network.named_parameters())}
    handles = [value.register_post_accumulate_grad_hook(taking(key)) for key, value in leaves.items()]
    output = network(x)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output * weights).sum().backward()
    for handle in handles:
        handle.remove()
    return output.detach()


def relative(pairs: Iterable[tuple[Tensor | None, Tensor]], least: float = 0.0) -> float:
    """The largest difference over the largest value, or over ``least``; infinite where one is missing or no number."""
    worst = 0.0
    for value, expected in pairs:
        if value is None or value.shape != expected.shape:
            return float("inf")
        scale = expected.abs().max().double().clamp(min=least)
        error = (value.double() - expected.double()).abs().max()
        ratio = float(error / scale) if scale > 0 else float(error)
        worst = max(worst, ratio if ratio == ratio else float("inf"))
    return worst


def table(rows: list[Comparison], markdown: bool) -> str:
    cells = [list(COLUMNS), *(row.cells for row in rows)]
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|---|---|--:|--:|--:|--:|---|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *[str.rjust] * 4, str.ljust]
    return "\n".join(
        "  ".join(pad(cell, width) for pad, cell, width in zip(align, row, widths, strict=True)).rstrip()
        for row in cells
    )


def chosen(parser: argparse.ArgumentParser, names: list[str], source: str | None) -> list[tuple[str, str]]:
    """The models and zoos to compare; a pattern that fits none is an error."""
    for pattern in names:
        fitting = list_models(pattern)
        if not fitting:
            try:
                references(pattern)
            except ValueError as error:
                parser.error(str(error))
        if source and not any(source in references(name) for name in fitting):
            parser.error(f"{source} has no model {pattern}")
    return [(name, each) for name in list_models(names) for each in references(name) if source in (None, each)]


def main(arguments: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.size < 32:
        parser.error(f"--size must be at least 32, or the last stages have nothing left to compute, got {options.size}")
    pairs = chosen(parser, options.names, options.source)
    rows: list[Comparison] = []
    interrupted = False
    try:
        for name, source in (progress := tqdm(pairs, unit="model", disable=None)):
            progress.set_description(name)
            try:
                rows.append(compare(name, source, size=options.size, structure=options.structure))
            except Exception as error:  # of one model: the others are still compared
                problem = f"{type(error).__name__}: {error}".partition("\n")[0]
                rows.append(Comparison(name, f"{source} {name}", 0, 0, None, None, [problem]))
            gc.collect()  # a network holds references to itself
    except KeyboardInterrupt:
        interrupted = True
    if options.json:
        print(json.dumps([row._asdict() | {"equal": not row.problems} for row in rows], indent=2))
    else:
        print(table(rows, options.markdown))
    differ = [row for row in rows if row.problems]
    left = f", {len(pairs) - len(rows)} not compared" if interrupted else ""
    print(f"{len(rows) - len(differ)} of {len(rows)} equal{left}", file=sys.stderr)
    return 130 if interrupted else 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
