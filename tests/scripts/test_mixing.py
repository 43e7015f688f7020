"""Mixup and CutMix of signals, images and volumes, and of their targets."""

import pytest
import torch
from torch.nn import functional as F

from scripts.training.mixing import Mixing
from tests.scripts.counted import counted
from tests.scripts.runs import options_of

SHAPES = {1: (6, 2, 9), 2: (6, 2, 5, 4), 3: (6, 2, 3, 5, 4)}


@pytest.mark.parametrize(
    ("spatial_dims", "name"), [(1, "mixup"), (2, "mixup"), (3, "mixup"), (2, "cutmix"), (3, "cutmix")]
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_targets_are_mixed_by_the_fractions_of_the_samples(spatial_dims, name, multi_label):
    data, shape = counted(multi_label=multi_label), SHAPES[spatial_dims]
    # Sample i is filled with i, so that its fraction in a mixed sample can be computed from the values.
    samples = torch.arange(6.0).reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
    labels = torch.tensor(data.train.labels[:6])
    targets = labels if multi_label else F.one_hot(labels, 3).float()
    torch.manual_seed(1)
    mixed, found = Mixing(data, options_of(f"--{name}", "1"))(samples, labels)
    assert type(mixed) is torch.Tensor
    assert mixed.shape == shape
    # Sample 1 is mixed with sample 0. CutMix leaves 0 and 1 alone as values.
    own = (mixed[1] if name == "mixup" else (mixed[1] == 1).float()).mean()
    assert 0.05 < own < 0.95
    if name == "mixup":
        torch.testing.assert_close(mixed[1], torch.full_like(mixed[1], own.item()))
    else:  # the same rectangle in all channels and slices
        assert sorted(mixed[1].unique().tolist()) == [0, 1]
        planes = mixed[1].flatten(0, -3)
        assert (planes == planes[0]).all()
    torch.testing.assert_close(found[1], own * targets[1] + (1 - own) * targets[0])


@pytest.mark.parametrize("shape", SHAPES.values())
def test_without_mixing_samples_and_labels_are_as_they_were(shape):
    samples, labels = torch.rand(shape), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed = Mixing(counted(), options_of())(samples, labels)
    assert mixed[0] is samples
    assert mixed[1] is labels
