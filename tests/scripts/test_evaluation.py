"""Runs of scripts/train.py on multi-label targets and with a test split: every sample is read and counted once."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch

from scripts import train
from scripts.training import report, running
from scripts.training.errors import RunError
from scripts.training.loading import steps_per_epoch
from scripts.training.metrics import Evaluation
from scripts.training.module import Classifier
from scripts.training.sources import Data, InMemory
from tests.scripts import forks
from tests.scripts.counted import counted, use
from tests.scripts.measured import PLAIN, expected, logits_of, rows_of
from tests.scripts.runs import LIGHTNING_WARNINGS, RUN, KilledError, kill_after, options_of, summary_of

pytestmark = LIGHTNING_WARNINGS


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory) -> tuple[Path, Data]:
    """A run on multi-label targets with Mixup, CutMix and label smoothing, and its data."""
    output, data = tmp_path_factory.mktemp("multi_label") / "run", counted(multi_label=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "load", lambda *_, **__: data)
        more = ["--limit-batches", "100", "--label-smoothing", "0.1", "--class-weights", "balanced"]
        train.main([*RUN, *more, "--monitor", "map", "--epochs", "4", "--output", str(output)])
    return output, data


def test_multi_label_targets_train_and_report(multi_label):
    output, data = multi_label
    rows, summary = rows_of(output), summary_of(output)
    names = ["loss", "accuracy", "balanced_accuracy", "f1", "auroc", "map"]
    assert [name for name in rows[0] if name.startswith("val_")] == [f"val_{name}" for name in names]
    assert summary["monitor"] == "map"
    assert [summary[f"val_{name}"] for name in names] == [rows[-1][f"val_{name}"] for name in names]
    maps = [row["val_map"] for row in rows]
    assert summary["best_epoch"] == maps.index(max(maps)) + 1
    assert summary["best_val_map"] == max(maps)
    assert [each["class"] for each in summary["val_per_class"]] == data.classes
    assert [each["samples"] for each in summary["val_per_class"]] == data.val.labels.sum(0).tolist()
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_test_split_is_evaluated_once_with_the_best_weights(tmp_path, monkeypatch):
    data, output = counted(multi_label=True), tmp_path / "run"
    monkeypatch.setattr(running, "load", lambda *_, **__: data)
    monkeypatch.setattr(report, "best", lambda history, _: history[0])
    train.main([*PLAIN, "--ema", "0.5", "--lr", "1", "--output", str(output)])
    assert data.test.reads == dict.fromkeys(range(24), 1)
    summary = summary_of(output)
    assert (summary["best_epoch"], summary["test_images"]) == (1, 24)
    best, last = (
        expected(logits_of(output, f"{name}.safetensors", data.test, data), torch.tensor(data.test.labels))
        for name in ("best", "last")
    )
    assert {name: summary[f"test_{name}"] for name in best} == pytest.approx(best, rel=1e-4)
    assert abs(summary["test_loss"] - last["loss"]) > 1e-3
    assert [each["class"] for each in summary["test_per_class"]] == data.classes


def test_multi_label_runs_that_are_killed_end_bitwise_equal(multi_label, tmp_path, monkeypatch):
    whole, _ = multi_label
    monkeypatch.setattr(running, "load", lambda *_, **__: counted(multi_label=True))
    more = ["--limit-batches", "100", "--label-smoothing", "0.1", "--class-weights", "balanced", "--monitor", "map"]
    run = [*RUN, *more, "--epochs", "4", "--checkpoint-steps", "2", "--output", str(tmp_path / "run"), "--resume"]
    for position in ((1, 2), (2, 0), (4, 0)):
        with monkeypatch.context() as patch:
            kill_after(patch, *position)
            with pytest.raises(KilledError):
                train.main(run)
    train.main(run)
    for name in ("best.safetensors", "last.safetensors", "metrics.csv", "confusion.png", "curves.png"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
    summaries = summary_of(tmp_path / "run"), summary_of(whole)
    for each in summaries:
        del each["seconds"], each["options"]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize("position", [(1, 2), (2, 0), (3, 0)])
def test_no_sample_is_read_more_often_than_asked(position, tmp_path, monkeypatch, capsys):
    """Also by a run that goes on, in an epoch, after one, or after the last one; pictures read up to 24 once more."""
    data = counted()
    monkeypatch.setattr(running, "load", lambda *_, **__: data)
    monkeypatch.setattr(report, "write_pictures", lambda *_: None)
    run = [*PLAIN, "--checkpoint-steps", "2", "--output", str(tmp_path / "run"), "--resume"]
    with monkeypatch.context() as patch:
        kill_after(patch, *position)
        with pytest.raises(KilledError):
            train.main(run)
    assert data.test.reads == {}
    assert data.val.reads == dict.fromkeys(range(18), position[0])  # once after each epoch that is over
    train.main(run)
    assert data.train.reads == dict.fromkeys(range(40), 3)
    assert data.val.reads == dict.fromkeys(range(18), 3)
    assert data.test.reads == dict.fromkeys(range(24), 1)
    assert "validation accuracy " in capsys.readouterr().out


def test_evaluate_measures_both_splits(multi_label, tmp_path, monkeypatch, capsys):
    output, data = multi_label
    monkeypatch.setattr(running, "load", lambda *_, **__: data)
    arguments = ["--evaluate", "--weights", str(output / "best.safetensors"), "--device", "cpu"]
    train.main([*arguments, "--output", str(tmp_path)])
    found, trained = summary_of(tmp_path / "evaluation"), summary_of(output)
    assert found["test_per_class"] == trained["test_per_class"]
    assert found["val_map"] == trained["best_val_map"]
    assert [each["samples"] for each in found["test_per_class"]] == data.test.labels.sum(0).tolist()
    test = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    assert {name: found[f"test_{name}"] for name in test} == pytest.approx(test, rel=1e-4)
    text = (
        f"validation map {found['val_map']:.4f}, test map {found['test_map']:.4f} of 18 validation and 24 test images"
    )
    assert text in capsys.readouterr().out


def stop_in_the_test_split() -> None:
    Classifier.on_test_epoch_start = lambda _: os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_the_test_split_evaluates_it_when_resumed(tmp_path, monkeypatch):
    log, output = tmp_path / "log", tmp_path / "run"
    run = [*PLAIN, "--epochs", "1", "--output", str(output)]
    process = forks.start(run, log, partial(use, False, stop_in_the_test_split))
    process.join(300)
    assert process.exitcode == 128 + signal.SIGTERM, log.read_text()
    assert "Stopped by SIGTERM. The last checkpoint is" in log.read_text()
    assert not (output / "summary.json").exists()
    data = counted()
    monkeypatch.setattr(running, "load", lambda *_, **__: data)
    train.main([*run, "--resume"])
    assert data.test.reads == dict.fromkeys(range(24), 1)
    assert data.train.reads == {}
    want = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    assert summary_of(output)["test_loss"] == pytest.approx(want["loss"], rel=1e-4)


def test_a_test_split_too_small_for_the_processes_is_refused():
    data = counted()
    small = data._replace(test=InMemory(torch.rand(1, 3, 16, 16), [0], "test"))
    assert steps_per_epoch(data, options_of("--batch-size", "4"), 2) == 5
    with pytest.raises(
        RunError, match="must leave each process 1 test samples a step or more, got 4, with 1 samples and 2"
    ):
        steps_per_epoch(small, options_of("--batch-size", "4"), 2)


def record(folder: Path) -> None:
    """Have each process leave the outputs, labels and indices of the samples that it evaluates, and its row."""
    add, end, seen = Evaluation.add, Classifier.on_train_epoch_end, []

    def adding(self, logits, labels, indices):
        seen.append((logits, labels, indices))
        add(self, logits, labels, indices)

    def on_train_epoch_end(self):
        end(self)
        content = [torch.cat(each) for each in zip(*seen, strict=True)]
        torch.save((content, self.history[-1]), folder / f"{self.trainer.global_rank}.pt")
        seen.clear()

    Evaluation.add, Classifier.on_train_epoch_end = adding, on_train_epoch_end


@pytest.mark.slow
@pytest.mark.parametrize(("multi_label", "strategy"), [(False, "ddp"), (True, "ddp"), (True, "fsdp")])
def test_two_processes_count_each_sample_once(multi_label, strategy, tmp_path):
    log, output = tmp_path / "log", tmp_path / "run"
    run = [*PLAIN, "--batch-size", "5", "--epochs", "1", "--strategy", strategy, "--output", output]
    processes = forks.start_two(run, log, partial(use, multi_label, partial(record, tmp_path)))
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], log.read_text()
    (one, row), (other, same) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert row == same
    logits, labels, indices = (torch.cat(each) for each in zip(one, other, strict=True))
    assert sorted(indices.tolist()) == list(range(18))
    want = expected(logits, labels)
    assert {name: row[f"val_{name}"] for name in want} == pytest.approx(want, rel=1e-5)
    summary = summary_of(output)
    assert summary["best_epoch"] == 1
    data = counted(multi_label=multi_label)
    last = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    assert summary["test_loss"] == pytest.approx(last["loss"], rel=1e-4)
    samples = [each["samples"] for each in summary["test_per_class"]]
    labels = data.test.labels
    assert samples == (labels.sum(0) if multi_label else numpy.bincount(labels)).tolist()
