"""Recipes: modules like one that a constructor made, several times faster than by calling it again."""

import functools
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

__all__ = ["CONSTANT", "LAYERS", "RANDOM", "Question", "Recipe", "call_key", "is_watched", "without_values"]

# Their constructors end with reset_parameters(), which gives all of their weights values, and nothing else does.
RANDOM = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear}
CONSTANT = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
LAYERS = RANDOM | CONSTANT
# Who replaces one of these, to build models in a way of his own, wants it to be called.
BASES = {base for layer in LAYERS for base in layer.__mro__ if issubclass(base, nn.Module)}
NAMES = ("__init__", "__setattr__", "add_module", "register_buffer", "register_parameter", "reset_parameters")
CONSTRUCTORS = [(base, name, getattr(base, name)) for base in BASES for name in NAMES if hasattr(base, name)]
# What CONSTANT layers start with.
FILL = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
CONTAINERS = {dict, list, set, OrderedDict}
PACKAGES = ("torch.nn.modules.", "torch._dynamo.", "lazytorch.")
STORES = ("_parameters", "_buffers", "_modules")
IMMUTABLE = {bool, float, int, str, torch.dtype, type, type(None), types.BuiltinFunctionType, types.FunctionType}


def is_watched() -> bool:
    """Whether someone is to be told what constructors do."""
    return bool(
        nn_module._global_parameter_registration_hooks
        or nn_module._global_buffer_registration_hooks
        or nn_module._global_module_registration_hooks
        or any(is_replaced(getattr(owner, name), original) for owner, name, original in CONSTRUCTORS)
    )


def is_replaced(function: Any, original: Any) -> bool:
    """Whether a function was replaced, and not by Dynamo: that only notes when modules were made."""
    return function is not original and not getattr(function, "__module__", "").startswith("torch._dynamo.")


def without_values(layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """A ``layer`` of torch.nn, without giving its parameters values."""
    module = without_reset(layer)(*args, **kwargs)
    module.__class__ = layer
    return module


@functools.cache
def without_reset(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})


class Question:
    """What is asked of a function that remembers its answers: equal to another one if its key is.

    Args:
        key: Of all that the answer depends on.
        answer: Finds the answer, where none is remembered.

    Raises:
        TypeError: If the key has no hash.
    """

    def __init__(self, key: Any, answer: Callable[[], Any]) -> None:
        self.key = key
        self.hash = hash(key)
        self.find: Callable[[], Any] | None = answer

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Question) and self.key == other.key

    @property
    def is_open(self) -> bool:
        """Whether the answer was not found by this question, as it was remembered."""
        return self.find is not None

    def answer(self) -> Any:
        """Find the answer; once, as what is remembered must not keep alive what it was found by."""
        find, self.find = self.find, None
        if find is None:
            raise ValueError
        return find()


def call_key(layer: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call of a constructor, as a key: equal to another only if the arguments are of the same types as well.

    Raises:
        TypeError: If an argument is of no use for a key.
    """
    return layer, layer.__init__, torch.get_default_dtype(), key_of(args), key_of(tuple(kwargs.items()))


def key_of(value: Any) -> Any:
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, tuple(map(key_of, value))
    if kind is functools.partial:
        return kind, value.func, key_of(value.args), key_of(tuple(value.keywords.items()))
    if kind not in IMMUTABLE:
        raise TypeError
    return kind, value


class Values(NamedTuple):
    """What a tensor is made of: ``fill`` is the one value that all of it has, or None for random values."""

    shape: torch.Size
    dtype: torch.dtype
    fill: float | None
    requires_grad: bool

    def make(self, device: torch.device, constants: bool) -> Tensor:
        if self.fill is None or not constants:
            return torch.empty(self.shape, dtype=self.dtype, device=device)
        return torch.full(self.shape, self.fill, dtype=self.dtype, device=device)


class Recipe:
    """How to make modules like ``module``, which is as its constructor left it.

    Args:
        module: The module. What it is made of must be layers of ``RANDOM`` and ``CONSTANT``, and modules that hold
            neither tensors nor anything else that can change.

    Raises:
        ValueError: If it is made of something else.
    """

    def __init__(self, module: nn.Module) -> None:
        self.kind = type(module)
        if not all(each.__module__.startswith(PACKAGES) for each in (self.kind, self.kind.__init__)):
            raise ValueError
        inherited = self.kind.__init__ is nn.Module.__init__  # which is_watched looks after
        self.constructors = {} if inherited else {self.kind: self.kind.__init__}
        self.state: dict[str, Any] = {}
        self.containers: list[tuple[str, Callable[..., Any], Any]] = []
        self.contents: list[tuple[str, str, Values | Recipe | None]] = []
        for name, value in vars(module).items():
            self.state[name] = value
            if type(value) in CONTAINERS:
                self.state[name] = None  # keeps the order
                items = () if name in STORES else tuple(value.items() if isinstance(value, dict) else value)
                require_immutable(items)
                self.containers.append((name, type(value), items))
            else:
                require_immutable(value)
        for store in STORES[:2]:
            for name, each in getattr(module, store).items():
                self.contents.append((store, name, None if each is None else self.values_of(name, each)))
        for name, part in module._modules.items():
            recipe = None if part is None else Recipe(part)
            self.contents.append(("_modules", name, recipe))
            self.constructors |= {} if recipe is None else recipe.constructors

    @property
    def is_current(self) -> bool:
        """Whether all constructors are what they were."""
        return all(kind.__init__ is constructor for kind, constructor in self.constructors.items())

    def values_of(self, name: str, tensor: Tensor) -> Values:
        if self.kind not in LAYERS:
            raise ValueError
        fill = None if self.kind in RANDOM else FILL[name]
        return Values(tensor.shape, tensor.dtype, fill, tensor.requires_grad)

    def make(self, device: torch.device, constants: bool, note: Callable[[nn.Module], Any]) -> nn.Module:
        """A new module.

        Args:
            device: Where its tensors are to be.
            constants: Whether those of ``CONSTANT`` layers get their values; others have none in any case.
            note: Called with every layer of ``RANDOM`` and ``CONSTANT``.
        """
        with torch._C.DisableTorchFunction():  # the device is said; a mode that says it would take longer than all else
            return self.made(device, constants, note)

    def made(self, device: torch.device, constants: bool, note: Callable[[nn.Module], Any]) -> nn.Module:
        module = object.__new__(self.kind)
        state = vars(module)
        state.update(self.state)
        for name, kind, items in self.containers:
            state[name] = kind(items) if items else kind()
        for store, name, content in self.contents:
            if type(content) is Values:
                tensor = content.make(device, constants)
                is_parameter = store == "_parameters"
                state[store][name] = nn.Parameter(tensor, content.requires_grad) if is_parameter else tensor
            else:
                state[store][name] = content.made(device, constants, note) if type(content) is Recipe else None
        if self.kind in LAYERS:
            note(module)
        return module


def require_immutable(value: Any) -> None:
    if type(value) is tuple:
        for each in value:
            require_immutable(each)
    elif type(value) not in IMMUTABLE:
        raise ValueError
