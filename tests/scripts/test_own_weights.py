"""Weights of a run say what they are of: --evaluate, --weights and export need no other option."""

import json
import shlex
import shutil
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from safetensors import safe_open

import lazytorch
from scripts import export, train
from scripts.training import checkpoints
from tests.scripts.runs import FOLDER, LIGHTNING_WARNINGS, PETS

DOCS = Path(train.__file__).parents[1] / "docs" / "training.md"
CPU = ["--device", "cpu"]

pytestmark = LIGHTNING_WARNINGS


def description(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lazytorch"])


def evaluation(output: Path) -> dict:
    return json.loads((output / "evaluation" / "summary.json").read_text())


def images(root: Path, colours: dict[str, tuple[int, int, int]], size: int = 40, count: int = 20) -> Path:
    """A folder of noise in the colours of the classes."""
    generator = numpy.random.default_rng(0)
    for name, colour in colours.items():
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
            for index in range(count if split == "train" else count // 2):
                pixels = generator.normal(colour, 30, (size, size, 3)).clip(0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(pets) -> Path:
    return pets / "runs" / FOLDER


def test_a_run_describes_its_weights(run):
    there = description(run / "best.safetensors")
    assert (there["model"], there["classes"], there["channels"], there["image_size"]) == ("resnet10t", PETS, 1, 32)
    assert (there["mean"], there["deviation"]) == (pytest.approx([0.449]), pytest.approx([0.226]))
    assert there["seed"] == 2
    assert checkpoints.read(checkpoints.listed(run)[0])["run"]["description"] == there


@pytest.mark.parametrize("kind", ["best.safetensors", "checkpoint"])
def test_evaluate_needs_the_weights_alone(run, pets, kind, monkeypatch, capsys):
    monkeypatch.chdir(pets)
    path = checkpoints.listed(run)[0] if kind == "checkpoint" else run / kind
    train.main(["--evaluate", "--weights", str(path), *CPU])
    assert "validation accuracy 100.00% of 8 validation images" in capsys.readouterr().out
    assert evaluation(run)["model"] == "resnet10t"
    assert evaluation(run)["data"] == f"folder:{FOLDER}"
    assert evaluation(run)["input_shape"] == [1, 1, 32, 32]
    shutil.rmtree(run / "evaluation")


def test_weights_that_were_moved_need_the_data_too(run, pets, tmp_path, monkeypatch):
    """With the normalization, the size and the split that they were trained with, whatever is the default by then."""
    monkeypatch.chdir(tmp_path)
    there = {**description(run / "best.safetensors"), "mean": [0.5], "deviation": [0.25], "image_size": 48, "seed": 7}
    state = safetensors.torch.load_file(run / "best.safetensors")
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors", {"lazytorch": json.dumps(there)})
    train.main(["--evaluate", "--weights", "mine.safetensors", "--data", f"folder:{pets / FOLDER}", *CPU])
    summary = evaluation(Path("runs") / FOLDER)
    assert (summary["model"], summary["mean"], summary["deviation"], summary["seed"]) == ("resnet10t", [0.5], [0.25], 7)
    assert summary["input_shape"] == [1, 1, 48, 48]
    export.main(["mine.safetensors", "--format", "safetensors", "--output", "exported.safetensors"])
    assert description(tmp_path / "exported.safetensors") == there


def test_mismatches_are_one_sentence(run, pets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = str(shutil.copy(run / "best.safetensors", tmp_path / "mine.safetensors"))
    colourful = images(tmp_path / "colourful", dict.fromkeys(PETS, (90, 0, 0)), count=2)
    broken = safetensors.torch.load_file(weights)
    del broken["head.classifier.bias"]
    there = json.dumps(description(Path(weights)))
    safetensors.torch.save_file(broken, tmp_path / "broken.safetensors", {"lazytorch": there})
    model = lazytorch.materialize(lazytorch.models.resnet10t(num_classes=3), (1, 1, 32, 32))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "plain.safetensors")
    pets_data = ["--data", f"folder:{pets / FOLDER}"]
    cases = [
        (["--evaluate", "--model", "resnet18", *pets_data], "mine", "--model: the weights mine.safetensors are of "),
        (["--model", "resnet18", *pets_data], "mine", "are of resnet10t, got resnet18. Leave --model out."),
        (["--evaluate", "--data", "synthetic"], "mine", f"are of the 2 classes {', '.join(PETS)}, got synthetic with"),
        (["--evaluate", "--data", f"folder:{colourful}"], "mine", "are of samples with 1 channel, got folder:"),
        (["--evaluate", *pets_data], "broken", "must have the weights of resnet10t(), got others: Missing key(s)"),
        (
            ["--evaluate", "--model", "resnet10t", *pets_data],
            "plain",
            "--data: the weights plain.safetensors are of 3 classes, got folder:",
        ),
    ]
    for arguments, name, message in cases:
        with pytest.raises(SystemExit):
            train.main([*arguments, "--weights", f"{name}.safetensors", *CPU])
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    for name, message in (
        ("broken", "must have the weights of resnet10t()"),
        ("plain", "got one without its descripti"),
    ):
        with pytest.raises(SystemExit, match=message):
            export.main([f"{name}.safetensors", "--format", "onnx"])
    assert not (tmp_path / "runs").exists()


def test_published_weights_are_evaluated_on_as_many_classes_only(tmp_path, monkeypatch, capsys):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        train.main(["--evaluate", "--weights", "timm", "--model", "resnet10t", *CPU])
    assert "--data: the weights timm are of 1000 classes, got digits with 10." in capsys.readouterr().err


@pytest.mark.slow
def test_fine_tuning_starts_from_the_model_of_the_weights(run, tmp_path, monkeypatch, capsys):
    """With a tenth of the learning rate, a new classifier for other classes, and the backbone as it was."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "flowers", {"rose": (60, 40, 40), "tulip": (200, 200, 160)}, count=40)
    arguments = ["--data", "folder:flowers", "--weights", str(run / "best.safetensors"), "--batch-size", "8", *CPU]
    train.main([*arguments, "--epochs", "1", "--lr", "0", "--limit-batches", "1", "--output", "still"])
    assert "tenth" not in capsys.readouterr().out
    train.main([*arguments, "--epochs", "4"])
    printed = capsys.readouterr().out
    rate = "learning rate 0.0001 for 8 samples an update, a tenth of the default, as it starts from trained weights"
    assert rate in printed
    assert "are of other classes: the classifier is randomly initialized" in printed
    there = description(Path("runs/flowers/last.safetensors"))
    assert (there["model"], there["classes"], there["channels"]) == ("resnet10t", ["rose", "tulip"], 3)
    assert there["image_size"] == 32  # of the weights; the images have 40
    kept = "stages.0.0.layers.conv1.conv.weight"
    before, after = (safetensors.torch.load_file(each / "last.safetensors") for each in (run, Path("still")))
    torch.testing.assert_close(after[kept], before[kept], rtol=0, atol=0)
    assert not torch.equal(after["head.classifier.weight"], before["head.classifier.weight"])
    assert json.loads(Path("runs/flowers/summary.json").read_text())["best_val_accuracy"] > 0.9

    for path in images(tmp_path / "grey", {"rose": (60,) * 3, "tulip": (200,) * 3}, count=2).rglob("*.png"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    train.main(["--evaluate", "--weights", "runs/flowers/last.safetensors", "--data", "folder:grey", *CPU])
    assert evaluation(Path("runs/flowers"))["input_shape"] == [1, 3, 32, 32]  # grey images in three channels


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The weights 'timm' have 1000 classes")
def test_the_example_of_the_docs_trains(tmp_path, monkeypatch, capsys):
    """As it stands, on small images; the published weights, which a test cannot download, are random ones."""
    line = next(
        each.strip() for each in DOCS.read_text().splitlines() if "--weights timm" in each and "train.py" in each
    )
    create, arguments = timm.create_model, shlex.split(line, comments=True)[2:]

    def published(name, pretrained):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return create(name)

    monkeypatch.setattr(timm, "create_model", published)
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "flowers", {"rose": (220, 20, 20), "tulip": (20, 20, 220)}, 32)
    train.main([*arguments, "--epochs", "3", "--batch-size", "8", *CPU])
    assert "a tenth of the default" in capsys.readouterr().out
    summary = json.loads(Path("runs/flowers/summary.json").read_text())
    assert summary["model"] == "resnet50"
    assert summary["best_val_accuracy"] > 0.9
