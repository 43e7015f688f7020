"""Measurements: every round calls each contender once, so that changes of the machine's speed affect all equally."""

import gc
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

__all__ = ["Comparison", "compare", "cpu_seconds", "geometric_mean", "run_python", "seconds"]


class Comparison(NamedTuple):
    """The comparison of lazytorch with one peer, for one model and one row.

    Attributes:
        row: The row's name.
        model: The model's name.
        peer: The name of the peer.
        unit: ``"s"`` or ``"bytes"``.
        ours: Median of lazytorch.
        theirs: Median of the peer.
        ratio: Median over the rounds of lazytorch's value divided by the peer's.
        low: First quartile of these ratios.
        high: Third quartile of these ratios.
        note: Other results.
    """

    row: str
    model: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    note: str = ""


def seconds(call: Callable[[], Any], device: str = "cpu") -> float:
    """Wall time of a call; its result is deleted after the measurement."""
    gc.collect()
    start = time.perf_counter()
    result = call()
    if device != "cpu":
        torch.accelerator.synchronize()
    passed = time.perf_counter() - start
    del result
    return passed


def compare(
    row: str,
    model: str,
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    tick: Callable[[], None],
    unit: str = "s",
    note: str = "",
) -> list[Comparison]:
    """Measure all ``contenders``, including ``"ours"``, one after the other, after one round that is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        # The order alternates, so that side effects of one contender do not always affect the same other contender.
        for name in list(contenders)[:: 1 if index % 2 else -1]:
            figure = contenders[name]()
            if index > 0:
                figures[name].append(figure)
        tick()
    ours = figures.pop("ours")
    results = []
    for peer, theirs in figures.items():
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
        medians = statistics.median(ours), statistics.median(theirs)
        results.append(Comparison(row, model, peer, unit, *medians, middle, low, high, note))
    return results


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def run_python(*arguments: str, **variables: str) -> str:
    """The output of a new Python process; it may cache bytecode, as for an installed package.

    Args:
        *arguments: Of the command line.
        **variables: Environment variables, beside those of this process.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**environment, **variables}
    )
    if done.returncode:
        raise RuntimeError(f"A process that was to be measured failed:\n{done.stderr}")
    return done.stdout


def cpu_seconds(code: str) -> float:
    """CPU seconds (user and system) of a new Python process that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
