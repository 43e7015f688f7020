"""Augmentation of images by torchvision."""

from typing import TYPE_CHECKING, Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

if TYPE_CHECKING:
    from scripts.training.augmentation import Changes

BILINEAR = InterpolationMode.BILINEAR
HEIGHT, WIDTH = 0, 1


class RandomIntensity(transforms.Transform):
    """Multiply an image of any channels by a random factor from ``1 - change`` to ``1 + change``.

    torchvision's ``ColorJitter`` takes one or three channels of values from 0 to 1 alone.
    """

    def __init__(self, change: float) -> None:
        super().__init__()
        self.change = change

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"factor": torch.empty(1).uniform_(1 - self.change, 1 + self.change).item()}

    def transform(self, image: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return image * params["factor"]


def moved(changes: "Changes") -> list[Any]:
    """Rotation, shift, zoom and flips."""
    steps: list[Any] = []
    if changes.rotation or changes.shift or changes.zoom:
        angles, shifts = (-changes.rotation, changes.rotation), (changes.shift, changes.shift)
        zooms = (1 - changes.zoom, 1 + changes.zoom)
        steps.append(transforms.RandomAffine(angles, translate=shifts, scale=zooms, interpolation=BILINEAR))
    if changes.flip:
        if WIDTH in changes.flipped:
            steps.append(transforms.RandomHorizontalFlip(changes.flip))
        if HEIGHT in changes.flipped:
            steps.append(transforms.RandomVerticalFlip(changes.flip))
    return steps


def altered(changes: "Changes") -> list[Any]:
    """Intensity, noise and erasing, of standardized images."""
    steps: list[Any] = []
    if changes.intensity:
        steps.append(RandomIntensity(changes.intensity))
    if changes.noise:
        steps.append(transforms.GaussianNoise(sigma=changes.noise, clip=False))
    if changes.erasing:
        steps.append(transforms.RandomErasing(changes.erasing))
    return steps


def for_photographs(
    changes: "Changes", size: int, mean: list[float], deviation: list[float], operations: int, magnitude: int
) -> transforms.Compose:
    """Pixels as they are read, (..., channels, height, width), to standardized squares.

    Args:
        changes: What is changed.
        size: Pixels of a side.
        mean: Of each channel.
        deviation: The standard deviation of each channel.
        operations: Those of RandAugment.
        magnitude: Of these operations.
    """
    if changes.crop < 1:
        steps: list[Any] = [transforms.RandomResizedCrop(size, scale=(changes.crop, 1), antialias=True)]
    else:
        steps = [transforms.Resize(size, antialias=True), transforms.CenterCrop(size)]
    steps += moved(changes)
    if operations:
        steps.append(transforms.RandAugment(operations, magnitude, interpolation=BILINEAR))
    steps += [transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(mean, deviation)]
    return transforms.Compose([*steps, *altered(changes)])


def for_arrays(changes: "Changes", shape: tuple[int, ...]) -> transforms.Compose:
    """Standardized images of any channels, which keep their ``shape`` (height, width)."""
    steps: list[Any] = []
    if changes.crop < 1:
        steps.append(transforms.RandomResizedCrop(shape, scale=(changes.crop, 1), antialias=True))
    return transforms.Compose([*steps, *moved(changes), *altered(changes)])
