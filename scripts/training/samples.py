"""Samples of a split as a model gets them. Loading processes import this file, so it needs no Lightning."""

from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2 as transforms

from scripts.training import augmentation_images
from scripts.training.augmentation import Augmentation, changes
from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.preprocessing import Preprocessing
from scripts.training.sources import Data, Source

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
        if isinstance(data.image_size, int):
            self.preprocess = None
            self.transform_photographs(data, data.image_size, options, training=training)
        else:
            self.preprocess = Preprocessing(data)
            self.augment = Augmentation(options, data.spatial_dims) if training else None

    def transform_photographs(self, data: Data, size: int, options: Options, *, training: bool) -> None:
        used = changes(options, 2, photographs=True)
        operations, magnitude = options.randaugment, options.randaugment_magnitude
        self.random = None
        if training:
            self.random = augmentation_images.for_photographs(used, size, operations, magnitude)
        else:
            self.shape = transforms.Compose([transforms.Resize(size, antialias=True), transforms.CenterCrop(size)])
        normalize = transforms.Normalize(data.mean, data.deviation)
        finish: list[Any] = [transforms.ToDtype(torch.float32, scale=True), normalize]
        if training:
            finish += augmentation_images.altered(used)
        self.finish = transforms.Compose(finish)

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, int | numpy.ndarray, int]:
        epoch, index = key
        read = self.photograph if self.preprocess is None else self.array
        return read(epoch, index), self.source.labels[index], index

    def array(self, epoch: int, index: int) -> Tensor:
        assert self.preprocess is not None
        sample = self.preprocess(self.source.read(index))
        return sample if self.augment is None else self.augment(sample, seed_for(self.seed, epoch, index))

    def photograph(self, epoch: int, index: int) -> Tensor:
        image = self.source.read(index)
        if image.size(0) > self.channels:
            raise RunError(
                f"{self.source.name(index)} is in colour, but the first images of all classes are grey. Convert it."
            )
        image = image.expand(self.channels, -1, -1)
        if self.random is not None:
            torch.manual_seed(seed_for(self.seed, epoch, index))
            image = self.random(image)
        else:
            image = self.shape(image)
        return self.finish(image).as_subclass(Tensor)
