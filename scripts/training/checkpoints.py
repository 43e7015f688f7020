"""Checkpoints: Lightning's, written whole with a checksum, and read without executing anything in them."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from scripts.training.errors import RunError
from scripts.training.files import write_whole

FOLDER = "checkpoints"
KEPT = 2  # the last is of use alone, unless it is damaged
# After the file that torch.save writes come a mark and a SHA-256, which torch.load ignores.
MARK = b"\nsha256:"
TRAILER = len(MARK) + 64


class DamagedError(Exception):
    """A file is no whole checkpoint."""


class WholeFiles(CheckpointIO):
    """How Lightning writes and reads checkpoints here."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        buffer.seek(0, io.SEEK_END)
        buffer.write(MARK + digest.encode())
        write_whole(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain values, nothing else.

    Raises:
        DamagedError: If the file is not whole, or holds anything else.
    """
    content = path.read_bytes()
    body, trailer = content[:-TRAILER], content[-TRAILER:]
    if not trailer.startswith(MARK):
        raise DamagedError("its end is missing")
    if trailer[len(MARK) :] != hashlib.sha256(body).hexdigest().encode():
        raise DamagedError("its checksum is wrong")
    try:
        checkpoint = torch.load(io.BytesIO(body), map_location, weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedError("it holds more than tensors and plain values, and could execute code") from None
    except Exception as error:  # whatever torch says of bytes that it did not write
        raise DamagedError(f"it cannot be read ({type(error).__name__})") from error
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("run"), dict)):
        raise DamagedError("it is not of this script")
    return checkpoint


def listed(output: Path) -> list[Path]:
    """The checkpoints of a run, the last one first."""
    return sorted((output / FOLDER).glob("step-*.ckpt"), reverse=True)


class Found(NamedTuple):
    """The checkpoint to go on from, and those that were passed over."""

    path: Path
    content: dict[str, Any]
    damaged: list[Path]
    reasons: list[str]


def last_whole(output: Path) -> Found | None:
    """The last whole checkpoint of a run; None if it has none.

    Raises:
        RunError: If there are checkpoints, all of them damaged.
    """
    damaged, reasons = [], []
    for path in listed(output):
        try:
            return Found(path, read(path), damaged, reasons)
        except DamagedError as error:
            damaged.append(path)
            reasons.append(f"{path} is damaged: {error}.")
    if damaged:
        raise RunError(f"{' '.join(reasons)} No checkpoint is whole; remove {output / FOLDER} to start anew.")
    return None


class Saving(Checkpoint):
    """Saves a checkpoint at the end of each epoch, and every so many steps, and keeps the last two.

    Args:
        folder: Where they go.
        every_steps: Batches between checkpoints within an epoch; None for none.
        found: The checkpoint that the run goes on from.
    """

    def __init__(self, folder: Path, every_steps: int | None, found: Found | None) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.damaged = found.damaged if found else []

    @rank_zero_only
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Set damaged checkpoints aside, now that every process has passed over them."""
        for path in self.damaged:
            path.replace(path.with_name(f"{path.name}.damaged"))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        # Gradients that wait for others are in no checkpoint; the end of an epoch has a hook of its own.
        if done % trainer.accumulate_grad_batches or done >= trainer.num_training_batches:
            return
        if pl_module.stop.asked or (self.every_steps and done % self.every_steps == 0):
            self.save(trainer, pl_module, trainer.current_epoch, done)
            pl_module.stop.leave()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.save(trainer, pl_module, trainer.current_epoch + 1, 0)
        pl_module.stop.leave()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove what a run left that was killed between its last checkpoint and the removal of the one before."""
        self.prune()

    def save(self, trainer: lightning.Trainer, pl_module: Any, epoch: int, batch: int) -> None:
        """Save the state from which batch ``batch`` of epoch ``epoch`` is the next."""
        pl_module.refuse_non_finite_weights()
        pl_module.loading.position = {"epoch": epoch, "batch": batch}
        # Batches, not updates: a number that only grows, as wide as it gets, so that names sort.
        number = epoch * int(trainer.num_training_batches) + batch
        trainer.save_checkpoint(self.folder / f"step-{number:010d}.ckpt")
        self.prune()

    @rank_zero_only
    def prune(self) -> None:
        for path in listed(self.folder.parent)[KEPT:]:
            path.unlink(missing_ok=True)
