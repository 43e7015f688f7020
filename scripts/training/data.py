"""Where images come from: the digits, a folder, a set of torchvision's, or made up; read one at a time, undistorted."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from scripts.training.errors import RunError
from scripts.training.options import Options

GREY = {"1", "L", "LA", "La", "I"}  # and I;16 in its byte orders
SPLITS = (("train", "trainval"), ("val", "valid", "test"))  # the names that torchvision's sets give them
LEAST_SIZE, MOST_SIZE = 32, 224  # pixels; of the images if --image-size does not say


class Source(NamedTuple):
    """One split: images by index, as tensors (channels, height, width), and their labels."""

    read: Callable[[int], Tensor]
    labels: Sequence[int]
    names: Callable[[int], str]  # what an image is called in messages


class Data(NamedTuple):
    """Both splits, and what is read from them."""

    train: Source
    val: Source
    classes: list[str]
    channels: int
    image_size: int


def load(options: Options) -> Data:
    """The data that the options name.

    Raises:
        RunError: If they cannot be trained on.
    """
    kind, _, rest = options.data.partition(":")
    if kind == "digits" and not rest:
        train, val, classes = digits(options.seed)
    elif kind == "synthetic" and not rest:
        train, val, classes = synthetic(options.seed)
    elif kind == "folder" and rest:
        train, val, classes = folder(Path(rest).expanduser())
    elif kind == "torchvision" and rest:
        train, val, classes = from_torchvision(rest, options)
    else:
        raise RunError(f"--data must be digits, folder:PATH, torchvision:NAME or synthetic, got {options.data}.")
    for split, source in (("training", train), ("validation", val)):
        if not len(source.labels):
            raise RunError(f"{options.data}: there must be images, got no {split} images.")
        counts = numpy.bincount(source.labels, minlength=len(classes))
        if empty := [classes[index] for index in numpy.flatnonzero(counts == 0)]:
            raise RunError(f"{options.data}: every class must have {split} images, got none for {listed(empty)}.")
    if len(classes) < 2:
        raise RunError(f"{options.data}: there must be two classes or more, got {listed(classes)}.")
    channels = max(train.read(train.labels.index(label)).size(0) for label in range(len(classes)))
    size = options.image_size
    if size is None:
        size = min(max(min(train.read(0).shape[1:]), LEAST_SIZE), MOST_SIZE)
    return Data(train, val, classes, channels, size)


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def held_out(labels: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """A stratified fifth for validation, the rest for training."""
    train, val = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return list(train), list(val)


def subset(source: Source, indices: list[int]) -> Source:
    return Source(
        lambda index: source.read(indices[index]),
        [source.labels[index] for index in indices],
        lambda index: source.names(indices[index]),
    )


def digits(seed: int) -> tuple[Source, Source, list[str]]:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images; a stratified fifth of them for validation."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16  # 0, paper, to 1, ink
    source = Source(pixels.__getitem__, labels.tolist(), lambda index: f"digit {index}")
    train, val = held_out(source.labels, seed)
    return subset(source, train), subset(source, val), [str(label) for label in range(10)]


def synthetic(seed: int) -> tuple[Source, Source, list[str]]:
    """Four classes of coarse colour patterns under noise; 256 images for training, 64 for validation."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(4, 3, 4, 4, generator=generator).repeat_interleave(8, -1).repeat_interleave(8, -2)

    def split(count: int, name: str) -> Source:
        labels = (torch.arange(count) % 4).tolist()
        noise = torch.randn(count, 3, 32, 32, generator=generator) / 3
        images = (patterns[labels] + noise).clamp(0, 1)
        return Source(images.__getitem__, labels, lambda index: f"synthetic {name} image {index}")

    return split(256, "training"), split(64, "validation"), ["a", "b", "c", "d"]


def folder(root: Path) -> tuple[Source, Source, list[str]]:
    """``train`` and ``val``, and in each a folder of images for every class."""
    suffixes = Image.registered_extensions()  # of all formats that Pillow reads or writes
    readable = {suffix for suffix, kind in suffixes.items() if kind in Image.OPEN}
    found: dict[str, dict[str, list[Path]]] = {}
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise RunError(f"folder:{root} must hold a folder {split} of folders of images, got none.")
        found[split] = {
            each.name: sorted(path for path in each.rglob("*") if path.suffix.lower() in readable and path.is_file())
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
    sources = []
    for split in ("train", "val"):
        paths = [path for name in classes for path in found[split][name]]
        labels = [label for label, name in enumerate(classes) for _ in found[split][name]]
        sources.append(
            Source(lambda index, paths=paths: read_image(paths[index]), labels, lambda i, p=paths: str(p[i]))
        )
    return sources[0], sources[1], classes


def read_image(path: Path) -> Tensor:
    """An image file as a tensor; its file is named if it cannot be read."""
    try:
        with Image.open(path) as image:
            return to_tensor(image)
    except Exception as error:  # Pillow's plugins raise whatever they like on bytes they did not expect
        raise RunError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}). Repair or remove it."
        ) from error


def to_tensor(image: Image.Image) -> Tensor:
    """Grey images as one channel, all others as red, green and blue; whole numbers of 8 bits, or from 0 to 1."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return F.to_image(numpy.asarray(image).astype(numpy.float32)[..., None] / (2**16 - 1))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    return F.to_image(image.convert("L" if image.mode in GREY else "RGB"))


def from_torchvision(name: str, options: Options) -> tuple[Source, Source, list[str]]:
    """A classification set of torchvision's: its own splits, or a stratified fifth held out if it has none."""
    what = f"torchvision:{name}"
    make = getattr(torchvision.datasets, name, None)
    if name not in torchvision.datasets.__all__ or make is None:
        raise RunError(f"--data {what}: torchvision.datasets has no set of that name.")
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
    return subset(sources[0], train), subset(sources[0], val), classes


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

    def read(index: int) -> Tensor:
        try:
            return to_tensor(images[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise RunError(f"{what} {index} cannot be read ({error}).") from error

    return Source(read, labels, lambda index: f"{what} {index}")
