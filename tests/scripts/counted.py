"""Small data in memory, with any labels, that count how often each of their samples is read."""

from collections import Counter
from collections.abc import Callable

import numpy
import torch

from scripts.training import running
from scripts.training.sources import Data, InMemory


class Counting(InMemory):
    """Counts, by index, how often a sample was read."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.reads: Counter[int] = Counter()

    def read(self, index: int) -> torch.Tensor:
        self.reads[index] += 1
        return super().read(index)


def split(count: int, name: str, seed: int, *, multi_label: bool) -> Counting:
    """Images of which each class brightens one channel; every third sample of the last class has a wrong label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 16, 16, generator=generator) / 2
    if multi_label:
        labels = (torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.2])).float()
        images += labels[:, :, None, None] / 2
        labels[::3, 2] = 1 - labels[::3, 2]
        return Counting(images, labels.numpy(), name)
    labels = numpy.resize([0, 0, 0, 1, 1, 2], count)
    images += torch.eye(3)[labels][:, :, None, None] / 2
    return Counting(images, labels.tolist(), name)


def counted(*, multi_label: bool = False) -> Data:
    """40 training, 18 validation and 24 test samples of three classes."""
    train, val, test = (
        split(count, name, seed, multi_label=multi_label)
        for seed, (count, name) in enumerate([(40, "training"), (18, "validation"), (24, "test")])
    )
    classes = ["red", "green", "blue"]
    return Data(train, val, classes, 3, 16, [0.5] * 3, [0.25] * 3, test)


def use(multi_label: bool, spy: Callable[[], None] | None = None) -> None:
    """Have runs of this process use the data, whatever ``--data`` names."""
    data = counted(multi_label=multi_label)
    running.load = lambda *_, **__: data
    if spy is not None:
        spy()
