"""Runs that several files of tests use."""

import os
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.scripts import forks
from tests.scripts.runs import FOLDER, LONG, PETS


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert forks.finish([*LONG, "--output", output], output.with_name("log")) == 0
    return output


@pytest.fixture(scope="session")
def pets(tmp_path_factory) -> Path:
    """The folder in which somebody has trained on ``folder:$HOME & <pets>`` with few options, to 100 %."""
    place = tmp_path_factory.mktemp("pets")
    for label, name in enumerate(PETS):
        for split, count in (("train", 16), ("val", 4)):
            folder = place / FOLDER / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("L", (32, 32), 20 + 200 * label + index).save(folder / f"{index}.png")
    arguments = ["--model", "resnet10t", "--epochs", "3", "--batch-size", "8", "--seed", "2", "--device", "cpu"]
    log = place / "log"
    assert forks.finish(["--data", f"folder:{FOLDER}", *arguments], log, partial(os.chdir, place)) == 0, log.read_text()
    return place
