"""The rows of the benchmark: measurements, peers and required ratios."""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchinfo
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

import lazytorch
from lazytorch.models import MobileNet, ResNet, Stage, get_model, optimize_for_inference, references
from scripts.benchmarking import training
from scripts.benchmarking.measure import cpu_seconds, run_python, seconds
from scripts.benchmarking.peers import NN_LAZY, autograd_nodes, draw_once, timm_model, torchvision_model

__all__ = ["ALL_TABLES", "MODELS", "ROWS", "Contenders", "Row"]

MODELS = (
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "resnet152",
    "efficientnet_b0",
    "efficientnet_b4",
)
ALL_TABLES = "200 tables"
IMAGE = (1, 3, 224, 224)
TABLES = 200


class Contenders(NamedTuple):
    """The contenders for one model: functions by name that return a measured value; ``"ours"`` is one of them."""

    calls: Mapping[str, Callable[[], float]]
    unit: str = "s"
    note: str = ""


class Row(NamedTuple):
    """A row of the benchmark.

    Attributes:
        what: What is measured.
        contenders: Called with a model's name and a device; a context manager of what is measured.
        wanted: By the peer's name, the required geometric mean and worst ratio of the models; None for any.
        models: The models to measure; None for all.
        on_accelerators: Whether the row is also useful on an accelerator.
    """

    what: str
    contenders: Callable[[str, str], Any]
    wanted: dict[str, tuple[float | None, float | None]]
    models: tuple[str, ...] | None = None
    on_accelerators: bool = False


def images(device: str) -> torch.Tensor:
    """A batch for the rows that run networks: 8 images on the CPU, 128 on an accelerator.

    With 8, an accelerator waits for Python, and the rows would measure Python.
    """
    return torch.randn(8 if device == "cpu" else 128, *IMAGE[1:], device=device)


def ours(name: str) -> nn.Module:
    return lazytorch.materialize(get_model(name), IMAGE)


@contextmanager
def build(name: str, device: str) -> Iterator[Contenders]:
    shapes = [tuple(each.shape) for each in (*ours(name).parameters(),)]
    calls = {
        "ours": partial(seconds, partial(ours, name)),
        "torchvision": partial(seconds, partial(torchvision_model, name)),
    }
    if name in ("resnet50", "resnet152"):
        calls["drawing once"] = partial(seconds, partial(draw_once, shapes))
    yield Contenders(calls)


@contextmanager
def first_call(name: str, device: str) -> Iterator[Contenders]:
    x = torch.randn(2, *IMAGE[1:])

    def construct_and_call(make: Callable[[], nn.Module]) -> Any:
        model = make()
        return model, model(x)

    makers = {"ours": partial(get_model, name), "torchvision": partial(torchvision_model, name)}
    if name in NN_LAZY:
        makers["torch.nn lazies"] = NN_LAZY[name]
    with torch.no_grad():
        yield Contenders({each: partial(seconds, partial(construct_and_call, make)) for each, make in makers.items()})


def built_alike(name: str, device: str) -> dict[str, nn.Module]:
    models = {"ours": ours(name), "torchvision": torchvision_model(name)}
    if "timm" in references(name):
        models["timm"] = timm_model(name)
    return {each: model.to(device) for each, model in models.items()}


@contextmanager
def evaluation(name: str, device: str, compiled: bool = False) -> Iterator[Contenders]:
    x = images(device)
    models = built_alike(name, device)
    if compiled:
        models.pop("timm", None)
        torch.compiler.reset()
    calls = {each: torch.compile(model.eval()) if compiled else model.eval() for each, model in models.items()}
    with torch.inference_mode():
        yield Contenders({each: partial(seconds, partial(call, x), device) for each, call in calls.items()})


@contextmanager
def step(name: str, device: str, compiled: bool = False) -> Iterator[Contenders]:
    x = images(device)
    labels = torch.arange(len(x), device=device)
    models = built_alike(name, device)
    if compiled:
        models.pop("timm", None)
        torch.compiler.reset()
    nodes = {each: autograd_nodes(model(x)) for each, model in models.items()}

    def train(call: Callable[..., Any], optimizer: torch.optim.Optimizer) -> None:
        F.cross_entropy(call(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    calls = {
        each: partial(train, torch.compile(model) if compiled else model, torch.optim.SGD(model.parameters(), lr=1e-4))
        for each, model in models.items()
    }
    note = "autograd nodes " + ", ".join(f"{each} {count}" for each, count in nodes.items())
    yield Contenders({each: partial(seconds, call, device) for each, call in calls.items()}, note=note)


@contextmanager
def load(name: str, device: str) -> Iterator[Contenders]:
    with tempfile.TemporaryDirectory() as folder:
        safe, pickled = save_weights(name, folder)

        def theirs() -> nn.Module:
            model = torchvision_model(name)
            model.load_state_dict(torch.load(pickled, weights_only=True))
            return model

        def mine() -> nn.Module:  # get_model alone leaves it lazy, for other channels
            return lazytorch.materialize(get_model(name, weights=safe), IMAGE)

        yield Contenders({"ours": partial(seconds, mine), "torchvision": partial(seconds, theirs)})


PEAK = """
import sys, gc, torch, lazytorch
from lazytorch.models import ResNet, get_model
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
lazytorch.materialize(ResNet(2, depths=(1,), widths=(8,), stem=(8,)), (1, 3, 32, 32))  # what is imported at need
lazytorch.summary(ResNet(2, depths=(1,), widths=(8,), stem=(8,)), (1, 3, 32, 32))
gc.collect()
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
model = get_model(sys.argv[1])
if sys.argv[2] == "build":
    lazytorch.materialize(model, (1, 3, 224, 224))
    held = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
else:
    lazytorch.summary(model, (1, 3, 224, 224))
    held = 10e6
print(status("VmHWM") - before, held)
"""


def peak(what: str, name: str) -> tuple[float, float]:
    """The growth of the peak resident memory of a new process, and the size that it is compared with, in bytes."""
    grown, beside = map(float, run_python("-c", PEAK, name, what).split())
    return grown, beside


@contextmanager
def memory(name: str, device: str, what: str = "build", peer: str = "parameters and buffers") -> Iterator[Contenders]:
    beside = peak(what, name)[1]
    yield Contenders({"ours": lambda: peak(what, name)[0], peer: lambda: beside}, unit="bytes")


@contextmanager
def describe(name: str, device: str) -> Iterator[Contenders]:
    lazy, model = get_model(name), torchvision_model(name)
    calls = {
        "ours": partial(seconds, lambda: lazytorch.summary(lazy, IMAGE)),
        "torchinfo": partial(seconds, lambda: torchinfo.summary(model, IMAGE, verbose=0)),
    }
    yield Contenders(calls)


def random_tables(count: int) -> list[tuple[str, Any]]:
    """Tables of ResNets and MobileNetV2s, alternating, with sizes similar to those of the networks with names."""
    draw = random.Random(0)
    tables: list[tuple[str, Any]] = []
    for index in range(count):
        if index % 2:
            tables.append(("resnet", [draw.randint(1, 8) for _ in range(4)]))
        else:
            rows = [
                (1 if stage == 0 else draw.choice((3, 4, 6)), 8 * draw.randint(2, 40), draw.randint(1, 4), stride)
                for stage, stride in enumerate((1, 2, 2, 2, 1, 2, 1))
            ]
            tables.append(("mobilenet", rows))
    return tables


@contextmanager
def sweep(name: str, device: str) -> Iterator[Contenders]:
    tables = random_tables(TABLES)

    def describe_all() -> list[int]:
        sizes = []
        for kind, table in tables:
            if kind == "resnet":
                model = ResNet(depths=table)
            else:
                stages = [Stage(width, repeats, stride, 3, ratio) for ratio, width, repeats, stride in table]
                model = MobileNet(stages=stages, final_channels=1280)
            sizes.append(lazytorch.summary(model, IMAGE).parameters)
        return sizes

    def build_all() -> list[int]:
        sizes = []
        for kind, table in tables:
            if kind == "resnet":
                model = torchvision.models.ResNet(Bottleneck, table)
            else:
                model = torchvision.models.MobileNetV2(inverted_residual_setting=[list(row) for row in table])
            sizes.append(sum(parameter.numel() for parameter in model.parameters()))
        return sizes

    if describe_all() != build_all():
        raise RuntimeError("The tables must describe the same networks on both sides.")
    yield Contenders({"ours": partial(seconds, describe_all), "torchvision": partial(seconds, build_all)})


@contextmanager
def importing(name: str, device: str) -> Iterator[Contenders]:
    def measure(package: str) -> float:
        code = f"import time; start = time.perf_counter(); import {package}; print(time.perf_counter() - start)"
        return float(run_python("-c", code))

    yield Contenders({"ours": partial(measure, "lazytorch"), "torch": partial(measure, "torch")})


# The code of a new process, with lazytorch and with torchvision; %s is the folder of the weights.
COLD_STARTS = {
    "build mobilenet_v2": (
        "import lazytorch; lazytorch.materialize(lazytorch.models.mobilenet_v2(), (1, 3, 224, 224))",
        "import torchvision; torchvision.models.mobilenet_v2()",
    ),
    "build resnet50": (
        "import lazytorch; lazytorch.materialize(lazytorch.models.resnet50(), (1, 3, 224, 224))",
        "import torchvision; torchvision.models.resnet50()",
    ),
    "first output of resnet18": (
        "import torch, lazytorch; lazytorch.models.resnet18()(torch.zeros(2, 3, 224, 224))",
        "import torch, torchvision; torchvision.models.resnet18()(torch.zeros(2, 3, 224, 224))",
    ),
    "load resnet50": (
        "import lazytorch; "
        "lazytorch.materialize(lazytorch.models.resnet50(weights='%s/ours.safetensors'), (1, 3, 224, 224))",
        "import torch, torchvision; "
        "torchvision.models.resnet50().load_state_dict(torch.load('%s/theirs.pth', weights_only=True))",
    ),
}


@contextmanager
def cold_start(name: str, device: str) -> Iterator[Contenders]:
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("load"):
            save_weights("resnet50", folder)
        mine, theirs = (code.replace("%s", folder) for code in COLD_STARTS[name])
        yield Contenders({"ours": partial(cpu_seconds, mine), "torchvision": partial(cpu_seconds, theirs)})


def save_weights(name: str, folder: str) -> tuple[str, str]:
    """Save the weights of both packages' model in ``folder``; return the paths of ours and theirs."""
    safe, pickled = str(Path(folder) / "ours.safetensors"), str(Path(folder) / "theirs.pth")
    save_file(ours(name).state_dict(), safe)
    torch.save(torchvision_model(name).state_dict(), pickled)
    return safe, pickled


@contextmanager
def deploy(name: str, device: str) -> Iterator[Contenders]:
    x = images(device)
    model, peer = ours(name).to(device), torchvision_model(name).to(device).eval()
    fast = optimize_for_inference(model)
    with torch.inference_mode():
        expected = model.eval()(x)
        difference = float((fast(x) - expected).abs().max() / expected.abs().max())
        calls = {
            "ours": partial(seconds, partial(fast, x), device),
            "torchvision": partial(seconds, partial(peer, x), device),
        }
        yield Contenders(calls, note=f"outputs within {difference:.0e} of the largest")


@contextmanager
def training_script(name: str, device: str) -> Iterator[Contenders]:
    with training.contenders(name) as (calls, note):
        yield Contenders(calls, note=note)


STEADY = (1.02, 1.02)
ROWS = {
    "build": Row(
        "get_model and materialize, weights drawn, against the constructor",
        build,
        {"torchvision": (0.65, 1.00), "drawing once": (None, 1.25)},
    ),
    "first-call": Row(
        "construct and call, batch of 2", first_call, {"torchvision": (0.80, 1.00), "torch.nn lazies": (1.00, None)}
    ),
    "eval": Row(
        "forward in evaluation, batch of 8 (128 on an accelerator)",
        evaluation,
        {"torchvision": STEADY, "timm": STEADY},
        on_accelerators=True,
    ),
    "step": Row(
        "forward, backward and a step of SGD, batch of 8 (128 on an accelerator)",
        step,
        {"torchvision": STEADY, "timm": STEADY},
        on_accelerators=True,
    ),
    "compiled-eval": Row(
        "eval, compiled", partial(evaluation, compiled=True), {"torchvision": STEADY}, on_accelerators=True
    ),
    "compiled-step": Row("step, compiled", partial(step, compiled=True), {"torchvision": STEADY}, on_accelerators=True),
    "load": Row(
        "a file of weights to a built model, against constructor, torch.load and load_state_dict",
        load,
        {"torchvision": (0.33, None)},
    ),
    "memory": Row("peak resident growth of a build", memory, {"parameters and buffers": (1.05, None)}),
    "describe": Row("shapes, parameters and MACs of every layer", describe, {"torchinfo": (0.25, None)}),
    "describe-memory": Row(
        "peak resident growth of describing it",
        partial(memory, what="describe", peer="10 MB"),
        {"10 MB": (None, 1.00)},
        models=("resnet152",),
    ),
    "sweep": Row(
        "describe 200 random ResNets and MobileNetV2s, against building them",
        sweep,
        {"torchvision": (0.20, None)},
        models=(ALL_TABLES,),
    ),
    "cold-start": Row(
        "CPU seconds of a fresh process, from the import to a built network, a first output or loaded weights",
        cold_start,
        {"torchvision": (None, 0.68)},
        models=tuple(COLD_STARTS),
    ),
    "training": Row(
        "an epoch of scripts/train.py with samples in memory and no augmentation, against a loop of plain PyTorch",
        training_script,
        {"plain loop": (1.05, 1.05)},
        models=tuple(training.SETS),
    ),
    "import": Row("import, in a fresh process", importing, {"torch": (1.03, None)}, models=("-",)),
    "deploy": Row(
        "forward of optimize_for_inference, batch of 8 (128 on an accelerator), against eager evaluation",
        deploy,
        {"torchvision": (0.65, None)},
        on_accelerators=True,
    ),
}
