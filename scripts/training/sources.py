"""Splits of data: images by index, read one at a time. Every source can be sent to another process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from scripts.training.errors import RunError
from scripts.training.reading import read_image, to_tensor


class Source:
    """One split.

    Args:
        labels: The class of each image, as its place in the list of classes.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = labels

    def read(self, index: int) -> Tensor:
        """The image ``index``, as a tensor (channels, height, width)."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What the image ``index`` is called in messages."""
        raise NotImplementedError


class InMemory(Source):
    """Images that are one tensor.

    Args:
        images: (images, channels, height, width).
        labels: The class of each.
        what: What they are.
    """

    def __init__(self, images: Tensor, labels: Sequence[int], what: str) -> None:
        super().__init__(labels)
        self.images, self.what = images, what

    def read(self, index: int) -> Tensor:
        return self.images[index]

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
    """Some images of another source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__([source.labels[index] for index in indices])
        self.source, self.indices = source, indices

    def read(self, index: int) -> Tensor:
        return self.source.read(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])


class Data(NamedTuple):
    """Both splits, and how a model gets them."""

    train: Source
    val: Source
    classes: list[str]
    channels: int
    image_size: int | tuple[int, ...] | None
    mean: list[float]
    deviation: list[float]
    test: Source | None = None
    multi_label: bool = False
    spatial_dims: int = 2
