"""Augmentation of signals and volumes by MONAI, which takes seconds to import."""

# pyright: reportPrivateImportUsage=false
# MONAI imports its public names with *.
import math
from typing import TYPE_CHECKING

import monai.transforms as monai
from monai.data.meta_obj import set_track_meta
from torch import Tensor

if TYPE_CHECKING:
    from scripts.training.augmentation import Changes

MODES = {1: "linear", 3: "trilinear"}  # of interpolation, by the number of spatial dimensions
LEAST_ERASED, MOST_ERASED = 0.02, 0.33  # fractions of the sample, as torchvision's for images
SEEDS = 2**32  # of NumPy's RandomState, from which MONAI draws


def for_arrays(changes: "Changes", shape: tuple[int, ...]) -> monai.Compose:
    """Standardized signals or volumes of any channels, which keep their spatial ``shape``.

    MONAI's transforms named after signals are not used: ``SignalRandShift`` also shifts along the channels, and
    ``SignalRandDrop`` draws from PyTorch's global generator.
    """
    dims, mode, steps = len(shape), MODES[len(shape)], []
    if changes.crop < 1:
        steps.append(monai.RandScaleCrop([changes.crop ** (1 / dims)] * dims, random_size=True))
        steps.append(monai.Resize(shape, mode=mode))
    if changes.rotation:  # about the first axis, the depth: in the plane of each slice
        angle = math.radians(changes.rotation)
        steps.append(monai.RandRotate(angle, prob=1, mode="bilinear", padding_mode="zeros"))
    if changes.zoom:
        least, most = 1 - changes.zoom, 1 + changes.zoom
        steps.append(monai.RandZoom(1, least, most, mode=mode, padding_mode="constant"))
    if changes.shift:  # by whole elements: zeros around the sample, then a crop of its shape
        steps.append(monai.BorderPad([round(changes.shift * size) for size in shape]))
        steps.append(monai.RandSpatialCrop(shape, random_size=False))
    if changes.flip:
        steps += [monai.RandFlip(changes.flip, axis) for axis in changes.flipped]
    if changes.intensity:
        steps.append(monai.RandScaleIntensity(changes.intensity, prob=1))
    if changes.noise:
        steps.append(monai.RandGaussianNoise(prob=1, std=changes.noise, sample_std=False))
    if changes.erasing:
        least, most = (
            [max(1, round(each ** (1 / dims) * size)) for size in shape] for each in (LEAST_ERASED, MOST_ERASED)
        )
        steps.append(monai.RandCoarseDropout(1, least, fill_value=0.0, max_spatial_size=most, prob=changes.erasing))
    return monai.Compose(steps)


def apply(transform: monai.Compose, sample: Tensor, seed: int) -> Tensor:
    """The sample, changed at random by ``seed`` alone; the given one is not written to."""
    set_track_meta(False)  # of this process: no affine matrices, which cost time
    transform.set_random_state(seed % SEEDS)
    result = transform(sample.clone())  # some of MONAI's transforms write to their input
    assert isinstance(result, Tensor)
    return result.contiguous()
