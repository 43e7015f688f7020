"""Random changes to training samples, by the same options for signals, images and volumes.

Loading processes import this file, so it needs no Lightning; MONAI, which takes seconds, is imported where it is used.
"""

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts.training import augmentation_images as images
from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.sources import KINDS, Data

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
DISPLAYED = (1, 3)  # channels of the images that RandAugment changes
ARRAY_SHIFT, ARRAY_INTENSITY = 0.05, 0.1  # defaults for arrays; those for photographs are 0.08 and 0
PHOTOGRAPH_SHIFT, PHOTOGRAPH_ROTATION, PHOTOGRAPH_ZOOM = 0.08, 10.0, 0.1


class Changes(NamedTuple):
    """What the options mean for some data.

    Attributes:
        crop: Least fraction of the sample that a random crop keeps; 1 for none.
        shift: Largest shift along each axis, as a fraction of its size.
        rotation: Largest angle, in degrees.
        zoom: Largest relative change of size.
        flip: Probability of a flip along each of ``flipped``.
        flipped: Spatial axes, from 0.
        intensity: Largest relative change of all values.
        noise: Standard deviation of Gaussian noise.
        erasing: Probability that a box is set to the mean.
    """

    crop: float = 1.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    flip: float = 0.0
    flipped: tuple[int, ...] = ()
    intensity: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0

    def any(self) -> bool:
        amounts = (self.shift, self.rotation, self.zoom, self.flip, self.intensity, self.noise, self.erasing)
        return self.crop < 1 or max(amounts) > 0


def changes(options: Options, spatial_dims: int, *, photographs: bool) -> Changes:
    """The changes that the options name, with the defaults that depend on the data."""
    # A random crop also changes position and size, so the defaults of these are 0 with it.
    shift, rotation, zoom = (0.0, 0.0, 0.0) if options.crop < 1 else (ARRAY_SHIFT, 0.0, 0.0)
    if photographs and options.crop == 1:
        shift, rotation, zoom = PHOTOGRAPH_SHIFT, PHOTOGRAPH_ROTATION, PHOTOGRAPH_ZOOM
    intensity = 0.0 if photographs else ARRAY_INTENSITY
    axes = AXES[spatial_dims]
    names = axes[-1:] if options.flip_axes is None else options.flip_axes.split(",")
    return Changes(
        options.crop,
        shift if options.shift is None else options.shift,
        rotation if options.rotate is None else options.rotate,
        zoom if options.zoom is None else options.zoom,
        options.flip,
        tuple(axes.index(name) for name in names),
        intensity if options.intensity is None else options.intensity,
        options.noise,
        options.erasing,
    )


def require(options: Options, data: Data) -> None:
    """Refuse options that the data have no use for, before training starts.

    Raises:
        RunError: With the option, or with the library that is missing.
    """
    spatial_dims, kind, photographs = data.spatial_dims, KINDS[data.spatial_dims], data.photographs
    axes = AXES[spatial_dims]
    if options.flip_axes is not None and not set(options.flip_axes.split(",")) <= set(axes):
        raise RunError(f"--flip-axes must be axes of {kind}: {', '.join(axes)}, got {options.flip_axes}.")
    if spatial_dims == 1 and options.rotate:
        raise RunError(f"--rotate must be 0 for signals, which have one axis, got {options.rotate:g}. Leave it out.")
    if spatial_dims == 1 and options.cutmix:
        raise RunError(
            f"--cutmix must be 0 for signals, which have no rectangle to replace, got {options.cutmix:g}. Use --mixup."
        )
    if options.randaugment and not (photographs and data.channels in DISPLAYED):
        what = f"images of {data.channels} channels" if photographs else f"arrays of {kind}"
        raise RunError(
            f"--randaugment must be 0 except for grey and colour images with values from 0 to 1, got "
            f"{options.randaugment} for {what}. Leave it out."
        )
    used = changes(options, spatial_dims, photographs=photographs)
    if spatial_dims != 2 and used.any() and importlib.util.find_spec("monai") is None:
        raise RunError(
            f"Augmentation of {kind} needs MONAI, which is not installed. Install it with pip install "
            "'lazytorch[arrays]', or give --shift 0 --intensity 0 and no other augmentation."
        )


class Augmentation:
    """Changes samples of arrays at random.

    What is random depends on the seed of each call alone.

    Args:
        options: The options of the run.
        spatial_dims: The number of spatial dimensions of the samples.

    Shape:
        - Input: (channels, *spatial), standardized, floating-point
        - Output: the same
    """

    def __init__(self, options: Options, spatial_dims: int) -> None:
        self.changes = changes(options, spatial_dims, photographs=False)
        self.spatial_dims = spatial_dims
        self.transforms: dict[tuple[int, ...], Any] = {}  # by the spatial shape

    def __call__(self, sample: Tensor, seed: int) -> Tensor:
        shape = tuple(sample.shape[1:])
        assert len(shape) == self.spatial_dims, shape
        if not self.changes.any():
            return sample
        if self.spatial_dims == 2:
            if shape not in self.transforms:
                self.transforms[shape] = images.for_arrays(self.changes, shape)
            torch.manual_seed(seed)
            return self.transforms[shape](sample)
        from scripts.training import augmentation_volumes as volumes

        if shape not in self.transforms:
            self.transforms[shape] = volumes.for_arrays(self.changes, shape)
        return volumes.apply(self.transforms[shape], sample, seed)
