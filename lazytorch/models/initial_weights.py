"""Initial weights, drawn anew: for a model that has no values yet, built on the meta device and perhaps sharded."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["draw_anew", "without_initial_values"]


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
