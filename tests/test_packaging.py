"""The sdist and the wheel are complete, and the wheel works where only PyTorch is installed."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

import lazytorch

ROOT = Path(__file__).resolve().parents[1]
VERSION = lazytorch.__version__
SMOKE = f"""
import torch
import lazytorch
from importlib.metadata import version
from pathlib import Path
from torch import nn

assert Path(lazytorch.__file__).is_relative_to({{prefix!r}}), lazytorch.__file__
assert lazytorch.__version__ == version("lazytorch") == {VERSION!r}
layer = lazytorch.layers.LazyConvNormActivation(8, stride=2)
assert layer(torch.zeros(2, 3, 32, 32)).shape == (2, 8, 16, 16)
assert type(layer) is lazytorch.layers.ConvNormActivation
model = lazytorch.models.resnet18(num_classes=10)
summary = lazytorch.summary(model, (2, 1, 64, 64))
assert lazytorch.is_lazy(model) and summary.parameters > 11_000_000
assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 10)
assert lazytorch.lazify(nn.Linear, in_features=-1)(4)(torch.zeros(2, 3)).shape == (2, 4)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    ran = subprocess.run([str(each) for each in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_version_is_that_of_the_changelog_and_of_the_citation():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    unreleased, *released = re.findall(r"^## (.+)$", changelog, flags=re.M)
    assert unreleased == "Unreleased"
    date = re.search(r"^date-released: (\S+)$", citation, flags=re.M)
    assert date is not None
    assert released[0] == f"{VERSION} - {date[1]}"
    assert f"\nversion: {VERSION}\n" in citation


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    assert importlib.util.find_spec("hatchling"), "hatchling is not installed: pip install '.[dev]'"
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the sdist, as an installer does that finds no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *options, folder, sdist)
    (path,) = folder.iterdir()
    return path


def modules(folder: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.slow
def test_sdist_contains_the_sources_the_tests_and_the_documentation(sdist):
    assert sdist.name == f"lazytorch-{VERSION}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = "README.md LICENSE CHANGELOG.md CITATION.cff CONTRIBUTING.md Makefile mkdocs.yml noxfile.py pyproject.toml"
    wanted += " lazytorch/py.typed docs/index.md docs/parity.json docs/api/core.md"
    assert set(wanted.split()) | modules("lazytorch") | modules("tests") | modules("scripts") <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".git/", ".venv", "runs", "site"))]


@pytest.mark.slow
def test_wheel_contains_the_package_and_its_licence_only(wheel):
    assert wheel.name == f"lazytorch-{VERSION}-py3-none-any.whl"
    info = f"lazytorch-{VERSION}.dist-info"
    files = {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == modules("lazytorch") | {"lazytorch/py.typed", *(f"{info}/{f}" for f in files)}
        found = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert (found["Name"], found["Version"], found["License-Expression"]) == ("lazytorch", VERSION, "MIT")
    assert found["Requires-Python"] == ">=3.11"
    required = [each for each in found.get_all("Requires-Dist", []) if "extra" not in each]
    assert [re.split(r"[^\w-]", each)[0] for each in required] == ["torch"]
    assert found.get_payload().startswith("# lazytorch")


def required_by(distribution: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """An installed distribution and those that it needs, by name."""
    found[distribution] = metadata.distribution(distribution)
    for requirement in found[distribution].requires or []:
        name = re.split(r"[^\w.-]", requirement)[0]
        # One for another platform is not installed.
        if name not in found and "extra ==" not in requirement and list(metadata.distributions(name=name)):
            required_by(name, found)
    return found


def link(distribution: str, site: Path) -> None:
    """Make an installed distribution and those that it needs available in another ``site-packages``."""
    for each in required_by(distribution, {}).values():
        for top in {file.parts[0] for file in each.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(each.locate_file(top)))


@pytest.mark.slow
def test_wheel_works_in_an_environment_with_pytorch_alone(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    link("torch", site)
    run(python, "-I", "-c", "import importlib.util as u; assert u.find_spec('torch') and not u.find_spec('lazytorch')")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    warnings = ("-W", "error", "-W", "ignore:Failed to initialize NumPy")  # PyTorch's own, without NumPy
    run(python, "-I", *warnings, "-c", SMOKE.format(prefix=str(environment)), cwd=tmp_path)
