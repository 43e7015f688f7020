"""From a command line and files of options to ``Options``."""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.training.options import FIELDS, FINE_TUNING_RATE, Options, flag
from scripts.training.values import kind_of, suggestion

ALIASES = {"lr": "learning_rate"}
# What the evaluation of a run's weights takes from the run.
EVALUATED = {"data", "data_root", "image_size", "spatial_dims", "channels", "seed", "batch_size", "precision"}
EVALUATED |= {"model", "model_option", "monitor"}


class Parser(argparse.ArgumentParser):
    """Suggests the option that a misspelt one means."""

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [each for action in self._actions for each in action.option_strings]
            names = [each.partition("=")[0].replace("_", "-") for each in unknown if each.startswith("--")]
            meant = suggestion(names[0], known) if names else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return parsed


def make_parser(description: str) -> Parser:
    parser = Parser(description=description, allow_abbrev=False)
    groups: dict[str, Any] = {}
    for name, field in FIELDS.items():
        keywords = dict(field.metadata)
        group = keywords.pop("group")
        groups.setdefault(group, parser.add_argument_group(group) if group not in groups else None)
        default: Any = {} if field.default is dataclasses.MISSING else field.default
        if isinstance(default, bool):
            keywords["action"] = argparse.BooleanOptionalAction
        else:
            keywords.setdefault("metavar", name.upper())
        if default not in (None, {}, False):
            keywords["help"] += f" (default: {default})"
        keywords["help"] = keywords["help"].replace("%", "%%")
        flags = [flag(each) for each in (name, *(alias for alias, meant in ALIASES.items() if meant == name))]
        groups[group].add_argument(*flags, dest=name, default=argparse.SUPPRESS, **keywords)
    return parser


def parse(description: str, arguments: Sequence[str] | None = None) -> tuple[Options, Parser]:
    """Options from, each over the last: the defaults, an earlier run, ``--config``, the command line.

    The earlier run is the one that is resumed, or whose weights are evaluated.
    """
    parser = make_parser(description)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(arguments)
    if "config" in given:
        arguments = [*from_yaml(given.config, parser), *arguments]
        given = parser.parse_args(arguments)
    options = finished(vars(given))
    if options.evaluate and (options.weights is None or options.resume):
        parser.error("argument --evaluate: needs --weights, and no --resume")
    run, names = options.output, FIELDS.keys()
    if options.evaluate:
        run, names = run_of(Path(options.weights or "")), EVALUATED
    if (options.resume or options.evaluate) and run is not None and (run / "options.yaml").is_file():
        earlier = [*from_yaml(run / "options.yaml", parser, names), f"--output={run}"]
        options = finished(vars(parser.parse_args([*earlier, *arguments])))
    if kind_of(options.data)[0] not in ("arrays", "folder"):
        options = without_options_of_arrays(options, given, parser)
    return options, parser


def without_options_of_arrays(options: Options, given: argparse.Namespace, parser: Parser) -> Options:
    """The options of other data, for which those that only arrays have were ``given`` by mistake, or are of a run."""
    for name in ("spatial_dims", "channels", "image_size"):
        value = getattr(options, name)
        if value is None or (name == "image_size" and isinstance(value, int)):
            continue
        if name in given:
            rule = (
                "must be one number for" if name == "image_size" else "is an option of arrays:PATH and folder:PATH, not"
            )
            parser.error(f"argument {flag(name)}: {rule} {options.data}, got {value}")
        options = dataclasses.replace(options, **{name: None})
    return options


def finished(given: Mapping[str, Any]) -> Options:
    """The options that were given, with the defaults that depend on others."""
    options = Options(**given, given=frozenset(given))
    changes: dict[str, Any] = {}
    if options.output is None:
        changes["output"] = Path("runs") / named_after(options.data)
    if options.weights is not None and "learning_rate" not in given:
        changes["learning_rate"] = FINE_TUNING_RATE
    return dataclasses.replace(options, **changes)


def named_after(data: str) -> str:
    """The name of a run on the data: that of its folder or set, else that of its kind."""
    kind, rest = kind_of(data)
    if kind in ("folder", "arrays"):
        path = Path(rest).expanduser().resolve()
        rest = path.stem if path.suffix == ".npz" else path.name
    name = rest or kind
    return name.encode(errors="backslashreplace").decode()  # TensorBoard takes no other bytes


def run_of(weights: Path) -> Path | None:
    """The folder of the run that has left a file of weights or a checkpoint; None if there is none."""
    folders = list(weights.parents)[:2] if weights.is_file() else []
    return next((each for each in folders if (each / "options.yaml").is_file()), None)


def from_yaml(path: Path, parser: argparse.ArgumentParser, wanted: Iterable[str] = FIELDS.keys()) -> list[str]:
    """The ``wanted`` options in a YAML file as a command line, so that they are checked as one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"argument --config: must be a YAML file, got {path} ({error})")
    if not isinstance(values, dict):
        parser.error(f"argument --config: must contain options by their names, got {path}")
    arguments: list[str] = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in FIELDS or name in ("config", "resume"):
            meant = suggestion(name, FIELDS)
            parser.error(f"argument --config: {path} has {key!r}, which is no option of a file{meant}")
        if value is None or name not in wanted:
            continue
        if isinstance(value, bool):
            arguments.append(flag(name) if value else flag(f"no_{name}"))
        elif isinstance(value, dict):
            if value:
                arguments += [flag(name), *(f"{each}={setting!r}" for each, setting in value.items())]
        else:
            arguments += [f"{flag(name)}={value}"]
    return arguments
