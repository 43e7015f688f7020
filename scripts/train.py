"""Train a model of the zoo on images, so that the run survives what happens to it.

    python scripts/train.py --epochs 1 --limit-batches 2     # a look at whether everything runs, in seconds
    python scripts/train.py                                  # digits: 98 % accuracy or more, in one to two minutes
    python scripts/train.py --data folder:flowers --model resnet50 --weights timm --output runs/flowers
    python scripts/train.py --output runs/flowers --resume   # after a crash, a kill or Ctrl-C: as if nothing had been
    torchrun --nproc-per-node 2 scripts/train.py --data torchvision:CIFAR10 --download --output runs/cifar
    python scripts/train.py --data folder:flowers --evaluate --weights runs/flowers/best.safetensors --model resnet50

One folder holds what a run leaves: ``options.yaml`` (the effective options, for ``--config``), ``checkpoints/`` (the
last two), ``metrics.csv`` (one row an epoch), ``tensorboard/``, ``best.safetensors`` and ``last.safetensors`` (weights,
for ``get_model(name, weights=FILE)``), and at the end ``curves.png``, ``confusion.png``, ``mistakes.png`` and
``summary.json``. docs/training.md tells more.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.training import checkpoints, report
from scripts.training.data import Data, load
from scripts.training.errors import NonFiniteError, RunError, Stopped
from scripts.training.files import full, is_full, remove_partials, write_whole
from scripts.training.loading import Loading, steps_per_epoch
from scripts.training.module import Classifier, describe
from scripts.training.options import FREE, Options, as_dict, flag, parse, to_yaml
from scripts.training.stopping import SIGNALS, Listening, Stop

OURS = {
    "options.yaml",
    "checkpoints",
    "metrics.csv",
    "tensorboard",
    "best.safetensors",
    "last.safetensors",
    "curves.png",
}
OURS |= {"confusion.png", "mistakes.png", "summary.json", "evaluation", "model.pt"}
EXTENDABLE = {"epochs"}  # what a resumed run may have more of


def main(arguments: Sequence[str] | None = None) -> None:
    options, parser = parse((__doc__ or "").split("\n\n")[0], arguments)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=options.output.parent).cleanup()
    except OSError as error:
        parser.error(f"argument --output: must be where a folder can be made, got {options.output} ({error.strerror})")
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
        # From a process that loads images, the message comes at the end of a traceback.
        end(1, str(error).strip().splitlines()[-1].removeprefix(f"{RunError.__module__}.RunError: "))
    except OSError as error:
        if not is_full(error):
            raise
        end(1, full(Path(error.filename) if error.filename else None))
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def end(code: int, message: str) -> None:
    if is_first():
        print(f"\n{message}", file=sys.stderr, flush=True)
    sys.exit(code)


def stopped_message(output: Path, name: str) -> str:
    last = next(iter(checkpoints.listed(output)), None)
    if last is None:
        return f"Stopped by {name} before there was anything to save."
    return (
        f"Stopped by {name}. The last checkpoint is {last}. Go on with the same command and --resume:\n"
        f"    python scripts/train.py --output {output} --resume"
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
    for message in (
        ".*does not have many workers.*",  # --workers says so
        ".*treespec.*is deprecated",  # Lightning's own
        ".*dataloader is not resumable.*",  # it is: EvenBatches begins where the checkpoint was saved
        ".*your dataloader is\n? ?not resumable.*",
        ".*in eval mode at the start of training.*",  # the average, and what is frozen
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def train(options: Options, stop: Stop) -> None:
    quieten()
    found = checkpoints.last_whole(options.output) if options.resume else None
    if is_first():
        refuse_folder(options)
    data = load(options)
    run = found.content["run"] if found else None
    if run is not None:
        refuse_another_run(run, data, options)
        if (options.output / "summary.json").exists() and len(run["history"]) >= options.epochs:
            say(f"{options.output} holds a finished run of {len(run['history'])} epochs: nothing to do.")
            return
    say(
        f"{options.data}: {len(data.train.labels)} training and {len(data.val.labels)} test images of "
        f"{data.channels} x {data.image_size} x {data.image_size}, {len(data.classes)} classes"
    )
    logger = TensorBoardLogger(
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
    classifier = Classifier(loading, stop, steps=steps, processes=trainer.world_size, fresh=found is None)
    say(f"{steps} steps an epoch, of {options.batch_size} images at most in each of {trainer.world_size} processes")
    say(f"learning rate {classifier.rate:g} for {classifier.images_an_update} images an update")
    if found:
        for reason in found.reasons:
            say(f"{reason} The one before it is used.")
        say(f"going on from {found.path}")
    if is_first():
        make_room(options)
        write_whole(options.output / "options.yaml", to_yaml(options).encode())
        (options.output / "summary.json").unlink(missing_ok=True)
    trainer.fit(classifier, datamodule=loading, ckpt_path=str(found.path) if found else None)
    if trainer.is_global_zero:
        summary = report.write_report(options.output, classifier, data, options)
        seconds = summary["seconds"]
        say(f"test accuracy {summary['test_accuracy']:.2%} after {seconds:.0f} s; results in {options.output}")


def evaluate(options: Options, stop: Stop) -> None:
    """Measure the weights on the test images; pictures and a summary go to the folder ``evaluation``."""
    quieten()
    data = load(options)
    loading = Loading(data, options)
    classifier = Classifier(loading, stop)
    trainer = make_trainer(options, logger=False, enable_checkpointing=False)
    trainer.validate(classifier, datamodule=loading, verbose=False)
    if trainer.is_global_zero:
        folder = options.output / "evaluation"
        summary = report.write_report(folder, classifier, data, options)
        say(f"test accuracy {summary['test_accuracy']:.2%} of {summary['test_images']} images; results in {folder}")


def is_first() -> bool:
    """Whether this is the process that writes, also before the others are known."""
    return getattr(rank_zero_only, "rank", 0) == 0


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


def previous(output: Path) -> Path:
    """Where a finished run goes when another is to have its folder."""
    return output.with_name(f"{output.name}.previous")


def refuse_folder(options: Options) -> None:
    """Refuse a folder that holds something else than a run, or a run that could be resumed.

    Raises:
        RunError: With what is there.
    """
    output, old = options.output, previous(options.output)
    if output.exists() and not (output.is_dir() and is_a_run(output)):
        raise RunError(f"--output: must be a new folder or that of an earlier run, got {output}.")
    if options.resume:
        return
    if (output / "summary.json").exists():
        if old.exists() and not (old.is_dir() and is_a_run(old) and {each.name for each in old.iterdir()} <= OURS):
            raise RunError(f"{old} is where the run in {output} would go, and holds other files. Move it first.")
    elif checkpoints.listed(output):
        raise RunError(
            f"{output} holds a run that is not over. Go on with --resume, give another --output, or remove the folder."
        )


def make_room(options: Options) -> None:
    """Move a finished run aside, over the one that was moved there before; tidy up after one that was killed."""
    output, old = options.output, previous(options.output)
    if (output / "summary.json").exists() and not options.resume:
        if old.exists():
            shutil.rmtree(old)
        output.rename(old)
        say(f"the run that was in {output} is now in {old}")
    elif output.is_dir():
        remove_partials(output)


def is_a_run(folder: Path) -> bool:
    """Whether a folder is empty or holds what a run leaves."""
    names = {each.name for each in folder.iterdir()}
    return not names or bool(names & {"options.yaml", "summary.json"}) or names == {"evaluation"}


def refuse_another_run(run: dict[str, Any], data: Data, options: Options) -> None:
    """Refuse to go on with other options than the run has: it would be neither that run nor the new one.

    Raises:
        RunError: Listing the differences.
    """
    there, here = run["description"], describe(data, options)
    differences = []
    if there["classes"] != here["classes"]:
        counts = len(there["classes"]), len(here["classes"])
        differences.append(f"classes: {counts[0]} there, {counts[1]} here" if len(set(counts)) > 1 else "other classes")
    differences += [
        f"{key}: {there[key]} there, {here[key]} here" for key in ("channels", "image_size") if there[key] != here[key]
    ]
    given = as_dict(options)
    for name, value in run["options"].items():
        may_differ = name in FREE or name == "image_size" or (name in EXTENDABLE and given[name] > value)
        may_differ |= name == "data" and all(each.startswith("folder:") for each in (value, given[name]))  # moved
        if given[name] != value and not may_differ:
            differences.append(f"{flag(name)}: {value} there, {given[name]} here")
    if differences:
        raise RunError(
            f"--resume: the run in {options.output} is another one: {'; '.join(differences)}. Give its options, or "
            "another --output."
        )


if __name__ == "__main__":
    main()
