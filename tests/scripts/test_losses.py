"""The losses of scripts/train.py: weights of classes, multi-label targets, Mixup and CutMix."""

import pytest
import torch
from torch.nn import functional as F

from scripts.training.losses import TrainingLoss
from scripts.training.mixing import Mixing
from tests.scripts.measured import given
from tests.scripts.memory import made


def test_balanced_weights_have_a_mean_of_one_and_balance_the_classes():
    data = made()
    balanced, plain = (TrainingLoss(data, given("--class-weights", name)) for name in ("balanced", "none"))
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
    data = made(multi_label=True)
    balanced = TrainingLoss(data, given("--class-weights", "balanced"))
    labels = torch.tensor(data.train.labels)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    halves = [losses[:, index][labels[:, index] == value].mean() for index in range(3) for value in (0, 1)]
    assert balanced(logits, labels).item() == pytest.approx(torch.stack(halves).mean().item())


def test_label_smoothing_of_multi_label_targets_moves_them_towards_a_half():
    loss = TrainingLoss(made(multi_label=True), given("--label-smoothing", "0.2"))
    logits, labels = torch.tensor([[2.0, -1, 0]]), torch.tensor([[1.0, 0, 1]])
    want = F.binary_cross_entropy_with_logits(logits, torch.tensor([[0.9, 0.1, 0.9]]))
    torch.testing.assert_close(loss(logits, labels), want)


@pytest.mark.parametrize(
    ("shape", "name"), [((6, 2, 9), "mixup"), ((6, 2, 5, 4), "cutmix"), ((6, 2, 3, 5, 4), "cutmix")]
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_targets_are_mixed_by_the_fractions_of_the_samples(shape, name, multi_label):
    data = made(multi_label=multi_label)
    # Sample i is filled with i: what it is made of can be read from its values.
    samples = torch.arange(6.0).reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
    labels = torch.tensor(data.train.labels[:6])
    targets = labels if multi_label else F.one_hot(labels, 3).float()
    torch.manual_seed(1)
    mixed, found = Mixing(data, given(f"--{name}", "1"))(samples, labels)
    assert mixed.shape == shape
    own = (mixed[1] if name == "mixup" else (mixed[1] == 1).float()).mean()  # 1 of sample 1, 0 of sample 0
    assert 0.05 < own < 0.95
    if name == "cutmix":  # the same rectangle in all channels and slices
        planes = mixed[1].flatten(0, -3)
        assert (planes == planes[0]).all()
    torch.testing.assert_close(found[1], own * targets[1] + (1 - own) * targets[0])


def test_without_mixing_samples_and_labels_are_as_they_were():
    samples, labels = torch.rand(4, 1, 8), torch.tensor([0, 1, 2, 0])
    mixed = Mixing(made(), given())(samples, labels)
    assert mixed[0] is samples
    assert mixed[1] is labels
