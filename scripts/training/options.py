"""Every option of a run, in one table: the command line, its help, and the YAML file derive from it."""

# ruff: noqa: RUF009
# option() makes a field, at each place anew.
import argparse
import dataclasses
from pathlib import Path
from typing import Any

import yaml

from scripts.training.values import (
    METRICS,
    assignment,
    at_least,
    axes,
    between,
    data_set,
    image_size,
    model_name,
    number_of,
    one_of,
)

RATE, FINE_TUNING_RATE = 0.032, 0.0032  # of --learning-rate if it is not given, without --weights and with them
# A resumed run ends as the uninterrupted one only if the others are as they were; these change no result.
FREE = {"data_root", "download", "workers", "resume", "output", "config", "device", "checkpoint_steps", "evaluate"}


class Assignments(argparse.Action):
    """Gathers ``name=value`` into a dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest, {}), **dict(values)})


def option(group: str, default: Any, text: str, **keywords: Any) -> Any:
    """A field of ``Options``; ``keywords`` are those of ``add_argument``."""
    metadata = {"group": group, "help": text, **keywords}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a run."""

    data: str = option(
        "data",
        "digits",
        "digits (scikit-learn's, bundled); folder:PATH, with train/ and val/ and in each one folder of images a class; "
        "arrays:PATH, a .npz file or a folder of .npy files, with train_images and train_labels, or x_train and "
        "y_train; "
        "torchvision:NAME, a classification set such as CIFAR10; or synthetic",
        type=data_set,
    )
    data_root: Path = option("data", Path("data"), "folder of torchvision's sets", type=Path, metavar="DIR")
    download: bool = option("data", False, "download torchvision's set if it is not there")
    image_size: int | str | None = option(
        "data",
        None,
        "side of the square that images are resized and cropped to, in pixels (default: that of the --weights, if they "
        "are of this script; else that of the images, but at least 32 and at most 224). For arrays, the size that they "
        "are resampled to: one number, or one for each dimension such as 64x64x32; none keeps their size (the default)",
        type=image_size,
        metavar="PIXELS",
    )
    spatial_dims: int | None = option(
        "data",
        None,
        "number of spatial dimensions of arrays: 1 (signals), 2 (images) or 3 (volumes) (default: inferred)",
        type=number_of(1, 2, 3),
        metavar="1|2|3",
    )
    channels: str | None = option(
        "data",
        None,
        "position of the channels in arrays: first, last, or none for arrays without channels (default: inferred)",
        type=one_of("first", "last", "none"),
        metavar="first|last|none",
    )
    workers: int = option(
        "data", 0, "processes that load samples, for each training process; 0: none", type=at_least(0)
    )

    model: str = option(
        "model", "mobilenet_v2", "a name in lazytorch.models.list_models(); --weights of this script have their own",
        type=model_name, metavar="NAME",
    )  # fmt: skip
    model_option: dict[str, Any] = option(
        "model", {}, "options of the model, such as dropout=0.1 drop_path_rate=0.1", type=assignment, nargs="+",
        action=Assignments, metavar="NAME=VALUE",
    )  # fmt: skip
    weights: str | None = option(
        "model",
        None,
        "weights to start from, or to evaluate: torchvision or timm, also with a tag (timm:a1_in1k); or a "
        ".safetensors, .pt or .pth file",
    )
    freeze: int | None = option(
        "model", None, "number of stages to freeze, with the stem; 0: the stem alone (default: nothing is frozen)",
        type=at_least(0), metavar="STAGES",
    )  # fmt: skip

    epochs: int = option("optimization", 16, "passes over the training samples", type=at_least(1))
    batch_size: int = option(
        "optimization",
        32,
        "samples a step in each process; 2 or more for BatchNorm",
        type=at_least(2),
        metavar="SAMPLES",
    )
    accumulate: int = option(
        "optimization", 1, "steps whose gradients are averaged for one update", type=at_least(1), metavar="STEPS"
    )
    optimizer: str = option(
        "optimization", "adamw", "one of timm.optim.list_optimizers() that runs here", metavar="NAME",
    )  # fmt: skip
    learning_rate: float = option(
        "optimization",
        RATE,
        "highest learning rate for 256 samples an update; with --weights the default is a tenth. The rate used is this "
        "times (batch size x processes x accumulate) / 256",
        type=between(0),
        metavar="RATE",
    )
    schedule: str = option(
        "optimization",
        "cosine",
        "how the rate falls after the warm-up, to 0 at the end: cosine or poly",
        type=one_of("cosine", "poly"),
    )
    warmup: float | None = option(
        "optimization", None, "epochs in which the rate rises linearly, from a hundredth (default: a quarter of all)",
        type=between(0), metavar="EPOCHS",
    )  # fmt: skip
    weight_decay: float = option(
        "optimization", 0.01, "of weights; norms and biases have none", type=between(0), metavar="DECAY"
    )
    clip: float | None = option(
        "optimization", None, "largest norm of an update's gradient (default: no limit)", type=between(0),
        metavar="NORM",
    )  # fmt: skip
    ema: float | None = option(
        "optimization",
        None,
        "decay, for each update, of an exponential moving average of the weights, which is then what is evaluated and "
        "exported (default: none)",
        type=between(0, 1),
        metavar="DECAY",
    )

    class_weights: str = option(
        "optimization", "none", "weights of the samples in the training loss: balanced, inversely proportional to the "
        "frequency of their class in the training split, with a mean of 1; or none", type=one_of("none", "balanced"),
    )  # fmt: skip

    label_smoothing: float = option(
        "regularization", 0.0, "fraction of each label spread over all classes; multi-label targets move towards 0.5",
        type=between(0, 1), metavar="FRACTION",
    )  # fmt: skip
    mixup: float = option(
        "regularization", 0.0, "alpha of Mixup; 0: none. With CutMix, each batch has one of both", type=between(0),
        metavar="ALPHA",
    )  # fmt: skip
    cutmix: float = option("regularization", 0.0, "alpha of CutMix; 0: none", type=between(0), metavar="ALPHA")
    crop: float = option(
        "regularization",
        1.0,
        "least fraction of a sample's length, area or volume that a random crop keeps; 1: no crop",
        type=between(0.01, 1),
        metavar="FRACTION",
    )
    shift: float | None = option(
        "regularization", None, "largest shift along each axis, as a fraction of its size (default: 0.08 for images "
        "from 0 to 1, 0.05 for arrays, 0 with --crop)", type=between(0, 1), metavar="FRACTION",
    )  # fmt: skip
    rotate: float | None = option(
        "regularization", None, "largest rotation, of images or of the slices of volumes (default: 10 for images from "
        "0 to 1; 0 for arrays, and with --crop)", type=between(0, 180), metavar="DEGREES",
    )  # fmt: skip
    zoom: float | None = option(
        "regularization", None, "largest relative change of size; of the duration of signals (default: 0.1 for images "
        "from 0 to 1; 0 for arrays, and with --crop)", type=between(0, 0.9), metavar="FRACTION",
    )  # fmt: skip
    flip: float = option(
        "regularization", 0.0, "probability of a flip along each of the --flip-axes", type=between(0, 1),
        metavar="PROBABILITY",
    )  # fmt: skip
    flip_axes: str | None = option(
        "regularization", None, "length of signals; height,width of images; depth,height,width of volumes (default: "
        "the last one, which is a horizontal flip of images)", type=axes, metavar="AXES",
    )  # fmt: skip
    intensity: float | None = option(
        "regularization", None, "largest relative change of the values of a standardized sample (default: 0 for "
        "images from 0 to 1, 0.1 for arrays)", type=between(0, 1), metavar="FRACTION",
    )  # fmt: skip
    noise: float = option(
        "regularization", 0.0, "standard deviation of Gaussian noise on standardized samples", type=between(0),
        metavar="DEVIATION",
    )  # fmt: skip
    randaugment: int = option(
        "regularization",
        0,
        "operations of RandAugment on each image, grey or colour; 0: none",
        type=at_least(0),
        metavar="OPERATIONS",
    )
    randaugment_magnitude: int = option(
        "regularization", 9, "their magnitude, of 30", type=at_least(0), metavar="MAGNITUDE"
    )
    erasing: float = option(
        "regularization",
        0.0,
        "probability that a box of 2 % to 33 % of a sample is set to the mean",
        type=between(0, 1),
        metavar="PROBABILITY",
    )

    device: str = option(
        "hardware",
        "auto",
        "where to train: auto (an accelerator if there is one), cpu, gpu or mps",
        type=one_of("auto", "cpu", "gpu", "mps"),
    )
    strategy: str = option(
        "hardware",
        "ddp",
        "how several processes share the work: ddp, each has the whole model; fsdp, each has a part (FSDP2)",
        type=one_of("ddp", "fsdp"),
    )
    precision: str = option(
        "hardware", "32-true", "of the arithmetic: 32-true, bf16-mixed or 16-mixed",
        type=one_of("32-true", "bf16-mixed", "16-mixed"),
    )  # fmt: skip
    channels_last: bool = option("hardware", False, "keep samples and weights with channels last in memory")
    compile: bool = option("hardware", False, "compile the model with torch.compile")
    deterministic: bool = option("hardware", False, "refuse operations whose result differs from run to run")

    seed: int = option("run", 0, "of the split, the weights, the order and the augmentation", type=at_least(0))
    output: Path = option(
        "run",
        None,
        "folder of all output files (default: runs/NAME, named after the data; with --evaluate, that of the weights)",
        type=Path,
        metavar="DIR",
    )
    resume: bool = option(
        "run",
        False,
        "continue from the last complete checkpoint in the output folder, with the options of that run; from the "
        "beginning if there is none",
    )
    checkpoint_steps: int | None = option(
        "run", None, "steps between checkpoints within an epoch (default: at the end of each epoch alone)",
        type=at_least(1), metavar="STEPS",
    )  # fmt: skip
    monitor: str | None = option(
        "run",
        None,
        "metric of the validation split that chooses the best epoch, whose weights are best.safetensors: accuracy, "
        "balanced_accuracy, f1, auroc, map (of multi-label targets alone) or loss (default: accuracy; auroc for "
        "multi-label targets)",
        type=one_of(*METRICS),
        metavar="METRIC",
    )
    evaluate: bool = option(
        "run", False, "train nothing: evaluate the --weights on the validation split, and on the test split if there "
        "is one",
    )  # fmt: skip
    limit_batches: int | None = option(
        "run", None, "steps an epoch at most, in training and evaluation, to see whether everything runs "
        "(default: no limit)", type=at_least(1), metavar="STEPS",
    )  # fmt: skip
    config: Path | None = option(
        "run",
        None,
        "YAML file of options by their names here; the command line has priority",
        type=Path,
        metavar="FILE",
    )
    given: frozenset[str] = frozenset()  # the options that are not at their default because somebody said so


FIELDS = {field.name: field for field in dataclasses.fields(Options) if field.metadata}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def as_dict(options: Options) -> dict[str, Any]:
    """The options as plain values; as in a file of options."""
    values = {name: getattr(options, name) for name in FIELDS}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def to_yaml(options: Options) -> str:
    """The effective options, to be read back by ``--config``."""
    values = {name: value for name, value in as_dict(options).items() if name not in ("config", "resume")}
    return yaml.safe_dump(values, sort_keys=False)
