"""The examples in the README and the documentation run as they stand."""

import doctest
import re
from pathlib import Path

import pytest

from lazytorch.models import registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if "from torchao" in page.read_text():
        pytest.importorskip("torchao.quantization", exc_type=ImportError, reason="torchao needs a newer PyTorch")
    monkeypatch.chdir(tmp_path)  # where they write files
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # where they enter models
    results = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_readme_has_examples():
    assert doctest.testfile(str(ROOT / "README.md"), module_relative=False).attempted > 10


def test_every_python_block_is_a_doctest():
    for page in PAGES:
        for block in page.read_text().split("```python\n")[1:]:
            assert block.lstrip(" ").startswith(">>> "), f"{page.name}: a block that no test runs"


def test_files_that_contributing_and_readme_link_to_exist():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
        assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_contributing_tells_in_ten_lines_with_an_example_where_each_kind_of_code_goes():
    """Of the kinds that the package is extended by."""
    sections = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where new code goes")[2].partition("\n## ")[0]
    kinds = dict(section.split("\n", 1) for section in sections.split("\n### ")[1:])
    assert set(kinds) == {"A layer", "A block", "A family", "A rule of names", "A shape rule", "An option"}
    for text in kinds.values():
        lines = [line for line in text.splitlines() if line]
        assert len(lines) <= 10
        assert re.match(r"Example: .*\]\(\S+\.py\)", lines[0])
