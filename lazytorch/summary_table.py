"""The result of ``summary``: a table as text, HTML or Markdown, a bar chart, and a comparison of two models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazytorch._lazy.inputs import LAYOUTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["Comparison", "LayerSummary", "Summary"]

COLUMNS = ("layer", "output shape", "parameters", "MACs")
INDENT = "  "


@dataclass
class LayerSummary:
    """One module of a summary.

    Attributes:
        name: The module's name within the model; ``""`` for the model.
        kind: The name of its class; for a lazy module, of the class that it builds.
        output_shapes: The shapes of the tensors that its last call returned; empty if it was not called.
        parameters: The number of its parameters, including those of its submodules.
        macs: Multiply-accumulates (MACs) of all its calls, including those of its submodules.
    """

    name: str
    kind: str
    output_shapes: list[tuple[int, ...]]
    parameters: int
    macs: int = 0

    @property
    def depth(self) -> int:
        """The number of modules that contain it."""
        return self.name.count(".") + 1 if self.name else 0

    def below(self, name: str) -> "LayerSummary":
        """A copy of this row for the same module inside a module called ``name``."""
        inner = f"{name}.{self.name}" if name and self.name else name or self.name
        return LayerSummary(inner, self.kind, list(self.output_shapes), self.parameters, self.macs)

    @property
    def label(self) -> str:
        """The last part of its name, and its class."""
        return f"{self.name.rpartition('.')[2]}: {self.kind}" if self.name else self.kind

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        return INDENT * self.depth + self.label, shapes_of(self), f"{self.parameters:,}", f"{self.macs:,}"


class TableOfLayers:
    """A table with a line above and a line below it."""

    header: str
    totals: str
    columns: tuple[str, ...]
    text_columns = 2  # the number of columns before the numbers

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of the table."""
        raise NotImplementedError

    def __str__(self) -> str:
        rows = [self.columns, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(
                f"{cell:{'>' if index >= self.text_columns else ''}{width}}"
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
        return "\n".join([self.header, *lines, self.totals])

    __repr__ = __str__

    def to_markdown(self) -> str:
        """The table in Markdown, with the lines above and below it as paragraphs."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(each.replace(INDENT, '&emsp;').replace('|', chr(92) + '|') for each in cells)} |"

        sides = ["--:" if index >= self.text_columns else "--" for index in range(len(self.columns))]
        table = "\n".join([line(self.columns), f"|{'|'.join(sides)}|", *map(line, self.rows())])
        header = self.header.replace("\n", "\n\n")
        return f"{header}\n\n{table}\n\n{self.totals}\n"

    def _repr_html_(self) -> str:
        import html  # not at the top: it takes 1 ms, of the 30 ms that importing lazytorch takes

        left, right = "text-align: left; white-space: pre", "text-align: right"
        styles = [right if index >= self.text_columns else left for index in range(len(self.columns))]

        def line(cells: Sequence[str], tag: str) -> str:
            row = (
                f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True)
            )
            return f"<tr>{''.join(row)}</tr>"

        header = html.escape(self.header).replace("\n", "<br>")
        body = "".join(line(row, "td") for row in self.rows())
        return (
            f"<p>{header}</p><table><thead>{line(self.columns, 'th')}</thead>"
            f"<tbody>{body}</tbody></table><p>{html.escape(self.totals)}</p>"
        )

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.header, caption=self.totals)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index >= self.text_columns else "left")
        for row in self.rows():
            table.add_row(*map(Text, row))
        return table


class Summary(TableOfLayers):
    """A table of a model's layers: text if printed, HTML in a notebook, a formatted table if printed by rich.

    Attributes:
        layers: The rows of all modules, the model first, including those that the table does not show.
        parameters: The number of parameters; a shared parameter is counted once.
        trainable_parameters: The number of parameters that require gradients.
        macs: Multiply-accumulates (MACs) of convolutions, linear layers and attention in one call.
        input_shapes: The shapes of the inputs.
    """

    columns = COLUMNS

    def __init__(
        self,
        layers: list[LayerSummary],
        trainable_parameters: int,
        depth: int | None,
        input_shapes: Sequence[tuple[int, ...]] = (),
    ) -> None:
        self.layers = layers
        self.input_shapes = list(input_shapes)
        self.parameters = layers[0].parameters
        self.trainable_parameters = trainable_parameters
        self.macs = layers[0].macs
        self._depth = depth

    @property
    def shown(self) -> list[LayerSummary]:
        """The layers in the table."""
        return [layer for layer in self.layers if self._depth is None or layer.depth <= self._depth]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of the table."""
        return (layer.cells for layer in self.shown)

    @property
    def header(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The line above the table: the shapes of the inputs, and the layout of the first if convolutions read it."""
        kinds = {layer.kind for layer in self.layers}
        dims = len(self.input_shapes[0]) - 2 if self.input_shapes else 0
        read = f", read as {LAYOUTS[dims]}" if f"Conv{dims}d" in kinds else ""
        return f"input: {', '.join(map(str, self.input_shapes)) or '-'}{read}"

    @property
    def totals(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The line below the table."""
        return f"parameters: {self.parameters:,} ({self.trainable_parameters:,} trainable), MACs: {self.macs:,}"

    @property
    def stages(self) -> list[LayerSummary]:
        """The children of the model; a child with more than half of the parameters is replaced by its own children."""
        children = [layer for layer in self.layers if layer.depth == 1]
        inner = {
            each.name: [layer for layer in self.layers if layer.depth == 2 and layer.name.startswith(f"{each.name}.")]
            for each in children
            if 2 * each.parameters > self.parameters
        }
        return [
            layer for each in children for layer in inner.get(each.name) or [each] if layer.parameters or layer.macs
        ]

    def compare(self, other: "Summary") -> "Comparison":
        """A table that compares this model with another one."""
        if not isinstance(other, Summary):
            raise TypeError(f"Summary.compare: the other must be a Summary, got {type(other).__name__}.")
        return Comparison(self, other)

    def plot(self) -> "Figure":
        """A bar chart of the parameters and MACs of each stage; requires matplotlib (``lazytorch[plot]``)."""
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "Summary.plot: matplotlib must be installed. Install it with pip install 'lazytorch[plot]'."
            ) from error
        stages = self.stages[::-1]
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 1 + 0.3 * len(stages)), sharey=True, layout="constrained")
        for axis, name, what in zip(axes, ("parameters", "macs"), ("parameters", "MACs"), strict=True):
            bars = axis.barh([each.name for each in stages], [getattr(each, name) for each in stages], height=0.7)
            axis.bar_label(bars, [share(getattr(each, name), getattr(self, name)) for each in stages], padding=3)
            axis.set(xlabel=f"{what}, {getattr(self, name):,} in all")
            axis.margins(x=0.15)
        figure.suptitle(f"{self.layers[0].kind}, {self.header}")
        return figure

    def _repr_html_(self) -> str:
        import html

        def bar(value: int, total: int) -> str:
            width = f"{100 * value / max(total, 1):.1f}%"
            filled = f'<div style="background: #4c72b0; height: 0.8em; width: {width}"></div>'
            whole = f'<div style="display: inline-block; width: 60%">{filled}</div>'  # the text is next to the bar
            return f'<td style="min-width: 12em; text-align: left">{whole} {share(value, total)}</td>'

        rows = "".join(
            f'<tr><td style="text-align: left">{html.escape(each.name)}</td>{bar(each.parameters, self.parameters)}'
            f"{bar(each.macs, self.macs)}</tr>"
            for each in self.stages
        )
        head = "".join(f'<th style="text-align: left">{name}</th>' for name in ("stage", "parameters", "MACs"))
        bars = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return super()._repr_html_() + bars


class Comparison(TableOfLayers):
    """The tables of two models side by side, with ``-`` for a layer that a model does not have.

    Args:
        first: The summary of one model.
        second: The summary of the other model.
    """

    columns = (
        "layer",
        "output shape (1)",
        "output shape (2)",
        *(f"{name} ({n})" for name in COLUMNS[2:] for n in (1, 2)),
    )

    text_columns = 3

    def __init__(self, first: Summary, second: Summary) -> None:
        self.first, self.second = first, second
        self.header = f"(1) {first.layers[0].kind}, {first.header}\n(2) {second.layers[0].kind}, {second.header}"
        figures = [
            f"{what}: {one:,} and {two:,}, {two / one:.2f} times" if one else f"{what}: {one:,} and {two:,}"
            for what, one, two in (
                ("parameters", first.parameters, second.parameters),
                ("MACs", first.macs, second.macs),
            )
        ]
        self.totals = "; ".join(figures)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of the table: the layers of the first model, with layers that only the second has in between."""
        ones, twos = ({layer.name: layer for layer in each.shown} for each in (self.first, self.second))
        names = list(ones)
        place = 0
        for name in twos:
            if name not in ones:
                names.insert(place, name)
            place = names.index(name) + 1
        for name in names:
            both: tuple[Any, Any] = ones.get(name), twos.get(name)
            labels = list(dict.fromkeys(each.label for each in both if each is not None))
            depth = next(each.depth for each in both if each is not None)
            label = labels[0] + "".join(f" / {each.rpartition(': ')[2]}" for each in labels[1:])
            shapes = ("-" if each is None else shapes_of(each) for each in both)
            figures = (
                "-" if each is None else f"{getattr(each, what):,}" for what in ("parameters", "macs") for each in both
            )
            yield (INDENT * depth + label, *shapes, *figures)


def shapes_of(layer: LayerSummary) -> str:
    return ", ".join(map(str, layer.output_shapes)) or "-"


def share(value: int, total: int) -> str:
    return f"{100 * value / max(total, 1):.1f} %"
