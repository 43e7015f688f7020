"""Train a model of the zoo on scikit-learn's handwritten digits: 1,797 real 8x8 images, one channel, ten classes.

    python scripts/train.py --epochs 1 --limit-batches 2     # a look at whether everything runs, in seconds
    python scripts/train.py                                  # at least 98 % accuracy, about a minute on two CPU cores
    python scripts/train.py --model mobilenet_v2 --seed 1 --output runs/seed1

One folder holds what a run leaves: ``metrics.csv`` (one row an epoch), ``curves.png``, ``model.pt`` (the weights, as a
``state_dict``) and ``summary.json``. It is written when the run is over, so it is whole or it is not there.
"""

import argparse
import csv
import json
import logging
import math
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import numpy
import sklearn
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2 as transforms

import lazytorch

matplotlib.use("Agg")
from matplotlib import pyplot

NUM_CLASSES = 10
MODELS = lazytorch.models.list_models()


def make_parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="mobilenet_v2", choices=MODELS, help="a function of lazytorch.models")
    parser.add_argument("--image-size", type=at_least(1), default=32, help="side to resize the images to, in pixels")
    parser.add_argument("--epochs", type=at_least(1), default=16, help="passes over the training images")
    parser.add_argument("--batch-size", type=at_least(2), default=32, help="images a step; 2 or more for BatchNorm")
    parser.add_argument(
        "--learning-rate", type=positive_float, default=4e-3, help="peak of the one-cycle schedule (AdamW)"
    )
    parser.add_argument("--weight-decay", type=positive_float, default=1e-2, help="of AdamW")
    parser.add_argument(
        "--limit-batches",
        type=at_least(1),
        metavar="STEPS",
        default=argparse.SUPPRESS,
        help="steps an epoch at most, in training and test, to see whether everything runs (default: no limit)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of the split, the weights and the order of the images"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/digits"), help="folder for the results; replaced")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text}")
        return int(text)

    return convert


def positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return value


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Each image shifted, turned and scaled a little, anew each time it is asked for."""

    def __init__(self, images: TensorDataset) -> None:
        self.images = images
        self.transform = transforms.RandomAffine(
            degrees=(-10, 10),
            translate=(0.08, 0.08),
            scale=(0.9, 1.1),
            interpolation=transforms.InterpolationMode.BILINEAR,
            fill=-1,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.images[index]
        return self.transform(image), label


def load_data(image_size: int, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Training images, and a stratified fifth held out for the test; pixels from -1 (paper) to 1 (ink)."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    pixels = F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", align_corners=False)
    train, test = train_test_split(numpy.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    targets = torch.tensor(labels)
    return TensorDataset(pixels[train], targets[train]), TensorDataset(pixels[test], targets[test])


class Classifier(lightning.LightningModule):
    """Trains ``model`` by cross-entropy, and keeps one row of metrics an epoch in ``history``."""

    def __init__(
        self, model: nn.Module, example_shape: tuple[int, ...], learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__()
        self.model = model
        self.example_shape = example_shape
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.history: list[dict[str, float]] = []

    def configure_model(self) -> None:
        lazytorch.materialize(self.model, self.example_shape)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def step(self, batch: list[Tensor], split: str) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        metrics = {f"{split}_loss": loss, f"{split}_accuracy": accuracy}
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        self.step(batch, "test")

    def on_train_epoch_end(self) -> None:
        values = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.history.append({"epoch": self.current_epoch + 1, **values})


def count_multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of the convolutions and linear layers for one input of ``shape``."""
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(shape))
    model.train(training)
    return counter.get_total_flops() // 2


def plot_curves(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Loss and accuracy over the epochs, side by side."""
    epochs = [row["epoch"] for row in history]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "--"), ("test", "-")):
            scale = 100 if metric == "accuracy" else 1
            values = [scale * row[f"{split}_{metric}"] for row in history]
            axis.plot(epochs, values, style, marker="o", markersize=3, label=f"{split} ({values[-1]:.3g} at the end)")
        axis.set(xlabel="epoch", ylabel="accuracy, %" if metric == "accuracy" else "cross-entropy loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_results(folder: Path, classifier: Classifier, summary: dict[str, Any]) -> None:
    """Write everything beside ``folder``, then put it there in one step."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        with (new / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(classifier.history[0]))
            writer.writeheader()
            writer.writerows(classifier.history)
        title = f"{summary['model']} on handwritten digits: {summary['test_accuracy']:.2%} of the test images"
        plot_curves(classifier.history, new / "curves.png", title)
        torch.save(classifier.model.state_dict(), new / "model.pt")
        (new / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def is_replaceable(folder: Path) -> bool:
    """Whether ``folder`` is absent, empty, or holds an earlier run: nobody's other work is deleted."""
    return not folder.exists() or (
        folder.is_dir() and (not any(folder.iterdir()) or (folder / "summary.json").exists())
    )


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not is_replaceable(options.output):
        parser.error(f"argument --output: must be a new folder or that of an earlier run, got {options.output}")
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=options.output.parent).cleanup()
    except OSError as error:
        parser.error(f"argument --output: must be where a folder can be made, got {options.output} ({error.strerror})")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the data is in memory
    warnings.filterwarnings("ignore", message=".*treespec.*is deprecated", category=FutureWarning)  # Lightning's own
    lightning.seed_everything(options.seed, verbose=False)
    train, test = load_data(options.image_size, options.seed)
    limit_batches = getattr(options, "limit_batches", None)
    if options.batch_size > len(train):
        parser.error(
            f"argument --batch-size: must be at most the {len(train)} training images, got {options.batch_size}"
        )
    model = getattr(lazytorch.models, options.model)(num_classes=NUM_CLASSES)
    shape = (1, *train.tensors[0].shape[1:])
    classifier = Classifier(model, shape, options.learning_rate, options.weight_decay)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        limit_train_batches=limit_batches,
        limit_val_batches=limit_batches,
        accelerator="auto",
        devices=1,
        callbacks=[TQDMProgressBar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = time.perf_counter()
    try:
        trainer.fit(
            classifier,
            DataLoader(Augmented(train), options.batch_size, shuffle=True, drop_last=True),
            DataLoader(test, 256),
        )
        stopped = trainer.interrupted or trainer.received_sigterm
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        stopped = True
    if stopped:
        sys.exit(f"\nStopped: nothing was written, {options.output} is as it was.")
    seconds = time.perf_counter() - start
    classifier.cpu()
    summary = {
        "model": options.model,
        "test_accuracy": classifier.history[-1]["test_accuracy"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": count_multiply_adds(model, shape),
        "input_shape": shape,
        "seconds": round(seconds, 2),
        "seed": options.seed,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "versions": {
            "python": platform.python_version(),
            **{each.__name__: each.__version__ for each in (lazytorch, torch, lightning, sklearn, numpy)},
        },
    }
    write_results(options.output, classifier, summary)
    print(f"test accuracy {summary['test_accuracy']:.2%} after {seconds:.0f} s; results in {options.output}")


if __name__ == "__main__":
    main()
