"""Values that runs should have measured, and what they have written of them."""

import csv
from pathlib import Path

import numpy
import sklearn.metrics
import torch
from torch.nn import functional as F

import lazytorch
from scripts.training.samples import Samples
from tests.scripts.runs import options_of

PLAIN = ["--batch-size", "8", "--image-size", "16", "--device", "cpu", "--seed", "3", "--epochs", "3"]
PLAIN += ["--model-option", "width=0.1", "final_channels=16"]


def expected(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """scikit-learn's values."""
    if labels.dim() == 2:
        scores, truth = logits.sigmoid().numpy(), labels.numpy().astype(int)
        predicted = (scores > 0.5).astype(int)
        pairs = list(zip(truth.T, predicted.T, strict=True))
        return {
            "loss": F.binary_cross_entropy_with_logits(logits, labels).item(),
            "accuracy": (predicted == truth).mean(),
            "balanced_accuracy": numpy.mean([sklearn.metrics.balanced_accuracy_score(*pair) for pair in pairs]),
            "f1": sklearn.metrics.f1_score(truth, predicted, average="macro"),
            "auroc": sklearn.metrics.roc_auc_score(truth, scores, average="macro"),
            "map": sklearn.metrics.average_precision_score(truth, scores, average="macro"),
        }
    scores, truth, predicted = logits.softmax(1).numpy(), labels.numpy(), logits.argmax(1).numpy()
    auroc = [sklearn.metrics.roc_auc_score(truth == index, scores[:, index]) for index in range(scores.shape[1])]
    return {
        "loss": F.cross_entropy(logits, labels).item(),
        "accuracy": sklearn.metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(truth, predicted),
        "f1": sklearn.metrics.f1_score(truth, predicted, average="macro"),
        "auroc": numpy.mean(auroc),
    }


def rows_of(output: Path) -> list[dict[str, float]]:
    with (output / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def logits_of(output: Path, weights: str, source, data) -> torch.Tensor:
    """The outputs of weights of a run, computed without the script's loops."""
    given = options_of("--config", str(output / "options.yaml"))
    model = lazytorch.models.mobilenet_v2(**given.model_option, weights=output / weights).eval()
    images = Samples(source, data, given, training=False)
    with torch.no_grad():
        return torch.cat([model(images[0, index][0][None]) for index in range(len(source.labels))])
