"""The LightningModule: a model of the zoo, how it is trained, and what is measured of it."""

import math
import time
from typing import Any

import lightning
import timm.optim
import timm.scheduler
import torch
from timm.utils import ModelEmaV3  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lazytorch.models import Backbone
from scripts.training.errors import NonFiniteError, RunError
from scripts.training.loading import Loading
from scripts.training.losses import TrainingLoss
from scripts.training.metrics import Evaluation, Figures, monitored
from scripts.training.mixing import Mixing
from scripts.training.options import as_dict
from scripts.training.samples import seed_for
from scripts.training.stopping import Stop
from scripts.training.weights import Description


class Classifier(lightning.LightningModule):
    """Trains a model, and keeps one row of metrics an epoch in ``history``.

    Everything random in a step is drawn from a seed of the run's seed, the process, the epoch and the step.

    Args:
        model: The model, built.
        description: What rebuilds it.
        loading: The data and the options.
        stop: Whether the run is asked to stop.
        steps: Batches of a process in an epoch.
        processes: How many there are.
    """

    def __init__(
        self,
        model: Backbone,
        description: Description,
        loading: Loading,
        stop: Stop,
        *,
        steps: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.loading = loading
        data, options = loading.data, loading.options
        self.steps = steps
        self.samples_per_update = options.batch_size * options.accumulate * processes
        self.rate = options.learning_rate * self.samples_per_update / 256  # the highest, scaled linearly
        self.options = options
        self.stop = stop
        self.description = description
        self.model = model
        if options.freeze is not None:
            try:
                self.model.freeze_stages(options.freeze)
            except ValueError as error:
                raise RunError(f"--freeze: {error}") from error
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.average = None
        if options.ema is not None:
            # Operators on lists of tensors refuse those of which each process has a part, beside others.
            whole = options.strategy == "ddp"
            self.average = ModelEmaV3(self.model, decay=options.ema, use_warmup=True, foreach=whole)
            self.average.requires_grad_(False)
        if options.compile:
            self.model.compile()
        self.mix = Mixing(data, options)
        self.loss = TrainingLoss(data, options)
        self.monitor = monitored(data, options)
        self.sharded = False
        self.seconds = 0.0  # of training, before this process
        self.started = time.perf_counter()
        self.history: list[dict[str, float]] = []
        self.train_totals = torch.zeros(3, dtype=torch.float64)  # loss, correct samples, samples
        self.evaluation = Evaluation(len(data.classes), multi_label=data.multi_label)  # of the pass that is running
        self.validation: Figures | None = None  # of the last epoch
        self.test: Figures | None = None

    @property
    def evaluated(self) -> Any:
        """The model whose accuracy is measured: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    def evaluated_state(self) -> dict[str, Any]:
        """The weights and buffers of the evaluated model, whole, on the first process."""
        if not self.sharded:  # faster than the function below, which looks up every parameter several times
            return {name: value.detach().cpu() for name, value in self.evaluated.state_dict().items()}
        return get_model_state_dict(self.evaluated, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def load_evaluated(self, state: dict[str, Any]) -> None:
        """Replace the weights and buffers of the evaluated model by whole ones."""
        set_model_state_dict(self.evaluated, state, options=StateDictOptions(full_state_dict=True))

    def elapsed(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self.seconds + time.perf_counter() - self.started

    def configure_model(self) -> None:
        """Shard the model over the processes, if there is a mesh of devices."""
        if self.device_mesh is None or self.sharded:
            return
        for model in (self.model, *([self.average.module] if self.average is not None else [])):
            for stage in model.stages:
                fully_shard(stage, mesh=self.device_mesh["data_parallel"])
            fully_shard(model, mesh=self.device_mesh["data_parallel"])
        self.sharded = True

    def configure_optimizers(self) -> Any:
        options, epochs = self.options, self.options.epochs
        optimizer = timm.optim.create_optimizer_v2(  # pyright: ignore[reportPrivateImportUsage]
            self.model, opt=options.optimizer, lr=self.rate, weight_decay=options.weight_decay
        )
        schedule, _ = timm.scheduler.create_scheduler_v2(  # pyright: ignore[reportPrivateImportUsage]
            optimizer,
            options.schedule,
            num_epochs=epochs,
            warmup_epochs=epochs / 4 if options.warmup is None else options.warmup,  # pyright: ignore[reportArgumentType]
            warmup_lr=self.rate / 100,
            min_lr=0,
            decay_rate=1.0,
            step_on_epochs=False,
            updates_per_epoch=math.ceil(self.steps / options.accumulate),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.trainer.global_step)

    def on_train_epoch_start(self) -> None:
        assert self.loading.training is not None
        self.loading.training.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(seed_for(self.options.seed, self.global_rank, self.current_epoch, batch_idx))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        samples, labels, _ = batch
        samples, targets = self.mix(samples, labels)
        logits = self.model(samples)
        loss = self.loss(logits, targets)
        self.agree(loss, samples, batch_idx)
        right = self.loss.right(logits, targets)
        values = torch.stack([loss.detach() * len(samples), right, torch.full_like(right, len(samples))])
        self.train_totals += values.to(self.train_totals)
        self.log_dict({"loss": loss, "accuracy": right / len(samples)}, prog_bar=True, batch_size=len(samples))
        self.log("epoch", self.current_epoch + 1.0)  # Lightning would count from 0
        return loss

    def agree(self, loss: Tensor, samples: Tensor, batch_idx: int) -> None:
        """Exchange between all processes whether one of them was asked to stop, or has a loss that is not finite."""
        bad = not bool(torch.isfinite(loss))
        flags = torch.tensor([self.stop.signal is not None, bad], dtype=torch.float32, device=self.device)
        stop, any_bad = self.sum(flags).tolist()
        self.stop.asked = stop > 0
        if not any_bad:
            return
        reason = "of another process" if not bad else f"is {loss.item()}"
        if bad and not torch.isfinite(samples).all():
            reason += ", as some values of the samples are not finite"
        raise NonFiniteError(
            f"The loss {reason} at step {self.trainer.global_step + 1} (epoch {self.current_epoch + 1}, batch "
            f"{batch_idx + 1})."
        )

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.trainer.world_size == 1:
            return values.clone()
        return self.trainer.strategy.reduce(values.clone().to(self.device), reduce_op="sum")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self.model, step=self.trainer.global_step + 1)

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes, one after the other, on the CPU."""
        if self.trainer.world_size == 1:
            return values
        return torch.cat(gather_all_tensors(values.to(self.device))).cpu()

    def start_evaluation(self) -> None:
        if self.trainer.world_size > 1:  # each process has its own BatchNorm statistics; what is saved is the first's
            for buffer in self.evaluated.buffers():
                torch.distributed.broadcast(buffer, 0)
        self.evaluation = Evaluation(len(self.loading.data.classes), multi_label=self.loading.data.multi_label)

    def evaluation_step(self, batch: Any) -> None:
        samples, labels, indices = batch
        self.evaluation.add(self.evaluated(samples), labels, indices)

    def end_evaluation(self) -> Figures:
        loss = self.sum(self.evaluation.loss).item()
        if not math.isfinite(loss):
            what = "test" if self.trainer.testing else "validation"
            raise NonFiniteError(f"The {what} loss is {loss} after epoch {self.current_epoch + 1}.")
        return self.evaluation.figures(
            lambda values: self.sum(values).cpu(), self.gather, self.trainer.global_rank, self.trainer.world_size
        )

    def on_validation_epoch_start(self) -> None:
        self.start_evaluation()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        self.validation = self.end_evaluation()

    def on_test_epoch_start(self) -> None:
        self.start_evaluation()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        self.test = self.end_evaluation()

    def on_train_epoch_end(self) -> None:
        assert self.validation is not None
        loss, right, count = self.sum(self.train_totals).tolist()
        self.train_totals.zero_()
        row = {
            "epoch": self.current_epoch + 1,
            "step": self.trainer.global_step,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": loss / count,
            "train_accuracy": right / count,
            **{f"val_{name}": value for name, value in self.validation.overall.items()},
        }
        self.history.append(row)
        logged = {name: value for name, value in row.items() if name not in ("epoch", "step")}
        for logger in self.trainer.loggers:
            logger.log_metrics(logged, step=self.trainer.global_step)

    def refuse_non_finite_weights(self) -> None:
        """Stop the run before it saves a checkpoint with weights that are not finite."""
        parts = [each.to_local() if isinstance(each, DTensor) else each for each in self.model.parameters()]
        finite = torch.stack([torch.isfinite(each).all() for each in parts]).all()
        if self.sum(torch.tensor([not bool(finite)], dtype=torch.float32)).item():
            raise NonFiniteError(f"A weight is not finite after step {self.trainer.global_step}.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {
            "description": self.description,
            "options": as_dict(self.options),
            "processes": self.trainer.world_size,
            "train_totals": self.sum(self.train_totals).cpu(),
            "history": self.history,
            "seconds": self.elapsed(),
            "validation": None if self.validation is None else self.validation._asdict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.history, self.seconds = run["history"], run["seconds"]
        self.validation = None if run["validation"] is None else Figures(**run["validation"])
        self.train_totals = run["train_totals"].cpu() * (self.global_rank == 0)  # of all processes: counted once
