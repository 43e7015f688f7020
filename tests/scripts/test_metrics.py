"""The metrics of scripts/train.py: their values, what --monitor and --class-weights do, and the test split."""

import csv
import json
import math
import os
import signal
from functools import partial
from pathlib import Path

import numpy
import pytest
import sklearn.metrics
import torch
from matplotlib import pyplot
from torch.nn import functional as F

import lazytorch
from scripts import train
from scripts.training import options, pictures, report, running
from scripts.training.errors import RunError
from scripts.training.images import Images
from scripts.training.loading import steps_per_epoch
from scripts.training.losses import TrainingLoss
from scripts.training.metrics import ABSENT, Evaluation, Figures, monitored
from scripts.training.mixing import Mixing
from scripts.training.module import Classifier
from scripts.training.sources import InMemory
from tests.scripts import forks
from tests.scripts.memory import KilledError, kill_after, made, use
from tests.scripts.runs import RUN

PLAIN = ["--batch-size", "8", "--image-size", "16", "--device", "cpu", "--seed", "3", "--epochs", "3"]
PLAIN += ["--model-option", "width=0.1", "final_channels=16"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]


def figures_of(logits: torch.Tensor, labels: torch.Tensor, *, batch: int = 7) -> Figures:
    evaluation = Evaluation(logits.size(1), multi_label=labels.dim() == 2)
    for index in torch.arange(len(labels)).split(batch):
        evaluation.add(logits[index], labels[index], index)
    return evaluation.figures(torch.Tensor.clone, torch.Tensor.clone)


def expected(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """scikit-learn's values."""
    if labels.dim() == 2:
        scores, truth = logits.sigmoid().numpy(), labels.numpy().astype(int)
        predicted = (scores > 0.5).astype(int)
        pairs = list(zip(truth.T, predicted.T, strict=True))
        return {
            "loss": F.binary_cross_entropy_with_logits(logits, labels).item(),
            "accuracy": (predicted == truth).mean(),
            "balanced_accuracy": numpy.mean([sklearn.metrics.balanced_accuracy_score(*pair) for pair in pairs]),
            "f1": sklearn.metrics.f1_score(truth, predicted, average="macro"),
            "auroc": sklearn.metrics.roc_auc_score(truth, scores, average="macro"),
            "map": sklearn.metrics.average_precision_score(truth, scores, average="macro"),
        }
    scores, truth, predicted = logits.softmax(1).numpy(), labels.numpy(), logits.argmax(1).numpy()
    auroc = [sklearn.metrics.roc_auc_score(truth == index, scores[:, index]) for index in range(scores.shape[1])]
    return {
        "loss": F.cross_entropy(logits, labels).item(),
        "accuracy": sklearn.metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(truth, predicted),
        "f1": sklearn.metrics.f1_score(truth, predicted, average="macro"),
        "auroc": numpy.mean(auroc),
    }


def random_pass(seed: int, *, multi_label: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with ties, and labels of four classes that are more frequent the lower they are."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(101, 4, generator=generator).mul(4).round().div(2)
    if multi_label:
        return logits, (torch.rand(101, 4, generator=generator) < torch.tensor([0.6, 0.4, 0.2, 0.1])).float()
    return logits, torch.multinomial(torch.tensor([0.4, 0.3, 0.2, 0.1]), 101, True, generator=generator)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_scikit_learn(multi_label, seed):
    logits, labels = random_pass(seed, multi_label=multi_label)
    found = figures_of(logits, labels).overall
    want = expected(logits, labels)
    assert list(found) == list(want)
    assert found == pytest.approx(want, rel=1e-5)


def test_metrics_of_each_class_equal_those_of_scikit_learn():
    logits, labels = random_pass(0, multi_label=False)
    found = figures_of(logits, labels)
    predicted = logits.argmax(1)
    precision, recall, f1, samples = sklearn.metrics.precision_recall_fscore_support(labels, predicted)
    for index, row in enumerate(found.per_class):
        auroc = sklearn.metrics.roc_auc_score(labels == index, logits.softmax(1)[:, index])
        values = [samples[index], recall[index], precision[index], f1[index], auroc]
        assert list(row.values()) == pytest.approx(values, rel=1e-5)
    assert found.confusion.tolist() == sklearn.metrics.confusion_matrix(labels, predicted).tolist()

    logits, labels = random_pass(0, multi_label=True)
    found = figures_of(logits, labels)
    matrices = sklearn.metrics.multilabel_confusion_matrix(labels.int(), (logits > 0).int())
    for row, ((tn, fp), (fn, tp)) in zip(found.confusion.tolist(), matrices, strict=True):
        assert row == [tp, fn, fp, tn]
    assert found.per_class[3]["average_precision"] == pytest.approx(
        sklearn.metrics.average_precision_score(labels[:, 3], logits[:, 3].sigmoid()), rel=1e-5
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_class_without_samples_is_left_out_of_the_averages(multi_label):
    logits, labels = random_pass(1, multi_label=multi_label)
    rows = labels[:, 1] == 0 if multi_label else labels != 1
    logits, labels = logits[rows], labels[rows]
    found = figures_of(logits, labels)
    assert math.isnan(found.per_class[1]["auroc"])
    assert math.isnan(found.per_class[1]["recall"])
    others = [0, 2, 3]
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    truth = labels if multi_label else F.one_hot(labels, 4)
    auroc = [sklearn.metrics.roc_auc_score(truth[:, index], scores[:, index]) for index in others]
    assert found.overall["auroc"] == pytest.approx(numpy.mean(auroc), rel=1e-5)
    if not multi_label:
        recall = sklearn.metrics.recall_score(labels, logits.argmax(1), average=None, labels=others)
        assert found.overall["balanced_accuracy"] == pytest.approx(recall.mean(), rel=1e-5)


def test_the_worst_of_multi_label_samples_have_their_most_wrong_class():
    logits = torch.tensor([[5.0, -3.0], [5.0, -3.0], [9.0, -9.0], [0.5, -4.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    rows = figures_of(logits, labels).worst[:, 1:].tolist()
    # Mistakes first; among right ones that with the higher loss.
    assert rows == [[1, ABSENT, 0], [0, 1, ABSENT], [3, 0, 0], [2, 0, 0]]


def rows_of(output: Path) -> list[dict[str, float]]:
    with (output / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def summary_of(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory) -> tuple[Path, int]:
    """A run on multi-label targets with Mixup, CutMix and label smoothing, and its reads of the test split."""
    output, data = tmp_path_factory.mktemp("multi_label") / "run", made(multi_label=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "load", lambda _: data)
        more = ["--limit-batches", "100", "--label-smoothing", "0.1", "--class-weights", "balanced"]
        train.main([*RUN, *more, "--monitor", "map", "--epochs", "4", "--output", str(output)])
    return output, data


def test_multi_label_targets_train_and_report(multi_label):
    output, data = multi_label
    rows, summary = rows_of(output), summary_of(output)
    names = ["loss", "accuracy", "balanced_accuracy", "f1", "auroc", "map"]
    assert [name for name in rows[0] if name.startswith("val_")] == [f"val_{name}" for name in names]
    assert summary["monitor"] == "map"
    maps = [row["val_map"] for row in rows]
    assert summary["best_epoch"] == maps.index(max(maps)) + 1
    assert summary["best_val_map"] == max(maps)
    assert [each["class"] for each in summary["val_per_class"]] == data.classes
    assert [each["samples"] for each in summary["val_per_class"]] == data.val.labels.sum(0).tolist()
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def logits_of(output: Path, weights: str, source, data) -> torch.Tensor:
    """The outputs of weights of a run, computed without the script's loops."""
    given, _ = options.parse("", ["--config", str(output / "options.yaml")])
    model = lazytorch.models.mobilenet_v2(**given.model_option, weights=output / weights).eval()
    images = Images(source, data, given, training=False)
    with torch.no_grad():
        return torch.cat([model(images[0, index][0][None]) for index in range(len(source.labels))])


def test_the_test_split_is_evaluated_once_with_the_best_weights(tmp_path, monkeypatch):
    data, output = made(multi_label=True), tmp_path / "run"
    monkeypatch.setattr(running, "load", lambda _: data)
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
    monkeypatch.setattr(running, "load", lambda _: made(multi_label=True))
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
    data = made()
    monkeypatch.setattr(running, "load", lambda _: data)
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
    monkeypatch.setattr(running, "load", lambda _: data)
    arguments = ["--evaluate", "--weights", str(output / "best.safetensors"), "--device", "cpu"]
    train.main([*arguments, "--output", str(tmp_path)])
    found, trained = summary_of(tmp_path / "evaluation"), summary_of(output)
    assert found["test_per_class"] == trained["test_per_class"]
    assert found["val_map"] == trained["best_val_map"]
    text = (
        f"validation map {found['val_map']:.4f}, test map {found['test_map']:.4f} of 18 validation and 24 test images"
    )
    assert text in capsys.readouterr().out


def stop_in_the_test_split() -> None:
    Classifier.on_test_epoch_start = lambda _: os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_is_stopped_in_the_test_split_evaluates_it_when_resumed(tmp_path, monkeypatch):
    log, output = tmp_path / "log", tmp_path / "run"
    run = [*PLAIN, "--epochs", "1", "--output", str(output)]
    process = forks.start(run, log, partial(use, False, stop_in_the_test_split))
    process.join(300)
    assert process.exitcode == 128 + signal.SIGTERM, log.read_text()
    assert "Stopped by SIGTERM. The last checkpoint is" in log.read_text()
    assert not (output / "summary.json").exists()
    data = made()
    monkeypatch.setattr(running, "load", lambda _: data)
    train.main([*run, "--resume"])
    assert data.test.reads == dict.fromkeys(range(24), 1)
    assert data.train.reads == {}
    want = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    assert summary_of(output)["test_loss"] == pytest.approx(want["loss"], rel=1e-4)


def test_a_test_split_too_small_for_the_processes_is_refused():
    data = made()
    small = data._replace(test=InMemory(torch.rand(1, 3, 16, 16), [0], "test"))
    assert steps_per_epoch(data, given("--batch-size", "4"), 2) == 5
    with pytest.raises(
        RunError, match="must leave each process 1 test images a step or more, got 4, with 1 images and 2"
    ):
        steps_per_epoch(small, given("--batch-size", "4"), 2)


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
    data = made(multi_label=multi_label)
    last = expected(logits_of(output, "best.safetensors", data.test, data), torch.tensor(data.test.labels))
    assert summary["test_loss"] == pytest.approx(last["loss"], rel=1e-4)
    samples = [each["samples"] for each in summary["test_per_class"]]
    labels = data.test.labels
    assert samples == (labels.sum(0) if multi_label else numpy.bincount(labels)).tolist()


def test_a_metric_that_is_not_defined_ends_no_run(tmp_path, monkeypatch, capsys):
    """The limited validation has samples of one class alone."""
    data = made(test=False)
    data.val.labels = [0] * 12 + [1, 1, 1, 2, 2, 2]
    monkeypatch.setattr(running, "load", lambda _: data)
    run = [*PLAIN, "--limit-batches", "1", "--monitor", "auroc", "--output", str(tmp_path / "run")]
    train.main([*run, "--batch-size", "4"])
    text = (tmp_path / "run/summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["val_auroc"] is None
    assert json.loads(text)["val_per_class"][0]["samples"] == 4
    assert (tmp_path / "run/curves.png").exists()
    assert "validation auroc undefined after" in capsys.readouterr().out


def test_the_best_epoch_is_that_of_the_monitored_metric():
    names = ("loss", "accuracy", "balanced_accuracy", "f1", "auroc", "map")
    rows = [{"epoch": epoch, **{f"val_{name}": 0.5 for name in names}} for epoch in range(1, len(names) + 2)]
    for epoch, name in enumerate(names, 1):
        rows[epoch][f"val_{name}"] = 0.4 if name == "loss" else 0.6
    assert [report.best(rows, name)["epoch"] for name in names] == [2, 3, 4, 5, 6, 7]
    rows[4]["val_f1"] = math.nan
    assert report.best(rows, "f1")["epoch"] == 2  # of equal ones that with the lowest loss


def given(*arguments: str) -> options.Options:
    return options.parse("", list(arguments))[0]


def test_the_monitored_metric_follows_from_the_targets():
    assert monitored(made(), given()) == "accuracy"
    assert monitored(made(multi_label=True), given()) == "auroc"
    assert monitored(made(), given("--monitor", "f1")) == "f1"


def test_balanced_weights_have_a_mean_of_one_and_balance_the_classes():
    data = made()
    balanced, plain = (TrainingLoss(data, given("--class-weights", name)) for name in ("balanced", "none"))
    labels = torch.tensor(data.train.labels)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert plain(logits, labels).item() == pytest.approx(losses.mean().item())
    by_class = torch.stack([losses[labels == index].mean() for index in range(3)])
    assert balanced(logits, labels).item() == pytest.approx(by_class.mean().item())
    batches = [balanced(logits[rows], labels[rows]) for rows in torch.arange(40).split(8)]
    assert torch.stack(batches).mean().item() == pytest.approx(by_class.mean().item())
    mixed = balanced(logits, F.one_hot(labels, 3).float())  # as Mixup makes them
    assert mixed.item() == pytest.approx(by_class.mean().item())


def test_balanced_weights_of_multi_label_targets_balance_each_class():
    data = made(multi_label=True)
    balanced = TrainingLoss(data, given("--class-weights", "balanced"))
    labels = torch.tensor(data.train.labels)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    halves = [losses[:, index][labels[:, index] == value].mean() for index in range(3) for value in (0, 1)]
    assert balanced(logits, labels).item() == pytest.approx(torch.stack(halves).mean().item())


def test_label_smoothing_of_multi_label_targets_moves_them_towards_a_half():
    loss = TrainingLoss(made(multi_label=True), given("--label-smoothing", "0.2"))
    logits, labels = torch.tensor([[2.0, -1, 0]]), torch.tensor([[1.0, 0, 1]])
    want = F.binary_cross_entropy_with_logits(logits, torch.tensor([[0.9, 0.1, 0.9]]))
    torch.testing.assert_close(loss(logits, labels), want)


@pytest.mark.parametrize(
    ("shape", "name"), [((6, 2, 9), "mixup"), ((6, 2, 5, 4), "cutmix"), ((6, 2, 3, 5, 4), "cutmix")]
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_targets_are_mixed_by_the_fractions_of_the_samples(shape, name, multi_label):
    data = made(multi_label=multi_label)._replace(spatial_dims=len(shape) - 2)
    # Sample i is filled with i: what it is made of can be read from its values.
    samples = torch.arange(6.0).reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
    labels = torch.tensor(data.train.labels[:6])
    targets = labels if multi_label else F.one_hot(labels, 3).float()
    torch.manual_seed(1)
    mixed, found = Mixing(data, given(f"--{name}", "1"))(samples, labels)
    assert mixed.shape == shape
    own = (mixed[1] if name == "mixup" else (mixed[1] == 1).float()).mean()  # 1 of sample 1, 0 of sample 0
    assert 0.05 < own < 0.95
    torch.testing.assert_close(found[1], own * targets[1] + (1 - own) * targets[0])


def test_without_mixing_samples_and_labels_are_as_they_were():
    samples, labels = torch.rand(4, 1, 8), torch.tensor([0, 1, 2, 0])
    mixed = Mixing(made(), given())(samples, labels)
    assert mixed[0] is samples
    assert mixed[1] is labels


def test_wrong_options_for_the_data_are_refused():
    with pytest.raises(
        RunError, match="--monitor: map is the average precision of multi-label targets, got targets of"
    ):
        monitored(made(), given("--monitor", "map"))
    with pytest.raises(RunError, match=r"--cutmix: must be 0 for signals, which have no rectangle to replace, got 0.5"):
        Mixing(made()._replace(spatial_dims=1), given("--cutmix", "0.5"))
    data = made(multi_label=True)
    data.train.labels[:, 1] = 0
    with pytest.raises(
        RunError, match=r"with each class and without it, got all or none for green. Use --class-weights"
    ):
        TrainingLoss(data, given("--class-weights", "balanced"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--monitor", "acuracy"],
            "must be one of accuracy, balanced_accuracy, f1, auroc, map, loss, got acuracy. Did",
        ),
        (["--class-weights", "balance"], "--class-weights: must be one of none, balanced, got balance. Did you mean"),
        (["--monitor", "map"], "--monitor: map is the average precision of multi-label targets"),
    ],
)
def test_wrong_names_are_refused_before_training(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main([*PLAIN, *arguments, "--output", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_show_the_monitored_metric_and_the_labels():
    rows = [{"epoch": epoch, "train_loss": 1.0, "train_accuracy": 0.5} for epoch in (1, 2)]
    rows = [{**row, "val_loss": 1.0, "val_accuracy": 0.5, "val_auroc": 0.7 + row["epoch"] / 10} for row in rows]
    figure = pictures.curves(rows, "title", "auroc", rows[1])
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy, %", "area under the ROC curve"]
    assert figure.axes[2].lines[0].get_ydata().tolist() == pytest.approx([0.8, 0.9])
    assert "best epoch: 2 (0.9)" in [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert len(pictures.curves(rows, "title", "accuracy", rows[0]).axes) == 2

    figure = pictures.multi_label_confusion(numpy.array([[3, 1, 0, 4], [0, 2, 5, 1]]), ["cat", "dog"], "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "0", "4", "0", "2", "5", "1"]
    shares = figure.axes[0].images[0].get_array().tolist()
    assert shares == [pytest.approx([3 / 4, 1 / 4, 0, 1]), pytest.approx([0, 1, 5 / 6, 1 / 6])]

    worst = torch.tensor([[0.5, 0, ABSENT, 2], [0.4, 1, 0, ABSENT]])
    titles = [axis.get_title() for axis in pictures.mistakes(worst, made(), "title").axes]
    assert [title.split("\n")[0] for title in titles] == ["absent", "red"]
    assert [title.split("\n")[1][2:] for title in titles] == ["blue", "absent"]
    pyplot.close("all")
