"""Drawing: initial weights are drawn once, when it is known which of them nothing overwrites."""

import contextlib
import functools
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lazytorch.recipes import CONSTANT, LAYERS, RANDOM, Question, Recipe, call_key, is_watched, without_values
from lazytorch.side_by_side import Batch, SideBySide, draw_now
from lazytorch.thread_local import setting
from lazytorch.tree import modules_of

__all__ = ["Drawing", "Scheme", "is_ours", "is_overwritten", "is_untouched", "overwriting", "putting_off", "undrawn"]

_local = threading.local()


def undrawn(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``layer``; in the midst of a build that draws weights at its end, one that does not draw its own."""
    drawing = getattr(_local, "drawing", None)
    if drawing is None:
        return layer
    if isinstance(layer, functools.partial):
        return functools.partial(undrawn(layer.func), *layer.args, **layer.keywords)
    known = isinstance(layer, type) and (layer in LAYERS or layer.__module__.startswith("lazytorch.layers."))
    return functools.partial(drawing.construct, layer) if known else layer


def is_ours(value: Any) -> bool:
    """Whether no code but lazytorch's and torch's runs when ``value`` is called, or what is in it.

    Weights are put off only where nothing else could see that they have no values yet.
    """
    if isinstance(value, functools.partial):
        return all(map(is_ours, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, (tuple, list)):
        return all(map(is_ours, value))
    return not callable(value) or str(getattr(value, "__module__", "")).startswith(("lazytorch.", "torch."))


def is_untouched(model: nn.Module) -> bool:
    """Whether no code but lazytorch's and torch.nn's runs when ``model`` is built and called."""
    modules = modules_of(model)
    packages = {kind.__module__ for kind in set(map(type, modules))}
    ours = all(package.startswith(("lazytorch.", "torch.nn.modules.")) for package in packages)
    return ours and not any(map(is_hooked, modules))


def is_hooked(module: nn.Module) -> bool:
    state = vars(module)
    pending = state.get("_pending")
    return bool(
        len(state["_forward_pre_hooks"]) > (pending is not None)
        or state["_forward_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or module._compiled_call_impl is not None
        or any(callable(value) and not is_ours(value) for value in state.values())
        or not (pending is None or pending.runs_ours_alone)
    )


class Scheme:
    """A network of the zoo's way to draw its initial weights; what it overwrites need not have been drawn before.

    Args:
        initialize: Called with every module; reads no values, and overwrites whole parameters.
    """

    def __init__(self, initialize: Callable[[nn.Module], None]) -> None:
        self.initialize = initialize

    def __call__(self, module: nn.Module) -> None:
        self.initialize(module)


class Drawing:
    """What is still to be drawn of a module that is being built.

    Args:
        device: Where it is built.
        random_state: A state of the CPU's generator, from which weights on the CPU are drawn side by side, each part
            of them in a stream of its own. By default they are drawn in order, from the global generator, and from
            that the numbers that would have been drawn if nothing had been put off.
        constants: Whether to put off also what is not random, as it is overwritten as well, or never needed.
        never: Whether to draw nothing at all.
    """

    def __init__(
        self, device: torch.device, random_state: Tensor | None = None, *, constants: bool, never: bool = False
    ) -> None:
        self.device = device
        self.constants = constants
        self.never = never
        self.seeds = None
        if random_state is not None:
            self.seeds = torch.Generator()
            self.seeds.set_state(random_state)
        self.put_off: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self.batches: list[Batch] = []

    def construct(self, layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        """A ``layer`` of torch.nn or ours, its weights not drawn."""
        made: list[nn.Module] = []

        def make() -> nn.Module:
            module = without_values(layer, *args, **kwargs) if self.puts_off(layer) else layer(*args, **kwargs)
            self.note(module)
            made.append(module)
            return module

        if "device" in kwargs or is_watched():
            return make()
        try:
            question = Question(call_key(layer, args, kwargs), make)
        except TypeError:
            return make()
        recipe = recipe_of(question)
        if made:
            return made[0]
        if recipe is None or not recipe.is_current:
            return make()
        return recipe.make(self.device, not self.constants, self.note)

    def puts_off(self, layer: type[nn.Module]) -> bool:
        return layer in RANDOM or (self.constants and layer in CONSTANT)

    def note(self, module: nn.Module) -> None:
        """Note a layer of torch.nn that was just made, if its weights are to be drawn later."""
        if self.puts_off(type(module)):
            self.put_off.append((module, tensors_of(module)))

    def finish(self, scheme: Callable[[], Any] | None = None) -> None:
        """Draw by ``scheme``, then what was put off and is neither replaced nor written to; ``draw`` does the rest."""
        if self.never:
            self.put_off = []
            return
        if scheme is not None:
            self.draw()  # what is left to it would come after this one
        if self.seeds is None:
            if scheme is not None:
                scheme()
            self.reset()
        elif scheme is not None or self.put_off:
            side_by_side = SideBySide(self.seeds, before_others=self.reset)
            if scheme is not None:
                with side_by_side:
                    scheme()
            self.reset(side_by_side)
            self.batches += side_by_side.batches()

    def draw(self) -> None:
        """Draw what ``finish`` left to be drawn."""
        draw_now(self.batches)
        self.batches = []

    def reset(self, side_by_side: SideBySide | None = None) -> None:
        """Draw what was put off and is neither replaced nor written to, nor drawn ``side_by_side`` in any case."""
        put_off, self.put_off = self.put_off, []
        drawn = {} if side_by_side is None else side_by_side.draws
        missing = [
            {
                name
                for name, tensor in tensors_of(module).items()
                if tensor is made.get(name) and tensor._version == 0 and id(tensor) not in drawn and not tensor.is_meta
            }
            for module, made in put_off
        ]
        # In order, what is missing gets its own numbers only after those that others would have got.
        all_in_order = self.seeds is None and any(missing)
        for (module, _), names in zip(put_off, missing, strict=True):
            if names or all_in_order:
                kept = {name: tensor for name, tensor in tensors_of(module).items() if name not in names}
                put_in(module, {name: self.scratch(tensor) for name, tensor in kept.items()})
                with side_by_side or contextlib.nullcontext():
                    module.reset_parameters()  # pyright: ignore[reportCallIssue]
                put_in(module, kept)

    def scratch(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=tensor.device if self.seeds is None else "meta")


@functools.lru_cache(maxsize=512)
def recipe_of(made: Question) -> Recipe | None:
    """How to make the module that is the answer; None if it can only be made as it was."""
    module = made.answer()
    try:
        return Recipe(module)
    except ValueError:
        return None


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a layer of torch.nn itself holds."""
    return {
        name: tensor for name, tensor in (*module._parameters.items(), *module._buffers.items()) if tensor is not None
    }


def put_in(module: nn.Module, tensors: dict[str, Any]) -> None:
    """Have a layer of torch.nn hold ``tensors`` under their names."""
    for name, tensor in tensors.items():
        (module._parameters if name in module._parameters else module._buffers)[name] = tensor


def overwriting(kept: Collection[object] = ()) -> AbstractContextManager[None]:
    """Have nothing drawn of what is built meanwhile, as it will be overwritten; but for what ``kept`` stands for."""
    return setting(_local, "kept", kept)


def is_overwritten(key: object) -> bool:
    """Whether what ``key`` stands for is built in the midst of ``overwriting``."""
    kept = getattr(_local, "kept", None)
    return kept is not None and not any(each is key for each in kept)


def putting_off(drawing: Drawing | None) -> AbstractContextManager[None]:
    """Have ``drawing`` put off what ``undrawn`` constructs meanwhile; None for nothing, also within another's."""
    return setting(_local, "drawing", drawing)
