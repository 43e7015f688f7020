"""scripts/train.py: what it leaves, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lazytorch
from scripts import train

QUICK = ["--epochs", "2", "--limit-batches", "2", "--batch-size", "8"]
SCRIPT = Path(train.__file__)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]


def test_leaves_one_whole_folder(tmp_path, capsys):
    output = tmp_path / "run"
    train.main([*QUICK, "--output", str(output)])
    assert sorted(path.name for path in output.iterdir()) == ["curves.png", "metrics.csv", "model.pt", "summary.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    summary = json.loads((output / "summary.json").read_text())
    assert f"test accuracy {summary['test_accuracy']:.2%}" in capsys.readouterr().out
    with (output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["test_accuracy"]) == summary["test_accuracy"]
    model = lazytorch.models.mobilenet_v2(num_classes=10)
    model.load_state_dict(torch.load(output / "model.pt", weights_only=True))
    model.eval()(torch.zeros(summary["input_shape"]))
    assert sum(parameter.numel() for parameter in model.parameters()) == summary["parameters"] == 2_236_106
    # A 32 x 32 image has (32 / 224)^2 of the pixels; the classifier and the first layer differ.
    assert 5e6 < summary["multiply_adds"] < 7e6
    assert summary["seed"] == 0
    assert summary["versions"]["torch"] == str(torch.__version__)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_result(tmp_path):
    results = []
    for name in ("a", "b"):
        train.main([*QUICK, "--seed", "3", "--output", str(tmp_path / name)])
        results.append(torch.load(tmp_path / name / "model.pt", weights_only=True))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_replaces_an_earlier_run_and_nothing_else(tmp_path, capsys):
    output = tmp_path / "run"
    train.main([*QUICK, "--output", str(output)])
    (output / "mine.txt").write_text("left by an earlier run")
    train.main([*QUICK, "--output", str(output)])
    assert not (output / "mine.txt").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    for refused in (other, other / "chapter.tex"):
        with pytest.raises(SystemExit):
            train.main([*QUICK, "--output", str(refused)])
        assert f"--output: must be a new folder or that of an earlier run, got {refused}" in capsys.readouterr().err
    assert (other / "chapter.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: must be a whole number of at least 1, got 0"),
        (["--batch-size", "many"], "--batch-size: must be a whole number of at least 2, got many"),
        (["--batch-size", "1"], "--batch-size: must be a whole number of at least 2, got 1"),
        (["--seed", "-1"], "--seed"),
        (["--learning-rate", "nan"], "--learning-rate: must be a number of at least 0, got nan"),
        (["--weight-decay", "none"], "--weight-decay: must be a number of at least 0, got none"),
        (["--output", "/proc/run"], "--output: must be where a folder can be made, got /proc/run"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--model", "mobilenet_v9"], "invalid choice: 'mobilenet_v9'"),
        (["--batch-size", "2000"], "--batch-size: must be at most the 1437 training images, got 2000"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        train.main(arguments)
    assert message in capsys.readouterr().err


def test_split_is_stratified_seeded_and_disjoint():
    train_set, test_set = train.load_data(8, seed=0)
    again = train.load_data(8, seed=0)[1]
    other = train.load_data(8, seed=1)[1]
    assert (len(train_set), len(test_set)) == (1437, 360)
    assert torch.equal(test_set.tensors[0], again.tensors[0])
    assert not torch.equal(test_set.tensors[0], other.tensors[0])
    counts = torch.bincount(test_set.tensors[1])
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert (train_set.tensors[0].min(), train_set.tensors[0].max()) == (-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_writes_nothing_and_says_so(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--output", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    seen = ""
    while "Epoch 0" not in seen:
        read = process.stdout.read(1)
        assert read, seen
        seen += read
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in seen + rest
    assert "Stopped: nothing was written" in rest
    assert list(tmp_path.iterdir()) == []
