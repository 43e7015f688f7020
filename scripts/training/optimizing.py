"""Optimizers: those of timm that run here."""

import os
from typing import Any

import timm.optim
import torch
from torch import Tensor, nn

from scripts.training.errors import RunError
from scripts.training.options import Options
from scripts.training.values import suggestion


def require_optimizer(options: Options) -> None:
    """Try the optimizer on a small model, as it will be used.

    Raises:
        RunError: If there is none of that name, or it does not run here.
    """
    names = [str(each) for each in timm.optim.list_optimizers()]  # pyright: ignore[reportPrivateImportUsage]
    if options.optimizer not in names:
        meant = suggestion(options.optimizer, names)
        raise RunError(
            f"--optimizer: must be one of the {len(names)} names in timm.optim.list_optimizers(), got "
            f"{options.optimizer}{meant or '.'}"
        )
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)).to(device(options))
    images = torch.ones(2, 1, 3, 3, device=device(options))
    try:
        optimizer: Any = timm.optim.create_optimizer_v2(  # pyright: ignore[reportPrivateImportUsage]
            model, options.optimizer, options.learning_rate, options.weight_decay
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(images).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    except Exception as error:  # whatever the packages behind them raise
        raise RunError(
            f"--optimizer: {options.optimizer} does not run here ({type(error).__name__}: {error}). Choose another, "
            "such as adamw, sgd or lamb."
        ) from error


def device(options: Options) -> torch.device:
    """Where this process will train."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if options.device == "cpu" or accelerator is None:
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device(accelerator.type, local % torch.accelerator.device_count())
