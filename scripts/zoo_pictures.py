"""The charts of the zoo: a point for each model, as SVG for light and dark pages; see scripts/zoo_pages.py."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Axis", "Point", "chart", "logarithmic", "percent"]

WIDTH = 640
LEGEND = 22  # height of a row of the legend


class Axis(NamedTuple):
    """An axis: its label, its limits, the labels of its ticks by value, and whether it is logarithmic."""

    label: str
    low: float
    high: float
    ticks: dict[float, str]
    log: bool

    def place(self, value: float, start: float, end: float) -> float:
        """The position of ``value`` on an axis from ``start`` to ``end``."""
        low, high, value = map(math.log10 if self.log else float, (self.low, self.high, value))
        return round(start + (end - start) * (value - low) / (high - low), 1)


class Point(NamedTuple):
    """The point of a model; ``title`` is its tooltip."""

    name: str
    kind: str
    x: float
    y: float
    title: str


def logarithmic(label: str, values: Sequence[float]) -> Axis:
    """The axis of counts of parameters or MACs."""
    low, high = min(values) / 1.3, max(values) * 1.3
    names = {10.0**power: f"{10 ** (power - 6)} M" if power < 9 else f"{10 ** (power - 9)} G" for power in range(6, 13)}
    return Axis(label, low, high, {each: name for each, name in names.items() if low <= each <= high}, log=True)


def percent(label: str, values: Sequence[float]) -> Axis:
    """The axis of an accuracy in percent."""
    low, high = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5)
    return Axis(label, low, high, {float(each): f"{each} %" for each in range(low, high + 1, 5)}, log=False)


def chart(
    points: Iterable[Point],
    x_axis: Axis,
    y_axis: Axis,
    colours: Mapping[str, str],
    labelled: Mapping[str, str],
    *,
    legend: bool = True,
) -> str:
    """The picture.

    Args:
        points: The models.
        x_axis: The horizontal axis.
        y_axis: The vertical axis.
        colours: The colours by kind.
        labelled: The models whose names are shown, ``"above"`` to the left of the point, or ``"below"`` to its right.
        legend: Whether the chart contains a legend; otherwise the page has one.
    """
    rows = math.ceil(len(colours) / 3) if legend else 0
    left, right, top = 66, WIDTH - 24, 30 + LEGEND * rows
    bottom = top + 350
    label = f"{y_axis.label[:1].upper()}{y_axis.label[1:]} against {x_axis.label}"
    # A separate SVG file uses the system's light or dark mode; a chart within a page uses that of the page.
    style = "svg:root{color:#24292f}@media(prefers-color-scheme:dark){svg:root{color:#e6edf3}}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 52}" role="img" font-size="13" '
        f'font-family="system-ui, sans-serif" fill="currentColor" aria-label="{escape(label)}">',
        f"<style>{style}</style>",
    ]

    def line(x1: float, y1: float, x2: float, y2: float) -> str:
        return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor" stroke-opacity=".2"/>'

    def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>'

    for value, words in x_axis.ticks.items():
        x = x_axis.place(value, left, right)
        parts += [line(x, top, x, bottom), text(x, bottom + 20, words)]
    for value, words in y_axis.ticks.items():
        y = y_axis.place(value, bottom, top)
        parts += [line(left, y, right, y), text(left - 8, y + 4, words, "end")]
    parts.append(text((left + right) / 2, bottom + 44, x_axis.label))
    parts.append(text(8, top - 12, y_axis.label, "start"))
    for index, (kind, colour) in enumerate(colours.items() if legend else ()):
        x, y = 14 + 210 * (index % 3), 18 + LEGEND * (index // 3)
        parts += [f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/>', text(x + 11, y, kind, "start")]
    names = []
    for point in points:
        x, y = x_axis.place(point.x, left, right), y_axis.place(point.y, bottom, top)
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="5" fill="{colours[point.kind]}" fill-opacity=".75" stroke="currentColor" '
            f'stroke-opacity=".3" data-name="{point.name}"><title>{escape(point.title)}</title></circle>'
        )
        if point.name in labelled:
            x, y, anchor = (x - 7, y - 9, "end") if labelled[point.name] == "above" else (x + 7, y + 16, "start")
            names.append(text(x, round(y, 1), point.name, anchor, ' font-size="12" class="name"'))
    return "\n".join([*parts, *names, "</svg>"]) + "\n"
