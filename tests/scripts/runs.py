"""Runs of scripts/train.py for tests, and what two equal ones have equal."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scripts.training import checkpoints
from scripts.training.command_line import parse
from scripts.training.options import Options

LIGHTNING_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore::{each}:lightning")
    for each in ("UserWarning", "DeprecationWarning", "FutureWarning")
]
# Everything random is on: the order, augmentation, Mixup and CutMix, dropout, stochastic depth.
RUN = [
    *("--data", "synthetic", "--limit-batches", "4", "--batch-size", "4", "--image-size", "16", "--device", "cpu"),
    *("--model", "mobilenet_v2", "--model-option", "width=0.1", "final_channels=16", "drop_path_rate=0.1"),
    *("--mixup", "0.2", "--cutmix", "1", "--erasing", "0.25", "--randaugment", "1", "--ema", "0.9"),
    *("--accumulate", "2", "--clip", "1", "--seed", "3"),
]
LONG = [*RUN, "--epochs", "12", "--checkpoint-steps", "2"]
# A folder and its classes as users name them; no font here has the cat.
FOLDER, PETS = "$HOME & <pets>", ["a $x_{1 & <b>", "\N{CJK UNIFIED IDEOGRAPH-732B}"]


def options_of(*arguments: str) -> Options:
    """The options of a command line."""
    return parse("", list(arguments))[0]


def summary_of(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


class KilledError(Exception):
    """In place of a killed process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """Raise ``KilledError`` once the checkpoint from which batch ``batch`` of ``epoch`` is the next one is written."""
    save = checkpoints.Saving.save

    def saving(self: checkpoints.Saving, trainer: object, module: object, *position: int) -> None:
        save(self, trainer, module, *position)  # pyright: ignore[reportArgumentType]
        if position == (epoch, batch):
            raise KilledError

    monkeypatch.setattr(checkpoints.Saving, "save", saving)


def die_after_checkpoint(step: int) -> None:
    """Have this process killed once the checkpoint of ``step`` is written and older ones are not yet removed."""
    prune = checkpoints.Saving.prune

    def prune_or_die(saving: checkpoints.Saving) -> None:
        if (saving.folder / f"step-{step:010}.ckpt").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        prune(saving)

    checkpoints.Saving.prune = prune_or_die


def outcome(output: Path) -> dict:
    """Everything that two equal runs have equal, bit by bit."""
    last, before = checkpoints.listed(output)
    files = ("best.safetensors", "last.safetensors", "metrics.csv", "options.yaml", "confusion.png")
    summary = summary_of(output)
    content = [checkpoints.read(path) for path in (before, last)]
    for each in content:
        for name in ("output", "resume"):
            del each["run"]["options"][name]
        del each["run"]["seconds"]
        # Lightning counts what it has done since the start of this process.
        del each["loops"]
    return {
        "names": [path.name for path in (before, last)],
        "content": content,
        "files": {name: (output / name).read_bytes() for name in files if name != "options.yaml"},
        "summary": {key: value for key, value in summary.items() if key not in ("seconds", "options")},
    }


def assert_same(one: Path, other: Path) -> None:
    left, right = (dict(flattened(outcome(each))) for each in (one, other))
    assert left.keys() == right.keys()
    different = [name for name in left if left[name] != right[name]]
    assert not different, different


def flattened(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of nested dicts and lists by their places; tensors as their bytes."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flattened(each, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from flattened(each, f"{name}/{index}")
    else:
        yield name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
