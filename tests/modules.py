"""Modules that several tests build lazily: a single one, nested ones, a whole model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lazytorch import LazyModule, lazify, models
from lazytorch.layers import ConvNormActivation, LazyConvNormActivation, LazyInvertedBottleneck
from lazytorch.models.mobilenet import MOBILENET_V2


class Block(nn.Module):
    """A target with a norm, dropout and parts of its own."""

    def __init__(self, in_channels: int, out_channels: int = 6) -> None:
        super().__init__()
        self.conv = ConvNormActivation(in_channels, out_channels)
        self.dropout = nn.Dropout(0.5)
        self.project = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return self.project(self.dropout(self.conv(x))) * scale


LazyBlock = lazify(Block, in_channels=1)


class Outer(nn.Module):
    """A plain module that contains lazy ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LazyBlock(4)
        self.second = nn.Sequential(LazyConvNormActivation(5), nn.Dropout(0.5), LazyInvertedBottleneck(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class LazyOuter(LazyModule, Outer):
    """Lazy at three levels: the module that it builds contains lazy ones."""

    def get_initialized_module(self, inputs: Any, module_args: Any, module_kwargs: Any) -> nn.Module:
        return Outer(*module_args, **module_kwargs)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(LazyOuter(), LazyConvNormActivation(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class LazyDeep(LazyModule, Deep):
    """Lazy at four levels."""

    def get_initialized_module(self, inputs: Any, module_args: Any, module_kwargs: Any) -> nn.Module:
        return Deep(*module_args, **module_kwargs)


def tiny_mobilenet() -> nn.Module:
    return models.mobilenet_v2(num_classes=3, stages=MOBILENET_V2[:2])


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "single": lambda: LazyBlock(4),
    "in a plain parent": lambda: nn.Sequential(nn.Identity(), LazyBlock(4)),
    "two levels": Outer,
    "three levels": LazyOuter,
    "four levels": LazyDeep,
    "model": tiny_mobilenet,
}
every_depth = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def image(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 16, 16)
