"""Every public name has an entry in the API reference, with an example that runs."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import lazytorch
from lazytorch import layers, models

DOCS = Path(__file__).parent.parent / "docs"
MODULES = {"lazytorch": lazytorch, "lazytorch.layers": layers, "lazytorch.models": models}
NAMES = [(where, name) for where, module in MODULES.items() for name in module.__all__]


def entries():
    """The names that the pages of the reference have an entry for, with where each is public."""
    found = set()
    for module, members in re.findall(r"^::: (\S+)\n((?:  .*\n)*)", (DOCS / "api.md").read_text(), re.MULTILINE):
        found |= {tuple(module.rpartition(".")[::2])}
        found |= {(module, name) for name in re.findall(r"^        - (\w+)$", members, re.MULTILINE)}
    headings = re.findall(r"^### (\w+) \{ #lazytorch\.models\.(\w+) \}$", (DOCS / "api_zoo.md").read_text(), re.M)
    assert all(name == anchor for name, anchor in headings)
    return found | {("lazytorch.models", name) for name, _ in headings}


def test_every_public_name_has_an_entry():
    assert set(NAMES) - entries() == set()


@pytest.mark.parametrize(("where", "name"), NAMES, ids=map(".".join, NAMES))
def test_its_example_runs(where, name):
    value = getattr(MODULES[where], name)
    if isinstance(value, tuple):  # a table of stages has no docstring
        page = (DOCS / "api_zoo.md").read_text()
        text = page.partition(f"#lazytorch.models.{name} }}")[2].partition("###")[0]
    else:
        text = inspect.getdoc(value) or ""
    test = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, name, None, None)
    assert test.examples, f"{where}.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    assert runner.run(test).failed == 0
