"""Files that contain one sample each, as an array: .npy, and multi-page or multi-band TIFF."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from PIL import Image
from torch import Tensor

from scripts.training.arrays import to_tensor
from scripts.training.errors import RunError, listed
from scripts.training.layout import Layout, infer
from scripts.training.mapped import Header
from scripts.training.reading import pages
from scripts.training.sources import Source

NPY, TIFF = {".npy"}, {".tif", ".tiff"}
CHANNEL_AXES = "SC"  # tifffile's letters for samples of a pixel and for channels
MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}  # how TIFF files begin
SAMPLES_PER_PIXEL, EXTRA_SAMPLES, ALPHA = 277, 338, (1, 2)  # tags of TIFF files, and the kinds of extra samples


class DamagedError(RunError):
    """A file that cannot be read; the message contains its path."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} cannot be read as an array ({type(error).__name__}: {error}). Repair or remove it.")


class ArrayFiles(Source):
    """Files of arrays that have the same channels; their sizes may differ.

    Args:
        paths: The files.
        labels: Of each file.
        layouts: The layout of the array in each file.
        shapes: The shape of the array in each file.
    """

    def __init__(
        self, paths: Sequence[Path], labels: Sequence[int], layouts: Sequence[Layout], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        super().__init__(labels)
        self.paths, self.layouts, self.shapes = paths, layouts, shapes

    def read(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            array = tifffile(path).imread(path) if is_tiff(path) else numpy.load(path, allow_pickle=False)
        except RunError:
            raise
        except Exception as error:  # tifffile and its decoders raise many kinds of errors for damaged files
            raise DamagedError(path, error) from error
        if array.shape != self.shapes[index]:
            raise RunError(
                f"{path} must keep its shape {self.shapes[index]} during a run, got {array.shape}. Restore it, then "
                "continue with --resume."
            )
        return to_tensor(self.layouts[index].apply(array))

    def size(self, index: int) -> tuple[int, ...]:
        return self.layouts[index].sizes(self.shapes[index])[1]

    def name(self, index: int) -> str:
        return str(self.paths[index])


def is_tiff(path: Path) -> bool:
    return path.suffix.lower() in TIFF


def tifffile(path: Path) -> Any:
    try:
        import tifffile as module
    except ImportError:
        raise RunError(
            f"{path}: TIFF files of several pages or bands need tifffile. pip install 'lazytorch[arrays]' installs it."
        ) from None
    return module


def is_array(path: Path) -> bool:
    """Whether a file is an array and no photograph: .npy, or TIFF of several pages, or of bands other than colours."""
    if path.suffix.lower() in NPY:
        return True
    if not is_tiff(path):
        return False
    try:
        with Image.open(path) as image:
            tags: Any = getattr(image, "tag_v2", {})
            extra = tags.get(EXTRA_SAMPLES, ())
            extra = extra if isinstance(extra, tuple) else (extra,)
            bands = tags.get(SAMPLES_PER_PIXEL, 1) - sum(each in ALPHA for each in extra)
            return pages(image) > 1 or not (bands in (1, 3) or image.mode == "CMYK")
    except Exception:  # what Pillow cannot open is for tifffile, if it is a TIFF file at all
        with contextlib.suppress(DamagedError, OSError):
            if path.read_bytes()[:4] in MAGIC:
                header(path)
                return True
    return False


def header(path: Path) -> tuple[tuple[int, ...], str | None]:
    """The shape of the array in a file and, of TIFF, tifffile's letters for its axes."""
    if not is_tiff(path):
        return Header(path).shape, None
    try:
        with tifffile(path).TiffFile(path) as file:
            series = file.series[0]
            return tuple(series.shape), series.axes
    except RunError:
        raise
    except Exception as error:
        raise DamagedError(path, error) from error


def of_tiff(path: Path, shape: tuple[int, ...], axes: str, spatial_dims: int | None) -> Layout:
    """The layout of a TIFF file: bands and samples are channels; pages are slices, or bands of images."""
    marked = [place for place, axis in enumerate(axes) if axis in CHANNEL_AXES]
    if not marked:
        paged = spatial_dims is not None and len(shape) == spatial_dims + 1
        layout = Layout(len(shape) - paged, "first" if paged else "none")
    else:
        layout = Layout(len(shape) - 1, "last" if marked[0] else "first")
    if len(marked) > 1 or (marked and marked[0] not in (0, len(axes) - 1)) or not 1 <= layout.spatial_dims <= 3:
        raise RunError(
            f"{path} must have its channels in the first or last axis, and 1 to 3 other axes, got the axes {axes} of "
            f"the lengths {shape}. Convert it to .npy."
        )
    return layout


def read_headers(
    paths: Sequence[Path], spatial_dims: int | None, channels: str | None
) -> tuple[list[Layout], list[tuple[int, ...]]]:
    """The layout and shape of the array in each file; the channels and spatial dimensions of all are the same.

    Raises:
        RunError: Naming a file that does not fit the others.
    """
    headers = [header(path) for path in paths]
    shapes = [shape for shape, _ in headers]
    arrays: dict[tuple[int, ...], Path] = {}
    for path, (shape, axes) in zip(paths, headers, strict=True):
        if axes is None:
            arrays.setdefault(shape, path)
    common = common_layout(arrays, spatial_dims, channels) if arrays else None
    layouts: list[Layout] = []
    for path, (shape, axes) in zip(paths, headers, strict=True):
        if axes is None and common is not None and len(shape) != common.axes:
            raise RunError(
                f"{path} must have as many axes as other .npy files of the folder, {common.axes}, got the shape "
                f"{shape}."
            )
        layout = of_tiff(path, shape, axes, spatial_dims) if axes is not None else common
        assert layout is not None
        layouts.append(layout)
        mine, there = (
            (each.sizes(of)[0], each.spatial_dims) for each, of in ((layout, shape), (layouts[0], shapes[0]))
        )
        if mine != there or (spatial_dims is not None and layout.spatial_dims != spatial_dims):
            raise RunError(
                f"{path} must have the channels and the number of spatial dimensions of {paths[0]}, "
                f"{layouts[0].describe(shapes[0])}, got {layout.describe(shape)}."
            )
    return layouts, shapes


def common_layout(arrays: dict[tuple[int, ...], Path], spatial_dims: int | None, channels: str | None) -> Layout:
    """The layout of .npy files, which may be clear from the shape of some of them alone."""
    found: dict[Layout, str] = {}
    errors = []
    for shape, path in arrays.items():
        try:
            found.setdefault(infer(str(path), shape, spatial_dims, channels), f"{path} {shape}")
        except RunError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    if len(found) > 1:
        read = [f"{each.flags} for {name}" for each, name in found.items()]
        raise RunError(f"All .npy files must have axes of the same meaning, got {listed(read)}. Give the options.")
    return next(iter(found))
