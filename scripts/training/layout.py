"""Which axes of an array are spatial, and which one has the channels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy

from scripts.training.errors import RunError

WHAT = {1: "signals of length", 2: "images of", 3: "volumes of"}
# An axis at an end is taken for the channels if it has at most so many numbers, and every other axis is four times as
# long. Without --spatial-dims, when the axis may be spatial as well, it must have the channels of a common format.
MOST_CHANNELS, MOST_CERTAIN_CHANNELS, RATIO = 16, 4, 4


class Layout(NamedTuple):
    """How the axes of a sample are read.

    Args:
        spatial_dims: The number of spatial dimensions.
        channels: The position of the channels: first, last or none.
    """

    spatial_dims: int
    channels: str

    def apply(self, sample: numpy.ndarray) -> numpy.ndarray:
        """The sample as (channels, *spatial)."""
        if self.channels == "none":
            return sample[None]
        return numpy.moveaxis(sample, -1, 0) if self.channels == "last" else sample

    def sizes(self, shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """The number of channels and the spatial size of a sample of this shape."""
        if self.channels == "none":
            return 1, tuple(shape)
        return (shape[-1], tuple(shape[:-1])) if self.channels == "last" else (shape[0], tuple(shape[1:]))

    def describe(self, shape: Sequence[int]) -> str:
        channels, spatial = self.sizes(shape)
        counted = "" if self.channels == "none" else f" with {channels} channel{'s' if channels > 1 else ''}"
        return f"{WHAT[self.spatial_dims]} {' x '.join(map(str, spatial))}{counted}"

    @property
    def axes(self) -> int:
        """The number of axes of a sample."""
        return self.spatial_dims + (self.channels != "none")

    @property
    def flags(self) -> str:
        return f"--spatial-dims {self.spatial_dims} --channels {self.channels}"


def readings(dims: int, spatial_dims: int | None, channels: str | None) -> list[Layout]:
    """Every layout of a sample with ``dims`` axes that the options allow."""
    possible = [Layout(dims, "none"), Layout(dims - 1, "first"), Layout(dims - 1, "last")]
    return [
        each
        for each in possible
        if 1 <= each.spatial_dims <= 3
        and spatial_dims in (None, each.spatial_dims)
        and channels in (None, each.channels)
    ]


def infer(what: str, shape: Sequence[int], spatial_dims: int | None, channels: str | None) -> Layout:
    """The layout of samples of this shape.

    Args:
        what: The name of the array, for messages.
        shape: That of a sample, without the axis of the samples.
        spatial_dims: The option.
        channels: The option.

    Raises:
        RunError: If no layout or several fit.
    """
    possible = readings(len(shape), spatial_dims, channels)
    given = f" with --spatial-dims {spatial_dims}" * (spatial_dims is not None)
    given += f" with --channels {channels}" * (channels is not None)
    if not possible:
        raise RunError(
            f"{what}: samples must have 1 to 3 spatial dimensions, and one axis more for channels, got the shape "
            f"{tuple(shape)}{given}. Give another --spatial-dims or --channels, or reshape the array."
        )
    if len(possible) == 1:
        return possible[0]
    plain = [each for each in possible if each.channels == "none"]
    if plain and len(shape) > 1 and len(set(shape)) == 1:  # a square or a cube: a channel axis would be shorter
        return plain[0]
    most = MOST_CERTAIN_CHANNELS if plain else MOST_CHANNELS
    certain = [each for each in possible if each.channels != "none" and stands_out(*each.sizes(shape), most)]
    if len(certain) == 1:
        return certain[0]
    shown = " or ".join(f"{each.describe(shape)} ({each.flags})" for each in possible)
    raise RunError(
        f"{what}: the axes of samples must have one meaning, got the shape {tuple(shape)}{given}, which is {shown}. "
        "Give the options of one of these."
    )


def stands_out(channels: int, spatial: Sequence[int], most: int) -> bool:
    return channels <= most and min(spatial) >= RATIO * channels
