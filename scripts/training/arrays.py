"""Data sets of arrays: a .npz file in memory, or a folder of .npy files that are read through maps."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy
import torch
from torch import Tensor

from scripts.training.errors import RunError, listed
from scripts.training.layout import Layout, infer
from scripts.training.mapped import Mapped
from scripts.training.sources import Labels, Source, Subset
from scripts.training.targets import held_out, targets

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# What the names of arrays state about the number of spatial dimensions; "images" may be volumes in MedMNIST.
SAMPLES = {"images": None, "signals": 1, "volumes": 3}


class Rows(Protocol):
    """What a source needs of an array: numpy's and ``Mapped`` have it."""

    shape: tuple[int, ...]
    dtype: numpy.dtype

    def __getitem__(self, rows: int | slice, /) -> numpy.ndarray: ...


class Arrays(Source):
    """One split of a data set of arrays.

    Args:
        rows: The samples along the first axis.
        labels: Of each sample.
        layout: Of the other axes.
        what: What messages call the array.
    """

    def __init__(self, rows: Rows, labels: Labels, layout: Layout, what: str) -> None:
        super().__init__(labels)
        self.rows, self.layout, self.what = rows, layout, what

    def read(self, index: int) -> Tensor:
        return to_tensor(self.layout.apply(self.rows[index]))

    def read_many(self, start: int, stop: int) -> Tensor:
        """Consecutive samples (samples, channels, *spatial), for one pass over the split."""
        rows = self.rows[start:stop]
        channels, spatial = self.layout.sizes(rows.shape[1:])
        if self.layout.channels == "last":
            rows = numpy.moveaxis(rows, -1, 1)
        return to_tensor(rows.reshape(len(rows), channels, *spatial))

    def size(self, index: int) -> tuple[int, ...]:
        return self.layout.sizes(self.rows.shape[1:])[1]

    def name(self, index: int) -> str:
        return f"{self.what} {index}"


def to_tensor(array: numpy.ndarray) -> Tensor:
    """The values of any numeric type as floating-point numbers, without scaling.

    Types of at most 16 bits and float32 become float32; longer ones become float64 until they are standardized, as
    float32 has no more than 24 bits of a large integer.
    """
    short = array.dtype.itemsize <= 2 or array.dtype == numpy.float32
    return torch.from_numpy(numpy.ascontiguousarray(array, numpy.float32 if short else numpy.float64))


class Split(NamedTuple):
    """The arrays of a split and their names."""

    samples: Rows
    samples_name: str
    labels: Rows
    labels_name: str
    spatial_dims: int | None


def load_arrays(
    path: Path, seed: int, spatial_dims: int | None, channels: str | None
) -> tuple[dict[str, Source], list[str]]:
    """The splits and the names of the classes.

    Raises:
        RunError: Naming the array that cannot be used.
    """
    splits = find_splits(path)
    first = splits["train"]
    for split in splits.values():
        require_fitting(split, first)
    layout = infer(first.samples_name, first.samples.shape[1:], spatial_dims or first.spatial_dims, channels)
    found = targets({name: (split.labels_name, numpy.asarray(split.labels[:])) for name, split in splits.items()})
    sources: dict[str, Source] = {
        name: Arrays(split.samples, found.labels[name], layout, split.samples_name) for name, split in splits.items()
    }
    if "val" not in sources:
        everything = sources["train"]
        train, val = held_out(everything.labels, seed)
        sources |= {"train": Subset(everything, train), "val": Subset(everything, val)}
    return sources, [str(index) for index in range(found.classes)]


def find_splits(path: Path) -> dict[str, Split]:
    """The splits in a .npz file or a folder of .npy files."""
    named = open_folder(path) if path.is_dir() else read_archive(path)
    by_key = {name.lower(): name for name in named}
    splits = {}
    for split, prefixes in SPLITS.items():
        keys = [(f"{each}_{kind}", f"{each}_labels", dims) for each in prefixes for kind, dims in SAMPLES.items()]
        keys += [(f"x_{each}", f"y_{each}", None) for each in prefixes]
        present = [(samples, labels, dims) for samples, labels, dims in keys if {samples, labels} & by_key.keys()]
        complete = [each for each in present if {each[0], each[1]} <= by_key.keys()]
        if present and not complete:
            samples, labels, _ = present[0]
            missing, other = (labels, samples) if samples in by_key else (samples, labels)
            raise RunError(f"{path} must have {missing} for {other}, got {shown(named)}.")
        if len(complete) > 1:
            raise RunError(
                f"{path} must have one array of {split} samples, got {listed([by_key[each[0]] for each in complete])}."
            )
        for samples, labels, dims in complete:
            names = by_key[samples], by_key[labels]
            full = [f"{path}/{name}.npy" if path.is_dir() else f"{path}: {name}" for name in names]
            splits[split] = Split(named[names[0]], full[0], named[names[1]], full[1], dims)
    if "train" not in splits:
        raise RunError(f"{path} must have train_images and train_labels, or x_train and y_train, got {shown(named)}.")
    return splits


def shown(named: dict[str, Rows]) -> str:
    return listed(sorted(named)) or "no arrays"


def open_folder(path: Path) -> dict[str, Rows]:
    return {each.stem: Mapped(each) for each in sorted(path.glob("*.npy")) if not each.name.startswith(".")}


def read_archive(path: Path) -> dict[str, Rows]:
    if not path.exists():
        raise RunError(f"arrays:{path} must be a .npz file or a folder of .npy files, got no such file.")
    try:
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        hint = " Arrays of Python objects could execute code." if "allow_pickle" in str(error) else ""
        raise RunError(
            f"{path} must be a .npz file, got one that cannot be read ({type(error).__name__}: {error}).{hint} Write "
            "it again."
        ) from error


def require_fitting(split: Split, first: Split) -> None:
    """Refuse arrays that do not fit each other."""
    samples, labels = split.samples, split.labels
    if samples.dtype.kind not in "biuf":
        raise RunError(f"{split.samples_name} must contain integers or floating-point numbers, got {samples.dtype}.")
    counts = [each.shape[0] if each.shape else 0 for each in (samples, labels)]
    if counts[0] != counts[1]:
        raise RunError(
            f"{split.labels_name} must have one label for each sample of {split.samples_name}, {counts[0]}, got "
            f"{counts[1]}."
        )
    if not counts[0]:
        raise RunError(f"{split.samples_name} must have samples, got the shape {samples.shape}.")
    for what, mine, that in (
        ("shape", samples.shape[1:], first.samples.shape[1:]),
        ("kind of numbers", kind(samples.dtype), kind(first.samples.dtype)),
    ):
        if mine != that:
            raise RunError(
                f"{split.samples_name} must have samples of the same {what} as {first.samples_name}, {that}, got "
                f"{mine}."
            )


def kind(dtype: numpy.dtype) -> str:
    return "floating-point numbers" if dtype.kind == "f" else "integers"
