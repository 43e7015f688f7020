"""Runs of scripts/train.py in processes of their own, forked from one that has imported everything already.

A process that imports torch and Lightning anew takes seconds, and the tests here start dozens.
"""

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from scripts import train
from scripts.training import running  # noqa: F401  imported before the fork

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.forks"])


def start(
    arguments: list[Any], log: Path, sabotage: Callable[[], None] | None = None, env: dict[str, str] | None = None
) -> multiprocessing.process.BaseProcess:
    """A process that runs the script, after ``sabotage``, with what it prints appended to ``log``."""
    process = CONTEXT.Process(target=run, args=([str(each) for each in arguments], str(log), sabotage, env or {}))
    process.start()
    return process


def run(arguments: list[str], log: str, sabotage: Callable[[], None] | None, env: dict[str, str]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    rank_zero_only.rank = int(
        env.get("RANK", env.get("SLURM_PROCID", 0))
    )  # which Lightning has read when it was imported
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    if sabotage is not None:
        sabotage()
    train.main(arguments)


def start_two(
    arguments: list[Any], log: Path, sabotage: Callable[[], None] | None = None, *, slurm: bool = False
) -> list[multiprocessing.process.BaseProcess]:
    """Two processes of one run, told what torchrun, or Slurm, would tell them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    if slurm:
        shared = {"SLURM_JOB_ID": 1, "SLURM_JOB_NAME": "run", "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2}
        shared |= {"SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_NODELIST": "localhost", "MASTER_PORT": port}
        ranks = ("SLURM_PROCID", "SLURM_LOCALID")
    else:
        shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "localhost"}
        shared |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0}
        shared["MASTER_PORT"] = port
        ranks = ("RANK", "LOCAL_RANK")
    envs = [{**shared, **dict.fromkeys(ranks, rank)} for rank in range(2)]
    return [start(arguments, log, sabotage, {key: str(value) for key, value in env.items()}) for env in envs]


def finish(arguments: list[Any], log: Path, sabotage: Callable[[], None] | None = None) -> int:
    """The exit code of a run that is waited for."""
    process = start(arguments, log, sabotage)
    process.join(300)
    assert process.exitcode is not None, log.read_text()
    return process.exitcode


def wait_for(text: str, process: multiprocessing.process.BaseProcess, log: Path, start: int = 0) -> None:
    """Wait until the process has printed ``text`` behind ``start`` bytes of its log, or has ended."""
    while process.is_alive() and not (log.exists() and text.encode() in log.read_bytes()[start:]):
        time.sleep(0.01)
