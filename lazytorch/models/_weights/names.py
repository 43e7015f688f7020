"""Rules: convert names of a model's state to those of torchvision and timm."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn

__all__ = ["Rules"]

LIKE = r"(\*|[1-9]\d*)(x[1-9]\d*)*(x\*)?(x[1-9]\d*)*"


class Rule(NamedTuple):
    """One line of ``Rules``.

    Attributes:
        ours: The regular expression of our names.
        theirs: The reference name, with expressions in braces.
        like: The shape of the reference's tensor, with ``"*"`` for a size that is computed from our tensor; empty for
            our shape.
        present: The block must have one of these parts; empty for any block.
        absent: The block must have none of these parts.
    """

    ours: str
    theirs: str
    like: tuple[int | str, ...]
    present: set[str]
    absent: set[str]


class Rules:
    """Converts names of a model's state to those of another zoo, the reference, by rules of one line each.

    A rule is ``ours theirs [option ...]``. ``ours`` is our name of a module or tensor, in which ``S`` is the index of a
    stage, ``B`` the index of a block in the stage, and ``*`` any single part of the name. The first rule that matches
    is applied; if none matches, the name is not changed. In ``theirs``, the reference name, ``*`` is the same part of
    the name, and braces contain sums and products of numbers and of these variables:

    - ``S``, ``B``: as above
    - ``N``: the number of blocks before this one in the network
    - ``P``: the number of parts with parameters before this one in the block
    - ``C``: the same as ``P``, without counting ``se``
    - ``L``, ``T``: the number of stages, and of blocks, of the network

    A line with alternatives is several rules: ``stem.(conv|norm)  (conv1|bn1)`` names ``stem.conv`` and ``stem.norm``.
    All parentheses in a line contain the same number of alternatives.

    Options: ``if=part`` and ``unless=part``: the block must have, or must not have, one of these parts; ``|`` separates
    several parts. ``like=*x*x1x1``: the reference's shape of a weight, or of a tensor that ``ours`` names completely;
    the first ``*`` is its first size, and another ``*`` the product of the others.

    The stages of the model must be built, but the stem and the head may be lazy.

    Args:
        text: The rules. A ``#`` begins a comment.

    Raises:
        ValueError: If a line is not a rule.

    Example:
        >>> import lazytorch
        >>> from lazytorch.models import Rules
        >>> rules = Rules('''
        ...     stem.conv                      conv_stem
        ...     stages.S.B.layers.*.conv       blocks.{N+1}.conv{C+1}
        ... ''')
        >>> model = lazytorch.materialize(lazytorch.models.mobilenet_v2(), (1, 3, 64, 64))
        >>> rules.name(model, "stages.1.0.layers.depthwise.conv.weight")
        'blocks.2.conv2.weight'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        lines = [line.partition("#")[0] for line in text.splitlines()]
        self.rules = [parsed(rule.split()) for line in lines if line.strip() for rule in expanded(line)]
        self.found: dict[str, list[tuple[Rule, re.Match[str]]]] = {}  # rules that match, by our name

    @cached_property
    def patterns(self) -> list[re.Pattern[str]]:
        """The compiled ``ours`` of the rules; to compile those of all families at import would take long."""
        return [re.compile(rule.ours) for rule in self.rules]

    def __repr__(self) -> str:
        return f"Rules({len(self.rules)} rules)"

    def __deepcopy__(self, memo: Any) -> "Rules":
        return self

    def __reduce__(self) -> Any:
        return Rules, (self.text,)

    def contains(self, component: str) -> bool:
        """Whether a reference name may begin with ``component``, the part before the first dot."""
        firsts = (re.sub(r"\{.*?\}", "0", rule.theirs).partition(".")[0] for rule in self.rules)
        return any(re.sub(r"\d+", "0", component) == re.sub(r"\d+", "0", first) for first in firsts)

    def name(self, model: nn.Module, key: str) -> str:
        """The reference name of an entry of the model's state."""
        return self._apply(model, key)[0]

    def names(self, model: nn.Module, keys: Iterable[str]) -> dict[str, str]:
        """The reference names of several entries, by our names.

        Raises:
            ValueError: If two entries have the same reference name.
        """
        names = {key: self.name(model, key) for key in keys}
        first: dict[str, str] = {}
        for key, name in names.items():
            if first.setdefault(name, key) != key:
                raise ValueError(
                    f"Rules: every entry must have a name of its own, got {name!r} for {first[name]} and {key}."
                )
        return names

    def shape(self, model: nn.Module, key: str, value: Tensor) -> tuple[int, ...]:
        """The reference's shape of an entry of the model's state."""
        _, like, itself = self._apply(model, key)
        if not like or (value.dim() < 2 and not itself):
            return tuple(value.shape)
        sizes = [value.size(0) if index == 0 and size == "*" else size for index, size in enumerate(like)]
        rest, remainder = divmod(value.numel(), math.prod(size for size in sizes if isinstance(size, int)))
        if remainder or (rest != 1 and "*" not in sizes):  # the network has another number of spatial dimensions
            return tuple(value.shape)
        return tuple(size if isinstance(size, int) else rest for size in sizes)

    def _apply(self, model: nn.Module, key: str) -> tuple[str, tuple[int | str, ...], bool]:
        if key not in self.found:
            matches = zip(self.rules, (pattern.fullmatch(key) for pattern in self.patterns), strict=True)
            self.found[key] = [(rule, match) for rule, match in matches if match is not None]
        for rule, match in self.found[key]:
            known = variables(model, key, match.groupdict())
            parts = known.pop("parts")
            if (rule.present and not rule.present & parts) or rule.absent & parts:
                continue
            name = re.sub(r"\{(.*?)\}", lambda each, known=known: str(evaluate(each[1], known)), rule.theirs)
            name = name.replace("*", match.groupdict().get("any", "*")) + (match["rest"] or "")
            return name, rule.like, match["rest"] is None
        return key, (), False


def expanded(line: str) -> list[str]:
    """The rules of a line: one for each alternative, if it contains ``(a|b)``."""
    groups = [each.split("|") for each in re.findall(r"\((.*?)\)", line)]
    if not groups or {*map(len, groups)} != {len(groups[0])}:
        return [line]
    return [re.sub(r"\(.*?\)", "%s", line) % alternatives for alternatives in zip(*groups, strict=True)]


def parsed(line: list[str]) -> Rule:
    ours, theirs, *options = line if len(line) > 1 else (*line, "")
    given = {name: text for name, _, text in (each.partition("=") for each in options)}
    like = given.get("like", "*")
    if not theirs or "(" in ours + theirs or given.keys() - {"if", "unless", "like"} or not re.fullmatch(LIKE, like):
        raise ValueError(f"Rules: a line must be 'ours theirs', then if=, unless= or like=, got {' '.join(line)!r}.")
    pattern = re.escape(ours).replace(r"\*", r"(?P<any>[^.]+)")
    pattern = re.sub(r"\b([SB])\b", r"(?P<\1>\\d+)", pattern)
    return Rule(
        rf"{pattern}(?P<rest>\..+)?",
        theirs,
        tuple(int(size) if size.isdigit() else size for size in like.split("x")) if "like" in given else (),
        set(filter(None, given.get("if", "").split("|"))),
        set(filter(None, given.get("unless", "").split("|"))),
    )


def variables(model: nn.Module, key: str, matched: Mapping[str, str | None]) -> dict[str, Any]:
    """The variables in the expressions of a rule, and the names of the block's ``parts``."""
    lengths = [len(stage) for stage in model.get_submodule("stages").children()]  # pyright: ignore[reportArgumentType]
    known: dict[str, Any] = {"L": len(lengths), "T": sum(lengths), "parts": set()}
    if matched.get("S") is not None and matched.get("B") is not None:
        stage, place = int(matched["S"] or 0), int(matched["B"] or 0)
        block = model.get_submodule(f"stages.{stage}.{place}")
        layers = getattr(block, "layers", block)
        parts = [name for name, each in layers.named_children() if next(each.parameters(), None) is not None]
        part = (*key.split("."), "")[4 if layers is not block else 3]
        index = parts.index(part) if part in parts else len(parts)
        known |= {"S": stage, "B": place, "N": sum(lengths[:stage]) + place, "parts": set(parts)}
        known |= {"P": index, "C": index - ("se" in parts[:index])}
    return known


def evaluate(expression: str, known: Mapping[str, int]) -> int:
    """The value of a sum of products of whole numbers and variables."""
    terms = re.findall(r"([+-]?)([^+-]+)", expression)
    factors = [[known[each] if each in known else int(each) for each in term.split("*")] for _, term in terms]
    return sum((-1 if sign == "-" else 1) * math.prod(each) for (sign, _), each in zip(terms, factors, strict=True))
