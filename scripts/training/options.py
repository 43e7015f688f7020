"""Every option of a run, in one table: the command line, its help, and the YAML file all derive from it."""

# ruff: noqa: RUF009
# option() makes a field, at each place anew.
import argparse
import ast
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from timm.optim import list_optimizers  # pyright: ignore[reportPrivateImportUsage]

import lazytorch

# A resumed run ends as the uninterrupted one only if these are as they were; the others change no result.
FREE = {"data_root", "download", "workers", "resume", "output", "config", "device", "checkpoint_steps", "evaluate"}


def at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text}")
        return int(text)

    return convert


def between(least: float, most: float = math.inf) -> Callable[[str], float]:
    rule = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and value < math.inf):
            raise argparse.ArgumentTypeError(f"must be a number {rule}, got {text}")
        return value

    return convert


def assignment(text: str) -> tuple[str, Any]:
    """``dropout=0.1`` as a name and a Python value."""
    name, sign, value = text.partition("=")
    try:
        if not (sign and name.isidentifier()):
            raise ValueError
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(f"must be like dropout=0.1, a name and a Python value, got {text}") from None


class Assignments(argparse.Action):
    """Gathers ``name=value`` into a dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), **dict(values)})


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
        "torchvision:NAME, a classification set such as CIFAR10; or synthetic",
    )
    data_root: Path = option("data", Path("data"), "folder of torchvision's sets", type=Path, metavar="DIR")
    download: bool = option("data", False, "download torchvision's set if it is not there")
    image_size: int | None = option(
        "data",
        None,
        "side of the square that images are resized and cropped to, in pixels (default: that of the images, but at "
        "least 32 and at most 224)",
        type=at_least(1),
        metavar="PIXELS",
    )
    workers: int = option("data", 0, "processes that load images, for each training process; 0: none", type=at_least(0))

    model: str = option(
        "model", "mobilenet_v2", "a name in lazytorch.models.list_models()", choices=lazytorch.models.list_models(),
        metavar="NAME",
    )  # fmt: skip
    model_option: dict[str, Any] = option(
        "model", {}, "options of the model, such as dropout=0.1 drop_path_rate=0.1", type=assignment, nargs="+",
        action=Assignments, metavar="NAME=VALUE",
    )  # fmt: skip
    weights: str | None = option(
        "model",
        None,
        "weights to start from: torchvision or timm, also with a tag (timm:a1_in1k); or a .safetensors, .pt or .pth "
        "file",
    )
    freeze: int | None = option(
        "model", None, "stages to keep as they are, with the stem; 0: the stem alone (default: nothing is frozen)",
        type=at_least(0), metavar="STAGES",
    )  # fmt: skip

    epochs: int = option("optimization", 16, "passes over the training images", type=at_least(1))
    batch_size: int = option(
        "optimization", 32, "images a step in each process; 2 or more for BatchNorm", type=at_least(2), metavar="IMAGES"
    )
    accumulate: int = option(
        "optimization", 1, "steps whose gradients are averaged for one update", type=at_least(1), metavar="STEPS"
    )
    optimizer: str = option(
        "optimization", "adamw", "one of timm.optim.list_optimizers()", choices=list_optimizers(),
        metavar="NAME",
    )  # fmt: skip
    learning_rate: float = option(
        "optimization",
        0.032,
        "highest learning rate for 256 images an update. The rate used is this times (batch size x processes x "
        "accumulate) / 256",
        type=between(0),
        metavar="RATE",
    )
    schedule: str = option(
        "optimization", "cosine", "how the rate falls after the warm-up, to 0 at the end", choices=["cosine", "poly"]
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

    label_smoothing: float = option(
        "regularization", 0.0, "share of each label spread over all classes", type=between(0, 1), metavar="SHARE"
    )
    mixup: float = option(
        "regularization", 0.0, "alpha of Mixup; 0: none. With CutMix, each batch has one of both", type=between(0),
        metavar="ALPHA",
    )  # fmt: skip
    cutmix: float = option("regularization", 0.0, "alpha of CutMix; 0: none", type=between(0), metavar="ALPHA")
    crop: float = option(
        "regularization",
        1.0,
        "least share of an image's area that a random resized crop keeps; 1: no such crop, but shifts, turns and "
        "scalings of a tenth",
        type=between(0.01, 1),
        metavar="SHARE",
    )
    flip: float = option(
        "regularization", 0.0, "probability of a horizontal flip", type=between(0, 1), metavar="PROBABILITY"
    )
    randaugment: int = option(
        "regularization", 0, "operations of RandAugment on each image; 0: none", type=at_least(0), metavar="OPERATIONS"
    )
    randaugment_magnitude: int = option(
        "regularization", 9, "their magnitude, of 30", type=at_least(0), metavar="MAGNITUDE"
    )
    erasing: float = option(
        "regularization", 0.0, "probability of random erasing", type=between(0, 1), metavar="PROBABILITY"
    )

    device: str = option(
        "hardware",
        "auto",
        "where to train; auto: an accelerator if there is one",
        choices=["auto", "cpu", "gpu", "mps"],
    )
    strategy: str = option(
        "hardware",
        "ddp",
        "how several processes share the work: ddp, each has the whole model; fsdp, each has a part (FSDP2)",
        choices=["ddp", "fsdp"],
    )
    precision: str = option("hardware", "32-true", "of the arithmetic", choices=["32-true", "bf16-mixed", "16-mixed"])
    channels_last: bool = option("hardware", False, "keep images and weights with channels last in memory")
    compile: bool = option("hardware", False, "compile the model with torch.compile")
    deterministic: bool = option("hardware", False, "refuse operations whose result differs from run to run")

    seed: int = option("run", 0, "of the split, the weights, the order and the augmentation", type=at_least(0))
    output: Path = option(
        "run", Path("runs/digits"), "folder for everything that the run leaves", type=Path, metavar="DIR"
    )
    resume: bool = option(
        "run",
        False,
        "go on from the last whole checkpoint in the output folder, with the options of that run; from the "
        "beginning if there is none",
    )
    checkpoint_steps: int | None = option(
        "run", None, "steps between checkpoints within an epoch (default: at the end of each epoch alone)",
        type=at_least(1), metavar="STEPS",
    )  # fmt: skip
    evaluate: bool = option("run", False, "train nothing: evaluate the --weights on the validation images")
    limit_batches: int | None = option(
        "run", None, "steps an epoch at most, in training and evaluation, to see whether everything runs "
        "(default: no limit)", type=at_least(1), metavar="STEPS",
    )  # fmt: skip
    config: Path | None = option(
        "run", None, "YAML file of options by their names here; the command line wins", type=Path, metavar="FILE"
    )


FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def make_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    groups: dict[str, Any] = {}
    for name, field in FIELDS.items():
        keywords = dict(field.metadata)
        group = keywords.pop("group")
        groups.setdefault(group, parser.add_argument_group(group) if group not in groups else None)
        default: Any = {} if field.default is dataclasses.MISSING else field.default
        if isinstance(default, bool):
            keywords["action"] = argparse.BooleanOptionalAction
        elif "type" not in keywords and "choices" not in keywords:
            keywords.setdefault("metavar", name.upper())
        if default not in (None, {}, False):
            keywords["help"] += f" (default: {default})"
        keywords["help"] = keywords["help"].replace("%", "%%")
        groups[group].add_argument(flag(name), dest=name, default=default, **keywords)
    return parser


def parse(description: str, arguments: Sequence[str] | None = None) -> tuple[Options, argparse.ArgumentParser]:
    """Options from, each over the last: the defaults, the run that is resumed, ``--config``, the command line."""
    parser = make_parser(description)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first = parser.parse_args(arguments)
    saved = first.output / "options.yaml"
    given = [*(from_yaml(saved, parser) if first.resume and saved.is_file() else [])]
    given += from_yaml(first.config, parser) if first.config is not None else []
    options = Options(**vars(parser.parse_args([*given, *arguments])))
    if options.evaluate and (options.weights is None or options.resume):
        parser.error("argument --evaluate: needs --weights, and no --resume")
    return options, parser


def from_yaml(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """The options in a YAML file as a command line, so that they are checked as one."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"argument --config: must be a YAML file, got {path} ({error})")
    if not isinstance(values, dict):
        parser.error(f"argument --config: must hold options by their names, got {path}")
    arguments: list[str] = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in FIELDS or name in ("config", "resume"):
            parser.error(f"argument --config: {path} has {key!r}, which is no option of a file")
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(flag(name) if value else flag(f"no_{name}"))
        elif isinstance(value, dict):
            if value:
                arguments += [flag(name), *(f"{each}={setting!r}" for each, setting in value.items())]
        else:
            arguments += [f"{flag(name)}={value}"]
    return arguments


def as_dict(options: Options) -> dict[str, Any]:
    """The options as plain values; what a file of options holds."""
    values = dataclasses.asdict(options)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def to_yaml(options: Options) -> str:
    """The effective options, to be read back by ``--config``."""
    values = {name: value for name, value in as_dict(options).items() if name not in ("config", "resume")}
    return yaml.safe_dump(values, sort_keys=False)
