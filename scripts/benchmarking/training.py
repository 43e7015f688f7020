"""The training script beside a loop of plain PyTorch: the same model, samples, batch size and optimizer, on the CPU.

Both train, validate and save a checkpoint in each epoch.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.benchmarking import plain_loop
from scripts.benchmarking.measure import run_python
from scripts.training.command_line import parse
from scripts.training.data import load
from scripts.training.samples import Samples

__all__ = ["SETS", "contenders"]

SCRIPT = Path(__file__).resolve().parents[1] / "train.py"
# With two threads on two cores, an epoch takes one of two times at random, which differ by a factor of 1.8.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
NO_AUGMENTATION = ["--shift", "0", "--rotate", "0", "--zoom", "0", "--intensity", "0"]


class Set(NamedTuple):
    """Samples, and how they are trained on.

    Attributes:
        options: The script's option for the samples; ``FILE`` is replaced by the path of the file that ``make`` writes.
        batch_size: Samples a step.
        make: Writes the samples, if they are not the script's own.
    """

    options: list[str]
    batch_size: int
    make: Callable[[Path], None] | None = None


def write_random(shape: tuple[int, ...], training: int, validation: int, path: Path) -> None:
    """Write normally distributed samples (channels, *spatial) in four classes to a .npz file."""
    generator = numpy.random.default_rng(0)
    arrays = {}
    for split, count in (("train", training), ("val", validation)):
        arrays[f"{split}_images"] = generator.normal(size=(count, *shape)).astype(numpy.float32)
        arrays[f"{split}_labels"] = numpy.arange(count) % 4
    numpy.savez(path, **arrays)


MODEL = "mobilenet_v2"
EPOCHS = 4  # of which the first is not counted: it contains the start
SETS = {
    f"{MODEL}, images": Set(["--data", "arrays:FILE"], 32, partial(write_random, (3, 32, 32), 1024, 128)),
    f"{MODEL}, digits": Set(["--data", "digits"], 32),
    f"{MODEL}, volumes": Set(
        ["--data", "arrays:FILE", "--spatial-dims", "3"], 16, partial(write_random, (2, 24, 24, 24), 320, 32)
    ),
}


def seconds_per_epoch(times: list[float]) -> float:
    """Of the times at the end of the epochs."""
    return (times[-1] - times[0]) / (len(times) - 1)


def by_script(command: list[str]) -> float:
    """Seconds an epoch of the script, by the times in its TensorBoard log."""
    with tempfile.TemporaryDirectory() as folder:
        run_python(str(SCRIPT), *command, "--output", folder, **ONE_THREAD)
        events = EventAccumulator(f"{folder}/tensorboard").Reload().Scalars("val_accuracy")
    return seconds_per_epoch([each.wall_time for each in events])


def by_loop(file: Path, batch_size: int) -> float:
    """Seconds an epoch of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(file), MODEL, str(batch_size), str(EPOCHS), folder]
        lines = run_python(plain_loop.__file__, *arguments, **ONE_THREAD).splitlines()
    return seconds_per_epoch([float(line.split()[0]) for line in lines])


def save_samples(command: list[str], file: Path) -> int:
    """Save the samples of both splits as a model gets them from the script; return how many there are."""
    options, _ = parse("", command)
    data = load(options)
    arrays = {}
    for split, source in (("train", data.train), ("val", data.val)):
        samples = Samples(source, data, options, training=split == "train")
        read, labels, _ = samples.__getitems__([(0, index) for index in range(len(samples))])
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = read.numpy(), labels.numpy()
    numpy.savez(file, **arrays)
    return sum(len(source.labels) for source in (data.train, data.val))


@contextmanager
def contenders(name: str) -> Iterator[tuple[dict[str, Callable[[], float]], str]]:
    """Seconds of an epoch, by the script and by the loop, and how many samples it has."""
    each = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        made, standardized = Path(folder) / "made.npz", Path(folder) / "standardized.npz"
        if each.make is not None:
            each.make(made)
        command = [option.replace("FILE", str(made)) for option in each.options] + NO_AUGMENTATION
        command += ["--model", MODEL, "--batch-size", str(each.batch_size), "--epochs", str(EPOCHS), "--device", "cpu"]
        count = save_samples(command, standardized)
        calls = {"ours": partial(by_script, command), "plain loop": partial(by_loop, standardized, each.batch_size)}
        yield calls, f"an epoch of {count} samples, those of validation included"
