"""Copies of torch.nn's layers, made several times faster than by their constructors, which set each attribute apart."""

import contextlib
import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

__all__ = ["CONSTANT", "RANDOM", "construct"]

# Their constructors end with reset_parameters(), which gives all of their weights values, and nothing else does.
RANDOM = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear}
CONSTANT = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
# Who replaces one of these, to build models in a way of his own, wants it to be called.
CONSTRUCTORS = {
    **{(layer, "__init__"): layer.__init__ for layer in RANDOM | CONSTANT},
    **{(nn.Module, name): getattr(nn.Module, name) for name in ("__init__", "__setattr__")},
    **{(nn.Module, name): getattr(nn.Module, name) for name in ("register_buffer", "register_parameter")},
}
CONTAINERS = {dict, list, set, OrderedDict}


def construct(
    layer: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device, values: bool
) -> nn.Module:
    """``layer(*args, **kwargs)``, on ``device``.

    Args:
        layer: Of ``RANDOM``, which get no values here, or of ``CONSTANT``.
        args: The constructor's arguments.
        kwargs: Its keyword arguments.
        device: PyTorch's default.
        values: Whether constants get theirs.
    """
    if not (kwargs.keys() & {"device", "dtype"} or is_watched()):
        with contextlib.suppress(TypeError):  # of no use for a key, or for the constructor, which will say so itself
            return copied(prototype(layer, torch.get_default_dtype(), *args, **kwargs), device, values)
    return layer(*args, **kwargs) if values and layer in CONSTANT else without_values(layer, *args, **kwargs)


def is_watched() -> bool:
    """Whether someone is to be told what constructors do."""
    return bool(
        nn_module._global_parameter_registration_hooks
        or nn_module._global_buffer_registration_hooks
        or any(getattr(owner, name) is not original for (owner, name), original in CONSTRUCTORS.items())
    )


@functools.lru_cache(maxsize=1024, typed=True)
def prototype(layer: type[nn.Module], dtype: torch.dtype, *args: Any, **kwargs: Any) -> nn.Module:
    """A layer to be copied; where values would be random, it has none and takes no memory."""
    if layer in RANDOM:
        return without_values(layer, *args, **kwargs, device="meta")
    return layer(*args, **kwargs, device="cpu")


def without_values(layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    module = without_reset(layer)(*args, **kwargs)
    module.__class__ = layer
    return module


@functools.cache
def without_reset(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})


def copied(module: nn.Module, device: torch.device, values: bool) -> nn.Module:
    """A new module like ``module``; its parameters' values alone may be others, or none yet."""

    def fresh(tensor: Tensor) -> Tensor:
        if not values or tensor.is_meta:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        return tensor.detach().clone() if device.type == "cpu" else tensor.detach().to(device)

    made = object.__new__(type(module))
    state = vars(made)
    for name, value in vars(module).items():
        state[name] = value.copy() if type(value) in CONTAINERS else value
    for name, value in module._parameters.items():
        if value is not None:
            made._parameters[name] = nn.Parameter(fresh(value), value.requires_grad)
    for name, value in module._buffers.items():
        if value is not None:
            made._buffers[name] = fresh(value)
    return made
