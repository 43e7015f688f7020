"""The losses of scripts/train.py: weights of classes and multi-label targets."""

import pytest
import torch
from torch.nn import functional as F

from scripts.training.losses import TrainingLoss
from tests.scripts.counted import counted
from tests.scripts.runs import options_of


def test_balanced_weights_have_a_mean_of_one_and_balance_the_classes():
    data = counted()
    balanced, plain = (TrainingLoss(data, options_of("--class-weights", name)) for name in ("balanced", "none"))
    labels = torch.tensor(data.train.labels)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert plain(logits, labels).item() == pytest.approx(losses.mean().item())
    by_class = torch.stack([losses[labels == index].mean() for index in range(3)])
    assert balanced(logits, labels).item() == pytest.approx(by_class.mean().item())
    batches = [balanced(logits[rows], labels[rows]) for rows in torch.arange(40).split(8)]
    assert torch.stack(batches).mean().item() == pytest.approx(by_class.mean().item())
    mixed = balanced(logits, F.one_hot(labels, 3).float())  # as Mixup makes them
    assert mixed.item() == pytest.approx(by_class.mean().item())


def test_balanced_weights_of_multi_label_targets_balance_each_class():
    data = counted(multi_label=True)
    balanced = TrainingLoss(data, options_of("--class-weights", "balanced"))
    labels = torch.tensor(data.train.labels)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    halves = [losses[:, index][labels[:, index] == value].mean() for index in range(3) for value in (0, 1)]
    assert balanced(logits, labels).item() == pytest.approx(torch.stack(halves).mean().item())


def test_label_smoothing_of_multi_label_targets_moves_them_towards_a_half():
    loss = TrainingLoss(counted(multi_label=True), options_of("--label-smoothing", "0.2"))
    logits, labels = torch.tensor([[2.0, -1, 0]]), torch.tensor([[1.0, 0, 1]])
    want = F.binary_cross_entropy_with_logits(logits, torch.tensor([[0.9, 0.1, 0.9]]))
    torch.testing.assert_close(loss(logits, labels), want)
