"""The pictures and reports of a run: any names, no mistakes, and what happens if one cannot be drawn."""

import json
import os
import shlex
from functools import partial

import numpy
import pytest
import torch
import yaml
from matplotlib import pyplot
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts import train
from scripts.training import fonts, pictures, running
from scripts.training.metrics import WORST, worst
from scripts.training.sources import Data, InMemory
from tests.scripts.arrays import array_data
from tests.scripts.runs import FOLDER, LIGHTNING_WARNINGS, PETS, RUN

NAMES = ["$x", "$\\frac{", "$a$ & <b>", "кошка", "γάτα", "قطة", "\N{CJK UNIFIED IDEOGRAPH-732B}", "a\nb", "\udce9"]
TITLE = "resnet18 on folder:/data/$HOME/R&D <\N{CJK UNIFIED IDEOGRAPH-732B}>"

pytestmark = LIGHTNING_WARNINGS


@pytest.fixture
def data() -> Data:
    source = InMemory(torch.rand(9, 1, 8, 8), list(range(9)), "image")
    return Data(source, source, NAMES, 1, 8, [0.5], [0.5])


def text_in(figure: pyplot.Figure) -> str:
    texts = figure.findobj(pyplot.Text)
    assert not any(each.get_parse_math() for each in texts)  # a formula between dollar signs
    return "\n".join(each.get_text() for each in texts)


@pytest.mark.parametrize("picture", ["confusion", "mistakes", "curves"])
def test_any_name_reaches_every_picture(picture, data):
    """Drawn as it is if a font has its characters, and as Python escapes otherwise; nothing is warned of."""
    rows = torch.tensor([[1.0, index, index, (index + 1) % 9] for index in range(9)])
    history = [{f"{split}_{name}": 0.5 for split in ("train", "val") for name in ("loss", "accuracy")} | {"epoch": 1}]
    draw = {
        "confusion": lambda: pictures.confusion(numpy.eye(9), NAMES, TITLE),
        "mistakes": lambda: pictures.mistakes(rows, data, TITLE),
        "curves": lambda: pictures.curves(history, TITLE, "accuracy", history[0]),
    }[picture]
    drawn = []

    def spied():
        figure = draw()
        drawn.append(text_in(figure))
        return figure

    assert pictures.png(spied, [TITLE, *NAMES]).startswith(b"\x89PNG")
    assert "resnet18 on folder:/data/$HOME/R&D <\\u732b>" in drawn[0]
    if picture != "curves":
        for name in ("$x", "$\\frac{", "$a$ & <b>", "кошка", "γάτα", "قطة", "\\u732b", "a\\nb", "\\udce9"):
            assert name in drawn[0]


def test_a_font_that_has_a_character_is_used():
    only_there = "\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL A}"
    assert ord(only_there) not in fonts.characters("STIXSizeOneSym")
    missing = next(chr(each) for each in sorted(fonts.characters("STIXGeneral") - fonts.characters(fonts.DEFAULT)))
    assert fonts.families(["plain"]) == [fonts.DEFAULT]
    with fonts.for_names([f"a{missing}"]):
        assert len(pyplot.rcParams["font.family"]) == 2
        assert fonts.drawable(f"a{missing}") == f"a{missing}"
    assert fonts.drawable(f"a{missing}") != f"a{missing}"


def test_names_and_paths_reach_every_report(pets):
    run = pets / "runs" / FOLDER
    assert {path.name for path in pets.iterdir()} == {FOLDER, "runs", "log"}
    assert yaml.safe_load((run / "options.yaml").read_text())["data"] == f"folder:{FOLDER}"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["classes"] == PETS
    assert summary["options"]["output"] == f"runs/{FOLDER}"
    assert list((run / "tensorboard").glob("events*"))  # and not in a folder below the real $HOME
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert f"results in runs/{FOLDER}" in (pets / "log").read_text()
    command = running.stopped_message(run, "SIGINT").splitlines()[-1]
    assert shlex.split(command) == ["python", "scripts/train.py", "--output", str(run), "--resume"]


def test_names_that_are_not_unicode_train(tmp_path, monkeypatch, capsys):
    """On Linux a name is bytes; printed on a terminal of another encoding too."""
    folder = os.fsdecode(b"\xe9t\xe9")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for name in ("a", folder):
            (tmp_path / folder / split / name).mkdir(parents=True)
            for index in range(2):
                Image.new("L", (8, 8), index).save(tmp_path / folder / split / name / f"{index}.png")
    small = [
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--image-size",
        "8",
        "--device",
        "cpu",
        "--model-option",
        "width=0.1",
    ]
    train.main(["--data", f"folder:{folder}", *small])
    assert "runs/\\udce9t\\udce9" in capsys.readouterr().out
    run = tmp_path / "runs" / "\\udce9t\\udce9"
    assert json.loads((run / "summary.json").read_text())["classes"] == ["a", folder]
    train.main(["--output", str(run), "--resume"])
    assert "nothing to do" in capsys.readouterr().out


def test_mistakes_are_there_without_a_mistake(pets, data):
    run = pets / "runs" / FOLDER
    assert json.loads((run / "summary.json").read_text())["val_accuracy"] == 1
    assert (run / "mistakes.png").read_bytes().startswith(b"\x89PNG")
    right = torch.tensor([[loss, index, index, index] for index, loss in enumerate([0.1, 0.3, 0.2])])
    with fonts.for_names(NAMES):
        assert "no mistakes; correctly classified samples with the highest loss" in text_in(
            pictures.mistakes(right, data, TITLE)
        )
        wrong = torch.tensor([[0.01, 3, 3, 4]])
        text = text_in(pictures.mistakes(torch.cat([wrong, right]), data, TITLE))
    pyplot.close("all")
    assert "mistakes with the highest loss" in text
    assert text.count("loss 0.") == 1  # correctly classified samples are not shown


def test_mistakes_come_before_right_answers_and_both_by_loss():
    rows = torch.tensor([[3.0, 0, 1, 1], [1, 1, 0, 1], [2, 2, 0, 1], [4, 3, 1, 1], [2, 4, 1, 0]])
    assert worst(rows)[:, 1].tolist() == [2, 4, 1, 3, 0]
    assert len(worst(torch.rand(50, 4))) == WORST


def test_a_picture_that_cannot_be_drawn_costs_no_figures(tmp_path, monkeypatch, capsys):
    output, found = tmp_path / "run", []

    def fail(*args):
        found.append(json.loads((output / "summary.json").read_text())["epochs"])
        raise RuntimeError("no such colour")

    monkeypatch.setattr(pictures, "confusion", fail)
    train.main([*RUN, "--epochs", "1", "--output", str(output)])
    printed = capsys.readouterr()
    assert (
        f"{output / 'confusion.png'} is left out, as it cannot be drawn (RuntimeError: no such colour)" in printed.err
    )
    assert "validation accuracy" in printed.out
    assert found == [1]
    assert (output / "mistakes.png").exists()
    assert not (output / "confusion.png").exists()
    monkeypatch.undo()
    train.main([*RUN, "--epochs", "1", "--output", str(output), "--resume"])  # draws it
    assert (output / "confusion.png").exists()
    assert (output / "summary.json").exists()


def test_epochs_count_from_one_everywhere(whole):
    log = whole.with_name("log").read_text()
    assert "Epoch 1/12" in log
    assert "Epoch 12/12" in log
    assert "Epoch 0" not in log
    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    # Every tenth update is logged, of two in an epoch.
    assert [(each.step, each.value) for each in events.Scalars("epoch")] == [(9, 5), (19, 10)]


WRONG = torch.tensor([[2.0, 1, 1, 0], [1.0, 2, 0, 1]])  # loss, index, label, prediction


def drawn_mistakes(data: Data, rows: torch.Tensor = WRONG) -> tuple[pyplot.Axes, str]:
    """The first example of the picture, and the text of all."""
    with fonts.for_names(data.classes):
        figure = pictures.mistakes(rows, data, TITLE)
        text = "\n".join([figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)])
    pyplot.close("all")
    return figure.axes[0], text


def test_signals_are_drawn_as_traces():
    for channels, note in (
        (1, ""),
        (3, "each channel on a line of its own, the first on top"),
        (12, "channels 1 to 8 of"),
    ):
        first, text = drawn_mistakes(array_data(1, channels))
        assert len(first.lines) == min(channels, 8)
        assert not first.images
        for place, line in enumerate(first.lines):
            values = numpy.asarray(line.get_ydata())
            raw = array_data(1, channels).val.read(1)[place].numpy()
            assert numpy.corrcoef(values, raw)[0, 1] == pytest.approx(1)
            assert values.max() - values.min() == pytest.approx(1)
            assert values.min() == pytest.approx(-1.1 * place)
        assert note in text


def test_volumes_are_drawn_as_their_three_central_slices():
    """Of 32 x 24 x 28, side by side, with a gap of 2."""
    data = array_data(3, 1)
    volume = data.val.read(1)[0].numpy()
    axis, text = drawn_mistakes(data)
    picture = numpy.asarray(axis.images[0].get_array())
    assert picture.shape == (32, 28 + 2 + 28 + 2 + 24)
    least, most = numpy.percentile(volume, (2, 98))
    scaled = ((volume - least) / (most - least)).clip(0, 1)
    for rows, columns, expected in (
        (slice(4, 28), slice(0, 28), scaled[16]),
        (slice(0, 32), slice(30, 58), scaled[:, 12]),
        (slice(0, 32), slice(60, 84), scaled[:, :, 14]),
    ):
        numpy.testing.assert_allclose(picture[rows, columns], expected)
    assert picture[:4, :30].min() == 1
    assert "the central slices across depth, height and width" in text
    axis, text = drawn_mistakes(array_data(3, 5))
    assert numpy.asarray(axis.images[0].get_array()).shape == (32, 84, 3)
    assert "height and width; channels 1, 2 and 3 of 5 as red, green and blue" in text


@pytest.mark.parametrize(
    ("channels", "note"),
    [
        (1, ""),
        (2, "channels 1 and 2 as red and green, each scaled from percentile 2 to 98"),
        (3, "channels 1, 2 and 3 as red, green and blue, each scaled from percentile 2 to 98"),
        (12, "channels 1, 2 and 3 of 12 as red, green and blue, each scaled from percentile 2 to 98"),
    ],
)
def test_images_of_many_bands_are_drawn_as_the_composite_that_is_stated(channels, note):
    data = array_data(2, channels)
    axis, text = drawn_mistakes(data)
    assert f"(true \N{RIGHTWARDS ARROW} predicted)\n{note}\n".replace("\n\n", "\n") in text
    picture = numpy.asarray(axis.images[0].get_array())
    bands = data.val.read(1).numpy()
    assert picture.shape == ((32, 40) if channels == 1 else (32, 40, 3))
    for place in range(min(channels, 3)):
        least, most = numpy.percentile(bands[place], (2, 98))
        shown = picture if channels == 1 else picture[..., place]
        numpy.testing.assert_allclose(shown, ((bands[place] - least) / (most - least)).clip(0, 1), atol=1e-6)
    if channels == 2:
        assert picture[..., 2].max() == 0


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.float64, torch.bool])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_values_of_any_type_are_drawn_also_if_they_are_constant(spatial_dims, dtype):
    data = array_data(spatial_dims, 4)
    for examples in (data.val.samples.abs() * 300, torch.zeros_like(data.val.samples)):
        source = InMemory(examples.to(dtype), data.val.labels, "array")
        with numpy.errstate(all="raise"):
            assert pictures.png(partial(pictures.mistakes, WRONG, data._replace(val=source), "a"), []).startswith(
                b"\x89PNG"
            )


def test_mistakes_of_multi_label_data_show_their_classes_and_the_class_with_the_highest_loss():
    labels = numpy.array([[0, 0], [1, 1], [0, 0], [1, 0]], dtype=numpy.float32)
    source = InMemory(array_data(2).val.samples[:4], labels, "array")
    data = array_data(2)._replace(train=source, val=source)
    _, text = drawn_mistakes(data, torch.tensor([[2.0, 1, 1, -1], [1.0, 2, -1, 0]]))
    assert "class 0, class 1\nmissed: class 1\nloss 2" in text
    assert "no class\nwrong: class 0\nloss 1" in text
    assert "(true classes, and the class with the highest loss: missed, or wrongly predicted)" in text
    _, text = drawn_mistakes(data, torch.tensor([[0.2, 1, 1, 1], [0.1, 2, -1, -1]]))  # no mistakes
    assert "class 0, class 1\nloss 0.2" in text
    assert "no class\nloss 0.1" in text
