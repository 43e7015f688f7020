"""From arrays to ``Data``: their size, the statistics of their channels, and the checks before training."""

import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.training import array_files
from scripts.training.arrays import Arrays, load_arrays
from scripts.training.channel_statistics import mean_and_deviation, require_finite_split
from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.sources import Data, Source, Subset
from scripts.training.targets import require_classes
from scripts.training.values import KEPT, sizes

Known = Mapping[str, Any]  # the description of weights; that of arrays has "spatial_dims"
EVERY_SPLIT = ("train", "val", "test")


class Folder(NamedTuple):
    """The files of a folder: for each split, paths and the classes that their folders state."""

    root: Path
    classes: list[str]
    paths: dict[str, list[Path]]
    labels: dict[str, list[int]]


def of_arrays(path: Path, dims: int | None, options: Options, known: Known | None, check: Collection[str]) -> Data:
    """The data in a .npz file or a folder of .npy files."""
    splits, classes = load_arrays(path, options.seed, dims, options.channels)
    return checked(splits, classes, options, known, check)


def has_arrays(folder: Folder, dims: int | None, options: Options) -> bool:
    """Whether a folder contains arrays: by the options, or by the first files of all classes."""
    if dims or options.channels:
        return True
    firsts: dict[tuple[str, int], Path] = {}
    for split, paths in folder.paths.items():
        for path, label in zip(paths, folder.labels[split], strict=True):
            if path.suffix.lower() in array_files.NPY:
                return True
            if array_files.is_tiff(path):
                firsts.setdefault((split, label), path)
    return any(map(array_files.is_array, firsts.values()))


def of_files(folder: Folder, dims: int | None, options: Options, known: Known | None, check: Collection[str]) -> Data:
    """The data in a folder of files of which each is one array."""
    paths = [path for each in folder.paths.values() for path in each]
    for path in paths:
        if path.suffix.lower() not in array_files.NPY | array_files.TIFF:
            raise RunError(
                f"folder:{folder.root} must contain either images, or arrays (.npy and TIFF of several pages or bands) "
                f"alone, got {path} among arrays."
            )
    if not paths:
        raise RunError(f"{options.data}: every split must have samples, got none.")
    layouts, shapes = array_files.read_headers(paths, dims, options.channels)
    splits: dict[str, Source] = {}
    start = 0
    for split, each in folder.paths.items():
        part = slice(start, start + len(each))
        splits[split] = array_files.ArrayFiles(each, folder.labels[split], layouts[part], shapes[part])
        start += len(each)
    return checked(splits, folder.classes, options, known, check)


def checked(
    splits: Mapping[str, Source],
    classes: list[str],
    options: Options,
    known: Known | None,
    check: Collection[str],
) -> Data:
    """The data, checked, with the size and the standardization of their samples."""
    train, val, test = splits["train"], splits["val"], splits.get("test")
    require_classes(options.data, classes, {"training": train, "validation": val})
    spatial_dims = len(train.size(0))
    if options.channels_last and spatial_dims != 2:
        raise RunError(f"--channels-last: needs 2 spatial dimensions, got {spatial_dims}. Leave it out.")
    if known is not None and known.get("spatial_dims") != spatial_dims:  # size and statistics of other data
        known = None
    size, resample = sizing(train, spatial_dims, options, known)
    channels = train.read(0).size(0)
    computed = mean_and_deviation(train) if "train" in check else None
    for name, source in (("val", val), ("test", test)):
        if source is not None and name in check:
            require_finite_split(source, "validation" if name == "val" else name)
    if known is not None and known["channels"] == channels:
        mean, deviation = list(known["mean"]), list(known["deviation"])
    else:
        mean, deviation = computed or mean_and_deviation(train)
    return Data(train, val, classes, channels, size, mean, deviation, test, resample)


def sizing(train: Source, spatial_dims: int, options: Options, known: Known | None) -> tuple[tuple[int, ...], bool]:
    """The size that samples get, and whether by resampling.

    Raises:
        RunError: If ``--image-size`` has another number of dimensions.
    """
    given = options.image_size if "image_size" in options.given else None  # not that of weights of photographs
    if given is None and known is not None and known["image_size"] is not None:
        return tuple(known["image_size"]), known["resample"]
    if given is None or given == KEPT:
        return usual_size(train), False
    wanted = sizes(str(given))
    if len(wanted) not in (1, spatial_dims):
        raise RunError(
            f"--image-size: must be one number, or one for each of the {spatial_dims} spatial dimensions of "
            f"{options.data}, got {given}."
        )
    return wanted if len(wanted) == spatial_dims else wanted * spatial_dims, True


def usual_size(source: Source) -> tuple[int, ...]:
    """The median length of the samples in each dimension, of two middle ones the shorter."""
    if isinstance(source.source if isinstance(source, Subset) else source, Arrays):
        return source.size(0)
    lengths = zip(*(source.size(index) for index in range(len(source.labels))), strict=True)
    return tuple(statistics.median_low(each) for each in lengths)
