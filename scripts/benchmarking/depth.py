"""Cost by depth, which must grow linearly with the number of layers."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import lazytorch
from lazytorch.layers import LazyConvNormActivation
from lazytorch.models import ResNet
from scripts.benchmarking.measure import seconds

__all__ = ["DEPTHS", "NESTING", "Curve", "exponent", "measure_depths"]

DEPTHS = (10, 30, 100, 300, 1000)
NESTING = (1, 2, 5, 10, 20, 50)
Curve = dict[int, float]


class Nested(lazytorch.LazyModule):
    """Lazy modules nested ``depth`` times, around one convolution."""

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        (depth,) = module_args
        inner = LazyConvNormActivation(8) if depth == 1 else Nested(depth - 1)
        return nn.Sequential(nn.Conv2d(inputs[0].size(1), 8, 1), inner)


def deep(blocks: int) -> nn.Module:
    """A ResNet of ``blocks`` blocks with few channels, whose arithmetic takes almost no time."""
    return ResNet(2, depths=(blocks,), widths=(8,), stem=(8,))


def first_call(model: nn.Module) -> None:
    with torch.no_grad():
        model(torch.zeros(1, 3, 8, 8))


CASES: dict[str, tuple[tuple[int, ...], Callable[[int], nn.Module], Callable[[nn.Module], Any]]] = {
    "ResNet, materialize": (DEPTHS, deep, lambda model: lazytorch.materialize(model, (1, 3, 8, 8))),
    "ResNet, first call": (DEPTHS, deep, first_call),
    "ResNet, summary": (DEPTHS, deep, lambda model: lazytorch.summary(model, (1, 3, 8, 8))),
    "nested, materialize": (NESTING, Nested, lambda model: lazytorch.materialize(model, (1, 3, 8, 8))),
    "nested, first call": (NESTING, Nested, first_call),
}


def measure_depths(rounds: int, tick: Callable[[], None]) -> dict[str, Curve]:
    """Median seconds by depth for every case; each round measures all cases one after the other."""
    figures: dict[str, dict[int, list[float]]] = {
        name: {depth: [] for depth in case[0]} for name, case in CASES.items()
    }
    for index in range(rounds + 1):
        for name, (depths, make, call) in CASES.items():
            for depth in depths:
                passed = seconds(lambda make=make, call=call, depth=depth: call(make(depth)))
                if index > 0:
                    figures[name][depth].append(passed)
        tick()
    return {name: {depth: statistics.median(each) for depth, each in curve.items()} for name, curve in figures.items()}


def exponent(curve: Curve) -> float:
    """The exponent ``e`` of cost ``~ depth**e``, fitted to logarithms, without the smallest depths."""
    depths = sorted(curve)[len(curve) // 2 - 1 :]
    x, y = [math.log(depth) for depth in depths], [math.log(curve[depth]) for depth in depths]
    return statistics.linear_regression(x, y).slope
