"""Pictures of a run: its curves, its confusion matrix or matrices, its worst mistakes."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy
from torch import Tensor

from scripts.training import sample_pictures
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


AXES = {"accuracy": "accuracy, %", "loss": "loss", "auroc": "area under the ROC curve"}
AXES |= {"map": "mean average precision", "f1": "macro F1", "balanced_accuracy": "balanced accuracy"}


def curves(history: list[dict[str, float]], title: str, monitor: str, best: dict[str, float]) -> Figure:
    """Loss, accuracy and, if it is neither, the monitored metric over the epochs, side by side.

    Args:
        history: The metrics of each epoch; those of the training split are its loss and accuracy.
        title: What is shown.
        monitor: The metric that chooses the best epoch.
        best: The best one of ``history``; a vertical line marks it.
    """
    epochs = [row["epoch"] for row in history]
    shown = list(dict.fromkeys(["loss", "accuracy", monitor]))
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 4), layout="constrained")
    for axis, metric in zip(axes, shown, strict=True):
        scale = 100 if metric == "accuracy" else 1
        for split, name, style in (("train", "training", "--"), ("val", "validation", "-")):
            if f"{split}_{metric}" in history[0]:
                values = [scale * row[f"{split}_{metric}"] for row in history]
                label = f"{name} ({values[-1]:.3g} at the end)"
                axis.plot(epochs, values, style, marker="o", markersize=3, label=label)
        if metric == monitor:
            label = f"best epoch: {best['epoch']} ({scale * best[f'val_{metric}']:.3g})"
            axis.axvline(best["epoch"], color="grey", linestyle=":", label=label)
        axis.set(xlabel="epoch", ylabel=AXES[metric])
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    last = history[-1][f"val_{monitor}"]
    text = f"validation {monitor.replace('_', ' ')} {f'{last:.2%}' if monitor == 'accuracy' else f'{last:.4f}'}"
    figure.suptitle(f"{shortened(title, 90)}: {text}")
    return figure


def confusion(counts: Any, classes: list[str], title: str) -> Figure:
    """Fractions of each true class that went to each class; with the counts, if there are few."""
    fractions = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= NUMBERED
    side = min(max(4.5, 0.45 * len(classes) + 2), 12)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    drawn = axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axis, label="fraction of the true class", shrink=0.8)
    axis.set(xlabel="predicted", ylabel="true")
    figure.suptitle(shortened(title, 90), fontsize=9, wrap=True)
    if few:
        short = [shortened(name, 24) for name in classes]
        axis.set_xticks(range(len(classes)), short, rotation=90 if max(map(len, short)) > 3 else 0)
        axis.set_yticks(range(len(classes)), short)
        for row, column in numpy.argwhere(counts > 0):
            colour = "white" if fractions[row, column] > 0.5 else "black"
            axis.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def multi_label_confusion(counts: Any, classes: list[str], title: str) -> Figure:
    """For each class, how many of the samples with it and without it were predicted to have it.

    Args:
        counts: (classes, 4): true positives, false negatives, false positives, true negatives.
        classes: Their names.
        title: What is shown.
    """
    pairs = counts.reshape(-1, 2, 2)
    fractions = (pairs / numpy.maximum(pairs.sum(axis=2, keepdims=True), 1)).reshape(-1, 4)
    height = min(max(3.0, 0.4 * len(classes) + 2), 12)
    figure, axis = pyplot.subplots(figsize=(7, height), layout="constrained")
    drawn = axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(drawn, ax=axis, label="fraction of its half of the row", shrink=0.8)
    columns = ("with it:\npredicted", "with it:\nmissed", "without it:\npredicted", "without it:\nnot predicted")
    axis.set_xticks(range(4), columns, fontsize=8)
    axis.axvline(1.5, color="black", linewidth=1)
    axis.set(ylabel="class")
    figure.suptitle(shortened(title, 90), fontsize=9, wrap=True)
    if len(classes) <= NUMBERED:
        axis.set_yticks(range(len(classes)), [shortened(name, 24) for name in classes])
        for row, column in numpy.ndindex(fractions.shape):
            colour = "white" if fractions[row, column] > 0.5 else "black"
            axis.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def several_classes(data: Data, index: int, label: int, predicted: int) -> str:
    """The true classes of a multi-label sample and, if that is a mistake, the class with the highest loss.

    Args:
        data: The validation split has the sample.
        index: Of the sample.
        label: The class with the highest loss, or -1 if the sample does not have it.
        predicted: The same class, or -1 if it was not predicted.
    """
    present = ", ".join(data.classes[place] for place in numpy.flatnonzero(data.val.labels[index]))
    text = shortened(present, 24) or "no class"
    if label == predicted:
        return text
    return f"{text}\n{'missed' if predicted < 0 else 'wrong'}: {shortened(data.classes[max(label, predicted)], 16)}"


def mistakes(worst: Tensor, data: Data, title: str) -> Figure:
    """The mistakes with the highest loss; if there are none, the correctly classified samples with the highest loss.

    Args:
        worst: Loss, index, label and prediction of samples, mistakes first.
        data: Whose validation split has them.
        title: What is shown.
    """
    wrong = worst[worst[:, 2] != worst[:, 3]]
    what = (
        "mistakes with the highest loss"
        if len(wrong)
        else "no mistakes; correctly classified samples with the highest loss"
    )
    shown = wrong if len(wrong) else worst
    look = sample_pictures.look(data)
    columns = min(look.columns, len(shown))
    rows = -(-len(shown) // columns)
    size = look.width * columns + 0.4, 2.2 * rows + 0.7
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    for axis in numpy.ravel(axes):
        axis.axis("off")
    for axis, (loss, index, label, predicted) in zip(numpy.ravel(axes), shown.tolist(), strict=False):
        sample_pictures.draw(axis, data.val.read(int(index)), data)
        if data.multi_label:
            classes = several_classes(data, int(index), int(label), int(predicted))
        else:
            truth, answer = (shortened(data.classes[int(each)], 20) for each in (label, predicted))
            classes = f"{truth}\n\N{RIGHTWARDS ARROW} {answer}"
        axis.set_title(f"{classes}\nloss {loss:.2g}", fontsize=8)
    meaning = "true \N{RIGHTWARDS ARROW} predicted"
    if data.multi_label:
        meaning = "true classes, and the class with the highest loss: missed, or wrongly predicted"
    note = f"\n{look.note}" if look.note else ""
    figure.suptitle(f"{shortened(title, 90)}\n{what} ({meaning}){note}", fontsize=9, wrap=True)
    return figure
