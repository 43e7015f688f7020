"""The metrics of scripts/train.py: their values, and what --monitor does."""

import json
import math

import numpy
import pytest
import sklearn.metrics
import torch
from matplotlib import pyplot
from torch.nn import functional as F

from scripts import train
from scripts.training import pictures, report, running
from scripts.training.errors import RunError
from scripts.training.losses import TrainingLoss
from scripts.training.metrics import ABSENT, Evaluation, Figures, monitored
from tests.scripts.counted import counted
from tests.scripts.measured import PLAIN, expected
from tests.scripts.runs import LIGHTNING_WARNINGS, options_of

pytestmark = LIGHTNING_WARNINGS


def figures_of(logits: torch.Tensor, labels: torch.Tensor, *, batch: int = 7) -> Figures:
    evaluation = Evaluation(logits.size(1), multi_label=labels.dim() == 2)
    for index in torch.arange(len(labels)).split(batch):
        evaluation.add(logits[index], labels[index], index)
    return evaluation.figures(torch.Tensor.clone, torch.Tensor.clone)


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


def test_a_metric_that_is_not_defined_ends_no_run(tmp_path, monkeypatch, capsys):
    """The limited validation has samples of one class alone."""
    data = counted()._replace(test=None)
    data.val.labels = [0] * 12 + [1, 1, 1, 2, 2, 2]
    monkeypatch.setattr(running, "load", lambda *_, **__: data)
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


def test_the_monitored_metric_follows_from_the_targets():
    assert monitored(counted(), options_of()) == "accuracy"
    assert monitored(counted(multi_label=True), options_of()) == "auroc"
    assert monitored(counted(), options_of("--monitor", "f1")) == "f1"


def test_wrong_options_for_the_data_are_refused():
    with pytest.raises(
        RunError, match="--monitor: map is the average precision of multi-label targets, got targets of"
    ):
        monitored(counted(), options_of("--monitor", "map"))
    data = counted(multi_label=True)
    data.train.labels[:, 1] = 0
    with pytest.raises(
        RunError, match=r"with each class and without it, got all or none for green. Use --class-weights"
    ):
        TrainingLoss(data, options_of("--class-weights", "balanced"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--monitor", "aurok"],
            "must be one of accuracy, balanced_accuracy, f1, auroc, map, loss, got aurok. Did",
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
    pyplot.close("all")
