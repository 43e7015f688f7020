"""The folder of a run: what it may be, and what becomes of an earlier run in it."""

import shutil
from pathlib import Path

from scripts.training import checkpoints
from scripts.training.errors import RunError
from scripts.training.files import remove_partials
from scripts.training.options import Options
from scripts.training.processes import say

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
