"""scripts/train.py: what it leaves, and what it refuses."""

import csv
import multiprocessing
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm.optim
import torch
import yaml
from torch.nn import functional as F

import lazytorch
from scripts import train
from scripts.training import checkpoints, options, report, values
from scripts.training.command_line import parse
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.optimizing import require_optimizer
from scripts.training.samples import Samples
from tests.scripts.runs import LIGHTNING_WARNINGS, summary_of

QUICK = ["--epochs", "2", "--limit-batches", "2", "--batch-size", "8", "--device", "cpu"]
SMALL = ["--data", "synthetic", *QUICK, "--model-option", "width=0.1", "final_channels=16"]
LEFT = {
    *("best.safetensors", "checkpoints", "confusion.png", "curves.png", "last.safetensors", "metrics.csv"),
    *("mistakes.png", "options.yaml", "summary.json", "tensorboard"),
}

pytestmark = LIGHTNING_WARNINGS


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A short run of the default model on the digits."""
    output = tmp_path_factory.mktemp("digits") / "run"
    train.main([*QUICK, "--output", str(output)])
    return output


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A shorter run of a smaller model, with what the default one leaves out."""
    output = tmp_path_factory.mktemp("small") / "run"
    regular = ["--ema", "0.5", "--mixup", "0.2", "--cutmix", "1", "--label-smoothing", "0.1", "--erasing", "0.2"]
    augmented = ["--crop", "0.5", "--flip", "0.5", "--randaugment", "2", "--randaugment-magnitude", "5"]
    other = ["--optimizer", "sgd", "--schedule", "poly", "--warmup", "0.5", "--clip", "1", "--accumulate", "2"]
    hardware = ["--precision", "bf16-mixed", "--channels-last", "--deterministic", "--workers", "1", "--freeze", "1"]
    train.main([*SMALL, *regular, *augmented, *other, *hardware, "--seed", "3", "--output", str(output)])
    return output


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_leaves_one_folder(digits):
    assert {path.name for path in digits.iterdir()} == LEFT
    assert [path.name for path in digits.parent.iterdir()] == ["run"]
    assert len(checkpoints.listed(digits)) == 2
    summary = summary_of(digits)
    rows = rows_of(digits)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val_accuracy"]) == summary["val_accuracy"]
    assert max(float(row["val_accuracy"]) for row in rows) == summary["best_val_accuracy"]
    assert summary["parameters"] == 2_236_106
    # A 32 x 32 image has (32 / 224)^2 of the pixels; the classifier and the first layer differ.
    assert 5e6 < summary["multiply_adds"] < 7e6
    assert (summary["training_images"], summary["validation_images"]) == (1437, 360)
    assert summary["seed"] == 0
    assert summary["versions"]["torch"] == str(torch.__version__)
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (digits / name).read_bytes().startswith(b"\x89PNG")
    assert list((digits / "tensorboard").glob("events*"))


def test_weights_load_in_one_line_and_have_the_accuracy_that_was_measured(digits):
    summary = summary_of(digits)
    model = lazytorch.models.get_model("mobilenet_v2", weights=digits / "last.safetensors").eval()
    data = load(parse("", [])[0])
    images = Samples(data.val, data, parse("", [])[0], training=False)
    rows = [images[0, index] for index in range(16)]  # those of the two batches of the limited evaluation
    with torch.no_grad():
        logits = model(torch.stack([image for image, _, _ in rows]))
    assert logits.shape == (16, 10)
    right = (logits.argmax(1) == torch.tensor([label for _, label, _ in rows])).float().mean()
    assert right.item() == pytest.approx(summary["val_accuracy"])


def test_everything_else_trains_too(small):
    assert {path.name for path in small.iterdir()} == LEFT
    best = safetensors.torch.load_file(small / "last.safetensors")
    checkpoint = checkpoints.read(checkpoints.listed(small)[0])
    weights = checkpoint["state_dict"]
    # What is exported is the average, which the live weights differ from; what is frozen is as it was drawn.
    for name, value in best.items():
        torch.testing.assert_close(value, weights[f"average.module.{name}"], rtol=0, atol=0)
    assert not torch.equal(weights["model.head.classifier.weight"], best["head.classifier.weight"])
    frozen = "stages.0.0.layers.project.conv.weight"
    torch.testing.assert_close(weights[f"model.{frozen}"], best[frozen], rtol=0, atol=0)
    assert weights["model.stem.norm.num_batches_tracked"] == 0
    assert weights["model.final.norm.num_batches_tracked"] == 4


def test_norms_and_biases_have_no_weight_decay(small):
    first, second = checkpoints.read(checkpoints.listed(small)[0])["optimizer_states"][0]["param_groups"]
    assert sorted([first["weight_decay"], second["weight_decay"]]) == [0, 0.01]


def test_effective_options_are_read_back(small, tmp_path):
    again, _ = parse("", ["--config", str(small / "options.yaml"), "--output", str(tmp_path / "again")])
    assert again.seed == 3
    assert again.optimizer == "sgd"
    assert again.model_option == {"width": 0.1, "final_channels": 16}
    before = yaml.safe_load((small / "options.yaml").read_text())
    assert yaml.safe_load(options.to_yaml(again)) == {**before, "output": str(tmp_path / "again")}


def test_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("epochs: 7\nbatch-size: 5\nchannels_last: true\nmodel_option: {dropout: 0.5}\n")
    given, _ = parse("", ["--config", str(file), "--epochs", "3", "--no-channels-last"])
    assert (given.epochs, given.batch_size, given.channels_last) == (3, 5, False)
    assert given.model_option == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "'epoch', which is no option"),
        ("epochs: many", "--epochs: must be a whole number of at least 1, got many"),
        ("- 1", "must contain options by their names"),
        ("a: [", "must be a YAML file"),
    ],
)
def test_wrong_files_of_options(tmp_path, text, message, capsys):
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse("", ["--config", str(tmp_path / "options.yaml")])
    assert message in capsys.readouterr().err


def test_help_has_every_option_in_a_group(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    for name, field in options.FIELDS.items():
        assert options.flag(name) in text
        assert f"\n{field.metadata['group']}:" in text


def test_same_seed_same_result(digits, tmp_path):
    train.main([*QUICK, "--output", str(tmp_path / "again")])
    for name in ("last.safetensors", "metrics.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (digits / name).read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_loading_processes_change_nothing_however_they_are_started(tmp_path):
    run = [*SMALL, "--erasing", "0.5"]
    train.main([*run, "--output", str(tmp_path / "none")])
    default = multiprocessing.get_start_method()
    try:
        for method, workers in (("fork", "2"), ("spawn", "1"), ("forkserver", "1")):
            multiprocessing.set_start_method(method, force=True)
            train.main([*run, "--workers", workers, "--output", str(tmp_path / method)])
            for name in ("last.safetensors", "metrics.csv"):
                assert (tmp_path / method / name).read_bytes() == (tmp_path / "none" / name).read_bytes(), method
    finally:
        multiprocessing.set_start_method(default, force=True)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ([], "digits"),
        (["--data", "synthetic"], "synthetic"),
        (["--data", "torchvision:CIFAR10"], "CIFAR10"),
        (["--data", "folder:/images/flowers/"], "flowers"),
        (["--data", "folder:flowers/../birds"], "birds"),
        (["--data", "folder:/"], "folder"),
    ],
)
def test_output_is_named_after_the_data(data, name):
    assert parse("", data)[0].output == Path("runs") / name
    assert parse("", [*data, "--output", "mine"])[0].output == Path("mine")


def test_fine_tuning_has_a_tenth_of_the_learning_rate_if_none_is_given():
    def rate(*arguments: str) -> float:
        return parse("", list(arguments))[0].learning_rate

    assert rate() == 0.032
    assert rate("--weights", "timm") == pytest.approx(0.0032)
    assert rate("--weights", "timm", "--learning-rate", "0.5") == 0.5
    assert rate("--lr", "0.5") == 0.5


def test_files_of_options_take_lr_and_suggest(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("lr: 0.25\n")
    assert parse("", ["--config", str(tmp_path / "options.yaml")])[0].learning_rate == 0.25
    (tmp_path / "options.yaml").write_text("epoch: 3\n")
    with pytest.raises(SystemExit):
        parse("", ["--config", str(tmp_path / "options.yaml")])
    assert "which is no option of a file. Did you mean epochs?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--modle", "resnet18"], "--model"),
        (["--model", "resnet81"], "resnet18"),
        (["--data", "floder:flowers"], "folder:flowers"),
    ],
)
def test_what_is_misspelt_is_suggested_within_two_seconds(arguments, meant, tmp_path):
    """Of the processor, as others use this machine; what makes it possible is that PyTorch is not imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, train.__file__, *arguments], capture_output=True, text=True, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert done.stderr.endswith(f"Did you mean {meant}?\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert list(tmp_path.iterdir()) == []


def test_every_model_is_known_before_pytorch_is():
    assert set(values.public_names()) >= set(lazytorch.models.list_models())


def test_optimizers_that_cannot_run_here_are_refused_before_data_is_read(tmp_path, capsys):
    for name, message in (
        ("adahessian", "--optimizer: adahessian does not run here (RuntimeError: "),
        ("adamv", "--optimizer: must be one of the "),
    ):
        with pytest.raises(SystemExit) as caught:
            train.main(["--data", f"folder:{tmp_path / 'nowhere'}", "--optimizer", name, "--device", "cpu"])
        assert caught.value.code == 1
        assert message in capsys.readouterr().err


def test_every_optimizer_of_timm_runs_or_is_refused():
    refused = {}
    for name in timm.optim.list_optimizers():
        try:
            require_optimizer(parse("", ["--optimizer", name, "--device", "cpu"])[0])
        except RunError as error:
            refused[name] = str(error)
    assert all(f"--optimizer: {name} does not run here (" in message for name, message in refused.items())
    assert "adahessian" in refused
    assert not {"adamw", "sgd", "lamb", "lion", "muon"} & refused.keys()


def test_an_earlier_run_is_kept_and_other_folders_are_untouched(tmp_path, capsys):
    output = tmp_path / "run"
    train.main([*SMALL, "--output", str(output)])
    first = (output / "last.safetensors").read_bytes()
    train.main([*SMALL, "--seed", "1", "--output", str(output)])
    assert (tmp_path / "run.previous/last.safetensors").read_bytes() == first
    assert (output / "last.safetensors").read_bytes() != first
    (tmp_path / "run.previous/mine.txt").write_text("mine")
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    capsys.readouterr()
    for refused, message in (
        (output, "run.previous is where the run in"),
        (other, f"must be a new folder or that of an earlier run, got {other}"),
        (other / "chapter.tex", "must be a new folder or that of an earlier run"),
    ):
        with pytest.raises(SystemExit):
            train.main([*SMALL, "--output", str(refused)])
        assert message in capsys.readouterr().err
    assert (other / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "run.previous/mine.txt").exists()
    (output / "summary.json").unlink()
    with pytest.raises(SystemExit):
        train.main([*SMALL, "--output", str(output)])
    assert "holds a run that is not over. Go on with --resume" in capsys.readouterr().err


def test_evaluates_weights(small, tmp_path, capsys):
    weights = shutil.copy(small / "last.safetensors", tmp_path / "mine.safetensors")
    train.main([*SMALL, "--seed", "3", "--evaluate", "--weights", str(weights), "--output", str(tmp_path / "run")])
    summary = summary_of(tmp_path / "run/evaluation")
    assert summary["val_accuracy"] == summary_of(small)["val_accuracy"]
    assert f"validation accuracy {summary['val_accuracy']:.2%}" in capsys.readouterr().out
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: must be a whole number of at least 1, got 0"),
        (["--batch-size", "many"], "--batch-size: must be a whole number of at least 2, got many"),
        (["--batch-size", "1"], "--batch-size: must be a whole number of at least 2, got 1"),
        (["--seed", "-1"], "--seed"),
        (["--learning-rate", "nan"], "--learning-rate/--lr: must be a number of at least 0, got nan"),
        (["--weight-decay", "none"], "--weight-decay: must be a number of at least 0, got none"),
        (["--label-smoothing", "2"], "--label-smoothing: must be a number from 0 to 1, got 2"),
        (["--output", "/proc/run"], "--output: must be where a folder can be made, got /proc/run"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3. Did you mean --epochs?"),
        (
            ["--model", "mobilenet_v9"],
            "must be a name in lazytorch.models.list_models(), got mobilenet_v9. Did you mean",
        ),
        (["--precision", "bf16"], "must be one of 32-true, bf16-mixed, 16-mixed, got bf16. Did you mean bf16-mixed?"),
        (["--model-option", "dropout"], "must be like dropout=0.1"),
        (["--model-option", "width=wide"], "must be like dropout=0.1"),
        (["--model-option", "dropuot=0.1"], "Did you mean 'dropout'?"),
        (["--weights", "/nowhere.safetensors"], "weights: file not found"),
        (["--freeze", "9"], "count must be at most the 7 stages, got 9"),
        (["--batch-size", "2000"], "--batch-size must be at most the 1437 training samples"),
        (
            ["--data", "mnist"],
            "--data: must be digits, arrays:PATH, folder:PATH, torchvision:NAME or synthetic, got mnist",
        ),
        (
            ["--data", "folder"],
            "--data: must be digits, arrays:PATH, folder:PATH, torchvision:NAME or synthetic, got folder",
        ),
        (
            ["--data", "digits:8"],
            "--data: must be digits, arrays:PATH, folder:PATH, torchvision:NAME or synthetic, got digits:8",
        ),
        (["--evaluate"], "--evaluate: needs --weights"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--output", str(tmp_path / "run"), *arguments])
    assert caught.value.code != 0
    assert message in capsys.readouterr().err


def test_best_is_the_first_of_the_highest():
    rows = [
        {"epoch": 1, "val_accuracy": 0.5, "val_loss": 1},
        {"epoch": 2, "val_accuracy": 0.7, "val_loss": 3},
        {"epoch": 3, "val_accuracy": 0.7, "val_loss": 2},
        {"epoch": 4, "val_accuracy": 0.7, "val_loss": 2},
    ]
    assert report.best(rows, "accuracy")["epoch"] == 3


def val_loss_and_accuracy_are_those_of_all_images(small):
    """The table's figures, computed again from the confusion matrix and the exported weights."""
    run = checkpoints.read(checkpoints.listed(small)[0])["run"]
    counts = run["validation"]["confusion"]
    assert counts.sum() == 16
    assert counts.trace() / counts.sum() == float(rows_of(small)[-1]["val_accuracy"])
    given, _ = parse("", ["--config", str(small / "options.yaml")])
    data = load(given)
    images = Samples(data.val, data, given, training=False)
    model = lazytorch.models.mobilenet_v2(
        **run["description"]["model_option"], weights=small / "last.safetensors"
    ).eval()
    losses = []
    with torch.no_grad():
        for index in range(16):
            image, label, _ = images[0, index]
            losses.append(F.cross_entropy(model(image[None]), torch.tensor([label])).item())
    assert sum(losses) / 16 == pytest.approx(float(rows_of(small)[-1]["val_loss"]), rel=0.05)  # bf16 there
