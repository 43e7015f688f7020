"""scripts/train.py killed, stopped and resumed: it ends as if nothing had been."""

import itertools
import json
import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from scripts.training import checkpoints
from tests.scripts import forks

KILLS = 20
# Everything random is on: the order, augmentation, Mixup and CutMix, dropout, stochastic depth.
RUN = [
    *("--data", "synthetic", "--limit-batches", "4", "--batch-size", "4", "--image-size", "16", "--device", "cpu"),
    *("--model", "mobilenet_v2", "--model-option", "width=0.1", "final_channels=16", "drop_path_rate=0.1"),
    *("--mixup", "0.2", "--cutmix", "1", "--erasing", "0.25", "--randaugment", "1", "--ema", "0.9"),
    *("--accumulate", "2", "--clip", "1", "--seed", "3"),
]
LONG = [*RUN, "--epochs", "12", "--checkpoint-steps", "2"]


def outcome(output: Path) -> dict:
    """Everything that two equal runs have equal, bit by bit."""
    last, before = checkpoints.listed(output)
    files = ("best.safetensors", "last.safetensors", "metrics.csv", "options.yaml", "confusion.png")
    summary = json.loads((output / "summary.json").read_text())
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
    assert [name for name in left if left[name] != right[name]] == []


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert forks.finish([*LONG, "--output", output], output.with_name("log")) == 0
    return output


def die_at_sync(number: int) -> None:
    """Have the process killed when it asks the disk, for that time, to have what it wrote: amid writing some file."""
    real, calls = os.fsync, itertools.count(1)

    def fsync(descriptor: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync


@pytest.mark.slow
def test_killed_twenty_times_ends_bitwise_equal(whole, tmp_path):
    log = tmp_path / "log"
    chance = random.Random(7)
    kills, runs, trained = 0, 0, 0
    while kills < KILLS or runs == 0:
        output = tmp_path / f"run{runs}"
        exit_code = None
        while exit_code != 0:
            command, before = [*LONG, "--output", output, "--resume"], checkpoints.listed(output)[:1]
            if kills >= KILLS:
                exit_code = forks.finish(command, log)
            elif kills % 2:  # while it writes a file
                exit_code = forks.finish(command, log, partial(die_at_sync, chance.randint(1, 30)))
            else:  # at any moment: while it starts, or trains, or saves, or evaluates, or reports
                said = log.stat().st_size if log.exists() else 0
                process = forks.start(command, log)
                if kills % 4:
                    forks.wait_for("Epoch", process, log, said)
                process.join(chance.uniform(0, 1))
                process.kill()
                process.join()
                exit_code = process.exitcode
            assert exit_code in (0, -signal.SIGKILL), log.read_text()
            kills += exit_code != 0
            trained += exit_code != 0 and checkpoints.listed(output)[:1] != before
        assert_same(output, whole)
        assert not list(output.rglob("*.partial"))
        runs += 1
    assert trained >= KILLS / 3, f"of {kills} kills {trained} came after a new checkpoint"
    print(f"{kills} kills over {runs} runs, {trained} of them after a new checkpoint")
