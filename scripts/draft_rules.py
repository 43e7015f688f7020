"""Draft the rules for the names of a family, from models here and in torchvision or timm with entries in equal order.

    python scripts/draft_rules.py timm resnet18 resnet50d            # models that the zoo has already
    python scripts/draft_rules.py timm vgg11 --ours my_family:vgg11  # a new one: a function that builds our model

Prints the lines of a ``lazytorch.models.Rules``, and how many entries they name as the reference does. A number that
none of the variables gives is printed as ``?``, and a line that depends on the block without a part that says so has a
comment: these are for you to write. Give several models that differ in depth, or constants are taken for variables.
"""

import argparse
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import nn

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lazytorch
from lazytorch.models import Rules, get_model, list_models
from lazytorch.models._weights.names import variables
from scripts.parity import make_reference

Numbers = dict[str, int]


class Sample(NamedTuple):
    """A module of one of our models, and the same in the reference.

    Attributes:
        ours: Its name here, with ``S.B`` for the numbers of a stage and a block.
        theirs: Its name there, with ``#`` for every number.
        numbers: These numbers.
        known: The variables of the rules, for this module.
        parts: The parts of its block.
    """

    ours: str
    theirs: str
    numbers: list[int]
    known: Numbers
    parts: frozenset[str]


def modules_of(names: Iterable[str]) -> list[str]:
    """The modules that have the entries of a state, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def samples_of(ours: nn.Module, theirs: nn.Module) -> list[Sample]:
    """Our modules and the reference's, side by side.

    Raises:
        ValueError: If the two have another number of modules with entries.
    """
    pairs = [modules_of(each.state_dict()) for each in (ours, theirs)]
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"both sides must have as many modules with entries, got {len(pairs[0])} and {len(pairs[1])}.")
    samples = []
    for here, there in zip(*pairs, strict=True):
        place = re.match(r"stages\.(?P<S>\d+)\.(?P<B>\d+)", here)
        known: dict[str, Any] = variables(ours, f"{here}.weight", place.groupdict() if place else {})
        parts = frozenset(known.pop("parts"))
        pattern = re.sub(r"^stages\.\d+\.\d+", "stages.S.B", here)
        numbers = list(map(int, re.findall(r"\d+", there)))
        samples.append(Sample(pattern, re.sub(r"\d+", "#", there), numbers, known, parts))
    return samples


def expressions(values: Sequence[tuple[Numbers, int]], taken: str) -> Iterator[str]:
    """What gives a number in all samples: a multiple of a variable plus a constant, or the number itself.

    Args:
        values: The variables and the number of each sample.
        taken: The expressions before this one: a name has the numbers of the stage and of the block once.
    """

    def linear(names: str, factors: Sequence[int], offsets: Sequence[int]) -> Iterator[str]:
        for factor, name in product(factors, names):
            found = {number - factor * known[name] if name in known else None for known, number in values}
            offset = found.pop() if len(found) == 1 else None
            if offset is not None and offset in offsets:
                yield f"{{{f'{factor}*' if factor > 1 else ''}{name}{f'{offset:+}' if offset else ''}}}"

    if "S" not in taken:
        yield from linear("S", (1,), (0, 1))
    if "S" in taken and "B" not in taken:
        yield from linear("B", (1,), (0,))
    numbers = {str(number) for _, number in values}
    if len(numbers) == 1:
        yield from numbers
    yield from linear("NPCSBLT", (1, 2, 3), range(-9, 99))


def line_of(samples: Sequence[Sample]) -> str:
    """The name there that fits all of the samples, which have the same text; with ``?`` where no number does."""
    texts: list[str] = []
    for column in range(samples[0].theirs.count("#")):
        values = [(each.known, each.numbers[column]) for each in samples]
        texts.append(next(expressions(values, "".join(texts)), "?"))
    left = iter(texts)
    return re.sub("#", lambda _: next(left), samples[0].theirs)


def condition(kinds: set[frozenset[str]], others: set[frozenset[str]]) -> str:
    """The option that holds for blocks with the parts of ``kinds``, and not for those of ``others``."""
    alone = sorted(set().union(*kinds).difference(*others))
    if all(kind.intersection(alone) for kind in kinds):
        return f"if={'|'.join(alone)}"
    missing = sorted(set().union(*others).difference(*kinds))
    if all(kind.intersection(missing) for kind in others):
        return f"unless={'|'.join(missing)}"
    return f"# of blocks with {' or '.join('+'.join(sorted(kind)) for kind in kinds)}"


def draft(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """The lines of the rules: our name, the name there, and options."""
    alike: dict[str, list[Sample]] = defaultdict(list)
    for each in samples:
        alike[re.sub(r"^(stages\.S\.B\.layers)\.\w+", r"\1.*", each.ours)].append(each)
    lines, last = [], []
    for ours, group in alike.items():
        if len({each.theirs for each in group}) == 1 and len({each.ours for each in group}) > 1:
            there = line_of(group)
            if "?" not in there:
                last.append((ours, there, ""))  # the first rule that fits applies: those with a wildcard are last
                continue
        for name in dict.fromkeys(each.ours for each in group):
            lines += lines_of([each for each in group if each.ours == name])
    return lines + last


def lines_of(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """The lines for one of our names: one if it has one text there, else one for each kind of block."""
    kinds: dict[str, set[frozenset[str]]] = defaultdict(set)
    for text in dict.fromkeys(each.theirs for each in samples):
        group = [each for each in samples if each.theirs == text]
        if "?" not in (there := line_of(group)):
            kinds[there] |= {each.parts for each in group}
            continue
        for parts in {each.parts for each in group}:
            kinds[line_of([each for each in group if each.parts == parts])].add(parts)
    lines = []
    for there, these in kinds.items():
        others = {kind for other, those in kinds.items() if other != there for kind in those}
        lines.append((samples[0].ours, there, condition(these, others) if others else ""))
    return lines


def agreeing(rules: Rules, ours: nn.Module, theirs: nn.Module) -> tuple[int, int]:
    """How many entries of our model the rules name as the reference does, and how many there are."""
    names = list(theirs.state_dict())
    found = [rules.name(ours, key) for key in ours.state_dict()]
    return sum(one == other for one, other in zip(found, names, strict=True)), len(names)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("source", choices=("torchvision", "timm"), help="the zoo of the references")
    parser.add_argument("names", nargs="+", metavar="name", help="models of that zoo, of one family")
    parser.add_argument(
        "--ours", action="append", metavar="MODULE:FUNCTION", help="builds our model; one for each name, in order"
    )
    return parser


def reference_names(source: str) -> list[str]:
    return timm.list_models() if source == "timm" else torchvision.models.list_models()


def main(arguments: list[str] | None = None) -> int:
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.ours is not None and len(given.ours) != len(given.names):
        parser.error(f"--ours must be given once for each name, got {len(given.ours)} for {len(given.names)}.")
    pairs = []
    for index, name in enumerate(given.names):
        if name not in reference_names(given.source):
            parser.error(f"{given.source} has no model {name!r}.")
        make = partial(get_model, name)
        if given.ours is not None:
            module, _, function = given.ours[index].partition(":")
            if not function:
                parser.error(f"--ours must be MODULE:FUNCTION, got {given.ours[index]!r}.")
            make = getattr(importlib.import_module(module), function)
        elif name not in list_models():
            parser.error(f"lazytorch has no model {name!r}. Pass --ours.")
        pairs.append((lazytorch.materialize(make(), (1, 3, 64, 64)), make_reference(name, given.source)))
    try:
        samples = [each for ours, theirs in pairs for each in samples_of(ours, theirs)]
    except ValueError as error:
        print(f"draft_rules: {error}", file=sys.stderr)
        return 1
    lines = draft(samples)
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    text = "\n".join(f"{ours:{widths[0]}}  {theirs:{widths[1]}}  {option}".rstrip() for ours, theirs, option in lines)
    print(text)
    if "?" in text:
        return 1
    for name, (ours, theirs) in zip(given.names, pairs, strict=True):
        same, count = agreeing(Rules(text), ours, theirs)
        print(f"# {name}: {same} of {count} entries named as in {given.source}")
    return 0


if __name__ == "__main__":
    with torch.device("meta"):
        sys.exit(main())
