"""Pictures of a run: its curves, its confusion matrix, its worst mistakes."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy
from torch import Tensor

from scripts.training import examples
from scripts.training.fonts import drawable, for_names
from scripts.training.sources import Data

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

NUMBERED = 20  # classes up to which a confusion matrix has its numbers written in


def png(draw: Callable[[], Figure], names: list[str]) -> bytes:
    """What ``draw`` draws, as a PNG file.

    Args:
        draw: Makes a figure.
        names: The text in it that may be in any script.
    """
    buffer = io.BytesIO()
    try:
        with for_names(names):
            draw().savefig(buffer, dpi=120, format="png")
    finally:
        pyplot.close("all")
    return buffer.getvalue()


def shortened(name: str, most: int) -> str:
    name = drawable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def curves(history: list[dict[str, float]], title: str) -> Figure:
    """Loss and accuracy over the epochs, side by side."""
    epochs = [row["epoch"] for row in history]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for split, style in (("train", "--"), ("test", "-")):
            values = [scale * row[f"{split}_{metric}"] for row in history]
            axis.plot(epochs, values, style, marker="o", markersize=3, label=f"{split} ({values[-1]:.3g} at the end)")
        axis.set(xlabel="epoch", ylabel="accuracy, %" if metric == "accuracy" else "cross-entropy loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"{shortened(title, 90)}: {history[-1]['test_accuracy']:.2%} of the test images")
    return figure


def confusion(counts: Any, classes: list[str], title: str) -> Figure:
    """Shares of each true class that went to each class; with the counts, if there are few."""
    shares = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= NUMBERED
    side = min(max(4.5, 0.45 * len(classes) + 2), 12)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    drawn = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axis, label="share of the true class", shrink=0.8)
    axis.set(xlabel="predicted", ylabel="true")
    figure.suptitle(shortened(title, 90), fontsize=9, wrap=True)
    if few:
        short = [shortened(name, 24) for name in classes]
        axis.set_xticks(range(len(classes)), short, rotation=90 if max(map(len, short)) > 3 else 0)
        axis.set_yticks(range(len(classes)), short)
        for row, column in numpy.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def mistakes(worst: Tensor, data: Data, title: str) -> Figure:
    """The mistakes with the highest loss, that one first; if there are none, the right answers with the highest.

    Args:
        worst: Loss, index, label and prediction of images, mistakes first.
        data: Whose test images they are.
        title: What is shown.
    """
    wrong = worst[worst[:, 2] != worst[:, 3]]
    what = "mistakes with the highest loss" if len(wrong) else "no mistakes; right answers with the highest loss"
    shown = wrong if len(wrong) else worst
    look = examples.look(data)
    columns = min(look.columns, len(shown))
    rows = -(-len(shown) // columns)
    size = look.width * columns + 0.4, 2.2 * rows + 0.7
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    for axis in numpy.ravel(axes):
        axis.axis("off")
    for axis, (loss, index, label, predicted) in zip(numpy.ravel(axes), shown.tolist(), strict=False):
        examples.draw(axis, data.val.read(int(index)), data)
        if data.multi_label:
            present = [data.classes[place] for place in numpy.flatnonzero(data.val.labels[int(index)])]
            classes = shortened(", ".join(present), 24) or "no class"
        else:
            truth, answer = (shortened(data.classes[int(each)], 20) for each in (label, predicted))
            classes = f"{truth}\n\N{RIGHTWARDS ARROW} {answer}"
        axis.set_title(f"{classes}\nloss {loss:.2g}", fontsize=8)
    meaning = "true classes" if data.multi_label else "true \N{RIGHTWARDS ARROW} predicted"
    note = f"\n{look.note}" if look.note else ""
    figure.suptitle(f"{shortened(title, 90)}\n{what} ({meaning}){note}", fontsize=9, wrap=True)
    return figure
