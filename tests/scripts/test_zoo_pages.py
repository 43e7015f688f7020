"""scripts/zoo_pages.py: the pages of the zoo are those that the registry and the last parity run make."""

import json
import re
from importlib.metadata import version
from xml.etree import ElementTree

import pytest
import torchvision

from lazytorch.models import list_models, references
from scripts import zoo_pages
from scripts.zoo_pictures import Point, chart, logarithmic, percent
from scripts.zoo_weights import published

FOUND = zoo_pages.read()
STATED = json.loads(zoo_pages.WEIGHTS.read_text())
PACKAGE = zoo_pages.DOCS.parent / "lazytorch" / "models"


@pytest.mark.parametrize(
    ("path", "contents"), zoo_pages.pages(FOUND, STATED).items(), ids=lambda value: getattr(value, "name", "")
)
def test_is_not_stale(path, contents):
    """If it is: run scripts/zoo_pages.py."""
    assert path.read_text() == contents


def test_every_model_and_reference_has_a_verdict_once():
    wanted = [(name, f"{zoo} {called}") for name in list_models() for zoo, called in references(name).items()]
    assert [(each["name"], each["reference"]) for each in FOUND] == wanted


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in zoo_pages.models(FOUND, STATED)}


def cells(row):
    (line,) = zoo_pages.table([row]).splitlines()[2:]
    return dict(zip(zoo_pages.COLUMNS, line.strip("| ").split(" | "), strict=True))


def test_sizes_are_those_that_torchvision_states(rows):
    """Its models have 1000 classes, too; SqueezeNet's classifier is applied to every pixel."""
    compared = 0
    for each in rows.values():
        if "torchvision" in each.weights:
            best = torchvision.models.get_model_weights(references(each.name)["torchvision"]).DEFAULT
            assert each.parameters == best.meta["num_params"]
            if each.weights["torchvision"][0]["side"] == 224:
                assert each.macs / 1e9 == pytest.approx(best.meta["_ops"], abs=2e-3, rel=5e-3)
                compared += 1
    assert compared > 30


def test_the_table_states_what_is_known_of_published_weights(rows):
    wanted = {
        "squeezenet1_0": ("58.1", "torchvision", "torchvision"),
        "convnext_atto": ("-", "timm (apache-2.0)", "timm"),
        "regnetz_005": ("-", "-", "timm"),
    }
    for name, expected in wanted.items():
        found = cells(rows[name])
        assert (found["Top-1, %"], found["Weights"], found["Equal to"]) == expected
        assert found["Dimensions"] == "1, 2, 3"
    assert "2 of 4: [SWAG licence](https://github.com/facebookresearch/SWAG/" in cells(rows["regnet_y_16gf"])["Weights"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([None, None], ""),
        (["mit"], " (mit)"),
        (["mit", "mit"], " (mit)"),
        (["mit", "apache-2.0", None, "apache-2.0"], " (mit; 2 of 4: apache-2.0)"),
        ([None, "mit"], " (1 of 2: mit)"),
        (["https://github.com/a/b/LICENSE"], " ([b licence](https://github.com/a/b/LICENSE))"),
    ],
)
def test_the_licence_of_the_recommended_weights_comes_first(given, shown):
    assert zoo_pages.licences([{"licence": licence} for licence in given]) == shown


def test_published_weights_are_those_of_the_installed_zoos():
    """If not: run scripts/zoo_pages.py."""
    if any(version(zoo) != number for zoo, number in STATED["versions"].items()):
        pytest.skip("the page was written with other versions")
    assert published() == STATED


def test_weights_are_loaded_by_the_tags_of_the_table():
    """The recommended ones come first."""
    import timm

    first = {}
    for each in STATED["weights"]:
        first.setdefault((each["name"], each["source"]), each["tag"])
    assert first["resnet50", "torchvision"] == torchvision.models.ResNet50_Weights.DEFAULT.name == "IMAGENET1K_V2"
    assert first["resnet50", "timm"] == timm.models.get_pretrained_cfg("resnet50").tag
    assert len(first) > 200


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
    table = zoo_pages.table(zoo_pages.models(merged, STATED)).splitlines()
    assert table[2].endswith("| differs: output in training |")
    assert zoo_pages.run_of(merged).startswith(f"{len(FOUND) - 1} of {len(FOUND)} ")


def test_a_name_without_a_verdict_is_an_error(tmp_path, monkeypatch):
    partial = tmp_path / "parity.json"
    partial.write_text(json.dumps(FOUND[1:]))
    monkeypatch.setattr(zoo_pages, "PARITY", partial)
    with pytest.raises(SystemExit, match=rf"lacks {FOUND[0]['name']}: run scripts/parity\.py"):
        zoo_pages.main([])


def circles(svg):
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    return {each.get("data-name"): each for each in found if each.get("data-name")}


def test_the_pictures_contain_every_model_with_its_numbers(rows):
    of_all = circles(zoo_pages.picture([*rows.values()]))
    assert of_all.keys() == rows.keys()
    assert of_all["efficientnet_b1"][0].text.endswith(": 7.79 M parameters, 570 M MACs at 224 pixels")
    shown = circles(zoo_pages.accuracy(rows.values(), "macs"))["efficientnet_b1"][0].text
    assert shown == "efficientnet_b1: 7.79 M parameters, 687 M MACs at 240 pixels, top-1 79.8 %"
    with_accuracy = {name for name, row in rows.items() if "torchvision" in row.weights}
    for size in ("macs", "parameters"):
        assert circles(zoo_pages.accuracy(rows.values(), size)).keys() == with_accuracy
    for labelled, shown in ((zoo_pages.LABELLED, rows), (zoo_pages.LABELLED_WITH_ACCURACY, with_accuracy)):
        assert labelled.keys() <= set(shown)


def test_points_are_placed_by_logarithm_and_by_percent():
    points = [Point("a", "A", 1e7, 50, "a"), Point("b", "A", 1e8, 60, "b"), Point("c", "A", 1e9, 70, "c <&>")]
    svg = chart(points, logarithmic("x", [1e7, 1e9]), percent("y", [50, 70]), {"A": "#000"}, {"a": "above"})
    a, b, c = circles(svg).values()
    for axis in ("cx", "cy"):
        assert float(b.get(axis)) == pytest.approx((float(a.get(axis)) + float(c.get(axis))) / 2, abs=0.1)
    assert float(a.get("cx")) < float(c.get("cx"))
    assert float(a.get("cy")) > float(c.get("cy"))
    assert c[0].text == "c <&>"
    assert all(f">{tick}</text>" in svg for tick in ("10 M", "100 M", "1 G", "50 %", "55 %", "70 %"))


def test_the_script_of_the_page_knows_the_columns_and_elements():
    script = (zoo_pages.DOCS / "zoo.js").read_text()
    named = set(re.findall(r'column\["(.+?)"\]', script)) | set(re.findall(r'"([^"]+, [M%])"', script))
    assert {"Family", "Weights", "Dimensions", "Parameters, M", "MACs, M", "Top-1, %"} == named
    assert named <= zoo_pages.COLUMNS.keys()
    assert list(zoo_pages.COLUMNS)[5] == "Weights"  # td:nth-child(6) of extra.css wraps
    assert "http" not in script
    style = (zoo_pages.DOCS / "extra.css").read_text()
    page = (zoo_pages.DOCS / "zoo_charts.md").read_text() + (zoo_pages.DOCS / "zoo.md").read_text()
    for each in set(re.findall(r"\.(zoo-[a-z]+)", style)):
        assert each in script or each in page


def test_the_page_is_complete_without_its_script(rows):
    page = (zoo_pages.DOCS / "zoo.md").read_text()
    assert 'lazytorch.models.get_model("resnet50", num_classes=10)' in page
    table = (zoo_pages.DOCS / "zoo_table.md").read_text()
    for name, row in rows.items():
        page = zoo_pages.page_of(row.family)
        assert f"[{name}](api/{page}#lazytorch.models.{name}) |" in table
        assert f"### {name} {{ #lazytorch.models.{name} }}" in (zoo_pages.API / page).read_text()


def test_every_group_of_families_has_a_page_and_no_old_page_remains():
    assert set(zoo_pages.API.glob("zoo_*.md")) == set(zoo_pages.builders())
