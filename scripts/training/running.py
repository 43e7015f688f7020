"""Training and evaluation, from the options to what they leave."""

import dataclasses
import logging
import os
import shlex
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy

from scripts.training import augmentation, checkpoints, report, weights
from scripts.training.array_data import EVERY_SPLIT
from scripts.training.data import load
from scripts.training.errors import NonFiniteError, RunError, Stopped
from scripts.training.files import full, is_full, write_whole
from scripts.training.folders import make_room, refuse_folder
from scripts.training.loading import Loading, steps_per_epoch
from scripts.training.module import Classifier
from scripts.training.optimizing import require_optimizer
from scripts.training.options import FINE_TUNING_RATE, FREE, Options, as_dict, flag, to_yaml
from scripts.training.processes import is_first, say, warn
from scripts.training.sources import KINDS, Data
from scripts.training.stopping import SIGNALS, Listening, Stop
from scripts.training.values import kind_of

EXTENDABLE = {"epochs"}  # what a resumed run may have more of


def run(options: Options) -> None:
    """Train or evaluate; what ends it early ends the process with a message."""
    stop = Stop(partial(stopped_message, options.output))
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    stop.install()
    try:
        evaluate(options, stop) if options.evaluate else train(options, stop)
    except Stopped:
        end(stop.exit_code, stop.text())
    except NonFiniteError as error:
        last = next(iter(checkpoints.listed(options.output)), None)
        kept = f"The last good checkpoint is {last}" if last else "There is no checkpoint yet"
        end(1, f"{error} {kept}. A lower --learning-rate, --clip or --precision 32-true may help.")
    except RunError as error:
        # From a process that loads samples, the message comes at the end of a traceback.
        end(1, str(error).strip().splitlines()[-1].removeprefix(f"{RunError.__module__}.RunError: "))
    except OSError as error:
        if not is_full(error):
            raise
        end(1, full(Path(error.filename) if error.filename else None))
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def end(code: int, message: str) -> None:
    warn(message)
    sys.exit(code)


def stopped_message(output: Path, name: str) -> str:
    last = next(iter(checkpoints.listed(output)), None)
    if last is None:
        return f"Stopped by {name} before there was anything to save."
    return (
        f"Stopped by {name}. The last checkpoint is {last}. Go on with the same command and --resume:\n"
        f"    python scripts/train.py --output {shlex.quote(str(output))} --resume"
    )


def make_trainer(options: Options, **keywords: Any) -> lightning.Trainer:
    """A trainer on the processes that torchrun or Slurm has started, or on this one alone."""
    devices, nodes, plugins = 1, 1, []
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif SLURMEnvironment.detect():
        nodes = int(os.environ["SLURM_NNODES"])
        devices = int(os.environ["SLURM_NTASKS"]) // nodes
        plugins.append(SLURMEnvironment(auto_requeue=False))  # its checkpoints are not ours; see docs/training.md
    strategy: Any = "auto"
    if options.strategy == "fsdp":
        strategy = ModelParallelStrategy(devices * nodes, 1, save_distributed_checkpoint=False)
    elif devices * nodes > 1:
        strategy = "ddp"
    return lightning.Trainer(
        accelerator=options.device,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=options.precision,  # pyright: ignore[reportArgumentType]
        deterministic=options.deterministic,
        default_root_dir=options.output,
        use_distributed_sampler=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[*plugins, checkpoints.WholeFiles()],
        **keywords,
    )


def quieten() -> None:
    """Lightning's advice that does not hold here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # our message has the error
    for message in (
        ".*does not have many workers.*",  # --workers says so
        ".*treespec.*is deprecated",  # Lightning's own
        ".*dataloader is not resumable.*",  # it is: EvenBatches begins where the checkpoint was saved
        ".*your dataloader is\n? ?not resumable.*",
        ".*in eval mode at the start of training.*",  # the average, and what is frozen
        ".*smaller than the logging interval.*",
        ".*during `trainer.(validate|test)\\(\\)`, it is recommended to use.*",  # EvenBatches repeats no sample
    ):
        warnings.filterwarnings("ignore", message=message)


def train(options: Options, stop: Stop) -> None:
    quieten()
    require_optimizer(options)
    found = checkpoints.last_whole(options.output) if options.resume else None
    run = found.content["run"] if found else None
    if is_first():
        refuse_folder(options)
    there = weights.described(options.weights) if run is None else None
    options = with_model_of(there, options)
    if run is None:
        weights.require_model(options)
    known = run["description"] if run else without_kept_size(there)
    data = normalized_as(known, load(options, known, check=() if run else EVERY_SPLIT))
    augmentation.require(options, data)
    if run is not None:
        refuse_another_run(run, data, options)
        if report.is_whole(options.output) and len(run["history"]) >= options.epochs:
            say(f"{options.output} contains a finished run of {len(run['history'])} epochs: nothing to do.")
            return
    say(
        f"{options.data}: {report.sizes(data)} {KINDS[data.spatial_dims]} of "
        f"{' x '.join(map(str, (data.channels, *data.sizes)))}, {len(data.classes)} classes"
    )
    logger = report.Logger(
        options.output, name="", version="tensorboard", purge_step=found.content["global_step"] + 1 if found else None
    )
    saving = checkpoints.Saving(options.output / checkpoints.FOLDER, options.checkpoint_steps, found)
    trainer = make_trainer(
        options,
        max_epochs=options.epochs,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=options.clip,
        logger=logger,
        log_every_n_steps=10,
        callbacks=[report.Progress(), Listening(stop), report.Reporting(options.output), saving],
    )
    if run is not None and run["processes"] != trainer.world_size:
        raise RunError(
            f"--resume: there must be as many processes as the run had, {run['processes']}, got {trainer.world_size}."
        )
    torch.manual_seed(options.seed)
    steps = steps_per_epoch(data, options, trainer.world_size)
    loading = Loading(data, options)
    description = weights.describe(data, options)
    other_classes = there is not None and there["classes"] != data.classes
    if other_classes:
        say(f"the weights {options.weights} are of other classes: the classifier is randomly initialized")
    model = weights.build(description, options.weights if run is None else None, new_classifier=other_classes)
    classifier = Classifier(model, description, loading, stop, steps=steps, processes=trainer.world_size)
    say(f"{steps} steps an epoch, of {options.batch_size} samples at most in each of {trainer.world_size} processes")
    fine_tuning = options.weights is not None and options.learning_rate == FINE_TUNING_RATE
    reason = ", a tenth of the default, as it starts from trained weights" if fine_tuning else ""
    say(f"learning rate {classifier.rate:g} for {classifier.samples_per_update} samples an update{reason}")
    if found:
        for each in found.reasons:
            say(f"{each} The one before it is used.")
        say(f"going on from {found.path}")
    if is_first():
        make_room(options)
        write_whole(options.output / "options.yaml", to_yaml(options).encode())
        (options.output / "summary.json").unlink(missing_ok=True)
    trainer.fit(classifier, datamodule=loading, ckpt_path=str(found.path) if found else None)
    if data.test is not None:
        classifier.load_evaluated(weights.read(options.output / "best.safetensors"))
        trainer.test(classifier, datamodule=loading, verbose=False)
    if trainer.is_global_zero:
        summary = report.write_report(options.output, classifier, data, options)
        say(f"{report.closing(summary)} after {summary['seconds']:.0f} s; results in {options.output}")


def evaluate(options: Options, stop: Stop) -> None:
    """Measure the weights on the validation and test splits; a summary and pictures go to ``evaluation``."""
    quieten()
    there = weights.described(options.weights)
    options = with_model_of(there, options)
    weights.require_model(options)
    data = load(options, there, check=("val", "test"))
    if there is None:
        model, description = weights.published(data, options)
    else:
        weights.require_classes(there, data, options)
        data = data._replace(channels=there["channels"], mean=there["mean"], deviation=there["deviation"])
        description = weights.describe(data, options)
        model = weights.load(Path(options.weights or ""), description)
    loading = Loading(data, options)
    classifier = Classifier(model, description, loading, stop)
    trainer = make_trainer(options, logger=False, enable_checkpointing=False)
    trainer.validate(classifier, datamodule=loading, verbose=False)
    if data.test is not None:
        trainer.test(classifier, datamodule=loading, verbose=False)
    if trainer.is_global_zero:
        folder = options.output / "evaluation"
        summary = report.write_report(folder, classifier, data, options)
        what = f"{report.sizes(data, training=False)} {KINDS[data.spatial_dims]}"
        say(f"{report.closing(summary)} of {what}; results in {folder}")


def with_model_of(there: weights.Description | None, options: Options) -> Options:
    """The options, with what the description of weights has and nobody gave.

    Raises:
        RunError: If another model was given.
    """
    if there is None:
        return options
    if "model" in options.given and options.model != there["model"]:
        raise RunError(
            f"--model: the weights {options.weights} are of {there['model']}, got {options.model}. Leave --model out."
        )
    changes: dict[str, Any] = {
        "model": there["model"],
        "model_option": {**there["model_option"], **options.model_option},
    }
    if options.image_size is None and "spatial_dims" not in there and kind_of(options.data)[0] != "arrays":
        changes["image_size"] = there["image_size"]
    if options.evaluate and "seed" not in options.given:
        changes["seed"] = there.get("seed", options.seed)
    return dataclasses.replace(options, **changes)


def without_kept_size(there: weights.Description | None) -> weights.Description | None:
    """A description without the size of arrays that were not resampled, as arrays keep theirs in fine-tuning too."""
    if there is None or there.get("resample", True):
        return there
    return {**there, "image_size": None}


def normalized_as(there: weights.Description | None, data: Data) -> Data:
    """The data, normalized as for the weights, if they have as many channels."""
    if there is None or there["channels"] != data.channels or not data.photographs:
        return data  # ``load`` has done so for arrays
    if "spatial_dims" in there:  # statistics of arrays are not those of photographs
        return data
    return data._replace(mean=there["mean"], deviation=there["deviation"])


def refuse_another_run(run: dict[str, Any], data: Data, options: Options) -> None:
    """Refuse to go on with other options than the run has: it would be neither that run nor the new one.

    Raises:
        RunError: Listing the differences.
    """
    there, here = run["description"], weights.describe(data, options)
    differences = []
    if there["classes"] != here["classes"]:
        counts = len(there["classes"]), len(here["classes"])
        differences.append(f"classes: {counts[0]} there, {counts[1]} here" if len(set(counts)) > 1 else "other classes")
    differences += [
        f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in ("channels", "image_size", "spatial_dims", "multi_label", "resample")
        if there.get(key) != here.get(key)
    ]
    given = as_dict(options)
    for name, value in run["options"].items():
        may_differ = name in FREE or name == "image_size" or (name in EXTENDABLE and given[name] > value)
        may_differ |= name == "data" and any(  # moved
            all(each.startswith(kind) for each in (value, given[name])) for kind in ("folder:", "arrays:")
        )
        if given[name] != value and not may_differ:
            differences.append(f"{flag(name)}: {value} there, {given[name]} here")
    if differences:
        raise RunError(
            f"--resume: the run in {options.output} is another one: {'; '.join(differences)}. Give its options, or "
            "another --output."
        )
