"""A plot of the benchmark: ratios by row, and cost by depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from scripts.benchmarking.depth import Curve, exponent
from scripts.benchmarking.measure import Comparison, geometric_mean

__all__ = ["plot"]


def plot(
    comparisons: Sequence[Comparison],
    depths: Mapping[str, Curve],
    wanted: Mapping[str, Mapping[str, tuple[float | None, float | None]]],
    path: Path,
) -> None:
    """Plot a dot for every model, a bar for the geometric mean, a line for the required ratio; and time by depth."""
    pairs = list(dict.fromkeys((each.row, each.peer) for each in comparisons))
    count = bool(comparisons) + bool(depths)
    size = (6.5 * count, max(4.0, 0.34 * len(pairs) + 1.2))
    figure, axes = pyplot.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    left = iter(axes[0])
    if comparisons:
        axis = next(left)
        ratios = [[each.ratio for each in comparisons if (each.row, each.peer) == pair] for pair in pairs]
        targets = [wanted[row][peer][0] or wanted[row][peer][1] for row, peer in pairs]
        places = list(range(len(pairs)))
        axis.barh(places, list(map(geometric_mean, ratios)), height=0.6, color="#7fb3d5", label="geometric mean")
        dots = [(ratio, place) for place, those in zip(places, ratios, strict=True) for ratio in those]
        axis.plot(*zip(*dots, strict=True), "o", color="#1f4e79", markersize=3, label="models")
        marks = [(target, place) for place, target in zip(places, targets, strict=True) if target is not None]
        axis.plot(*zip(*marks, strict=True), "|", color="#c0392b", markersize=14, markeredgewidth=2, label="wanted")
        axis.set_yticks(places, [f"{row} / {peer}" for row, peer in pairs])
        axis.invert_yaxis()
        axis.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        axis.set_xlabel("lazytorch over the other (time, or memory); less is better")
        axis.legend(loc="lower right", fontsize="small")
    if depths:
        axis = next(left)
        for name, curve in depths.items():
            label = f"{name} (exponent {exponent(curve):.2f})"
            axis.loglog(list(curve), list(curve.values()), "o-", markersize=3, label=label)
        axis.set(xlabel="blocks, or modules nested", ylabel="seconds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
