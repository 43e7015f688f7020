"""How a sample is drawn: a signal as traces, a volume as three slices, an image of many bands as a composite."""

from typing import NamedTuple

import numpy
from matplotlib.axes import Axes
from torch import Tensor

from scripts.training.sources import Data

TRACES = 8  # channels of a signal that are drawn, at most
COLOURS = ("red", "green", "blue")
LOW, HIGH = 2, 98  # percentiles of an array's values that become black and white


class Look(NamedTuple):
    """How the samples of some data are drawn.

    Attributes:
        note: What is seen, if that is not all of the sample.
        columns: Samples in a row, at most.
        width: Of one, in inches.
    """

    note: str
    columns: int
    width: float


def look(data: Data) -> Look:
    """How the samples are drawn, by their number of spatial dimensions and their channels."""
    channels = data.channels
    if data.spatial_dims == 1:
        some = f"channels 1 to {TRACES} of {channels}" if channels > TRACES else ""
        several = "each channel on a line of its own, the first on top" if channels > 1 else ""
        return Look("; ".join(filter(None, (some, several))), 4, 2.6)
    what = ""
    if channels > 1 and not (data.photographs and channels == len(COLOURS)):
        shown = ("1 and 2", "red and green") if channels == 2 else ("1, 2 and 3", "red, green and blue")
        of_all = f" of {channels}" if channels > len(COLOURS) else ""
        what = f"channels {shown[0]}{of_all} as {shown[1]}, each scaled from percentile {LOW} to {HIGH}"
    if data.spatial_dims == 3:
        slices = "the central slices across depth, height and width"
        return Look("; ".join(filter(None, (slices, what))), 3, 4.2)
    return Look(what, 6, 1.7)


def draw(axis: Axes, sample: Tensor, data: Data) -> None:
    """Draw a sample as it was read, (channels, *spatial), without axes.

    Values of arrays are scaled, each channel by itself, from percentile 2 to 98.
    """
    axis.axis("off")
    if data.spatial_dims == 1:
        traces(axis, sample.double().numpy())
        return
    if data.photographs and sample.size(0) in (1, 3):
        pixels = sample.permute(1, 2, 0).numpy()
        top = 255 if pixels.dtype == numpy.uint8 else 1.0
        axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=top)
        return
    picture = composite(sample.double().numpy())
    if data.spatial_dims == 3:
        picture = central_slices(picture)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    if data.spatial_dims == 3:
        axis.set_xlim(-0.04 * picture.shape[1], 1.04 * picture.shape[1])  # more than between slices


def traces(axis: Axes, signal: numpy.ndarray) -> None:
    """The channels of a signal below one another, each scaled to its own line."""
    shown = signal[:TRACES]
    for place, channel in enumerate(shown):
        axis.plot(scaled(channel, channel.min(), channel.max()) - 1.1 * place, linewidth=0.6)
    axis.margins(x=0)


def composite(sample: numpy.ndarray) -> numpy.ndarray:
    """(*spatial) for one channel, else (*spatial, 3): the first channels as red, green and blue."""
    bands = []
    for channel in sample[: len(COLOURS)]:
        least, most = numpy.percentile(channel, (LOW, HIGH))
        if least == most:  # most of the values are equal
            least, most = channel.min(), channel.max()
        bands.append(scaled(channel, least, most).clip(0, 1))
    if len(bands) == 1:
        return bands[0]
    bands += [numpy.zeros_like(bands[0])] * (len(COLOURS) - len(bands))
    return numpy.stack(bands, axis=-1)


def scaled(values: numpy.ndarray, least: float, most: float) -> numpy.ndarray:
    """Values with ``least`` as 0 and ``most`` as 1; 0 if both are equal."""
    return (values - least) / (most - least) if most > least else numpy.zeros_like(values)


def central_slices(volume: numpy.ndarray) -> numpy.ndarray:
    """The three central slices of (depth, height, width, ...) side by side, on white."""
    depth, height, width = (size // 2 for size in volume.shape[:3])
    slices = [volume[depth], volume[:, height], volume[:, :, width]]
    most = max(each.shape[0] for each in slices)
    gap = max(1, most // 16)
    rest = [(0, 0)] * (volume.ndim - 3)
    padded = []
    for each in slices:
        above = (most - each.shape[0]) // 2
        sides = (above, most - each.shape[0] - above), (0, 0 if each is slices[-1] else gap)
        padded.append(numpy.pad(each, [*sides, *rest], constant_values=1.0))
    return numpy.concatenate(padded, axis=1)
