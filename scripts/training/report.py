"""What a run leaves beside its checkpoints: tables, pictures, weights, and a summary."""

import csv
import datetime
import io
import json
import math
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy
import sklearn
import timm
import torch
import torchmetrics
import torchvision
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

import lazytorch
from scripts.training import pictures
from scripts.training.files import write_whole
from scripts.training.module import Classifier
from scripts.training.options import Options, as_dict
from scripts.training.processes import warn
from scripts.training.sources import Data
from scripts.training.weights import input_shape, safetensors_file, unbuilt


class Logger(TensorBoardLogger):
    """Lightning's, without the ``$NAME`` and ``~`` that it looks for in the names of folders."""

    @property
    def log_dir(self) -> str:
        return str(Path(self.save_dir or "", str(self.version)))


class Progress(TQDMProgressBar):
    """Lightning's bar of an epoch, and the time that is left of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.since = (time.perf_counter(), 0)  # and the steps that were done by then

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self.since = (time.perf_counter(), self.trainer.fit_loop.total_batch_idx + 1)

    def init_train_tqdm(self) -> Any:
        """The bar, with epochs counted from one; Lightning sets a description that counts from zero."""
        bar = super().init_train_tqdm()
        describe = bar.set_description

        def set_description(desc: str | None = None, refresh: bool | None = True) -> None:
            describe(f"Epoch {self.trainer.current_epoch + 1}/{self.trainer.max_epochs}", refresh)

        bar.set_description = set_description
        return bar

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
        if best(pl_module.history, pl_module.monitor) is pl_module.history[-1]:
            write_whole(self.folder / "best.safetensors", content)


def best(history: list[dict[str, float]], monitor: str) -> dict[str, float]:
    """The first of the epochs with the best value of the monitored metric, and among them the lowest loss.

    An epoch for which the metric is not defined is worse than any other.
    """

    def key(row: dict[str, float]) -> tuple[float, float]:
        value = row[f"val_{monitor}"] * (1 if monitor == "loss" else -1)
        return math.inf if math.isnan(value) else value, row["val_loss"]

    return min(history, key=key)


def table(history: list[dict[str, float]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def weights_file(classifier: Classifier) -> bytes:
    """The evaluated weights, as ``get_model`` loads them."""
    return safetensors_file(classifier.evaluated_state(), classifier.description)


def write_report(folder: Path, classifier: Classifier, data: Data, options: Options) -> dict[str, Any]:
    """The summary, then the pictures; one that cannot be drawn is left out, with a message."""
    shape = input_shape(classifier.description)
    counts = lazytorch.summary(unbuilt(classifier.description), shape, spatial_dims=len(shape) - 2)
    summary = {
        "model": options.model,
        "data": options.data,
        **metrics_of(classifier, data),
        "training_images": len(data.train.labels),
        "validation_images": len(data.val.labels),
        **({} if data.test is None else {"test_images": len(data.test.labels)}),
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
                for each in (lazytorch, torch, torchvision, torchmetrics, timm, lightning, sklearn, numpy)
            },
        },
    }
    write_whole(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_pictures(folder, classifier, data, options)
    return summary


def metrics_of(classifier: Classifier, data: Data) -> dict[str, Any]:
    """The metrics of the last and the best epoch, and of the test split; those that are not defined are None."""
    history, monitor, validation = classifier.history, classifier.monitor, classifier.validation
    assert validation is not None
    found: dict[str, Any] = {"monitor": monitor}
    if history:
        chosen = best(history, monitor)
        found |= {"epochs": len(history), "best_epoch": chosen["epoch"]}
        found |= {f"best_val_{name}": defined(chosen[f"val_{name}"]) for name in validation.overall}
    for split, figures in (("val", validation), ("test", classifier.test)):
        if figures is not None:
            found |= {f"{split}_{name}": defined(value) for name, value in figures.overall.items()}
            found[f"{split}_per_class"] = [
                {"class": name, **{metric: defined(value) for metric, value in row.items()}}
                for name, row in zip(data.classes, figures.per_class, strict=True)
            ]
    return found


def defined(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def closing(summary: dict[str, Any]) -> str:
    """The monitored metric of the validation split and the test split, for the last message of a run."""
    monitor, texts = summary["monitor"], []
    for split, name in (("val", "validation"), ("test", "test")):
        if f"{split}_{monitor}" in summary:
            value = summary[f"{split}_{monitor}"]
            text = "undefined" if value is None else f"{value:.2%}" if monitor == "accuracy" else f"{value:.4f}"
            texts.append(f"{name} {monitor} {text}")
    return ", ".join(texts)


def sizes(data: Data, *, training: bool = True) -> str:
    """How many samples each split has, for a message."""
    splits = [(data.train, "training")] if training else []
    splits += [(data.val, "validation"), *([(data.test, "test")] if data.test is not None else [])]
    texts = [f"{len(source.labels)} {name}" for source, name in splits]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def write_pictures(folder: Path, classifier: Classifier, data: Data, options: Options) -> None:
    title = f"{options.model} on {options.data}"
    history, validation = classifier.history, classifier.validation
    assert validation is not None
    draw_confusion = pictures.multi_label_confusion if data.multi_label else pictures.confusion
    drawings = {
        "confusion.png": partial(draw_confusion, validation.confusion.numpy(), data.classes, title),
        "mistakes.png": partial(pictures.mistakes, validation.worst, data, title),
    }
    if history:
        drawings["curves.png"] = partial(
            pictures.curves, history, title, classifier.monitor, best(history, classifier.monitor)
        )
    for name, draw in drawings.items():
        try:
            content = pictures.png(draw, [title, *data.classes])
        except Exception as error:  # a picture is not worth the run
            (folder / name).unlink(missing_ok=True)
            warn(f"{folder / name} is left out, as it cannot be drawn ({type(error).__name__}: {error}).")
        else:
            write_whole(folder / name, content)


def is_whole(folder: Path) -> bool:
    """Whether a finished run has written everything."""
    return all((folder / name).is_file() for name in ("summary.json", "curves.png", "confusion.png", "mistakes.png"))
