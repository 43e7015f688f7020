"""Runs of scripts/train.py that use everything: multi-label arrays, a test split, augmentation, evaluation, export."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch

import lazytorch
from scripts import export, train
from scripts.training import checkpoints, pictures
from scripts.training.data import load
from scripts.training.metrics import PER_LABEL
from scripts.training.sources import Data
from tests.catalogue import first_fast
from tests.scripts.arrays import SHAPES, save
from tests.scripts.measured import expected, logits_of, rows_of
from tests.scripts.runs import LIGHTNING_WARNINGS, KilledError, assert_same, kill_after, options_of, summary_of

COUNTS = {"train": 24, "val": 10, "test": 9}
RUN = ["--model", "mobilenet_v2", "--model-option", "width=0.1", "final_channels=16", "dropout=0.2", "--seed", "3"]
RUN += ["--batch-size", "8", "--device", "cpu", "--ema", "0.5", "--epochs", "2", "--monitor", "map", "--lr", "0.2"]
RUN += ["--class-weights", "balanced", "--label-smoothing", "0.1", "--mixup", "0.2"]
RUN += ["--flip", "0.5", "--noise", "0.1", "--erasing", "0.5", "--zoom", "0.1", "--checkpoint-steps", "1"]

pytestmark = LIGHTNING_WARNINGS


def data_set(path: Path, dims: int) -> Path:
    """Three classes, each of which changes a third of the samples' last axis."""
    arrays = {}
    for seed, (split, count) in enumerate(COUNTS.items()):
        labels = numpy.array([[index & 1, index >> 1 & 1, index >> 2 & 1] for index in range(count)])
        x = numpy.random.default_rng(seed).normal(size=(count, *SHAPES[dims]))
        thirds = numpy.array_split(numpy.arange(x.shape[-1]), 3)
        for label, third in enumerate(thirds):
            x[..., third] += 2 * labels[:, label].reshape(-1, *[1] * (dims + 1))
        arrays |= {f"{split}_images": x.astype(numpy.float32), f"{split}_labels": labels}
    return save(path, arrays)


def command(path: Path, dims: int, output: Path) -> list[str]:
    cutmix = [] if dims == 1 else ["--cutmix", "1"]
    kind = ["--data", f"arrays:{path}", "--spatial-dims", str(dims), "--channels", "first"]
    return [*kind, *RUN, *cutmix, "--output", str(output)]


def loaded(path: Path, dims: int) -> Data:
    return load(options_of(*command(path, dims, path)))


@pytest.fixture(scope="module", params=first_fast([3, 1, 2]))
def run(request, tmp_path_factory) -> tuple[int, Path, Path]:
    """The number of spatial dimensions, the folder of memory-mapped arrays, and that of the run."""
    root = tmp_path_factory.mktemp(f"multi_label{request.param}")
    path = data_set(root / "set", request.param)
    train.main(command(path, request.param, root / "run"))
    return request.param, path, root / "run"


def test_metrics_are_those_of_the_validation_and_the_test_split(run, capsys):
    dims, path, output = run
    summary, data = summary_of(output), loaded(path, dims)
    assert (data.multi_label, data.classes) == (True, ["0", "1", "2"])
    last = expected(logits_of(output, "last.safetensors", data.val, data), torch.tensor(data.val.labels))
    best = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    for split, values in (("val", last), ("test", best)):
        assert {name: summary[f"{split}_{name}"] for name in values} == pytest.approx(values, rel=1e-4)
        for row in summary[f"{split}_per_class"]:
            assert set(row) == {"class", *PER_LABEL}
    maps = [row["val_map"] for row in rows_of(output)]
    assert summary["best_epoch"] == maps.index(max(maps)) + 1
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")

    train.main(["--evaluate", "--weights", str(output / "best.safetensors"), "--device", "cpu"])
    again = summary_of(output / "evaluation")
    assert {name: again[f"test_{name}"] for name in best} == pytest.approx(best, rel=1e-4)
    assert "of 10 validation and 9 test " + ("signals", "images", "volumes")[dims - 1] in capsys.readouterr().out
    shutil.rmtree(output / "evaluation")


def test_killed_and_resumed_ends_bitwise_equal(run, tmp_path, monkeypatch):
    dims, path, output = run
    resumed = command(path, dims, tmp_path / "run")
    for position in ((0, 2), (2, 0)):  # within the first epoch, and before the test split
        with monkeypatch.context() as patch:
            kill_after(patch, *position)
            with pytest.raises(KilledError):
                train.main([*resumed, "--resume"])
    train.main([*resumed, "--resume"])
    assert_same(tmp_path / "run", output)


@pytest.mark.parametrize("kind", first_fast(["safetensors", "onnx", "torch-export"]))
def test_export_has_the_outputs_of_the_weights(run, tmp_path, kind):
    _, _, output = run
    file = tmp_path / f"model{export.FORMATS[kind][1]}"
    export.main([str(output / "best.safetensors"), "--format", kind, "--output", str(file)])
    if kind == "onnx":
        import onnx

        content = {each.key: each.value for each in onnx.load(file).metadata_props}["lazytorch"]
    elif kind == "torch-export":
        extra = {"lazytorch": ""}
        torch.export.load(file, extra_files=extra)
        content = extra["lazytorch"]
    else:
        with safetensors.safe_open(file, "pt") as exported:
            content = exported.metadata()["lazytorch"]
        here, there = (safetensors.torch.load_file(each) for each in (file, output / "best.safetensors"))
        assert all(torch.equal(here[name], there[name]) for name in there)
    description = json.loads(content)
    assert (description["multi_label"], len(description["mean"])) == (True, description["channels"])
    assert description == checkpoints.read(checkpoints.listed(output)[0])["run"]["description"]


@pytest.mark.filterwarnings("ignore:The weights .* have 3 classes")
@pytest.mark.parametrize("run", [2], indirect=True)
@pytest.mark.parametrize("channels", [2, 5])  # the images have 5
def test_fine_tuning_on_volumes_from_multi_label_images(run, channels, tmp_path, capsys):
    """With weights that are converted, a new classifier, and the statistics of the volumes."""
    _, _, output = run
    labels = numpy.arange(16) % 2
    x = numpy.random.default_rng(0).normal(size=(16, 24, 20, 16, channels)) * 5 + labels.reshape(-1, 1, 1, 1, 1)
    path = save(tmp_path / "set.npz", {"x_train": x, "y_train": labels, "x_test": x[:4], "y_test": labels[:4]})
    start = ["--weights", str(output / "best.safetensors"), "--lr", "0", "--shift", "0", "--intensity", "0"]
    given = ["--data", f"arrays:{path}", "--spatial-dims", "3", "--channels", "last", "--device", "cpu"]
    given += ["--batch-size", "8", "--epochs", "1"]
    train.main([*given, *start, "--output", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert "are of images: each kernel is repeated along the depth" in printed
    assert "the classifier is randomly initialized" in printed
    here, there = (safetensors.torch.load_file(each / "best.safetensors") for each in (tmp_path / "run", output))
    expected_state = lazytorch.models.inflate_state_dict(there)
    changed = [name for name, value in expected_state.items() if here[name].shape != value.shape]
    assert all("classifier" in name or name.startswith("stem.") for name in changed), changed
    kernels = [name for name, value in expected_state.items() if value.dim() == 5 and name not in changed]
    assert len(kernels) > 20
    assert all(torch.equal(here[name], expected_state[name]) for name in kernels)
    summary = summary_of(tmp_path / "run")
    assert summary["monitor"] == "accuracy"
    assert summary["input_shape"] == [1, channels, 24, 20, 16]
    training = load(options_of(*given)).train
    values = torch.stack([training.read(index) for index in range(len(training.labels))])
    assert summary["mean"] == pytest.approx(values.mean(dim=(0, 2, 3, 4)).tolist())
    assert summary["deviation"] == pytest.approx(values.std(dim=(0, 2, 3, 4), correction=0).tolist())
    assert "test_accuracy" in summary


def test_mistakes_of_every_kind_of_data_are_drawn(run):
    """A picture that cannot be drawn costs no run: here it would be an error."""
    dims, path, output = run
    data = loaded(path, dims)
    rows = checkpoints.read(checkpoints.listed(output)[0])["run"]["validation"]["worst"]
    assert len(rows) == 10
    figure = pictures.mistakes(rows, data, "title")
    first = figure.axes[0]
    assert len(first.lines) == 2 if dims == 1 else len(first.images) == 1
    pictures.pyplot.close("all")
