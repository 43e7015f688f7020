"""Static type checkers accept right calls and refuse wrong ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CALLS = "tests/typing_of_calls.py"


def lines_of_pyright():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", CALLS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {each["range"]["start"]["line"] + 1 for each in json.loads(found.stdout)["generalDiagnostics"]}


def lines_of_mypy():
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-error-summary", "--cache-dir=/dev/null"]
    found = subprocess.run([*command, CALLS], cwd=ROOT, capture_output=True, text=True, check=False)
    return {int(line) for line in re.findall(rf"^{re.escape(CALLS)}:(\d+): error", found.stdout, flags=re.M)}


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
