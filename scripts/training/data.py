"""Where samples come from: the digits, arrays, a folder, a set of torchvision's, or made up."""

import difflib
import inspect
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from scripts.training import array_data, array_files
from scripts.training.array_data import EVERY_SPLIT, Folder, Known
from scripts.training.errors import RunError, listed
from scripts.training.options import Options
from scripts.training.sources import Data, Files, InMemory, PillowSet, Source, Subset
from scripts.training.targets import held_out, require_classes
from scripts.training.values import kind_of

SPLITS = (("train", "trainval"), ("val", "valid", "test"))  # the names that torchvision's sets give them
LEAST_SIZE, MOST_SIZE = 32, 224  # pixels; of the images if --image-size does not say
# ImageNet's, which published weights expect; other channel counts have their average.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalization(channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation by which pixels from 0 to 1 are normalized."""
    if channels == len(MEAN):
        return list(MEAN), list(DEVIATION)
    return [sum(MEAN) / 3] * channels, [sum(DEVIATION) / 3] * channels


def load(options: Options, known: Known | None = None, check: Collection[str] = EVERY_SPLIT) -> Data:
    """The data that the options name.

    Args:
        options: The options.
        known: The description of the weights that are resumed, evaluated or fine-tuned.
        check: The splits of arrays that are read once, for values that cannot be trained on.

    Raises:
        RunError: If they cannot be trained on.
    """
    kind, rest = kind_of(options.data)
    dims = options.spatial_dims
    if dims is None and known is not None and "train" not in check:  # not of other data, as in fine-tuning
        dims = known.get("spatial_dims")
    if kind == "arrays":
        return array_data.of_arrays(Path(rest).expanduser(), dims, options, known, check)
    if kind == "digits":
        train, val, classes = digits(options.seed)
    elif kind == "synthetic":
        train, val, classes = synthetic(options.seed)
    elif kind == "folder":
        found = folder(Path(rest).expanduser())
        if array_data.has_arrays(found, dims, options):
            return array_data.of_files(found, dims, options, known, check)
        train, val, classes = photographs(found)
    else:
        train, val, classes = from_torchvision(rest, options)
    require_classes(options.data, classes, {"training": train, "validation": val})
    labels = list(train.labels)
    channels = max(train.read(labels.index(label)).size(0) for label in range(len(classes)))
    size = options.image_size
    if isinstance(size, str):
        raise RunError(f"--image-size: must be one number for the photographs in {options.data}, got {size}.")
    if size is None:
        size = min(max(min(train.read(0).shape[1:]), LEAST_SIZE), MOST_SIZE)
    return Data(train, val, classes, channels, size, *normalization(channels))


def digits(seed: int) -> tuple[Source, Source, list[str]]:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images; a stratified fifth of them for validation."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16  # 0, paper, to 1, ink
    source = InMemory(pixels, labels.tolist(), "digit")
    train, val = held_out(source.labels, seed)
    return Subset(source, train), Subset(source, val), [str(label) for label in range(10)]


def synthetic(seed: int) -> tuple[Source, Source, list[str]]:
    """Four classes of coarse colour patterns under noise; 256 images for training, 64 for validation."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(4, 3, 4, 4, generator=generator).repeat_interleave(8, -1).repeat_interleave(8, -2)

    def split(count: int, name: str) -> Source:
        labels = (torch.arange(count) % 4).tolist()
        noise = torch.randn(count, 3, 32, 32, generator=generator) / 3
        images = (patterns[labels] + noise).clamp(0, 1)
        return InMemory(images, labels, f"synthetic {name} image")

    return split(256, "training"), split(64, "validation"), ["a", "b", "c", "d"]


def folder(root: Path) -> Folder:
    """``train`` and ``val``, and in each a folder of images for every class; what is hidden is left out."""
    suffixes = Image.registered_extensions()  # of all formats that Pillow reads or writes
    readable = {suffix for suffix, kind in suffixes.items() if kind in Image.OPEN} | array_files.NPY
    found: dict[str, dict[str, list[Path]]] = {}
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise RunError(f"folder:{root} must contain a folder {split}, with a folder for each class, got none.")
        found[split] = {
            each.name: files_below(each, readable)
            for each in sorted((root / split).iterdir())
            if each.is_dir() and not each.name.startswith(".")
        }
    if found["train"].keys() != found["val"].keys():
        difference = [
            f"{listed(sorted(found[one].keys() - found[other].keys()))} only in {one}"
            for one, other in (("train", "val"), ("val", "train"))
            if found[one].keys() - found[other].keys()
        ]
        raise RunError(f"folder:{root}: train and val must have the same classes, got {'; '.join(difference)}.")
    classes = list(found["train"])
    paths = {split: [path for name in classes for path in files[name]] for split, files in found.items()}
    labels = {
        split: [label for label, name in enumerate(classes) for _ in files[name]] for split, files in found.items()
    }
    return Folder(root, classes, paths, labels)


def photographs(folder: Folder) -> tuple[Source, Source, list[str]]:
    """The files of a folder as images that Pillow reads."""
    train, val = (Files(folder.paths[split], folder.labels[split]) for split in ("train", "val"))
    return train, val, folder.classes


def files_below(root: Path, suffixes: set[str]) -> list[Path]:
    """The files with one of ``suffixes``, at every depth; links to folders are followed, into each folder once."""
    found, entered = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(parent)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        visible = (Path(parent, each) for each in names if not each.startswith("."))
        found += [path for path in visible if path.suffix.lower() in suffixes]
    return sorted(found)


def from_torchvision(name: str, options: Options) -> tuple[Source, Source, list[str]]:
    """A classification set of torchvision's: its own splits, or a stratified fifth held out if it has none."""
    what = f"torchvision:{name}"
    make = getattr(torchvision.datasets, name, None)
    if name not in torchvision.datasets.__all__ or make is None:
        names = {each.lower(): each for each in torchvision.datasets.__all__}
        close = [names[each] for each in difflib.get_close_matches(name.lower(), names, n=1)]
        meant = f" Did you mean torchvision:{close[0]}?" if close else ""
        raise RunError(f"--data {what}: torchvision.datasets has no set of that name.{meant}")
    parameters = inspect.signature(make).parameters
    keywords: dict[str, Any] = {"root": options.data_root, "download": options.download}
    keywords = {key: value for key, value in keywords.items() if key in parameters}
    try:
        if "train" in parameters:
            if name == "EMNIST":
                keywords["split"] = "balanced"
            sets = [make(**keywords, train=train) for train in (True, False)]
        elif "split" in parameters:
            sets = [first_that_exists(make, keywords, names) for names in SPLITS]
        else:
            sets = [make(**keywords)]
        sources = [of_pillow(each, f"{what} image") for each in sets]
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        advice = "" if options.download else " Give --download to have torchvision fetch it, if it can."
        raise RunError(f"--data {what} cannot be used: {error}.{advice}") from error
    highest = max(max(source.labels) for source in sources)
    names = getattr(sets[0], "classes", None)
    classes = [str(each) for each in names] if names and len(names) > highest else [str(i) for i in range(highest + 1)]
    if len(sources) == 2:
        return sources[0], sources[1], classes
    train, val = held_out(sources[0].labels, options.seed)
    return Subset(sources[0], train), Subset(sources[0], val), classes


def first_that_exists(make: Callable[..., Any], keywords: dict[str, Any], names: Sequence[str]) -> Any:
    """The first split of ``names`` that the set has."""
    for name in names[:-1]:
        try:
            return make(**keywords, split=name)
        except ValueError:  # how torchvision's sets refuse the name of a split
            continue
    return make(**keywords, split=names[-1])


def of_pillow(images: Any, what: str) -> Source:
    """A set whose items are a Pillow image and a class."""
    labels = next((getattr(images, key) for key in ("targets", "labels", "_labels") if hasattr(images, key)), None)
    if labels is None:
        labels = [images[index][1] for index in range(len(images))]
    labels = torch.as_tensor(labels).tolist()
    if not (labels and all(isinstance(label, int) and label >= 0 for label in labels)):
        raise ValueError("it is no classification set, of one class for each image")
    return PillowSet(images, labels, what)
