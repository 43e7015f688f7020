"""scripts/benchmark.py: what it reports follows from what it measures, and what it compares is the same network."""

import functools
import json
import re
import sys
from collections import Counter

import numpy
import pytest
import torch
import torchvision
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lazytorch
from lazytorch.models import get_model
from scripts import benchmark
from scripts.benchmarking import plain_loop, training
from scripts.benchmarking.depth import Nested, deep, exponent
from scripts.benchmarking.measure import Comparison, compare
from scripts.benchmarking.peers import NN_LAZY, autograd_nodes
from scripts.benchmarking.plot import plot
from scripts.benchmarking.rows import MODELS, ROWS
from tests.catalogue import first_fast


def comparison(row, model, peer, ratio):
    return Comparison(row, model, peer, "s", ratio, 1.0, ratio, ratio, ratio)


@pytest.mark.slow
def test_a_look_measures_and_tells(capsys):
    assert benchmark.main(["--rows", "build,describe", "--models", "resnet18", "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(each["row"], each["peer"]) for each in found["models"]} == {
        ("build", "torchvision"),
        ("describe", "torchinfo"),
    }
    for each in found["models"]:
        assert 0 < each["low"] <= each["ratio"] <= each["high"]
        assert each["ours"] > 0 < each["theirs"]
    assert found["about"]["rounds"] == 2
    assert found["about"]["torch"] == torch.__version__
    assert [each["row"] for each in found["rows"]] == ["build", "describe"]


def test_ratios_are_of_the_same_round_and_the_first_round_does_not_count():
    ours, theirs = iter([100, 1, 4, 9]), iter([1, 2, 4, 3])
    ticks = []
    (result,) = compare(
        "row", "model", {"ours": lambda: next(ours), "peer": lambda: next(theirs)}, 3, lambda: ticks.append(1)
    )
    assert (result.ours, result.theirs, result.ratio) == (4, 3, 1)  # medians of 1, 4, 9; of 2, 4, 3; of 0.5, 1, 3
    assert (result.low, result.high) == (0.75, 2)
    assert len(ticks) == 4


def test_contenders_come_in_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) or 1.0 for name in ("ours", "first", "second")}
    compare("row", "model", calls, 2, lambda: None)
    there, back = ["ours", "first", "second"], ["second", "first", "ours"]
    assert order == [*back, *there, *back]


def test_verdicts_are_of_the_mean_and_of_the_worst(monkeypatch):
    rows = [comparison("build", "resnet18", "torchvision", 0.2), comparison("build", "resnet50", "torchvision", 0.8)]
    (verdict,) = benchmark.verdicts(rows)
    assert verdict["mean"] == pytest.approx(0.4)
    assert (verdict["worst"], verdict["worst_model"], verdict["holds"]) == (0.8, "resnet50", True)
    (verdict,) = benchmark.verdicts([*rows, comparison("build", "resnet152", "torchvision", 1.01)])
    assert not verdict["holds"]  # though the mean does
    (verdict,) = benchmark.verdicts([comparison("build", "resnet18", "torchvision", 0.66)])
    assert not verdict["holds"]
    monkeypatch.setitem(ROWS, "free", ROWS["build"]._replace(wanted={"torchvision": (None, None)}))
    (verdict,) = benchmark.verdicts([comparison("free", "resnet18", "torchvision", 5.0)])
    assert verdict["holds"] is None  # as nothing is wanted of it
    assert benchmark.tables([comparison("free", "resnet18", "torchvision", 5.0)], {})[0][1][-1] == "-"
    text = benchmark.as_text(benchmark.tables(rows, {})[0], markdown=True)
    assert text.splitlines()[2] == "| build | torchvision | 0.40 | 0.65 | 0.80 | 1.00 | resnet50 | yes |"


def test_every_row_says_what_is_wanted_of_its_peers():
    for name, row in ROWS.items():
        assert row.wanted, name
        assert row.models is None or row.models


@pytest.mark.parametrize("name", NN_LAZY)
def test_peers_of_pytorchs_own_lazy_modules_are_the_same_networks(name):
    model = NN_LAZY[name]()
    model(torch.zeros(2, 3, 64, 64))
    theirs = torchvision.models.get_model(name)
    assert sorted(tuple(each.shape) for each in model.parameters()) == sorted(
        tuple(each.shape) for each in theirs.parameters()
    )
    assert not any(isinstance(each, nn.modules.lazy.LazyModuleMixin) for each in model.modules())


@pytest.mark.parametrize("name", first_fast(MODELS, 3))
def test_a_step_has_as_many_autograd_nodes_as_torchvisions(name):
    x = torch.zeros(2, 3, 64, 64)
    assert autograd_nodes(get_model(name)(x)) == autograd_nodes(torchvision.models.get_model(name)(x)) > 50


class Operators(TorchDispatchMode):
    """Counts what is called, by its name and the shapes that it is given; in place or not, in whatever order."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = sorted(tuple(each.shape) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor))
        self.counts[str(func.overloadpacket).rstrip("_"), *shapes] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", first_fast(MODELS, 3))
def test_what_is_built_calls_the_operators_that_torchvisions_calls(name):
    """The reason why eager and compiled calls take as long."""
    x = torch.zeros(2, 3, 64, 64, device="meta")
    ours = lazytorch.materialize(get_model(name).to("meta"), x)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name)
    for trained in (False, True):
        counts = []
        for model in (ours, theirs):
            with Operators() as operators, torch.set_grad_enabled(trained):
                y = model.train(trained)(x)
                if trained:
                    y.sum().backward()
            counts.append(operators.counts)
        assert counts[0].total() >= 90
        if trained and "efficientnet" in name:  # torchvision's drop out in place, in a view, whose gradient is copied
            assert counts[0] - counts[1] == Counter({("aten.view", (2, ours.num_features)): 1})
            assert counts[0].total() < counts[1].total()
        else:
            assert counts[0] == counts[1]


def compiled_graph(model):
    """The operators that a compiler is given for a call in evaluation, with the shapes of what they return."""
    graphs = []

    def compiler(graph, _):
        graphs.append(graph.graph)
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    call = torch.compile(model.eval(), backend=aot_autograd(fw_compiler=compiler, inference_compiler=compiler))
    with torch.no_grad():
        call(torch.zeros(2, 3, 64, 64))
    (graph,) = graphs
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    return [(str(node.target), str(getattr(node.meta["val"], "shape", ""))) for node in nodes]


@functools.cache
def copies_in_dropout():
    """Whether dropout in evaluation is a copy to the compiler, as before torch 2.9 or so; not all models have one."""
    return any("clone" in target for target, _ in compiled_graph(nn.Sequential(nn.ReLU(), nn.Dropout())))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("resnet152", "efficientnet_b4")])  # deeper
def test_what_is_built_compiles_to_torchvisions_graph(name):
    ours = compiled_graph(lazytorch.materialize(get_model(name), (1, 3, 64, 64)))
    theirs = compiled_graph(torchvision.models.get_model(name))
    if copies_in_dropout():
        ours, theirs = ([node for node in each if node[0] != "aten.clone.default"] for each in (ours, theirs))
    assert len(ours) >= 90
    assert ours == theirs


def calls(function):
    """How many functions of Python and C are called."""
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("how", ["materialize", "first call", "summary"])
@pytest.mark.parametrize(("make", "sizes"), [(deep, (10, 20, 40)), (Nested, (5, 10, 20))], ids=["deep", "nested"])
def test_cost_grows_as_the_depth_does(how, make, sizes):
    run = {
        "materialize": lambda model: lazytorch.materialize(model, (1, 3, 8, 8)),
        "first call": lambda model: model(torch.zeros(1, 3, 8, 8)),
        "summary": lambda model: lazytorch.summary(model, (1, 3, 8, 8)),
    }[how]
    run(make(sizes[0]))  # what is imported and cached once
    few, more, most = (calls(lambda size=size: run(make(size))) for size in sizes)
    assert (most - more) / (more - few) == pytest.approx(2, rel=0.1)


def test_exponents():
    assert exponent({10: 3.0, 30: 9.0, 100: 30.0, 300: 90.0}) == pytest.approx(1)
    assert exponent({10: 1.0, 20: 4.0, 40: 16.0, 80: 64.0}) == pytest.approx(2)


def test_the_picture(tmp_path):
    rows = [comparison("build", "resnet18", "torchvision", 0.5), comparison("import", "-", "torch", 1.02)]
    wanted = {name: row.wanted for name, row in ROWS.items()}
    plot(rows, {"ResNet": {10: 0.1, 20: 0.2, 40: 0.4}}, wanted, tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "building"], "--rows: must be of build, first-call, eval"),
        (["--models", "resnet19"], "--models: must be of mobilenet_v2, .*got 'resnet19'"),
        (["--rounds", "0"], "--rounds: must be at least 1, got 0"),
        (["--plot", "picture.txt"], r"--plot: must end in \.svg or \.png, got picture\.txt"),
        (["--device", "cuda", "--rows", "import"], "--device: none of the rows runs networks"),
        (["--row", "build"], "unrecognized arguments: --row build"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert re.search(message, capsys.readouterr().err)


TINY = training.Set(["--data", "arrays:FILE"], 4, functools.partial(training.write_random, (1, 16, 16), 10, 5))


def test_the_loop_trains_on_the_samples_of_the_script(tmp_path, capsys):
    assert training.save_samples(["--data", "digits", *training.NO_AUGMENTATION], tmp_path / "digits.npz") == 1797
    arrays = numpy.load(tmp_path / "digits.npz")
    assert arrays["train_images"].shape == (1437, 1, 32, 32)
    assert arrays["val_labels"].shape == (360,)
    assert abs(arrays["train_images"].mean()) < 1
    TINY.make(tmp_path / "tiny.npz")
    plain_loop.train(str(tmp_path / "tiny.npz"), "resnet10t", 4, 3, str(tmp_path))
    lines = [list(map(float, line.split())) for line in capsys.readouterr().out.splitlines()]
    assert lines[0][0] < lines[1][0] < lines[2][0]
    assert lines[0][1] > lines[2][1] > 0  # the training loss
    assert all(0 <= accuracy <= 1 for line in lines for accuracy in line[2:])
    saved = torch.load(tmp_path / "checkpoint.pt")
    steps = next(value for name, value in saved["model"].items() if name.endswith("num_batches_tracked"))
    assert saved["model"]["head.classifier.weight"].shape[0] == 4
    assert steps == 9  # three an epoch
    assert len(saved["optimizer"]["state"]) > 0


def test_seconds_of_an_epoch_leave_out_the_first():
    assert training.seconds_per_epoch([100, 103, 108]) == 4


@pytest.mark.slow
def test_the_script_is_compared_with_the_loop(monkeypatch):
    monkeypatch.setattr(training, "EPOCHS", 2)
    monkeypatch.setattr(training, "MODEL", "resnet10t")
    monkeypatch.setitem(training.SETS, "tiny", TINY)
    with training.contenders("tiny") as (calls, note):
        (result,) = compare("training", "tiny", calls, 1, lambda: None, note=note)
    assert result.peer == "plain loop"
    assert 0 < result.ours < 60
    assert 0 < result.theirs < 60
    assert result.note == "an epoch of 15 samples, those of validation included"
