"""A run that several files of tests compare others with."""

from pathlib import Path

import pytest

from tests.scripts import forks
from tests.scripts.runs import LONG


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert forks.finish([*LONG, "--output", output], output.with_name("log")) == 0
    return output
