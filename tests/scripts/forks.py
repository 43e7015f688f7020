"""Runs of scripts/train.py in processes of their own, forked from one that has imported everything already.

A process that imports torch and Lightning anew takes seconds, and the tests here start dozens.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from scripts import train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.forks"])


def start(
    arguments: list[str], log: Path, sabotage: Callable[[], None] | None = None
) -> multiprocessing.process.BaseProcess:
    """A process that runs the script, after ``sabotage``, with what it prints appended to ``log``."""
    process = CONTEXT.Process(target=run, args=([str(each) for each in arguments], str(log), sabotage))
    process.start()
    return process


def run(arguments: list[str], log: str, sabotage: Callable[[], None] | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    if sabotage is not None:
        sabotage()
    train.main(arguments)


def finish(arguments: list[str], log: Path, sabotage: Callable[[], None] | None = None) -> int:
    """The exit code of a run that is waited for."""
    process = start(arguments, log, sabotage)
    process.join(300)
    assert process.exitcode is not None, log.read_text()
    return process.exitcode


def wait_for(text: str, process: multiprocessing.process.BaseProcess, log: Path, start: int = 0) -> None:
    """Wait until the process has printed ``text`` behind ``start`` bytes of its log, or has ended."""
    while process.is_alive() and not (log.exists() and text.encode() in log.read_bytes()[start:]):
        time.sleep(0.01)
