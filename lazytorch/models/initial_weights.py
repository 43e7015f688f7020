"""Initial weights: init functions of the families, and initialization of a model that was built on the meta device."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch._init.initialize import (
    RESETS,
    Constant,
    Fill,
    InitFunction,
    Initialization,
    Normal,
    Uniform,
    default_fills,
    draw_seed,
)
from lazytorch.layers import ConvNormActivation
from lazytorch.layers.residual import LinearResidual, ResidualBlock

__all__ = [
    "as_tensorflow",
    "fan_out_normal",
    "initialize_again",
    "small_normal",
    "uniform",
    "wide_uniform",
    "without_initial_values",
    "zero_last_norm",
]


def without_initial_values(module: nn.Module) -> list[str]:
    """The names of modules in ``module`` that have parameters or buffers, but no ``reset_parameters``."""
    return [
        name
        for name, each in module.named_modules()
        if not hasattr(each, "reset_parameters") and [*each.parameters(recurse=False), *each.buffers(recurse=False)]
    ]


def initialize_again(module: nn.Module, initialize: Callable[[nn.Module], None] | None) -> None:
    """Set all parameters and buffers of ``module`` to initial values, as its construction and ``initialize`` do."""
    with whole(module):
        fills: dict[str, tuple[Tensor, Fill]] = {}
        for name, each in module.named_modules():
            if type(each) in RESETS:
                parts = default_fills(each).items()
                fills.update((f"{name}.{key}" if name else key, (getattr(each, key), value)) for key, value in parts)
            elif hasattr(each, "reset_parameters"):
                each.reset_parameters()  # pyright: ignore[reportCallIssue]
        if isinstance(initialize, InitFunction):
            fills |= initialize.of(list(module.named_modules()))
        Initialization(fills, draw_seed())()
        if initialize is not None and not isinstance(initialize, InitFunction):
            module.apply(initialize)


@contextlib.contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Replace sharded parameters by whole ones in this block, and then distribute their values.

    If each process initialized its own shard, processes with the same seed would compute the same values for different
    channels.
    """
    places = [
        (each, name, parameter)
        for each in module.modules()
        for name, parameter in each.named_parameters(recurse=False, remove_duplicate=False)
        if hasattr(parameter, "device_mesh")
    ]
    complete: dict[Any, Tensor] = {}
    try:
        for each, name, parameter in places:
            if parameter not in complete:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
                complete[parameter] = nn.Parameter(empty, requires_grad=False)
            each._parameters[name] = complete[parameter]  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for each, name, parameter in places:
            each._parameters[name] = parameter
    if complete:
        from torch.distributed.tensor import distribute_tensor

        with torch.no_grad():
            for parameter, value in complete.items():
                parameter.copy_(distribute_tensor(value.data, parameter.device_mesh, parameter.placements))


def fan_out_normal(module: nn.Module, *, per_group: bool, linear: Callable[[nn.Linear], Fill]) -> dict[str, Fill]:
    """He normal, fan-out, for convolutions, and biases of 0: He et al. 2015, https://arxiv.org/abs/1502.01852.

    Args:
        module: A module of the network.
        per_group: Whether the number of outputs is that of one group, as in TensorFlow's networks of these families.
        linear: Called with a linear layer; returns the function that fills its weight.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        fan_out = module.out_channels * math.prod(module.kernel_size) / (module.groups if per_group else 1)
        fills: dict[str, Fill] = {"weight": Normal(math.sqrt(2 / fan_out))}
    elif isinstance(module, nn.Linear):
        fills = {"weight": linear(module)}
    else:
        return {}
    return fills if module.bias is None else {**fills, "bias": Constant(0)}


def zero_last_norm(module: nn.Module) -> dict[str, Fill]:
    """A weight of 0 for the last norm of a branch with a shortcut, so that the block starts as its shortcut."""
    if not isinstance(module, ResidualBlock) and not (isinstance(module, LinearResidual) and module.has_shortcut):
        return {}
    last = [name for name, each in module.layers.named_children() if isinstance(each, ConvNormActivation)][-1:]
    weights = [f"layers.{name}.norm.weight" for name in last]  # a network without norms has none
    return {name: Constant(0) for name, _ in module.named_parameters() if name in weights}


def small_normal(module: nn.Linear) -> Fill:
    return Normal(0.01)


def uniform(module: nn.Linear) -> Fill:
    """Uniform up to ``1 / sqrt(out_features)``."""
    return Uniform(1 / math.sqrt(module.out_features))


def wide_uniform(module: nn.Linear) -> Fill:
    """Uniform up to ``sqrt(3 / out_features)``, for a variance of ``1 / out_features``."""
    return Uniform(math.sqrt(3 / module.out_features))


as_tensorflow = InitFunction(fan_out_normal, per_group=True, linear=uniform)
