"""scripts/train.py on two processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import train
from scripts.training import checkpoints
from tests.scripts import forks
from tests.scripts.runs import RUN, assert_same

TWO = [*RUN, "--epochs", "8", "--checkpoint-steps", "2"]


def finish_two(output: Path, log: Path) -> str:
    processes = forks.start_two([*TWO, "--output", output, "--resume"], log)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], log.read_text()
    return log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing happens to."""
    output = tmp_path_factory.mktemp("two") / "run"
    printed = finish_two(output, output.with_name("log"))
    assert printed.count("4 steps an epoch, of 4 images at most in each of 2 processes") == 1
    assert "learning rate 0.002 for 16 images an update" in printed
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
        while b"Epoch 1" not in log.read_bytes() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(100)
    printed = log.read_text()
    assert process.returncode != 0
    assert printed.count("Stopped by SIGTERM. The last checkpoint is") == 1, printed
    assert not (output / "summary.json").exists()
    finish_two(output, log)
    assert_same(output, whole)


def test_another_number_of_processes_is_refused(whole, capsys):
    (whole / "summary.json").rename(whole / "summary")
    try:
        with pytest.raises(SystemExit):
            train.main([*TWO, "--output", str(whole), "--resume"])
    finally:
        (whole / "summary").rename(whole / "summary.json")
    assert "there must be as many processes as the run had, 2, got 1" in capsys.readouterr().err
