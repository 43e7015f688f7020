"""What a run leaves beside its checkpoints: tables, pictures, weights, and a summary."""

import csv
import datetime
import io
import json
import platform
import time
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import numpy
import safetensors.torch
import sklearn
import timm
import torch
import torchvision
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from torch import Tensor

import lazytorch
from scripts.training.data import Data
from scripts.training.files import write_whole
from scripts.training.module import Classifier, input_shape, unbuilt
from scripts.training.options import Options, as_dict

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

DESCRIPTION = "lazytorch"  # the entry of a weights file's metadata that says what rebuilds its model
NUMBERED = 20  # classes up to which a confusion matrix has its numbers written in


class Progress(TQDMProgressBar):
    """Lightning's bar of an epoch, and the time that is left of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.since = (time.perf_counter(), 0)  # and the steps that were done by then

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self.since = (time.perf_counter(), self.trainer.fit_loop.total_batch_idx + 1)

    def get_metrics(self, trainer: lightning.Trainer, pl_module: Any) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        start, before = self.since
        done = trainer.fit_loop.total_batch_idx + 1
        if done > before:
            steps = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
            seconds = (time.perf_counter() - start) / (done - before) * (steps - done)
            metrics["left"] = str(datetime.timedelta(seconds=round(seconds)))
        return metrics


class Reporting(Checkpoint):
    """Writes, after each epoch and before its checkpoint, the table of metrics and the weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        content = weights_file(pl_module)
        if not trainer.is_global_zero:
            return
        write_whole(self.folder / "metrics.csv", table(pl_module.history))
        write_whole(self.folder / "last.safetensors", content)
        if best(pl_module.history) is pl_module.history[-1]:
            write_whole(self.folder / "best.safetensors", content)


def best(history: list[dict[str, float]]) -> dict[str, float]:
    """The first of the epochs with the highest accuracy, and among them the lowest loss."""
    return min(history, key=lambda row: (-row["test_accuracy"], row["test_loss"]))


def table(history: list[dict[str, float]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def weights_file(classifier: Classifier) -> bytes:
    """The evaluated weights, as ``get_model`` loads them."""
    return safetensors_file(classifier.evaluated_state(), classifier.description)


def safetensors_file(state: dict[str, Tensor], description: dict[str, Any]) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return safetensors.torch.save(tensors, {DESCRIPTION: json.dumps(description)})


def write_report(folder: Path, classifier: Classifier, data: Data, options: Options) -> dict[str, Any]:
    """The pictures, and the summary last: where it is, the run is over."""
    title = f"{options.model} on {options.data}"
    history = classifier.history
    write_pictures(folder, classifier, data, title)
    if history:
        write_whole(folder / "curves.png", picture(curves(history, title)))
        figures = {
            "epochs": len(history),
            "test_loss": history[-1]["test_loss"],
            "test_accuracy": history[-1]["test_accuracy"],
            "best_epoch": best(history)["epoch"],
            "best_test_accuracy": best(history)["test_accuracy"],
        }
    else:
        figures = classifier.test_metrics()
    shape = input_shape(classifier.description)
    counts = lazytorch.summary(unbuilt(classifier.description), shape)
    summary = {
        "model": options.model,
        "data": options.data,
        **figures,
        "training_images": len(data.train.labels),
        "test_images": len(data.val.labels),
        "parameters": counts.parameters,
        "multiply_adds": counts.macs,
        "input_shape": shape,
        **{key: classifier.description[key] for key in ("mean", "deviation", "classes")},
        "seconds": round(classifier.elapsed(), 2),
        "seed": options.seed,
        "processes": classifier.trainer.world_size,
        "options": as_dict(options),
        "versions": {
            "python": platform.python_version(),
            **{
                each.__name__: str(each.__version__)
                for each in (lazytorch, torch, torchvision, timm, lightning, sklearn, numpy)
            },
        },
    }
    write_whole(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def write_pictures(folder: Path, classifier: Classifier, data: Data, title: str) -> None:
    write_whole(folder / "confusion.png", picture(confusion(classifier.confusion.numpy(), data.classes, title)))
    if len(classifier.mistakes):
        write_whole(folder / "mistakes.png", picture(mistakes(classifier.mistakes, data, title)))
    else:
        (folder / "mistakes.png").unlink(missing_ok=True)


def picture(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    pyplot.close(figure)
    return buffer.getvalue()


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
    figure.suptitle(f"{title}: {history[-1]['test_accuracy']:.2%} of the test images")
    return figure


def confusion(counts: Any, classes: list[str], title: str) -> Figure:
    """Shares of each true class that went to each class; with the counts, if there are few."""
    shares = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= NUMBERED
    side = min(max(4.5, 0.45 * len(classes) + 2), 12)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    drawn = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axis, label="share of the true class", shrink=0.8)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    if few:
        short = [name if len(name) <= 14 else f"{name[:13]}…" for name in classes]
        axis.set_xticks(range(len(classes)), short, rotation=90 if max(map(len, short)) > 3 else 0)
        axis.set_yticks(range(len(classes)), short)
        for row, column in numpy.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def mistakes(worst: Tensor, data: Data, title: str) -> Figure:
    """The images whose true class was thought least likely, that one first."""
    columns = min(6, len(worst))
    rows = -(-len(worst) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(1.7 * columns + 0.4, 2.1 * rows + 0.6), layout="constrained")
    for axis in numpy.ravel(axes):
        axis.axis("off")
    for axis, (loss, index, label, predicted) in zip(numpy.ravel(axes), worst.tolist(), strict=False):
        pixels = data.val.read(int(index)).permute(1, 2, 0).numpy()
        top = 255 if pixels.dtype == numpy.uint8 else 1.0
        axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=top)
        names = [data.classes[int(each)] for each in (label, predicted)]
        text = " \N{RIGHTWARDS ARROW} ".join(name if len(name) <= 9 else f"{name[:8]}…" for name in names)
        axis.set_title(f"{text}\nloss {loss:.2f}", fontsize=8)
    figure.suptitle(f"{title}: worst mistakes (true \N{RIGHTWARDS ARROW} predicted)", fontsize=9, wrap=True)
    return figure
