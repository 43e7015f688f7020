"""Every public name has an entry in the API reference, with an example that runs."""

import doctest
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lazytorch
from lazytorch import layers, models

DOCS = Path(__file__).parent.parent / "docs"
MODULES = {"lazytorch": lazytorch, "lazytorch.layers": layers, "lazytorch.models": models}
NAMES = [(where, name) for where, module in MODULES.items() for name in module.__all__]


def test_every_public_name_has_an_entry_in_the_site(tmp_path):
    """And the site builds without a warning."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        command, capture_output=True, text=True, cwd=DOCS.parent, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.glob("api/**/index.html"))
    entries = {name for page in pages for name in re.findall(r'id="(lazytorch[\w.]*)"', page.read_text())}
    # A function that has its module's name is entered by both.
    wanted = {f"{where}.{name}": f"{where}.{name}.{name}" for where, name in NAMES}
    assert [name for name, full in wanted.items() if name not in entries and full not in entries] == []


@pytest.mark.parametrize(("where", "name"), NAMES, ids=map(".".join, NAMES))
def test_its_example_runs(where, name):
    value = getattr(MODULES[where], name)
    if isinstance(value, tuple):  # a table of stages has no docstring
        page = (DOCS / "api" / "zoo_stages.md").read_text()
        text = page.partition(f"#lazytorch.models.{name} }}")[2].partition("##")[0]
    else:
        text = inspect.getdoc(value) or ""
    test = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, name, None, None)
    assert test.examples, f"{where}.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    assert runner.run(test).failed == 0
