"""Drawing: initial weights are drawn once, when it is known which of them nothing overwrites, and side by side."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Drawing", "Scheme", "is_ours", "putting_off", "undrawn"]

# Their constructors end with reset_parameters(), which gives all of their weights values, and nothing else does.
RANDOM = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear}
CONSTANT = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
# What draws all of a tensor's values, and takes a ``generator``.
DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_}
# What overwrites all of them.
WRITES = {Tensor.fill_, Tensor.zero_, nn.init.constant_}
# What is called besides to draw weights that reads no values.
HARMLESS = {
    torch._C._set_grad_enabled,
    Tensor.dim,
    Tensor.is_contiguous,
    Tensor.numel,
    Tensor.size,
    *(getattr(Tensor, name).__get__ for name in ("device", "dtype", "ndim", "requires_grad", "shape")),
}
CHUNK = 1 << 18  # values that are drawn in one stream
WORTH_A_THREAD = 1 << 17  # values

_local = threading.local()


def undrawn(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``layer``; one of torch.nn, in the midst of a build that draws weights at its end, without drawing its own."""
    drawing = getattr(_local, "drawing", None)
    if drawing is None:
        return layer
    if isinstance(layer, functools.partial):
        return functools.partial(undrawn(layer.func), *layer.args, **layer.keywords)
    known = isinstance(layer, type) and layer in drawing.layers
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


@functools.cache
def without_reset(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})


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
        random_state: A state of the CPU's generator, from which weights on the CPU are drawn side by side, each part
            of them in a stream of its own. By default they are drawn in order, from the global generator, and from
            that the numbers that would have been drawn if nothing had been put off.
        constants: Whether to put off also what is not random, as it is overwritten as well, or never needed.
    """

    def __init__(self, random_state: Tensor | None = None, *, constants: bool) -> None:
        self.layers = RANDOM | CONSTANT if constants else RANDOM
        self.seeds = None
        if random_state is not None:
            source = torch.Generator()
            source.set_state(random_state)
            # Not that state itself, which the constructor draws from.
            seed = int(torch.randint(2**63 - 1, (), generator=source, device="cpu"))
            self.seeds = torch.Generator().manual_seed(seed)
        self.put_off: list[tuple[nn.Module, dict[str, Tensor]]] = []

    def construct(self, layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        """A ``layer``, its weights not drawn."""
        module = without_reset(layer)(*args, **kwargs)
        module.__class__ = layer
        self.put_off.append((module, tensors_of(module)))
        return module

    def finish(self, scheme: Callable[[], Any] = lambda: None) -> None:
        """Draw by ``scheme``, and then what was put off and is neither replaced nor written to."""
        if self.seeds is None:
            scheme()
            self.reset()
            return
        side_by_side = SideBySide(self.seeds, before_others=self.reset)
        with side_by_side:
            scheme()
        self.reset(side_by_side)
        side_by_side.draw()

    def reset(self, side_by_side: "SideBySide | None" = None) -> None:
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


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a layer of torch.nn itself holds."""
    return {
        name: tensor for name, tensor in (*module._parameters.items(), *module._buffers.items()) if tensor is not None
    }


def put_in(module: nn.Module, tensors: dict[str, Any]) -> None:
    """Have a layer of torch.nn hold ``tensors`` under their names."""
    for name, tensor in tensors.items():
        (module._parameters if name in module._parameters else module._buffers)[name] = tensor


@contextlib.contextmanager
def putting_off(drawing: Drawing | None) -> Iterator[None]:
    """Have ``drawing`` put off what ``undrawn`` constructs meanwhile; None for nothing, also within another's."""
    outer = getattr(_local, "drawing", None)
    _local.drawing = drawing
    try:
        yield
    finally:
        _local.drawing = outer


class Draw:
    """The drawing of a tensor's values, put off."""

    def __init__(self, tensor: Tensor, draw: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.tensor = tensor
        self.draw = draw
        self.args = args
        self.kwargs = kwargs

    def __call__(self, tensor: Tensor, generator: torch.Generator | None = None) -> None:
        self.draw(tensor, *self.args, **self.kwargs, generator=generator)

    def parts(self) -> Sequence[Tensor]:
        """The tensor in parts that may be drawn apart: one, where the distribution depends on the shape."""
        if self.draw is nn.init.kaiming_uniform_ or not self.tensor.is_contiguous():
            return [self.tensor]
        return self.tensor.detach().view(-1).split(CHUNK)


class SideBySide(TorchFunctionMode):
    """Puts off what is drawn until ``draw``, which draws all at once; what may read values finds them drawn.

    Args:
        seeds: Seeds the streams of weights on the CPU.
        before_others: Called with this before what may read values.
    """

    def __init__(self, seeds: torch.Generator, before_others: Callable[["SideBySide"], None]) -> None:
        super().__init__()
        self.seeds = seeds
        self.before_others = before_others
        self.draws: dict[int, Draw] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS and kwargs.get("generator") is None:
            tensor, *rest = args or (kwargs["tensor"],)
            self.draws.pop(id(tensor), None)
            if not tensor.is_meta:
                named = {name: value for name, value in kwargs.items() if name not in ("tensor", "generator")}
                self.draws[id(tensor)] = Draw(tensor, func, rest, named)
            return tensor
        if func in WRITES:
            self.draws.pop(id(args[0] if args else kwargs["tensor"]), None)
        elif func not in HARMLESS:
            self.before_others(self)
            self.draw()
        return func(*args, **kwargs)

    def draw(self) -> None:
        """Draw what was put off."""
        draws, self.draws = list(self.draws.values()), {}
        on_cpu = [draw for draw in draws if draw.tensor.device.type == "cpu"]
        worth_threads = sum(draw.tensor.numel() for draw in on_cpu) > WORTH_A_THREAD
        with torch.no_grad():
            for draw in draws:
                if draw.tensor.device.type != "cpu":
                    draw(draw.tensor)
                elif not worth_threads:
                    draw(draw.tensor, self.seeds)
        if worth_threads:
            parts = [(draw, part) for draw in on_cpu for part in draw.parts()]
            seeds: list[int] = torch.randint(2**63 - 1, (len(parts),), generator=self.seeds, device="cpu").tolist()
            side_by_side(
                [
                    functools.partial(draw, part, torch.Generator().manual_seed(seed))
                    for (draw, part), seed in zip(parts, seeds, strict=True)
                ]
            )


def side_by_side(jobs: list[Callable[[], None]]) -> None:
    """Call every one of ``jobs``, as many at a time as PyTorch has threads, without gradients."""

    @torch.no_grad()  # which no thread inherits
    def work() -> None:
        while jobs:
            try:
                job = jobs.pop()
            except IndexError:  # another thread was faster
                return
            job()

    others = min(torch.get_num_threads(), len(jobs)) - 1
    if others < 1:
        work()
        return
    with ThreadPoolExecutor(others) as pool:
        at_work = [pool.submit(work) for _ in range(others)]
        work()
    for each in at_work:
        each.result()
