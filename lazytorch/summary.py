"""summary: every layer's shape, parameters and multiply-adds, of a model that stays as it is."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lazytorch.describing import LayerSummary, described
from lazytorch.drawing import is_untouched
from lazytorch.materialize import is_shape, placement

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LayerSummary", "Summary", "summary"]

COLUMNS = ("layer", "output shape", "parameters", "multiply-adds")


class Summary:
    """A table of a model's layers: text where it is printed, HTML in a notebook, colours where rich prints it.

    Attributes:
        layers: What is known of every module, the model first.
        parameters: Values in all parameters; one that is shared is counted once.
        trainable_parameters: Those of them that have gradients.
        macs: Multiply-adds of one call; those of convolutions, linear layers and attention are counted.
    """

    def __init__(self, layers: list[LayerSummary], trainable_parameters: int, depth: int | None) -> None:
        self.layers = layers
        self.parameters = layers[0].parameters
        self.trainable_parameters = trainable_parameters
        self.macs = layers[0].macs
        self._depth = depth

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """The cells of the table."""
        return (layer.cells for layer in self.layers if self._depth is None or layer.depth <= self._depth)

    @property
    def totals(self) -> str:
        """The line below the table."""
        return (
            f"parameters: {self.parameters:,} ({self.trainable_parameters:,} trainable), multiply-adds: {self.macs:,}"
        )

    def __str__(self) -> str:
        rows = [COLUMNS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{layer:{widths[0]}}  {shape:{widths[1]}}  {parameters:>{widths[2]}}  {macs:>{widths[3]}}".rstrip()
            for layer, shape, parameters, macs in rows
        ]
        return "\n".join([*lines, self.totals])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html  # takes a millisecond, of thirty that lazytorch takes in all

        def line(cells: tuple[str, ...], tag: str) -> str:
            styles = ["text-align: left; white-space: pre"] * 2 + ["text-align: right"] * 2
            row = (
                f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True)
            )
            return f"<tr>{''.join(row)}</tr>"

        body = "".join(line(row, "td") for row in self.rows())
        return (
            f"<table><thead>{line(COLUMNS, 'th')}</thead><tbody>{body}</tbody></table><p>{html.escape(self.totals)}</p>"
        )

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=self.totals)
        for column, side in zip(COLUMNS, ("left", "left", "right", "right"), strict=True):
            table.add_column(column, justify=side)  # pyright: ignore[reportArgumentType]
        for row in self.rows():
            table.add_row(*map(Text, row))
        return table


def summary(module: nn.Module, /, *inputs: Any, depth: int | None = None, **kwargs: Any) -> Summary:
    """What every layer of a model returns, holds and computes, for an input of that shape.

    The model stays as it is, lazy where it is lazy: its forward runs on a copy without values, in evaluation.

    Args:
        module: Any module.
        inputs: The forward's arguments. A tuple of ints such as ``(1, 3, 224, 224)`` stands for a tensor of that shape.
        depth: How far below the model the table goes; by default all the way.
        kwargs: The forward's keyword arguments, likewise.

    Raises:
        TypeError: If ``module`` is no module.
        ShapeInferenceError: If a layer cannot infer what it needs.

    Example:
        >>> import lazytorch
        >>> model = lazytorch.models.resnet18(num_classes=10)
        >>> lazytorch.summary(model, (1, 12, 64, 64), depth=1)
        layer                    output shape     parameters  multiply-adds
        Backbone                 (1, 10)          11,209,866    176,952,320
          stem: NamedSequential  (1, 64, 16, 16)      37,760     38,535,168
          stages: Sequential     (1, 512, 2, 2)   11,166,976    138,412,032
          final: Identity        (1, 512, 2, 2)            0              0
          head: NamedSequential  (1, 10)               5,130          5,120
        parameters: 11,209,866 (11,209,866 trainable), multiply-adds: 176,952,320
        >>> lazytorch.is_lazy(model)
        True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"summary: what is summarised must be a module, got {module!r}.")

    _, dtype = placement(module)

    def meta(value: Any) -> Any:
        if is_shape(value):
            return torch.empty(tuple(value), dtype=dtype, device="meta")
        return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), value)

    args, named = tuple(map(meta, inputs)), {name: meta(value) for name, value in kwargs.items()}
    if is_untouched(module):
        with contextlib.suppress(Exception):  # as a whole it will fail again, and say so in its own words
            return Summary(*described(module, args, named, by_parts=True), depth)
    return Summary(*described(module, args, named), depth)
