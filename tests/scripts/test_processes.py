"""scripts/train.py on two processes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts import train
from scripts.training import checkpoints
from scripts.training.module import Classifier
from tests.scripts import forks
from tests.scripts.runs import RUN, assert_same

TWO = [*RUN, "--epochs", "8", "--checkpoint-steps", "2"]


def finish_two(output: Path, log: Path, *arguments: str, spy: Callable[[], None] | None = None) -> str:
    processes = forks.start_two([*TWO, "--output", output, "--resume", *arguments], log, spy)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing happens to."""
    output = tmp_path_factory.mktemp("two") / "run"
    printed = finish_two(output, output.with_name("log"))
    assert printed.count("4 steps an epoch, of 4 samples at most in each of 2 processes") == 1
    assert "learning rate 0.002 for 16 samples an update" in printed
    return output


@pytest.mark.slow
def test_both_killed_end_as_if_they_had_not_been(whole, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    chance = random.Random(0)
    for _ in range(3):
        before = checkpoints.listed(output)[:1]
        processes = forks.start_two([*TWO, "--output", output, "--resume"], log)
        while checkpoints.listed(output)[:1] == before and processes[0].is_alive():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        for process in processes:
            process.kill()
            process.join()
    assert checkpoints.read(checkpoints.listed(output)[0])["run"]["processes"] == 2
    finish_two(output, log)
    assert_same(output, whole)


@pytest.mark.slow
def test_started_by_torchrun_and_stopped_through_it(whole, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*launcher, train.__file__, *TWO, "--output", str(output), "--checkpoint-steps", "1000"],
            stdout=file,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while b"Epoch 2/8" not in log.read_bytes() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(100)
    printed = log.read_text()
    assert process.returncode != 0
    assert printed.count("Stopped by SIGTERM. The last checkpoint is") == 1, printed
    assert not (output / "summary.json").exists()
    finish_two(output, log)
    assert_same(output, whole)


@pytest.mark.slow
def test_started_by_slurm(whole, tmp_path):
    processes = forks.start_two([*TWO, "--output", tmp_path / "run"], tmp_path / "log", slurm=True)
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "log").read_text()
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_another_number_of_processes_is_refused(whole, capsys):
    (whole / "summary.json").rename(whole / "summary")
    try:
        with pytest.raises(SystemExit):
            train.main([*TWO, "--output", str(whole), "--resume"])
    finally:
        (whole / "summary").rename(whole / "summary.json")
    assert "there must be as many processes as the run had, 2, got 1" in capsys.readouterr().err


def record(folder: Path) -> None:
    """Have each process leave its parameters, and the images that it saw, after every epoch."""
    step, end, seen = Classifier.training_step, Classifier.on_train_epoch_end, []

    def training_step(self, batch, batch_idx):
        seen.append(batch[2].tolist())
        return step(self, batch, batch_idx)

    def on_train_epoch_end(self):
        end(self)
        parameters = [each.detach().clone() for each in self.model.parameters()]
        name = f"{self.current_epoch} {self.trainer.global_rank}.pt"
        torch.save({"parameters": parameters, "seen": list(seen), "row": self.history[-1]}, folder / name)
        seen.clear()

    Classifier.training_step, Classifier.on_train_epoch_end = training_step, on_train_epoch_end


@pytest.mark.slow
def test_same_parameters_everywhere_and_each_image_once(tmp_path):
    everything = ["--epochs", "2", "--limit-batches", "1000", "--batch-size", "15", "--checkpoint-steps", "1000"]
    finish_two(tmp_path / "run", tmp_path / "log", *everything, spy=partial(record, tmp_path))
    for epoch in range(2):
        one, other = (torch.load(tmp_path / f"{epoch} {rank}.pt") for rank in range(2))
        for left, right in zip(one["parameters"], other["parameters"], strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)
        assert len(one["seen"]) == len(other["seen"]) == 9
        seen = [index for each in (one, other) for batch in each["seen"] for index in batch]
        assert sorted(seen) == list(range(256))
        assert one["row"] == other["row"]
    run = checkpoints.read(checkpoints.listed(tmp_path / "run")[0])["run"]
    assert run["validation"]["confusion"].sum(dim=1).tolist() == [16] * 4  # all 64 test images, each once
    assert run["validation"]["confusion"].trace() / 64 == run["history"][-1]["val_accuracy"]
    assert [path.name for path in tmp_path.glob("run/*.partial")] == []


@pytest.mark.slow
def test_shared_models_train_as_whole_ones_and_resume(tmp_path):
    # Larger images and batches, a low learning rate: else BatchNorm of a few values makes much of a rounding error.
    stable = ["--image-size", "64", "--batch-size", "16", "--epochs", "2", "--device", "cpu"]
    stable += ["--optimizer", "sgd", "--learning-rate", "0.02"]
    for name, strategy in (("whole", "ddp"), ("shared", "fsdp")):
        finish_two(tmp_path / name, tmp_path / f"{name} log", *stable, "--strategy", strategy)
    shared, whole = (load_file(tmp_path / name / "last.safetensors") for name in ("shared", "whole"))
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)

    output, log = tmp_path / "run", tmp_path / "log"
    processes = forks.start_two([*TWO, *stable, "--strategy", "fsdp", "--output", output], log)
    while not checkpoints.listed(output) and processes[0].is_alive():
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.join()
    assert "going on from" in finish_two(output, log, *stable, "--strategy", "fsdp")
    assert_same(output, tmp_path / "shared")
