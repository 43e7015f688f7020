"""summary: every layer's shape, parameters and multiply-adds, of a model that stays as it is."""

import copy
import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lazytorch.become import HOOKS
from lazytorch.lazy_module import LazyModule, watching_builds
from lazytorch.materialize import is_shape, placement, run_on_shapes
from lazytorch.shapes import Shapes
from lazytorch.tree import modules_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LayerSummary", "Summary", "summary"]

COLUMNS = ("layer", "output shape", "parameters", "multiply-adds")


@dataclass
class LayerSummary:
    """What is known of one module.

    Attributes:
        name: Its name within the model; ``""`` for the model.
        kind: The class that it is, or becomes.
        output_shapes: The shapes of the tensors that it returned, last; none if it was not called.
        parameters: Values in its parameters and in those of the modules below it.
        macs: Multiply-adds in it and in the modules below it, in all of its calls.
    """

    name: str
    kind: str
    output_shapes: list[tuple[int, ...]]
    parameters: int
    macs: int = 0

    @property
    def depth(self) -> int:
        """How many modules it is below the model."""
        return self.name.count(".") + 1 if self.name else 0

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As it stands in a table."""
        label = f"{self.name.rpartition('.')[2]}: {self.kind}" if self.name else self.kind
        shapes = ", ".join(map(str, self.output_shapes)) or "-"
        return "  " * self.depth + label, shapes, f"{self.parameters:,}", f"{self.macs:,}"


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
    skeleton = without_values(module).eval()
    counter: list[Shapes] = []
    running: list[tuple[nn.Module, int]] = []
    macs: dict[nn.Module, int] = {}
    output_shapes: dict[nn.Module, list[tuple[int, ...]]] = {}

    def enter(each: nn.Module, _: Any) -> None:
        running.append((each, counter[0].macs))

    def leave(each: nn.Module, _: Any, output: Any) -> None:
        entered, before = running.pop()
        while entered is not each:  # a call that failed, and was caught
            entered, before = running.pop()
        macs[each] = macs.get(each, 0) + counter[0].macs - before
        output_shapes[each] = [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]

    watched: set[nn.Module] = set()

    def watch(model: nn.Module) -> None:
        for each in modules_of(model):
            if each not in watched:
                watched.add(each)
                each.register_forward_pre_hook(enter, prepend=True)
                each.register_forward_hook(leave)

    watch(skeleton)
    try:
        with watching_builds(watch):
            run_on_shapes(skeleton, args, named, count_macs=counter.append)
    finally:
        for each in watched:  # or the skeleton and its hooks would hold each other until the next garbage collection
            each._forward_pre_hooks.clear()
            each._forward_hooks.clear()
    held: dict[nn.Module, set[nn.Parameter]] = {}
    layers = [
        LayerSummary(
            name,
            type(each).__name__,
            output_shapes.get(each, []),
            sum(map(Tensor.numel, parameters_below(each, held))),
            macs.get(each, 0),
        )
        for name, each in skeleton.named_modules()
    ]
    trainable = sum(parameter.numel() for parameter in skeleton.parameters() if parameter.requires_grad)
    return Summary(layers, trainable, depth)


def parameters_below(module: nn.Module, held: dict[nn.Module, set[nn.Parameter]]) -> set[nn.Parameter]:
    """The parameters in ``module`` and below it, each once; ``held`` has those of every module that was asked for."""
    if module not in held:
        own = {parameter for parameter in module._parameters.values() if parameter is not None}
        held[module] = own.union(*(parameters_below(part, held) for part in module.children()))
    return held[module]


def without_values(module: nn.Module) -> nn.Module:
    """A copy of ``module`` on the meta device, without copying what it holds."""
    memo: dict[int, Any] = {}
    for each in modules_of(module):
        # deepcopy takes what stands in its memo, which is many times faster than to find out what these are.
        hooks = (vars(each)[name] for name in HOOKS)
        memo.update({id(hook): type(hook)() for hook in hooks if not hook})
        if isinstance(each, LazyModule):
            memo.update(each._pending.copied_as())
        for tensor in (*each._parameters.values(), *each._buffers.values()):
            if tensor is not None and not torch.nn.parameter.is_lazy(tensor):
                empty = torch.empty_like(tensor, device="meta")
                is_parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    copied = copy.deepcopy(module, memo)
    for each in modules_of(copied):
        if isinstance(each, LazyModule):
            each._pending.device = torch.device("meta")
        else:
            each._apply(lambda tensor: tensor.to("meta"), recurse=False)
    return copied
