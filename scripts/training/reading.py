"""Image files as tensors: bit depths, orientation, colours."""

import contextlib
from pathlib import Path

import numpy
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from scripts.training.errors import RunError

GREY = {"1", "L", "LA", "La"}
BITS_PER_SAMPLE = 258  # the tag of TIFF files
READ_AS_16_BITS = {"PNG", "PPM"}  # formats whose 16 bits Pillow may read into whole numbers of 32


def read_image(path: Path) -> Tensor:
    """An image file as a tensor, as its EXIF orientation says that it is to be seen.

    Raises:
        RunError: Naming the file, if it cannot be read.
    """
    try:
        with Image.open(path) as file:
            if file.format == "TIFF" and (count := pages(file)) > 1:
                raise ValueError(f"it has {count} pages, but the first TIFF files of all classes are photographs")
            file.load()
            depth, image = bits(file), file
            with contextlib.suppress(Exception):  # damaged EXIF; the pixels have been read
                if file.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                    image = ImageOps.exif_transpose(file)
            return to_tensor(image, depth)
    except Exception as error:  # Pillow's plugins raise whatever they like on bytes they did not expect
        raise RunError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}). Repair or remove it."
        ) from error


def pages(image: Image.Image) -> int:
    """How many pages of a TIFF file have the size of the first one; the others are thumbnails and overviews."""
    sizes = []
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        sizes.append(image.size)
    image.seek(0)
    return sizes.count(sizes[0])


def bits(image: Image.Image) -> int:
    """The bits of a pixel of one channel, as the file states them."""
    stated = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE)
    if stated:
        return int(stated[0])
    if image.mode.startswith("I;16") or image.format in READ_AS_16_BITS:
        return 16
    return 32


def to_tensor(image: Image.Image, depth: int | None = None) -> Tensor:
    """Grey images as one channel, all others as red, green and blue.

    Channels of up to 8 bits are whole numbers of 8 bits. Deeper grey is from 0 to 1: whole numbers are divided by the
    largest of their depth, floating-point numbers must be in this range.

    Args:
        image: The image.
        depth: Its bits, if it is not as it was read.

    Raises:
        ValueError: If floating-point or signed pixels are out of range.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return F.to_image(image.convert("L" if image.mode in GREY else "RGB"))
    depth = depth or bits(image)
    pixels = numpy.asarray(image).astype(numpy.float64)
    if image.mode == "F":
        what = "floating-point pixels"
    else:
        what = f"{depth}-bit pixels, divided by {2**depth - 1},"
        if (
            depth == 32 and getattr(image, "tag_v2", {}).get(339, (1,))[0] == 1
        ):  # unsigned, which Pillow reads as signed
            pixels %= 2**32
        pixels /= 2**depth - 1
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"{what} must be from 0 to 1, got {pixels.min():g} to {pixels.max():g}")
    return F.to_image(pixels.astype(numpy.float32)[..., None])
