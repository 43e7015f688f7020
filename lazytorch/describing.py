"""describing: what every layer of a model returns, holds and computes, found on shapes, alike layers once."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.utils._pytree import tree_leaves

from lazytorch.become import HOOKS, MODULE_STATE
from lazytorch.drawing import Drawing, putting_off
from lazytorch.lazy_module import LazyModule, watching_builds
from lazytorch.materialize import run_on_shapes
from lazytorch.pending import plain_torch
from lazytorch.placeholder import PendingParameter
from lazytorch.recipes import Question, call_key
from lazytorch.shapes import Shapes
from lazytorch.tree import modules_of

__all__ = ["LayerSummary", "described"]

# The layers, and how many of their parameters have gradients.
Description = tuple[list["LayerSummary"], int]
META = torch.device("meta")
# What every lazy layer holds.
LAZY_STATE = MODULE_STATE.keys() | {"_pending", "_initialize_hook"}


@dataclass
class LayerSummary:
    """What is known of one module.

    Attributes:
        name: Its name within the model; ``""`` for the model.
        kind: The class that it is, or becomes.
        output_shapes: The shapes of the tensors that it returned, last; none if it was not called.
        parameters: Values in its parameters and in those of the modules below it.
        macs: Multiply-adds in it and in the modules below it, in all of its calls.
    """

    name: str
    kind: str
    output_shapes: list[tuple[int, ...]]
    parameters: int
    macs: int = 0

    @property
    def depth(self) -> int:
        """How many modules it is below the model."""
        return self.name.count(".") + 1 if self.name else 0

    def below(self, name: str) -> "LayerSummary":
        """The same of a module that stands in another one, under this name."""
        inner = ".".join(filter(None, (name, self.name)))
        return LayerSummary(inner, self.kind, list(self.output_shapes), self.parameters, self.macs)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As it stands in a table."""
        label = f"{self.name.rpartition('.')[2]}: {self.kind}" if self.name else self.kind
        shapes = ", ".join(map(str, self.output_shapes)) or "-"
        return "  " * self.depth + label, shapes, f"{self.parameters:,}", f"{self.macs:,}"


def described(
    module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], *, by_parts: bool = False
) -> Description:
    """The layers of ``module`` and how many of its parameters have gradients.

    Args:
        module: The module.
        args: The forward's arguments, on the meta device.
        named: Its keyword arguments.
        by_parts: Whether its lazy layers are described apart, each once for all that are alike.

    Raises:
        ValueError: If they cannot be described apart.
    """
    record = Record()
    lazy = [each for each in modules_of(module) if isinstance(each, LazyModule)] if by_parts else []
    skeleton = without_values(module, {each: Part(each, record) for each in lazy}).eval()
    try:
        with watching_builds(record.watch):
            run_on_shapes(skeleton, args, named, count_macs=functools.partial(record.begin, skeleton))
        return record.of(skeleton)
    finally:
        record.end()


class Record:
    """What the modules of a model return and compute, while its forward runs on shapes."""

    shapes: Shapes

    def __init__(self) -> None:
        self.running: list[tuple[nn.Module, int]] = []
        self.macs: dict[nn.Module, int] = {}
        self.output_shapes: dict[nn.Module, list[tuple[int, ...]]] = {}
        self.watched: set[nn.Module] = set()

    def begin(self, model: nn.Module, shapes: Shapes) -> None:
        """Note what counts multiply-adds, and watch ``model``."""
        self.shapes = shapes
        self.watch(model)  # only now: the run has looked whether there are hooks, which a user's code may be in

    def end(self) -> None:
        """Forget the modules: they and their hooks would hold each other until the next garbage collection."""
        for each in self.watched:
            each._forward_pre_hooks.clear()
            each._forward_hooks.clear()
        for kept in (self.watched, self.running, self.macs, self.output_shapes):
            kept.clear()

    def watch(self, model: nn.Module) -> None:
        for each in modules_of(model):
            if each not in self.watched:
                self.watched.add(each)
                each.register_forward_pre_hook(self.enter, prepend=True)
                each.register_forward_hook(self.leave)

    def enter(self, module: nn.Module, _: Any) -> None:
        self.running.append((module, self.shapes.macs))

    def leave(self, module: nn.Module, _: Any, output: Any) -> None:
        entered, before = self.running.pop()
        while entered is not module:  # a call that failed, and was caught
            entered, before = self.running.pop()
        self.macs[module] = self.macs.get(module, 0) + self.shapes.macs - before
        leaves = [output] if isinstance(output, Tensor) else tree_leaves(output)
        with torch._C.DisableTorchFunction():  # a mode is asked for every attribute of a tensor
            self.output_shapes[module] = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]

    def of(self, model: nn.Module) -> Description:
        """The layers of ``model``, and how many of its parameters have gradients."""
        held: dict[nn.Module, dict[int, Held]] = {}
        layers: list[LayerSummary] = []
        with torch._C.DisableTorchFunction():
            for name, each in model.named_modules():
                if isinstance(each, Part):
                    layers += [layer.below(name) for layer in each.layers]
                else:
                    size = sum(parameter.size for parameter in held_below(each, held).values())
                    shapes, macs = self.output_shapes.get(each, []), self.macs.get(each, 0)
                    layers.append(LayerSummary(name, type(each).__name__, shapes, size, macs))
            return layers, sum(parameter.trainable for parameter in held_below(model, held).values())


class Part(nn.Module):
    """Stands for a lazy layer in a model that is described by parts.

    Args:
        lazy: The layer.
        record: Of the model.

    Raises:
        ValueError: If it is not one of ours, with nothing asked of it but to draw its weights; or, when it is called,
            if it was called before.
    """

    def __init__(self, lazy: LazyModule, record: Record) -> None:
        super().__init__()
        pending = lazy._pending
        added = lazy._modules or lazy._buffers or len(lazy._parameters) > 1 or vars(lazy).keys() - LAZY_STATE
        ours = type(lazy).__module__.startswith("lazytorch.layers.") and pending.is_as_constructed()
        if added or not ours or pending.default_dtype is not torch.get_default_dtype():
            raise ValueError
        self.lazy = (lazy,)  # no part of this
        self.module_kwargs = alike(pending.module_kwargs)
        self.record = record
        self.description: Description | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.description is not None:
            raise ValueError
        call = call_key(type(self.lazy[0]), self.lazy[0]._pending.module_args, self.module_kwargs)
        question = Question((call, x.shape, x.dtype), functools.partial(self.describe, x))
        self.description = description_of(question)
        if question.is_open:
            self.record.shapes.macs += self.layers[0].macs
        (shape,) = self.layers[0].output_shapes
        return self.record.shapes.like(x, shape)  # pyright: ignore[reportArgumentType] - a fake, as all are here

    def describe(self, x: Tensor) -> Description:
        lazy = self.lazy[0]
        drawing = Drawing(META, constants=True, never=True)
        with plain_torch(), torch.random.fork_rng(devices=[]), META, putting_off(drawing):
            built = lazy.get_initialized_module((x,), lazy._pending.module_args, dict(self.module_kwargs)).eval()
        self.record.watch(built)
        built(x)
        return self.record.of(built)

    @property
    def layers(self) -> list[LayerSummary]:
        if self.description is None:  # it was not called
            raise ValueError
        return self.description[0]

    @property
    def trainable(self) -> int:
        return 0 if self.description is None else self.description[1]


def alike(module_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same for all layers that differ in nothing that is described: not in how often training leaves them out."""
    rate = module_kwargs.get("drop_path_rate")
    differs = type(rate) is float and 0 < rate < 1
    return module_kwargs | {"drop_path_rate": 0.5} if differs else module_kwargs


@functools.lru_cache(maxsize=512)
def description_of(layer: Question) -> Description:
    """What is known of a lazy layer with an input."""
    return layer.answer()


class Held(NamedTuple):
    """How many values one parameter has, or a part's together, and how many of them have gradients."""

    size: int
    trainable: int


def held_below(module: nn.Module, held: dict[nn.Module, dict[int, Held]]) -> dict[int, Held]:
    """What is in ``module`` and below it, each by its identity; ``held`` has it of every module that was asked for."""
    if module not in held:
        found = held[module] = {}
        for each in module._parameters.values():
            if each is not None:
                found[id(each)] = Held(each.numel(), each.numel() * each.requires_grad)
        if isinstance(module, Part):
            found[id(module)] = Held(module.layers[0].parameters, module.trainable)
        for part in module._modules.values():
            found.update({} if part is None else held_below(part, held))
    return held[module]


def without_values(module: nn.Module, parts: Mapping[LazyModule, nn.Module]) -> nn.Module:
    """A copy of ``module`` on the meta device, without copying what it holds, and with ``parts`` in place of others."""
    memo: dict[int, Any] = {id(lazy): part for lazy, part in parts.items()}
    for each in modules_of(module):
        # deepcopy takes what stands in its memo, which is many times faster than to find out what these are.
        hooks = (vars(each)[name] for name in HOOKS)
        memo.update({id(hook): type(hook)() for hook in hooks if not hook})
        if isinstance(each, LazyModule) and each not in parts:
            memo.update(each._pending.copied_as())
        for tensor in (*each._parameters.values(), *each._buffers.values()):
            if tensor is not None and type(tensor) is not PendingParameter:
                memo[id(tensor)] = on_meta(tensor)
    copied = copy.deepcopy(module, memo)
    for each in modules_of(copied):
        if isinstance(each, LazyModule):
            each._pending.device = META
        else:
            each._apply(lambda tensor: tensor.to(META), recurse=False)
    return copied


def on_meta(tensor: Tensor) -> Tensor:
    """A parameter or buffer like ``tensor`` without values; one of a lazy module of PyTorch's is as lazy."""
    if is_uninitialized(tensor):
        kind: Any = type(tensor)
        return kind(tensor.requires_grad, device=META, dtype=tensor.dtype)
    empty = torch.empty_like(tensor, device=META)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
