"""scripts/zoo_pages.py: the pages of the zoo are those that the registry and the last parity run make."""

import json
import re

import pytest

import lazytorch
from lazytorch.models import list_models, references
from scripts import zoo_pages

FOUND = zoo_pages.read()
PACKAGE = zoo_pages.DOCS.parent / "lazytorch" / "models"


@pytest.mark.parametrize(
    ("path", "contents"), zoo_pages.pages(FOUND).items(), ids=lambda value: getattr(value, "name", "")
)
def test_is_not_stale(path, contents):
    """If it is: run scripts/zoo_pages.py."""
    assert path.read_text() == contents


def test_every_model_and_reference_has_a_verdict_once():
    wanted = [(name, f"{zoo} {called}") for name in list_models() for zoo, called in references(name).items()]
    assert [(each["name"], each["reference"]) for each in FOUND] == wanted


def test_classes_are_counted_as_summary_counts_them():
    rows = {row.name: row for row in zoo_pages.models(FOUND)}
    for name in ("resnet10t", "mobilenetv3_small_050"):
        summary = lazytorch.summary(lazytorch.models.get_model(name), (1, 3, 224, 224))
        assert (rows[name].parameters, rows[name].macs) == (summary.parameters, summary.macs)


def test_papers_are_those_of_the_families_files():
    sources = " ".join(" ".join(path.read_text() for path in PACKAGE.glob("*.py")).split())
    for family in zoo_pages.FAMILIES:
        authors, year = family.paper.rsplit(" ", 1)
        assert re.search(rf"{authors} {year}[^()]{{0,90}}/{re.escape(family.identifier)}", sources), family


def test_every_family_has_models_and_a_colour():
    assert {zoo_pages.family(name).name for name in list_models()} == {each.name for each in zoo_pages.FAMILIES}
    assert {each.kind for each in zoo_pages.FAMILIES} == set(zoo_pages.COLOURS)


def test_a_new_run_replaces_verdicts_by_name_and_keeps_the_others():
    new = {key: value for key, value in FOUND[0].items() if key != "versions"}
    new |= {"problems": ["output in training"], "equal": False}
    merged = zoo_pages.merged(FOUND, [new])
    assert merged[1:] == FOUND[1:]
    assert merged[0]["problems"] == ["output in training"]
    assert merged[0]["versions"]["lazytorch"]
    table = zoo_pages.table(zoo_pages.models(merged)).splitlines()
    assert table[2].endswith("| differs: output in training |")
    assert zoo_pages.run_of(merged).startswith(f"{len(FOUND) - 1} of {len(FOUND)} ")


def test_a_name_without_a_verdict_is_an_error(tmp_path, monkeypatch):
    partial = tmp_path / "parity.json"
    partial.write_text(json.dumps(FOUND[1:]))
    monkeypatch.setattr(zoo_pages, "PARITY", partial)
    with pytest.raises(SystemExit, match=rf"lacks {FOUND[0]['name']}: run scripts/parity\.py"):
        zoo_pages.main([])
