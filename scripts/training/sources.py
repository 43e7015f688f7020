"""Splits of data: samples by index, read one at a time. Every source can be sent to another process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from torch import Tensor

from scripts.training.errors import RunError
from scripts.training.reading import read_image, to_tensor

KINDS = {1: "signals", 2: "images", 3: "volumes"}  # by the number of spatial dimensions
Labels = Sequence[int] | numpy.ndarray


class Source:
    """One split.

    Args:
        labels: The class of each sample, as its index in the list of classes. For multi-label data, an array of 0 and 1
            (samples, classes) of float32.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def read(self, index: int) -> Tensor:
        """The sample ``index``, as a tensor (channels, *spatial)."""
        raise NotImplementedError

    def size(self, index: int) -> tuple[int, ...]:
        """The spatial size of the sample ``index``."""
        return tuple(self.read(index).shape[1:])

    def name(self, index: int) -> str:
        """What the sample ``index`` is called in messages."""
        raise NotImplementedError


class InMemory(Source):
    """Samples that are one tensor.

    Args:
        samples: (samples, channels, *spatial).
        labels: The class of each.
        what: What they are.
    """

    def __init__(self, samples: Tensor, labels: Labels, what: str) -> None:
        super().__init__(labels)
        self.samples, self.what = samples, what

    def read(self, index: int) -> Tensor:
        return self.samples[index]

    def name(self, index: int) -> str:
        return f"{self.what} {index}"


class Files(Source):
    """Image files."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int]) -> None:
        super().__init__(labels)
        self.paths = paths

    def read(self, index: int) -> Tensor:
        return read_image(self.paths[index])

    def name(self, index: int) -> str:
        return str(self.paths[index])


class PillowSet(Source):
    """A data set whose items are a Pillow image and a class, as torchvision's are."""

    def __init__(self, images: Any, labels: Sequence[int], what: str) -> None:
        super().__init__(labels)
        self.images, self.what = images, what

    def read(self, index: int) -> Tensor:
        try:
            return to_tensor(self.images[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise RunError(f"{self.name(index)} cannot be read ({error}).") from error

    def name(self, index: int) -> str:
        return f"{self.what} {index}"


class Subset(Source):
    """Some samples of another source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        labels = source.labels
        super().__init__(labels[indices] if isinstance(labels, numpy.ndarray) else [labels[index] for index in indices])
        self.source, self.indices = source, indices

    def size(self, index: int) -> tuple[int, ...]:
        return self.source.size(self.indices[index])

    def read(self, index: int) -> Tensor:
        return self.source.read(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])


class Data(NamedTuple):
    """The splits, and what a model needs to know of them.

    Photographs have an ``image_size`` of one number, the side of a square. Arrays have a tuple, one number for each
    spatial dimension; ``preprocessing.py`` gives their samples this size.

    Args:
        train: The training split.
        val: The validation split.
        classes: The names of the classes.
        channels: The number of channels of the samples that a model gets.
        image_size: The spatial size of the samples that a model gets.
        mean: Of each channel.
        deviation: The standard deviation of each channel.
        test: A split that is evaluated once, after training.
        resample: Whether arrays of another size are resampled to ``image_size``; otherwise they are cropped and padded.
    """

    train: Source
    val: Source
    classes: list[str]
    channels: int
    image_size: int | tuple[int, ...]
    mean: list[float]
    deviation: list[float]
    test: Source | None = None
    resample: bool = True

    @property
    def photographs(self) -> bool:
        """Whether the data are images with pixels from 0 to 1 that are resized to a square; arrays otherwise."""
        return isinstance(self.image_size, int)

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have any number of classes."""
        return isinstance(self.train.labels, numpy.ndarray)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The length of a sample in each spatial dimension."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def spatial_dims(self) -> int:
        """The number of spatial dimensions."""
        return len(self.sizes)
