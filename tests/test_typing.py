"""Static type checkers accept right calls and refuse wrong ones."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lazytorch import models

ROOT = Path(__file__).resolve().parents[1]
CALLS = "tests/typing_of_calls.py"


def lines_of_pyright(path=CALLS):
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", path]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {each["range"]["start"]["line"] + 1 for each in json.loads(found.stdout)["generalDiagnostics"]}


def lines_of_mypy(path=CALLS):
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-error-summary", "--cache-dir=/dev/null"]
    found = subprocess.run([*command, path], cwd=ROOT, capture_output=True, text=True, check=False)
    return {int(line) for line in re.findall(rf"^{re.escape(path)}:(\d+): error", found.stdout, flags=re.M)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checker", "marks"), [(lines_of_pyright, ("error", "error of pyright")), (lines_of_mypy, ("error",))]
)
def test_wrong_calls_are_errors_and_right_ones_are_not(checker, marks):
    pytest.importorskip(checker.__name__.removeprefix("lines_of_"))
    lines = (ROOT / CALLS).read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.partition("  # ")[2] in marks}
    assert len(wrong) >= 13
    assert checker() == wrong


@pytest.mark.slow
@pytest.mark.parametrize("checker", [lines_of_pyright, lines_of_mypy])
def test_every_builder_returns_its_family(checker, tmp_path):
    pytest.importorskip(checker.__name__.removeprefix("lines_of_"))
    names = models.list_models()
    families = [inspect.signature(getattr(models, name)).return_annotation.__name__ for name in names]
    calls = [f"assert_type(models.{name}(10), models.{family})" for name, family in zip(names, families, strict=True)]
    path = tmp_path / "builders.py"
    path.write_text("\n".join(["from typing import assert_type", "from lazytorch import models", *calls, "models.no"]))
    assert checker(str(path)) == {len(calls) + 3}  # the last line is wrong
