"""Metrics of one pass over a split: each sample counts once, in any number of processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import classification as torchmetrics

from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.sources import Data

WORST = 24  # samples that are kept to be shown
ABSENT = -1  # in place of a class in a row of ``Figures.worst``: the sample does not have the class
COUNTS = ("true_positives", "false_negatives", "false_positives", "true_negatives")
PER_CLASS = ("samples", "recall", "precision", "f1", "auroc")
PER_LABEL = ("samples", "accuracy", "balanced_accuracy", "recall", "precision", "f1", "auroc", "average_precision")


class Figures(NamedTuple):
    """What a pass over a split measures.

    Args:
        overall: The metrics of the split by name.
        per_class: The metrics of each class by name, in the order of the classes; NaN if a metric is not defined.
        confusion: (classes, classes), how many samples of each class (row) were predicted as each class (column);
            for multi-label targets (classes, 4), the ``COUNTS`` of each class.
        worst: (samples, 4), the loss, index, label and prediction of the samples with the highest losses, mistakes
            first. For multi-label targets, label and prediction are the class with the highest loss, or ``ABSENT``.
    """

    overall: dict[str, float]
    per_class: list[dict[str, float]]
    confusion: Tensor
    worst: Tensor


class Evaluation:
    """One pass over a split, as far as this process sees it.

    The area under the ROC curve and the average precision need all scores at once. Each process keeps those of its own
    samples in the memory of the host: 4 bytes for each sample and class, and twice that for a moment at the end. The
    scores of one class at a time are exchanged.

    Args:
        classes: How many classes there are.
        multi_label: Whether a sample has any number of classes instead of one.
    """

    def __init__(self, classes: int, *, multi_label: bool) -> None:
        self.classes, self.multi_label = classes, multi_label
        self.loss = torch.zeros((), dtype=torch.float64)
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.worst = torch.zeros(0, 4, dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add a batch."""
        logits, labels, indices = logits.detach().float().cpu(), labels.cpu(), indices.cpu()
        if self.multi_label:
            element = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            losses, scores = element.mean(dim=1), logits.sigmoid()
            predictions, labels = scores > 0.5, labels > 0.5
            shown = element.argmax(dim=1)  # the class that is most wrong
            rows = torch.arange(len(shown))
            label, prediction = (
                torch.where(each[rows, shown], shown, torch.full_like(shown, ABSENT)) for each in (labels, predictions)
            )
        else:
            losses, scores = F.cross_entropy(logits, labels, reduction="none"), logits.softmax(dim=1)
            predictions = logits.argmax(dim=1)
            label, prediction = labels, predictions
        self.loss += losses.sum().to(self.loss)
        self.scores.append(scores)
        self.labels.append(labels)
        self.predictions.append(predictions)
        rows = torch.stack([each.double() for each in (losses, indices, label, prediction)], dim=1)
        self.worst = worst(torch.cat([self.worst, rows]))

    def figures(
        self, sum_: Callable[[Tensor], Tensor], gather: Callable[[Tensor], Tensor], rank: int = 0, processes: int = 1
    ) -> Figures:
        """The metrics over all processes; every process gets the same.

        Args:
            sum_: The sum of a tensor over all processes, on the CPU.
            gather: The tensors of all processes, one after the other, on the CPU; their lengths may differ.
            rank: Which process this is. Each one computes the metrics of some of the classes.
            processes: How many there are.
        """
        scores, labels, predictions = (torch.cat(each) for each in (self.scores, self.labels, self.predictions))
        self.scores, self.labels, self.predictions = [], [], []
        loss = float(sum_(self.loss))
        rows = torch.zeros(processes, WORST, 4, dtype=torch.float64)
        rows[rank] = F.pad(self.worst, (0, 0, 0, WORST - len(self.worst)), value=-1)
        rows = sum_(rows).reshape(-1, 4)
        rows = worst(rows[rows[:, 0] >= 0])
        count = int(sum_(torch.tensor(len(labels))))
        if not self.multi_label:
            labels, predictions = gather(labels), gather(predictions)
        names: tuple[str, ...] = PER_LABEL if self.multi_label else PER_CLASS
        table = torch.zeros(self.classes, len(names), dtype=torch.float64)
        counts = torch.zeros(self.classes, len(COUNTS), dtype=torch.float64)
        for index in range(self.classes):
            score = gather(scores[:, index].contiguous())
            if self.multi_label:
                truth, predicted = gather(labels[:, index].contiguous()), gather(predictions[:, index].contiguous())
            else:
                truth, predicted = labels == index, predictions == index
            if index % processes == rank:
                found, counts[index] = metrics_of_a_class(
                    score, predicted.long(), truth.long(), multi_label=self.multi_label
                )
                table[index] = torch.tensor([found[name] for name in names], dtype=torch.float64)
        table, counts = sum_(table), sum_(counts)
        confusion = counts
        if not self.multi_label:
            confusion = torchmetrics.multiclass_confusion_matrix(
                predictions, labels, self.classes, validate_args=False
            ).double()
        per_class = [{**dict(zip(names, row, strict=True)), "samples": int(row[0])} for row in table.tolist()]
        overall = {"loss": loss / count, **averages(per_class, confusion, multi_label=self.multi_label)}
        return Figures(overall, per_class, confusion, rows)


def metrics_of_a_class(
    score: Tensor, predicted: Tensor, truth: Tensor, *, multi_label: bool
) -> tuple[dict[str, float], Tensor]:
    """The metrics of one class against the others, and its ``COUNTS``; NaN if they need samples that are not there."""
    unchecked: Any = {"validate_args": False}  # the checks take as long as the metrics
    counts = torchmetrics.binary_stat_scores(predicted, truth, **unchecked).double()
    true_positives, false_positives, true_negatives, false_negatives, samples = counts.tolist()
    with_it, without = samples > 0, samples < len(truth)
    nan = float("nan")
    found = {
        "samples": samples,
        "recall": float(torchmetrics.binary_recall(predicted, truth, **unchecked)) if with_it else nan,
        "precision": float(torchmetrics.binary_precision(predicted, truth, **unchecked)),
        "f1": float(torchmetrics.binary_f1_score(predicted, truth, **unchecked))
        if true_positives + false_positives + false_negatives
        else nan,
        "auroc": float(torchmetrics.binary_auroc(score, truth, **unchecked)) if with_it and without else nan,
    }
    if multi_label:
        specificity = float(torchmetrics.binary_specificity(predicted, truth, **unchecked)) if without else nan
        precision = float(torchmetrics.binary_average_precision(score, truth, **unchecked)) if with_it else nan
        found["accuracy"] = (true_positives + true_negatives) / len(truth)
        found["balanced_accuracy"] = (found["recall"] + specificity) / 2
        found["average_precision"] = precision
    return found, counts[[0, 3, 1, 2]]


def averages(per_class: list[dict[str, float]], confusion: Tensor, *, multi_label: bool) -> dict[str, float]:
    """The metrics of a split: the averages over the classes for which they are defined."""

    def mean(name: str) -> float:
        return float(torch.tensor([each[name] for each in per_class], dtype=torch.float64).nanmean())

    if multi_label:
        return {
            "accuracy": mean("accuracy"),
            "balanced_accuracy": mean("balanced_accuracy"),
            "f1": mean("f1"),
            "auroc": mean("auroc"),
            "map": mean("average_precision"),
        }
    return {
        "accuracy": float(confusion.trace() / confusion.sum()),
        "balanced_accuracy": mean("recall"),
        "f1": mean("f1"),
        "auroc": mean("auroc"),
    }


def monitored(data: Data, options: Options) -> str:
    """The metric by which the best epoch is chosen.

    Raises:
        RunError: If the data do not have the metric.
    """
    if options.monitor is None:
        return "auroc" if data.multi_label else "accuracy"
    if options.monitor == "map" and not data.multi_label:
        raise RunError(
            "--monitor: map is the average precision of multi-label targets, got targets of one class each. Use "
            "accuracy, balanced_accuracy, f1, auroc or loss."
        )
    return options.monitor


def worst(rows: Tensor) -> Tensor:
    """The mistakes, sorted by descending loss; then the correctly classified samples, in the same order."""

    def key(row: tuple[int, list[float]]) -> tuple[bool, float, float]:
        loss, index, label, prediction = row[1]
        return label == prediction, -loss, index

    order = sorted(enumerate(rows.tolist()), key=key)
    return rows[[index for index, _ in order[:WORST]]]
