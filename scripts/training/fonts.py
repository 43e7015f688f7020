"""Names in any script, for pictures: the fonts that have their characters, and what to draw where none has."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # which Matplotlib brings along


@functools.cache
def characters(family: str) -> frozenset[int]:
    """The characters that a family of fonts has; none if it cannot be read."""
    upright = {"400", "normal", "regular"}
    files = [
        (each.style != "normal", str(each.weight) not in upright, each.fname)
        for each in font_manager.fontManager.ttflist
        if each.name == family
    ]
    with contextlib.suppress(Exception):  # fonts of a system are of many kinds
        return frozenset(FT2Font(min(files)[-1]).get_charmap())
    return frozenset()


def families(names: Iterable[str]) -> list[str]:
    """Families of fonts that are installed, in the order in which they are to be tried for ``names``."""
    missing = {ord(each) for name in names for each in name if each.isprintable()} - characters(DEFAULT)
    chosen = [DEFAULT]
    installed = {each.name for each in font_manager.fontManager.ttflist}
    # The fonts of last resort have a box for every character.
    for family in sorted(each for each in installed if "lastresort" not in each.lower().replace(" ", "")):
        if not missing:
            break
        if found := missing & characters(family):
            chosen.append(family)
            missing -= found
    return chosen


def drawable(name: str) -> str:
    r"""``name`` with Python's escapes (``\u732b``) for characters that no chosen font has, or that do not print."""
    known = frozenset().union(*(characters(family) for family in matplotlib.rcParams["font.family"]))
    return "".join(
        each if each.isprintable() and ord(each) in known else each.encode("unicode_escape").decode() for each in name
    )


@contextmanager
def for_names(names: Iterable[str]) -> Iterator[None]:
    """Draw text as it is: in fonts that have its characters, and without formulas between dollar signs."""
    with matplotlib.rc_context({"font.family": families(names), "text.parse_math": False}):
        yield
