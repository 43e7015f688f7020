"""Values of options: what each may be, and which one a misspelt one means."""

import argparse
import ast
import difflib
import importlib.util
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Nothing here imports PyTorch, which takes seconds: a misspelt value is to be refused at once.
KINDS = {  # of --data, and what follows them
    "digits": "",
    "arrays": "PATH",
    "folder": "PATH",
    "torchvision": "NAME",
    "synthetic": "",
}
METRICS = ("accuracy", "balanced_accuracy", "f1", "auroc", "map", "loss")  # of --monitor
KEPT = "none"  # the value of --image-size that keeps the sizes of arrays


def at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text}")
        return int(text)

    return convert


def between(least: float, most: float = math.inf) -> Callable[[str], float]:
    rule = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and value < math.inf):
            raise argparse.ArgumentTypeError(f"must be a number {rule}, got {text}")
        return value

    return convert


def suggestion(given: str, known: Iterable[str]) -> str:
    """A sentence with the one of ``known`` that is meant, if one is close."""
    names = [each for each in known if each != given]
    close = difflib.get_close_matches(given, names, n=1) or [each for each in names if given and each.startswith(given)]
    return f". Did you mean {close[0]}?" if close else ""


def one_of(*names: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in names:
            rule = f"must be one of {', '.join(names)}, got {text}"
            raise argparse.ArgumentTypeError(rule + suggestion(text, names))
        return text

    return convert


def sizes(text: str) -> tuple[int, ...]:
    """The numbers in a value of ``--image-size``, such as 224 or 64x64x32."""
    return tuple(int(each) for each in text.split("x"))


def image_size(text: str) -> int | str:
    """A number of pixels as it is; a number for each dimension, or ``none``, as text."""
    parts = text.split("x")
    if text != KEPT and not (len(parts) <= 3 and all(each.isdecimal() and int(each) > 0 for each in parts)):
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, one for each dimension such as 64x64x32, or {KEPT}, got {text}"
        )
    return int(text) if len(parts) == 1 and text != KEPT else text


def number_of(*numbers: int) -> Callable[[str], int]:
    choose = one_of(*map(str, numbers))
    return lambda text: int(choose(text))


def model_name(text: str) -> str:
    known = public_names()
    if text not in known:
        rule = f"must be a name in lazytorch.models.list_models(), got {text}"
        raise argparse.ArgumentTypeError(rule + suggestion(text, known))
    return text


def public_names() -> list[str]:
    """What lazytorch.models lists in ``__all__``: every model, and a few functions that are none."""
    package = importlib.util.find_spec("lazytorch")
    assert package is not None
    assert package.origin is not None
    names = []
    for path in sorted(Path(package.origin).with_name("models").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names += [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return [each for each in names if each.islower()]


def kind_of(data: str) -> tuple[str, str]:
    """What kind of data ``--data`` names, and what follows the colon."""
    kind, _, rest = data.partition(":")
    return kind, rest


def data_set(text: str) -> str:
    kind, rest = kind_of(text)
    if kind not in KINDS or bool(rest) != bool(KINDS[kind]) or text.endswith(":"):
        kinds = [f"{each}:{what}" if what else each for each, what in KINDS.items()]
        rule = f"must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {text}"
        shapes = [f"{each}:{rest}" if what and rest else each for each, what in KINDS.items()]
        if Path(text).is_file() or (Path(text).is_dir() and any(Path(text).glob("*.npy"))):
            meant = f". Did you mean arrays:{text}?"
        else:
            meant = f". Did you mean folder:{text}?" if Path(text).is_dir() else suggestion(text, shapes)
        raise argparse.ArgumentTypeError(rule + meant)
    return text


AXES = ("depth", "height", "width", "length")  # of volumes, images and signals


def axes(text: str) -> str:
    names = text.split(",")
    for name in names:
        if name not in AXES:
            rule = f"must be names of {', '.join(AXES[:-1])} or {AXES[-1]}, with commas between them, got {text}"
            raise argparse.ArgumentTypeError(rule + suggestion(name, AXES))
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"must name each axis once, got {text}")
    return text


def assignment(text: str) -> tuple[str, Any]:
    """``dropout=0.1`` as a name and a Python value."""
    name, sign, value = text.partition("=")
    try:
        if not (sign and name.isidentifier()):
            raise ValueError
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(f"must be like dropout=0.1, a name and a Python value, got {text}") from None
