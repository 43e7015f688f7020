"""Sets of arrays that several files of tests use."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import torch

from scripts.training.sources import Data, InMemory

SHAPES = {1: (2, 40), 2: (5, 24, 20), 3: (1, 24, 20, 16)}  # of a sample with channels first
SIZES = {1: (64,), 2: (32, 40), 3: (32, 24, 28)}  # of the samples of ``array_data``


def samples(count: int, shape: Sequence[int], classes: int = 2, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Noise whose first half is brighter the higher the class, and the classes in turn."""
    labels = numpy.arange(count) % classes
    values = numpy.random.default_rng(seed).normal(size=(count, *shape))
    values[..., : shape[-1] // 2] += 3 * labels.reshape(-1, *[1] * len(shape))
    return (100 + 20 * values).astype(numpy.float32), labels


def named(shape: Sequence[int], train: int = 32, val: int = 8, **others: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Arrays with the keys of MedMNIST; ``others`` are added or replace them."""
    arrays = {}
    for split, count in (("train", train), ("val", val)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = samples(count, shape, seed=count)
    return {**arrays, **others}


def save(path: Path, arrays: Mapping[str, numpy.ndarray]) -> Path:
    """Write a .npz file, or a folder of .npy files if ``path`` has no suffix."""
    if path.suffix:
        numpy.savez(path, **arrays)
    else:
        path.mkdir(parents=True)
        for name, array in arrays.items():
            numpy.save(path / f"{name}.npy", array)
    return path


def array_data(spatial_dims: int, channels: int = 2, classes: int = 2, count: int = 8) -> Data:
    """Noise around a mean of each class, standardized, as ``--data arrays:`` has it."""
    generator = torch.Generator().manual_seed(0)
    labels = [index % classes for index in range(count)]
    examples = torch.randn(count, channels, *SIZES[spatial_dims], generator=generator)
    examples += torch.tensor(labels).reshape(-1, *[1] * (spatial_dims + 1))
    source = InMemory(examples, labels, "array")
    names, normal = [f"class {index}" for index in range(classes)], ([0.0] * channels, [1.0] * channels)
    return Data(source, source, names, channels, SIZES[spatial_dims], *normal)
