"""scripts/train.py killed, stopped and resumed: it ends as if nothing had been."""

import itertools
import os
import random
import signal
from functools import partial

import pytest

from scripts.training import checkpoints
from tests.scripts import forks
from tests.scripts.runs import LONG, assert_same, die_after_checkpoint

KILLS = 20


def die_at_sync(number: int) -> None:
    """Have the process killed when it asks the disk, for that time, to have what it wrote: amid writing some file."""
    real, calls = os.fsync, itertools.count(1)

    def fsync(descriptor: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync


@pytest.mark.slow
def test_killed_after_its_last_checkpoint_leaves_no_more_files(whole, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    assert forks.finish([*LONG, "--output", output], log, partial(die_after_checkpoint, 48)) == -signal.SIGKILL
    assert len(checkpoints.listed(output)) == 3
    assert forks.finish([*LONG, "--output", output, "--resume"], log) == 0
    assert_same(output, whole)


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
