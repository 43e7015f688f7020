"""Samples of a split as a model gets them. Loading processes import this file, so it needs no Lightning."""

from collections.abc import Callable

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scripts.training import augmentation_images
from scripts.training.augmentation import Augmentation, Changes, changes
from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.preprocessing import Preprocessing
from scripts.training.sources import Data, Source

AT_ONCE = 32 * 2**20  # bytes of samples that are prepared at once
Key = tuple[int, int]  # an epoch and a sample's index


def seed_for(*numbers: int) -> int:
    """A seed of its own for each combination of numbers."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0] >> numpy.uint64(1))


class Samples(Dataset[tuple[Tensor, int | numpy.ndarray, int]]):
    """Samples of one split, ready for a model, with their labels and indices.

    What is random is drawn from a seed of the run's seed, the epoch and the index, so it depends neither on what was
    read before nor on the process that reads.
    """

    def __init__(self, source: Source, data: Data, options: Options, *, training: bool) -> None:
        self.source = source
        self.channels = data.channels
        self.seed = options.seed
        self.photographs = data.photographs
        used = changes(options, data.spatial_dims, photographs=data.photographs)
        self.random = training and (used.any() or options.randaugment > 0)
        self.augment = None
        if isinstance(data.image_size, int):
            self.prepare: Callable[[Tensor], Tensor] = augmentation_images.for_photographs(
                used if self.random else Changes(),
                data.image_size,
                data.mean,
                data.deviation,
                options.randaugment if self.random else 0,
                options.randaugment_magnitude,
            )
        else:
            self.prepare = Preprocessing(data)
            self.augment = Augmentation(options, data.spatial_dims) if self.random else None

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, int | numpy.ndarray, int]:
        epoch, index = key
        sample, seed = self.read(index), seed_for(self.seed, epoch, index)
        if self.random and self.photographs:
            torch.manual_seed(seed)
        sample = self.prepare(sample)
        if self.augment is not None:
            sample = self.augment(sample, seed)
        return sample.as_subclass(Tensor), self.source.labels[index], index

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of samples, labels and indices."""
        indices = [index for _, index in keys]
        labels = torch.as_tensor(numpy.array([self.source.labels[index] for index in indices]))
        samples = torch.stack([self[key][0] for key in keys]) if self.random else self.prepared(indices)
        return samples.as_subclass(Tensor), labels, torch.tensor(indices)

    def prepared(self, indices: list[int]) -> Tensor:
        """Samples without random changes; neighbours of one size are prepared at once, unless they are large."""
        done, waiting = [], []
        for index in indices:
            sample = self.read(index)
            if waiting:
                same = (sample.shape, sample.dtype) == (waiting[0].shape, waiting[0].dtype)
                if not same or len(waiting) * sample.nbytes >= AT_ONCE:
                    done.append(self.prepare(torch.stack(waiting)))
                    waiting = []
            waiting.append(sample)
        return torch.cat([*done, self.prepare(torch.stack(waiting))])

    def read(self, index: int) -> Tensor:
        """The sample as the source has it; a grey photograph has as many channels as those in colour."""
        sample = self.source.read(index)
        if not self.photographs:
            return sample
        if sample.size(0) > self.channels:
            raise RunError(
                f"{self.source.name(index)} is in colour, but the first images of all classes are grey. Convert it."
            )
        return sample.expand(self.channels, -1, -1)
