"""The examples in the README and the documentation run as they stand."""

import doctest
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
