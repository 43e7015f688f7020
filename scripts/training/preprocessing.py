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

    def __call__(self, sample: Tensor) -> Tensor:
        """A sample (channels, *spatial) of float32 or float64, as float32 (channels, *size)."""
        mean, deviation = self.short if sample.dtype == torch.float32 else (self.mean, self.deviation)
        sample = ((sample - mean) / deviation).float()
        if sample.shape[1:] == self.size:
            return sample
        return resampled(sample, self.size) if self.resample else cropped_or_padded(sample, self.size)


def resampled(sample: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resample (channels, *spatial): dimensions that shrink by area, then dimensions that grow linearly."""
    least = tuple(min(pair) for pair in zip(sample.shape[1:], size, strict=True))
    batch = sample[None]
    if least != sample.shape[1:]:
        batch = F.interpolate(batch, least, mode="area")
    if least != size:
        batch = F.interpolate(batch, size, mode=LINEAR[len(size)], align_corners=False)
    return batch[0]


def cropped_or_padded(sample: Tensor, size: tuple[int, ...]) -> Tensor:
    """Crop the center, or pad both ends with 0, in each dimension; of an odd difference, the last end has one more."""
    pads: list[int] = []
    for there, wanted in zip(reversed(sample.shape[1:]), reversed(size), strict=True):
        before = (wanted - there) // 2 if wanted >= there else -((there - wanted) // 2)
        pads += [before, wanted - there - before]  # negative numbers crop
    return F.pad(sample, pads)
