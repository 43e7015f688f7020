"""Samples of arrays as a model gets them: one size, and each channel standardized."""

import torch
from torch import Tensor
from torch.nn import functional as F

from scripts.training.sources import Data

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Preprocessing:
    """Resamples samples, or crops and pads them, to the size of the data, and standardizes their channels."""

    def __init__(self, data: Data) -> None:
        self.size = data.sizes
        self.resample = data.resample
        shape = (data.channels, *(1,) * data.spatial_dims)
        self.mean = torch.tensor(data.mean, dtype=torch.float64).reshape(shape)
        self.deviation = torch.tensor(data.deviation, dtype=torch.float64).reshape(shape)
        self.short = self.mean.float(), self.deviation.float()

    def __call__(self, samples: Tensor) -> Tensor:
        """Samples (..., channels, *spatial) of float32 or float64, as float32 (..., channels, *size)."""
        mean, deviation = self.short if samples.dtype == torch.float32 else (self.mean, self.deviation)
        samples = ((samples - mean) / deviation).float()
        if samples.shape[-len(self.size) :] == self.size:
            return samples
        return resampled(samples, self.size) if self.resample else cropped_or_padded(samples, self.size)


def resampled(samples: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resample (..., channels, *spatial): dimensions that shrink by area, then dimensions that grow linearly."""
    dims = len(size)
    *others, channels = samples.shape[:-dims]
    least = tuple(min(pair) for pair in zip(samples.shape[-dims:], size, strict=True))
    batch = samples.reshape(-1, channels, *samples.shape[-dims:])
    if least != batch.shape[2:]:
        batch = F.interpolate(batch, least, mode="area")
    if least != size:
        batch = F.interpolate(batch, size, mode=LINEAR[dims], align_corners=False)
    return batch.reshape(*others, channels, *size)


def cropped_or_padded(samples: Tensor, size: tuple[int, ...]) -> Tensor:
    """Crop the center, or pad both ends with 0, in each dimension; of an odd difference, the last end has one more."""
    pads: list[int] = []
    for there, wanted in zip(samples.shape[: -len(size) - 1 : -1], reversed(size), strict=True):
        before = (wanted - there) // 2 if wanted >= there else -((there - wanted) // 2)
        pads += [before, wanted - there - before]  # negative numbers crop
    return F.pad(samples, pads)
