"""Runs of scripts/train.py on signals, images of many bands and volumes, from training to export."""

import json
import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from numpy.lib.format import open_memmap
from safetensors import safe_open

import lazytorch
from scripts import export, train
from scripts.training import checkpoints
from scripts.training.command_line import parse
from scripts.training.data import load
from scripts.training.module import Classifier
from scripts.training.samples import Samples
from tests.catalogue import first_fast
from tests.scripts import forks
from tests.scripts.arrays import SHAPES, named, samples, save
from tests.scripts.runs import LIGHTNING_WARNINGS, assert_same, summary_of
from tests.scripts.test_processes import record

MODEL = ["--model", "mobilenet_v2", "--model-option", "width=0.1", "final_channels=16", "dropout=0.2"]
RUN = [*MODEL, "--batch-size", "8", "--device", "cpu", "--seed", "3", "--ema", "0.9", "--lr", "0.2"]

pytestmark = LIGHTNING_WARNINGS


def arguments(path: Path, dims: int, *others: str) -> list[str]:
    return ["--data", f"arrays:{path}", "--spatial-dims", str(dims), "--channels", "first", *RUN, *others]


def description(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lazytorch"])


@pytest.fixture(scope="module", params=first_fast([3, 1, 2]))
def run(request, tmp_path_factory) -> tuple[int, Path, Path]:
    """A run on arrays: their number of spatial dimensions, their file, and the folder of the run."""
    root = tmp_path_factory.mktemp(f"dims{request.param}")
    path = save(root / "set.npz", named(SHAPES[request.param]))
    train.main([*arguments(path, request.param), "--epochs", "2", "--output", str(root / "run")])
    return request.param, path, root / "run"


def test_weights_contain_what_evaluation_and_export_need(run):
    dims, path, output = run
    there = description(output / "last.safetensors")
    x = numpy.load(path)["train_images"].astype(numpy.float64)
    axes = (0, *range(2, x.ndim))
    assert there["mean"] == pytest.approx(x.mean(axis=axes))
    assert there["deviation"] == pytest.approx(x.std(axis=axes))
    assert (there["spatial_dims"], there["channels"], there["image_size"]) == (dims, x.shape[1], list(x.shape[2:]))
    assert there["resample"] is False
    assert summary_of(output)["input_shape"] == [1, *x.shape[1:]]
    assert checkpoints.read(checkpoints.listed(output)[0])["run"]["description"] == there


def test_evaluate_standardizes_as_in_training(run, tmp_path):
    """On other data too, whose own mean and deviation are others: their accuracy depends on it."""
    dims, _, output = run
    weights = str(output / "last.safetensors")
    train.main(["--evaluate", "--weights", weights, "--device", "cpu"])
    again = summary_of(output / "evaluation")
    assert again["val_accuracy"] == summary_of(output)["val_accuracy"]
    assert again["val_loss"] == pytest.approx(summary_of(output)["val_loss"], rel=1e-5)
    shutil.rmtree(output / "evaluation")

    moved = shutil.copy(weights, tmp_path / "mine.safetensors")
    x, y = samples(32, SHAPES[dims], seed=9)
    other = save(tmp_path / "other.npz", named(SHAPES[dims], train_images=x * 7, train_labels=y))
    train.main([*arguments(other, dims), "--evaluate", "--weights", str(moved), "--output", str(tmp_path / "run")])
    there = summary_of(tmp_path / "run/evaluation")
    assert (there["mean"], there["deviation"]) == (again["mean"], again["deviation"])
    assert there["val_loss"] == pytest.approx(again["val_loss"], rel=1e-5)  # the validation split is the same


@pytest.mark.parametrize(
    "kind",
    [
        "safetensors",
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("torch-export", marks=pytest.mark.slow),
    ],
)
def test_export_has_the_outputs_and_the_standardization(run, tmp_path, kind):
    dims, path, output = run
    file = tmp_path / f"model{export.FORMATS[kind][1]}"
    export.main([str(output / "last.safetensors"), "--format", kind, "--output", str(file)])
    there = description(output / "last.safetensors")
    given = parse("", arguments(path, dims))[0]
    data = load(given)
    images = Samples(data.val, data, given, training=False)
    batch = torch.stack([images[0, index][0] for index in range(3)])
    options = {"width": 0.1, "final_channels": 16}
    expected = lazytorch.models.mobilenet_v2(**options, weights=output / "last.safetensors").eval()(batch)
    if kind == "onnx":
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        outputs = torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])
        content = {each.key: each.value for each in onnx.load(file).metadata_props}["lazytorch"]
        assert json.loads(content) == there
    elif kind == "torch-export":
        extra = {"lazytorch": ""}
        outputs = torch.export.load(file, extra_files=extra).module()(batch)
        assert json.loads(extra["lazytorch"]) == there
    else:
        outputs = lazytorch.models.mobilenet_v2(**options, weights=file).eval()(batch)
        assert description(file) == there
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_data_that_the_weights_are_not_of_are_refused(run, tmp_path, capsys):
    dims, _, output = run
    weights = ["--evaluate", "--weights", str(output / "last.safetensors"), "--output", str(tmp_path / "run")]
    other = save(tmp_path / "other.npz", named((7 if dims == 3 else 1, *SHAPES[dims][1:])))
    for given, message in (
        ([*arguments(other, dims)], f"are of samples with {SHAPES[dims][0]} channel"),
        (["--data", "digits"], "are of the 2 classes 0, 1, got digits"),
    ):
        with pytest.raises(SystemExit):
            train.main([*given, *weights])
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:The weights .* have 2 classes")
def test_fine_tuning_takes_the_standardization_and_a_size_that_was_given(run, tmp_path):
    dims, path, output = run
    x, y = samples(24, [SHAPES[dims][0], *(2 * each for each in SHAPES[dims][1:])], classes=3, seed=5)
    other = save(tmp_path / "other.npz", {"x_train": 9 * x, "y_train": y})
    once = ["--epochs", "1", "--limit-batches", "1"]
    given = "x".join(str(each - 4) for each in SHAPES[dims][1:])
    train.main([*arguments(path, dims, *once), "--image-size", given, "--output", str(tmp_path / "resampled")])
    for weights, size in ((output, x.shape[2:]), (tmp_path / "resampled", [each - 4 for each in SHAPES[dims][1:]])):
        fine_tuned = tmp_path / f"from {weights.name}"
        start = ["--weights", str(weights / "last.safetensors"), "--output", str(fine_tuned)]
        train.main([*arguments(other, dims, *once), *start])
        here, there = (description(each / "last.safetensors") for each in (fine_tuned, weights))
        for name in ("mean", "deviation", "resample", "spatial_dims"):
            assert here[name] == there[name]
        assert here["image_size"] == list(size)
        assert here["classes"] == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The weights .* have 10 classes")
def test_fine_tuning_from_other_kinds_of_data_takes_nothing_of_their_samples(run, tmp_path, capsys):
    """Size, statistics and number of dimensions are those of the new data, which are inferred as ever."""
    dims, path, output = run
    once = [*RUN, "--epochs", "1", "--limit-batches", "1"]
    volumes = save(tmp_path / "cubes.npz", named((12, 12, 12)))
    if dims == 2:  # weights of images start other kinds of data
        start = ["--weights", str(output / "last.safetensors"), "--output", str(tmp_path / "cubes")]
        train.main(["--data", f"arrays:{volumes}", *once, *start])
        there = description(tmp_path / "cubes/last.safetensors")
        assert (there["spatial_dims"], there["image_size"], there["resample"]) == (3, [12, 12, 12], False)
        x = numpy.load(volumes)["train_images"].astype(float)
        assert (there["mean"], there["deviation"]) == (pytest.approx([x.mean()]), pytest.approx([x.std()]))
    train.main([*once, "--image-size", "16", "--output", str(tmp_path / "digits")])
    start = ["--weights", str(tmp_path / "digits/last.safetensors"), "--output", str(tmp_path / "arrays")]
    train.main([*arguments(path, dims, "--epochs", "1", "--limit-batches", "1"), *start])
    here, there = description(tmp_path / "arrays/last.safetensors"), description(output / "last.safetensors")
    assert here == there
    assert "the classifier is randomly initialized" in capsys.readouterr().out
    for index, sample in enumerate(numpy.load(path)["train_images"]):
        folder = tmp_path / "files" / ("train", "val")[index // 16] / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        numpy.save(folder / f"{index}.npy", sample)
    files = [f"folder:{tmp_path / 'files'}", *arguments(path, dims)[2:]]
    start[-1] = str(tmp_path / "from_files")
    train.main(["--data", *files, "--epochs", "1", "--limit-batches", "1", *start])
    here = description(tmp_path / "from_files/last.safetensors")
    assert (here["image_size"], here["resample"]) == (there["image_size"], False)


def test_a_resumed_run_has_other_arrays_refused(run, tmp_path, capsys):
    dims, path, output = run
    unfinished = tmp_path / "run"
    shutil.copytree(output, unfinished)
    (unfinished / "summary.json").unlink()
    size = "x".join(["9"] * dims)
    with pytest.raises(SystemExit):
        train.main([*arguments(path, dims), "--image-size", size, "--output", str(unfinished), "--resume"])
    assert f"image_size: {list(SHAPES[dims][1:])} there, {[9] * dims} here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".npz", ""])
def test_killed_and_resumed_ends_bitwise_equal(tmp_path, dims, suffix):
    path = save(tmp_path / f"set{suffix}", named(SHAPES[dims]))
    command = arguments(path, dims, "--epochs", "6", "--checkpoint-steps", "2")
    assert forks.finish([*command, "--output", tmp_path / "whole"], tmp_path / "whole.log") == 0
    output, log, chance = tmp_path / "run", tmp_path / "log", random.Random(dims)
    for _ in range(2):
        before = checkpoints.listed(output)[:1]
        process = forks.start([*command, "--output", output, "--resume"], log)
        while checkpoints.listed(output)[:1] == before and process.is_alive():
            process.join(0.01)
        process.join(chance.uniform(0, 0.2))
        process.kill()
        process.join()
    assert forks.finish([*command, "--output", output, "--resume"], log) == 0, log.read_text()
    assert "going on from" in log.read_text()
    assert_same(output, tmp_path / "whole")


@pytest.mark.slow
def test_loading_processes_change_nothing(tmp_path):
    path = save(tmp_path / "set", named(SHAPES[1]))
    for workers in ("0", "2"):
        command = arguments(path, 1, "--epochs", "1", "--workers", workers, "--output", str(tmp_path / workers))
        assert forks.finish(command, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    one, other = ((tmp_path / workers / "last.safetensors").read_bytes() for workers in ("0", "2"))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "suffix"), [(1, ""), (2, ".npz"), (3, "")])
def test_two_processes_have_each_sample_once(tmp_path, dims, suffix):
    path = save(tmp_path / f"set{suffix}", named(SHAPES[dims], train=40, val=10))
    command = arguments(path, dims, "--epochs", "2", "--output", str(tmp_path / "run"))
    processes = forks.start_two(command, tmp_path / "log", partial(record, tmp_path))
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "log").read_text()
    for epoch in range(2):
        both = [torch.load(tmp_path / f"{epoch} {rank}.pt") for rank in range(2)]
        assert sorted(index for each in both for batch in each["seen"] for index in batch) == list(range(40))
        for left, right in zip(both[0]["parameters"], both[1]["parameters"], strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)
    saved = checkpoints.read(checkpoints.listed(tmp_path / "run")[0])["run"]
    assert saved["validation"]["confusion"].sum(dim=1).tolist() == [5, 5]
    whole = numpy.load(path)["train_images"] if suffix else numpy.load(path / "train_images.npy")
    assert saved["description"]["mean"] == pytest.approx(whole.astype(float).mean(axis=(0, *range(2, whole.ndim))))


def shorten_after(path: Path, step: int) -> None:
    """Have the file shortened after so many training steps."""
    real = Classifier.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == step:
            os.truncate(path, path.stat().st_size // 2)
        return real(self, batch, batch_idx)

    Classifier.training_step = training_step


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_file_that_is_shortened_during_a_run_is_named(tmp_path, workers):
    """Reading behind the end of a map would end the process without a message."""
    folder = save(tmp_path / "set", named(SHAPES[1], train=256))
    path = folder / "train_images.npy"
    length, whole = path.stat().st_size, path.read_bytes()
    command = arguments(folder, 1, "--epochs", "2", "--workers", workers, "--output", str(tmp_path / "run"))
    assert forks.finish(command, tmp_path / "log", partial(shorten_after, path, 3)) == 1
    last = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert last.startswith(f"{path} must keep its {length} bytes during a run, got {length // 2}. Restore it")
    path.write_bytes(whole)
    assert forks.finish([*command, "--resume"], tmp_path / "log") == 0


def test_spectra_of_one_channel_train_from_two_axes(tmp_path):
    path = save(tmp_path / "set.npz", named((40,)))
    train.main(["--data", f"arrays:{path}", *RUN, "--epochs", "1", "--output", str(tmp_path / "run")])
    assert summary_of(tmp_path / "run")["input_shape"] == [1, 1, 40]


def test_samples_that_are_too_small_for_the_model_are_an_error(tmp_path, capsys):
    path = save(tmp_path / "set.npz", named((1, 8, 8, 8)))
    command = ["--data", f"arrays:{path}", "--spatial-dims", "3", "--channels", "first", "--device", "cpu"]
    with pytest.raises(SystemExit):
        train.main([*command, "--model", "resnet10t", "--batch-size", "8", "--output", str(tmp_path / "run")])
    error = capsys.readouterr().err.strip()
    assert "for samples of 1 x 8 x 8 x 8: " in error
    assert error.endswith("If they are too small, give a larger --image-size.")


MEASURE = """
import sys
from pathlib import Path
from scripts.training import running
from scripts.training.data import load
from scripts.training.samples import Samples
from scripts.training.command_line import parse

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

options = parse("", ["--data", "arrays:" + sys.argv[1], "--spatial-dims", "2", "--channels", "first"])[0]
load(parse("", [])[0])
before = resident()
data = load(options)
images = Samples(data.train, data, options, training=True)
for index in range(4000):
    images[0, index * 7919 % len(images)]
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """4 GB, of which the disk has few pages, as the file has holes: a pass for the statistics, then random samples."""
    folder = tmp_path / "set"
    folder.mkdir()
    count = 20_000
    shape = {"train": (count, 12, 64, 64), "val": (2, 12, 64, 64)}
    for split, each in shape.items():
        array = open_memmap(folder / f"{split}_images.npy", "w+", numpy.float32, each)
        array[0] = 1  # no channel is constant
        del array
        numpy.save(folder / f"{split}_labels.npy", numpy.arange(each[0]) % 2)
    assert (folder / "train_images.npy").stat().st_size > 3.9e9
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.splitlines()[-1])
    print(f"{grown / 2**20:.0f} MiB")
    assert grown < 150 * 2**20
