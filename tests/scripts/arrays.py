"""Small data of any number of spatial dimensions, in memory, for tests of the training script."""

import torch

from scripts.training.sources import Data, InMemory

SHAPES = {1: (64,), 2: (32, 40), 3: (32, 24, 28)}


def array_data(spatial_dims: int, channels: int = 2, classes: int = 2, count: int = 8) -> Data:
    """Noise around a mean of each class, standardized, as ``--data arrays:`` has it."""
    generator = torch.Generator().manual_seed(0)
    labels = [index % classes for index in range(count)]
    examples = torch.randn(count, channels, *SHAPES[spatial_dims], generator=generator)
    examples += torch.tensor(labels).reshape(-1, *[1] * (spatial_dims + 1))
    source = InMemory(examples, labels, "array")
    names, normal = [f"class {index}" for index in range(classes)], ([0.0] * channels, [1.0] * channels)
    return Data(source, source, names, channels, SHAPES[spatial_dims], *normal, spatial_dims=spatial_dims)
