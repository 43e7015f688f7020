"""The loss that training minimizes: cross-entropy, or binary cross-entropy for multi-label targets."""

from typing import Any

import numpy
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.training.errors import RunError, listed
from scripts.training.options import Options
from scripts.training.sources import Data


class TrainingLoss(nn.Module):
    """The mean loss of a batch.

    With ``--class-weights balanced`` the loss of each sample is multiplied by a weight that is inversely proportional
    to the frequency of its class; the weights of the training samples have a mean of 1. For multi-label targets, each
    class has such weights for the samples that have it and for those that do not.

    Args:
        data: The training split has the labels.
        options: The options of the run.

    Shape:
        - logits: ``(samples, classes)``
        - targets: ``(samples,)`` or, if mixed, ``(samples, classes)``; multi-label: ``(samples, classes)``
    """

    def __init__(self, data: Data, options: Options) -> None:
        super().__init__()
        self.multi_label, self.label_smoothing = data.multi_label, options.label_smoothing
        present, absent = None, None
        if options.class_weights == "balanced":
            present, absent = (multi_label_weights if data.multi_label else class_weights)(data)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        present: Tensor | None = self.present  # pyright: ignore[reportAssignmentType]
        absent: Tensor | None = self.absent  # pyright: ignore[reportAssignmentType]
        if self.multi_label:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            ratio = None if present is None or absent is None else present / absent
            return F.binary_cross_entropy_with_logits(logits, targets.to(logits), absent, pos_weight=ratio)
        if present is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        # The mean of PyTorch would be divided by the weights of the batch, which differ from batch to batch.
        total = F.cross_entropy(logits, targets, present, label_smoothing=self.label_smoothing, reduction="sum")
        return total / len(logits)

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How many samples are classified correctly; of a multi-label sample, the fraction of the classes."""
        if self.multi_label:
            return ((logits > 0) == (targets > 0.5)).float().mean(dim=1).sum()
        truth = targets if targets.dim() == 1 else targets.argmax(dim=1)
        return (logits.argmax(dim=1) == truth).sum()


def balanced(labels: Any, classes: int) -> Tensor:
    weights = compute_class_weight("balanced", classes=numpy.arange(classes), y=labels)
    return torch.tensor(weights, dtype=torch.float32)


def class_weights(data: Data) -> tuple[Tensor, None]:
    """The weight of each class."""
    return balanced(numpy.asarray(data.train.labels), len(data.classes)), None


def multi_label_weights(data: Data) -> tuple[Tensor, Tensor]:
    """For each class, the weight of the samples that have it, and of those that do not.

    Raises:
        RunError: If all or no training samples have a class.
    """
    labels = numpy.asarray(data.train.labels) > 0.5
    counts = labels.sum(axis=0)
    constant = [data.classes[index] for index in numpy.flatnonzero((counts == 0) | (counts == len(labels)))]
    if constant:
        raise RunError(
            f"--class-weights: balanced needs training samples with each class and without it, got all or none for "
            f"{listed(constant)}. Use --class-weights none."
        )
    weights = torch.stack([balanced(column.astype(int), 2) for column in labels.T])
    return weights[:, 1], weights[:, 0]
