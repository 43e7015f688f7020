"""From sources to batches: the same for the same seed, epoch and step, in any process, however often asked."""

from collections.abc import Iterator
from typing import Any

import lightning
import numpy
import torch
from torch.utils.data import DataLoader, Sampler

from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.samples import Key, Samples
from scripts.training.sources import Data, Source


class EvenBatches(Sampler[list[Key]]):
    """Batches of one process; over all processes every sample is used once in an epoch.

    The samples of an epoch are divided into global batches whose sizes differ by one at most, so that no sample is left
    out and no batch is tiny. Each global batch is divided among the processes, which all take the same number of steps.

    Args:
        count: The number of samples.
        batch_size: The most samples in a batch of one process.
        rank: Which process this is.
        processes: How many there are.
        seed: Of the order; None for the order as it is.
        limit: The most batches.
    """

    def __init__(
        self, count: int, batch_size: int, rank: int, processes: int, seed: int | None, limit: int | None
    ) -> None:
        self.count = count
        self.rank, self.processes = rank, processes
        self.seed = seed
        self.batches = -(-count // (batch_size * processes))
        self.length = min(self.batches, limit or self.batches)
        self.epoch, self.start = 0, 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Begin at batch ``start`` of an epoch, and at the first one of every other."""
        self.epoch, self.start = epoch, start

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.set_position(epoch)

    def __len__(self) -> int:
        return self.length  # of the whole epoch, wherever it begins

    def __iter__(self) -> Iterator[list[Key]]:
        order = numpy.arange(self.count)
        if self.seed is not None:
            order = numpy.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for batch in numpy.array_split(order, self.batches)[self.start : self.length]:
            yield [(self.epoch, int(index)) for index in batch[self.rank :: self.processes]]


def as_it_is(batch: Any) -> Any:
    """``Samples`` returns whole batches."""
    return batch


class Loading(lightning.LightningDataModule):
    """The loaders of the splits; where they stand is saved in checkpoints."""

    def __init__(self, data: Data, options: Options) -> None:
        super().__init__()
        self.data, self.options = data, options
        self.position = {"epoch": 0, "batch": 0}
        self.training: EvenBatches | None = None

    def batches(self, source: Source, *, shuffle: bool) -> EvenBatches:
        assert self.trainer is not None
        return EvenBatches(
            len(source.labels),
            self.options.batch_size,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.options.seed if shuffle else None,
            self.options.limit_batches,
        )

    def loader(self, source: Source, batches: EvenBatches) -> DataLoader[Any]:
        samples = Samples(source, self.data, self.options, training=source is self.data.train)
        workers = self.options.workers
        return DataLoader(
            samples,
            batch_sampler=batches,
            collate_fn=as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.accelerator.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        self.training = self.batches(self.data.train, shuffle=True)
        self.training.set_position(self.position["epoch"], self.position["batch"])
        return self.loader(self.data.train, self.training)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(self.data.val, self.batches(self.data.val, shuffle=False))

    def test_dataloader(self) -> DataLoader[Any]:
        assert self.data.test is not None
        return self.loader(self.data.test, self.batches(self.data.test, shuffle=False))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        samples, *rest = batch
        if self.options.channels_last:
            samples = samples.to(memory_format=torch.channels_last)
        return samples, *rest

    def state_dict(self) -> dict[str, Any]:
        return dict(self.position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = dict(state_dict)


def steps_per_epoch(data: Data, options: Options, processes: int) -> int:
    """Batches of one process in an epoch.

    Raises:
        RunError: If a process would be left without the samples that a step needs.
    """
    steps = 0
    splits = [(data.val, 1, "validation"), (data.train, 2, "training")]  # 2: BatchNorm's deviation
    if data.test is not None:
        splits.insert(0, (data.test, 1, "test"))
    for source, least, what in splits:
        count = len(source.labels)
        steps = -(-count // (options.batch_size * processes))
        if count // steps < least * processes:
            raise RunError(
                f"--batch-size must leave each process {least} {what} samples a step or more, got "
                f"{options.batch_size}, with {count} samples and {processes} processes."
            )
    if options.batch_size * processes > len(data.train.labels):
        raise RunError(
            f"--batch-size must be at most the {len(data.train.labels)} training samples, shared by all processes, got "
            f"{options.batch_size} for each of {processes}."
        )
    return min(steps, options.limit_batches or steps)
