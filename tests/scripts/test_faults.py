"""scripts/train.py stopped by signals, damaged checkpoints, a full disk, poisoned files and numbers that are none."""

import contextlib
import errno
import hashlib
import io
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch

from scripts import train
from scripts.training import checkpoints, files
from scripts.training.checkpoints import MARK, DamagedError
from scripts.training.samples import Key, Samples
from tests.catalogue import first_fast
from tests.scripts import forks
from tests.scripts.runs import LIGHTNING_WARNINGS, LONG, RUN, assert_same

pytestmark = LIGHTNING_WARNINGS


@pytest.fixture
def unfinished(whole, tmp_path) -> Path:
    """The run ``whole``, as it was when its last checkpoint was written."""
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    (output / "summary.json").unlink()
    return output


def resume(output: Path, *arguments: str) -> None:
    train.main([*LONG, "--output", str(output), "--resume", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(whole, tmp_path, number, exit_code):
    output, log = tmp_path / "run", tmp_path / "log"
    process = forks.start([*LONG, "--checkpoint-steps", "1000", "--output", output], log)
    forks.wait_for("Epoch 4/12", process, log)
    before = checkpoints.listed(output)[0]
    os.kill(process.pid, number)
    process.join(60)
    text = log.read_text()
    assert process.exitcode == exit_code, text
    assert "Traceback" not in text
    last = checkpoints.listed(output)[0]
    assert last > before
    assert f"Stopped by {number.name}. The last checkpoint is {last}." in text
    assert f"--output {output} --resume" in text
    assert not (output / "summary.json").exists()
    position = checkpoints.read(last)["Loading"]
    assert position["epoch"] >= 3
    train.main([*LONG, "--output", str(output), "--resume"])
    assert_same(output, whole)


def test_a_signal_before_training_leaves_nothing(tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    process = forks.start([*LONG, "--output", output], log)
    forks.wait_for("synthetic: ", process, log)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert "Traceback" not in log.read_text()
    assert checkpoints.listed(output) == []


class Poison:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    path.write_bytes(content)


def poison(path: Path) -> None:
    buffer = io.BytesIO()
    content = torch.load(path, weights_only=True)
    torch.save({**content, "hyper_parameters": Poison(path.with_name("executed"))}, buffer)
    sign(path, buffer.getvalue())


def poison_alone(path: Path) -> None:
    sign(path, pickle.dumps(Poison(path.with_name("executed")), protocol=2))


def sign(path: Path, body: bytes) -> None:
    """Write ``body`` as a checkpoint whose checksum is right."""
    path.write_bytes(body + MARK + hashlib.sha256(body).hexdigest().encode())


@pytest.mark.parametrize(
    ("damage", "reason"),
    first_fast(
        [
            (truncate, "its end is missing"),
            (empty, "its end is missing"),
            (flip_a_bit, "its checksum is wrong"),
            (poison, "it holds more than tensors and plain values, and could execute code"),
            (poison_alone, "it holds more than tensors and plain values, and could execute code"),
        ],
        2,
    ),
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(damage, reason, unfinished, whole, capsys):
    last, before = checkpoints.listed(unfinished)
    damage(last)
    resume(unfinished)
    printed = capsys.readouterr().out
    assert f"{last} is damaged: {reason}. The one before it is used." in printed
    assert f"going on from {before}" in printed
    assert last.with_name(f"{last.name}.damaged").exists()
    assert not (last.parent / "executed").exists()
    assert_same(unfinished, whole)


def test_all_damaged_is_an_error(unfinished, capsys):
    for path in checkpoints.listed(unfinished):
        truncate(path)
    with pytest.raises(SystemExit):
        resume(unfinished)
    assert "No checkpoint is whole" in capsys.readouterr().err
    assert len(checkpoints.listed(unfinished)) == 2


def test_every_flipped_bit_and_every_cut_is_seen(whole, tmp_path):
    original = checkpoints.listed(whole)[0]
    copy = tmp_path / original.name
    chance = random.Random(0)
    for place in [0, 1, *(chance.random() for _ in range(50))]:
        shutil.copy(original, copy)
        flip_a_bit(copy, place)
        with pytest.raises(DamagedError):
            checkpoints.read(copy)
        shutil.copy(original, copy)
        os.truncate(copy, int(place * (original.stat().st_size - 1)))
        with pytest.raises(DamagedError):
            checkpoints.read(copy)
    shutil.copy(original, copy)
    checkpoints.read(copy)


def test_the_poison_works(tmp_path):
    """What the test above shows not to happen does happen to those who unpickle."""
    poison_alone(tmp_path / "last.ckpt")
    with (tmp_path / "last.ckpt").open("rb") as file:
        pickle.load(file).close()
    assert (tmp_path / "executed").exists()


def full_disk(after: int) -> None:
    """Have every file refused for want of space after ``after`` of them were written."""
    real, calls = os.fsync, itertools.count()

    def fsync(descriptor: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    files.os.fsync = fsync


def test_a_full_disk_says_so_and_spares_what_stood(whole, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    # Each file is two: options.yaml, the first checkpoint, the table and two files of weights; the second one fails.
    assert forks.finish([*LONG, "--output", output], log, partial(full_disk, 10)) == 1
    text = log.read_text()
    assert "The disk is full: there is no room for" in text
    assert "step-0000000004.ckpt" in text
    assert "Traceback" not in text
    assert not list(output.rglob("*.partial"))
    assert [path.name for path in checkpoints.listed(output)] == ["step-0000000002.ckpt"]
    checkpoints.read(checkpoints.listed(output)[0])
    resume(output)
    assert_same(output, whole)


@pytest.mark.slow
def test_a_really_full_filesystem(whole, tmp_path, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no filesystem can be mounted here")
    try:
        output, log = disk / "run", tmp_path / "log"
        process = forks.start([*LONG, "--output", output], log)
        forks.wait_for("Epoch 3/12", process, log)
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        process.join(60)
        text = log.read_text()
        assert process.exitcode == 1, text
        assert "The disk is full" in text
        assert "Traceback" not in text
        checkpoints.read(checkpoints.listed(output)[0])
        (disk / "filler").unlink()
        resume(output)
        assert_same(output, whole)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def nan_after(monkeypatch):
    """Have images be no numbers after so many were read."""

    def spoil(reads: int) -> None:
        real, count = Samples.__getitem__, itertools.count()

        def item(images: Samples, key: Key) -> tuple[torch.Tensor, int, int]:
            image, label, index = real(images, key)
            return image * (float("nan") if images.random and next(count) >= reads else 1), label, index

        monkeypatch.setattr(Samples, "__getitem__", item)

    return spoil


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_checkpoint(nan_after, tmp_path, capsys):
    plain = [*RUN[: RUN.index("--mixup")], "--output", str(tmp_path / "run"), "--epochs", "5", "--accumulate", "2"]
    nan_after(16 + 8)  # there are four batches of four an epoch
    with pytest.raises(SystemExit) as caught:
        train.main(plain)
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert "The loss is nan, as some values of the samples are not finite at step 4 (epoch 2, batch 3)" in error
    last = checkpoints.listed(tmp_path / "run")[0]
    assert f"The last good checkpoint is {last}" in error
    assert all(torch.isfinite(value).all() for value in checkpoints.read(last)["state_dict"].values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main([*RUN, "--epochs", "2", "--learning-rate", "1e37", "--output", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert "The loss is" in error or "A weight is not finite" in error or "The validation loss is" in error
    assert "Traceback" not in error
    for path in checkpoints.listed(tmp_path / "run"):
        assert all(torch.isfinite(value).all() for value in checkpoints.read(path)["state_dict"].values())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (["--model", "resnet10t"], "--model: mobilenet_v2 there, resnet10t here"),
        (["--data", "digits"], "classes: 4 there, 10 here"),
        (["--image-size", "24"], "image_size: 16 there, 24 here"),
        (["--seed", "4"], "--seed: 3 there, 4 here"),
        (["--epochs", "11"], "--epochs: 12 there, 11 here"),
    ],
)
def test_resuming_another_run_is_refused_with_the_difference(other, difference, unfinished, capsys):
    before = [path.read_bytes() for path in checkpoints.listed(unfinished)]
    with pytest.raises(SystemExit) as caught:
        resume(unfinished, *other)
    assert caught.value.code == 1
    assert difference in capsys.readouterr().err
    assert [path.read_bytes() for path in checkpoints.listed(unfinished)] == before


def test_resume_alone_takes_the_options_of_the_run(unfinished, whole):
    train.main(["--output", str(unfinished), "--resume"])
    assert_same(unfinished, whole)


def test_resuming_a_finished_run_does_nothing_and_more_epochs_go_on(whole, tmp_path, capsys):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    resume(output)
    assert "contains a finished run of 12 epochs: nothing to do" in capsys.readouterr().out
    resume(output, "--epochs", "13")
    assert "going on from" in capsys.readouterr().out
    assert len((output / "metrics.csv").read_text().splitlines()) == 14


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
