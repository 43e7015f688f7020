"""Mean and standard deviation of each channel, in one pass with a few samples in memory at a time."""

import math
from collections.abc import Iterator, Sequence

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from scripts.training.arrays import Arrays
from scripts.training.errors import RunError
from scripts.training.processes import is_first
from scripts.training.sources import Source, Subset

BLOCK_BYTES = 4 * 2**20  # read at once
QUIET_SECONDS = 3  # before a progress bar is shown


def blocks(source: Source) -> Iterator[tuple[Sequence[int], Tensor]]:
    """All samples of a split, in the order of the file: their indices and values (samples, channels, *spatial)."""
    whole = source.source if isinstance(source, Subset) else source
    if not isinstance(whole, Arrays):
        for index in range(len(source.labels)):
            yield [index], source.read(index)[None]
        return
    rows = whole.rows
    places = numpy.arange(rows.shape[0])  # of the samples of ``whole`` in ``source``; -1: in another split
    if isinstance(source, Subset):
        places[:] = -1
        places[source.indices] = numpy.arange(len(source.indices))
    step = max(1, BLOCK_BYTES // max(1, rows.dtype.itemsize * math.prod(rows.shape[1:])))
    for start in range(0, len(places), step):
        taken = places[start : start + step]
        kept = taken >= 0
        if kept.any():
            values = whole.read_many(start, start + len(taken))
            yield taken[kept].tolist(), values if kept.all() else values[torch.from_numpy(kept)]


def with_progress(source: Source, what: str) -> Iterator[tuple[Sequence[int], Tensor]]:
    with tqdm(
        total=len(source.labels), desc=what, unit=" samples", delay=QUIET_SECONDS, leave=False, disable=not is_first()
    ) as bar:
        for indices, values in blocks(source):
            yield indices, values
            bar.update(len(indices))


def mean_and_deviation(source: Source) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of a split, over all samples and places.

    Raises:
        RunError: If a value is not finite, or a channel is constant.
    """
    count, mean, squares, least, most = 0, *torch.zeros(4, 1, dtype=torch.float64)
    for indices, values in with_progress(source, "mean and deviation of the training split"):
        require_finite(source, indices, values)
        flat = values.transpose(0, 1).flatten(1).double()
        number, center = flat.size(1), flat.mean(dim=1)
        spread = (flat - center[:, None]).square_().sum(dim=1)
        lowest, highest = torch.aminmax(flat, dim=1)
        least, most = (torch.minimum(least, lowest), torch.maximum(most, highest)) if count else (lowest, highest)
        # Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
        shift = center - mean
        total = count + number
        mean = mean + shift * (number / total)
        squares = squares + spread + shift.square() * (count * (number / total))
        count = total
    if constant := torch.nonzero(least == most).flatten().tolist():
        channel = constant[0]
        raise RunError(
            f"{source.name(0)} and all other training samples must have channels that vary, got channel {channel} "
            f"(counted from 0) with the value {least[channel]:g} everywhere. Remove it."
        )
    deviation = (squares / count).sqrt()
    if wrong := torch.nonzero(~torch.isfinite(deviation)).flatten().tolist():
        channel = wrong[0]
        raise RunError(
            f"{source.name(0)} and all other training samples must have channels whose mean and deviation are finite, "
            f"got channel {channel} (counted from 0) with numbers up to {max(-least[channel], most[channel]):g}. Scale "
            "it."
        )
    return mean.tolist(), deviation.tolist()


def require_finite_split(source: Source, what: str) -> None:
    """Refuse a split with a value that is not finite.

    Raises:
        RunError: Naming the first such sample.
    """
    for indices, values in with_progress(source, f"check of the {what} split"):
        require_finite(source, indices, values)


def require_finite(source: Source, indices: Sequence[int], values: Tensor) -> None:
    if torch.isfinite(values.sum()) or torch.isfinite(values).all():  # finite numbers may have an infinite sum
        return
    place, channel, *_ = (~torch.isfinite(values)).nonzero()[0].tolist()
    wrong = values[place, channel][~torch.isfinite(values[place, channel])][0]
    raise RunError(
        f"{source.name(indices[place])} must have finite numbers, got {wrong} in channel {channel} (counted from 0). "
        "Replace such numbers, or remove the sample."
    )
