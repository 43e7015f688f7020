"""Labels of arrays: integers, a column of them, one-hot rows, or rows of several classes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy
from sklearn.model_selection import train_test_split

from scripts.training.errors import RunError, listed
from scripts.training.sources import Source

FIFTH = 0.2


class Targets(NamedTuple):
    """The labels of every split, as sources have them.

    Args:
        labels: By the names of the splits; of multi-label data, arrays.
        classes: How many there are.
    """

    labels: dict[str, list[int] | numpy.ndarray]
    classes: int


def targets(arrays: Mapping[str, tuple[str, numpy.ndarray]]) -> Targets:
    """Check labels and convert them.

    Args:
        arrays: For each split, what messages call its labels, and the labels.

    Raises:
        RunError: Naming the labels that are not of one of these kinds, or out of range.
    """
    found = {split: whole_numbers(name, array) for split, (name, array) in arrays.items()}
    shapes = {array.shape[1:] for array in found.values()}
    if len(shapes) > 1:
        shown = ", ".join(f"{array.shape[1:]} in {arrays[split][0]}" for split, array in found.items())
        raise RunError(f"labels: all splits must have rows of the same shape, got {shown}.")
    if () in shapes:
        return integers(arrays, found)
    for split, array in found.items():
        if not numpy.isin(array, (0, 1)).all():
            raise RunError(
                f"{arrays[split][0]}: labels with a column for each class must be 0 or 1, got {array.min()} to "
                f"{array.max()}."
            )
    count = next(iter(shapes))[0]
    if all((array.sum(axis=1) == 1).all() for array in found.values()):
        return Targets({split: array.argmax(axis=1).tolist() for split, array in found.items()}, count)
    return Targets({split: array.astype(numpy.float32) for split, array in found.items()}, count)


def whole_numbers(name: str, array: numpy.ndarray) -> numpy.ndarray:
    """The labels as int64, one for each sample or one column for each class."""
    if array.ndim not in (1, 2):
        raise RunError(
            f"{name}: labels must be integers (samples,) or (samples, 1), or 0 and 1 (samples, classes), got the shape "
            f"{array.shape}."
        )
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not (array == numpy.floor(array)).all()):
        raise RunError(
            f"{name}: labels must be whole numbers, got {array.dtype} such as {array.flat[0]}. numpy.unique(labels, "
            "return_inverse=True) numbers names of classes."
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array.astype(numpy.int64)


def integers(arrays: Mapping[str, tuple[str, numpy.ndarray]], found: dict[str, numpy.ndarray]) -> Targets:
    """Labels that are the indices of classes, of which the training split has the highest one."""
    count = int(found["train"].max(initial=-1)) + 1
    for split, array in found.items():
        if array.size and not (array.min() >= 0 and array.max() < count):
            raise RunError(
                f"{arrays[split][0]}: labels must be from 0 to {count - 1}, the highest of {arrays['train'][0]}, got "
                f"{array.min()} to {array.max()}."
            )
    return Targets({split: array.tolist() for split, array in found.items()}, count)


def held_out(labels: Sequence[int] | numpy.ndarray, seed: int) -> tuple[list[int], list[int]]:
    """A stratified fifth for validation, the rest for training.

    Multi-label data are stratified by the combinations of classes; combinations of fewer than five samples are one
    group.

    Raises:
        RunError: If a class has too few samples.
    """
    groups = labels if not isinstance(labels, numpy.ndarray) else combinations(labels)
    try:
        train, val = train_test_split(range(len(labels)), test_size=FIFTH, stratify=groups, random_state=seed)
    except ValueError as error:
        counts = numpy.bincount(groups)
        few = [f"class {index} with {counts[index]}" for index in numpy.flatnonzero((counts > 0) & (counts < 2))]
        reason = f"got {listed(few)}" if few else f"got {len(labels)} samples of {len(numpy.unique(groups))} classes"
        raise RunError(
            f"Without a validation split, every class must have two samples or more, and a fifth of all samples must "
            f"have every class: {reason}. Add samples or a validation split."
        ) from error
    return list(train), list(val)


def combinations(labels: numpy.ndarray) -> list[int]:
    """The number of each sample's combination of classes, with rare combinations as one."""
    _, groups, counts = numpy.unique(labels, axis=0, return_inverse=True, return_counts=True)
    rare = counts < 1 / FIFTH
    if counts[rare].sum() == 1:  # alone, it cannot be in both splits
        groups[rare[groups]] = counts.argmax()
    else:
        groups[rare[groups]] = len(counts)
    return groups.ravel().tolist()


def require_classes(what: str, classes: Sequence[str], splits: Mapping[str, Source]) -> None:
    """Refuse data with fewer than two classes, or a split without samples or without one of the classes.

    Raises:
        RunError: With what is missing.
    """
    for name, source in splits.items():
        labels = source.labels
        if not len(labels):
            raise RunError(f"{what}: every split must have samples, got no {name} samples.")
        many = isinstance(labels, numpy.ndarray)
        counts = labels.sum(axis=0) if many else numpy.bincount(labels, minlength=len(classes))
        if empty := [classes[int(index)] for index in numpy.flatnonzero(counts == 0)]:
            raise RunError(f"{what}: every class must have {name} samples, got none for {listed(empty)}.")
    if len(classes) < 2:
        raise RunError(f"{what}: there must be two classes or more, got {listed(classes)}.")
