"""Initial weights: the ways in which families draw them; and drawn anew, for a model that has no values yet."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_tensorflow", "draw", "draw_anew", "small_normal", "uniform", "without_initial_values"]


def without_initial_values(module: nn.Module) -> list[str]:
    """The names of modules in ``module`` that hold values and cannot say which they start with."""
    return [
        name
        for name, each in module.named_modules()
        if not hasattr(each, "reset_parameters") and [*each.parameters(recurse=False), *each.buffers(recurse=False)]
    ]


def draw_anew(module: nn.Module, initialize: Callable[[nn.Module], None] | None) -> None:
    """Give all parameters and buffers of ``module`` the values that construction and then ``initialize`` give."""
    with whole(module):
        module.apply(reset)
        if initialize is not None:
            module.apply(initialize)


def reset(module: nn.Module) -> None:
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()  # pyright: ignore[reportCallIssue]


@contextlib.contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Have whole parameters stand where sharded ones do, and share out what they are given.

    To draw the shares themselves, each process from its own generator, would be wrong: on the CPU, processes with the
    same seed would draw the same values for different channels.
    """
    places = [
        (each, name, parameter)
        for each in module.modules()
        for name, parameter in each.named_parameters(recurse=False, remove_duplicate=False)
        if hasattr(parameter, "device_mesh")
    ]
    drawn: dict[Any, Tensor] = {}
    try:
        for each, name, parameter in places:
            if parameter not in drawn:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
                drawn[parameter] = nn.Parameter(empty, requires_grad=False)
            each._parameters[name] = drawn[parameter]  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for each, name, parameter in places:
            each._parameters[name] = parameter
    if drawn:
        from torch.distributed.tensor import distribute_tensor

        with torch.no_grad():
            for parameter, value in drawn.items():
                parameter.copy_(distribute_tensor(value.data, parameter.device_mesh, parameter.placements))


def draw(module: nn.Module, *, per_group: bool, draw_linear: Callable[[nn.Linear], Any]) -> None:
    """He normal by outputs for convolutions, biases of 0: He et al. 2015, https://arxiv.org/abs/1502.01852.

    Args:
        module: The module, once it is built.
        per_group: Whether the outputs are counted for each group, as TensorFlow's networks of these families do.
        draw_linear: Called with linear layers, to draw their weights.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        outputs = module.out_channels * math.prod(module.kernel_size) / (module.groups if per_group else 1)
        nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
    elif isinstance(module, nn.Linear):
        draw_linear(module)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def small_normal(module: nn.Linear) -> None:
    nn.init.normal_(module.weight, std=0.01)


def uniform(module: nn.Linear, gain: float = 1.0) -> None:
    """Uniform by the outputs: up to ``gain`` over their root."""
    bound = gain / math.sqrt(module.out_features)
    nn.init.uniform_(module.weight, -bound, bound)


as_tensorflow = partial(draw, per_group=True, draw_linear=uniform)
