"""Initialize parameters once: skip PyTorch's default initialization, and run init functions at the end.

The layers of lazytorch construct layers of torch.nn through ``skip_init``, which leaves their parameters uninitialized
while a lazy module is built. Afterwards, each parameter that no deferred load replaces is initialized, with its own
random generator.
"""

import contextlib
import functools
import itertools
import math
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

# Layers whose initialization can be skipped: they are initialized by reset_parameters() only, and ``default_fills``
# computes the same values.
RESETS: dict[Any, Any] = {
    layer: (layer.__init__, layer.reset_parameters) for layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
}
# Layers whose initialization is skipped only if the values of their parameters are not used.
NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
# Python modules of torch.nn whose classes draw no random numbers in their constructors.
modules = nn.modules
WITHOUT_RANDOM = (
    *(modules.activation, modules.batchnorm, modules.channelshuffle, modules.container, modules.dropout),
    *(modules.flatten, modules.fold, modules.instancenorm, modules.normalization, modules.padding),
    *(modules.pixelshuffle, modules.pooling, modules.upsampling),
)
# Known code: classes and functions that draw random numbers only through ``skip_init``, and whose forward does not read
# the values of tensors.
known: set[Any] = {round, nn.Identity, *RESETS, *(vars(each)[name] for each in WITHOUT_RANDOM for name in each.__all__)}
known -= {
    nn.MultiheadAttention,
    nn.Module,
    *(each for each in known if each is not round and issubclass(each, LazyModuleMixin)),
}
PIECE = 1 << 17  # the number of values that one generator fills: they fit in the cache of a CPU core

_local = threading.local()


class Normal(NamedTuple):
    """Fill a tensor with values from a normal distribution."""

    std: float
    mean: float = 0.0

    def __call__(self, tensor: Tensor, generator: torch.Generator | None = None) -> None:
        tensor.normal_(self.mean, self.std, generator=generator)


class Uniform(NamedTuple):
    """Fill a tensor with values from a uniform distribution from ``-bound`` to ``bound``."""

    bound: float

    def __call__(self, tensor: Tensor, generator: torch.Generator | None = None) -> None:
        tensor.uniform_(-self.bound, self.bound, generator=generator)


class Constant(NamedTuple):
    """Fill a tensor with one value."""

    value: float

    def __call__(self, tensor: Tensor, generator: torch.Generator | None = None) -> None:
        tensor.fill_(self.value)


F = TypeVar("F", bound=Callable[..., Any])
Fill = Normal | Uniform | Constant
Piece = tuple[Tensor, Fill, int]


class InitFunction:
    """Initializes the parameters of a network; pass it to ``Module.apply``.

    It must not read values of parameters, because they are not initialized before.

    Args:
        function: Called with a module; returns the values of parameters by their names within the module.
        options: Keyword arguments of ``function``.
    """

    def __init__(self, function: Callable[..., Mapping[str, Fill]], **options: Any) -> None:
        self.function = function
        self.options = options

    def __repr__(self) -> str:
        options = [f"{name}={getattr(value, '__name__', value)}" for name, value in self.options.items()]
        return f"InitFunction({', '.join([self.function.__name__, *options])})"

    def __call__(self, module: nn.Module) -> None:
        fills = self.of([("", module)])
        if fills:
            Initialization(fills, draw_seed())()

    def of(self, modules: Sequence[tuple[str, nn.Module]]) -> dict[str, tuple[Tensor, Fill]]:
        """The parameters that it initializes, by name; the values of an outer module override those of an inner one."""
        fills: dict[str, tuple[Tensor, Fill]] = {}
        for name, module in reversed(modules):
            for key, each in self.function(module, **self.options).items():
                tensor = functools.reduce(getattr, key.split("."), module)
                fills[f"{name}.{key}" if name else key] = tensor, each  # pyright: ignore[reportArgumentType]
        return fills


def known_code(code: F) -> F:
    """Decorator that adds a class or a function to ``known``."""
    known.add(code)
    return code


def is_known(value: Any) -> bool:
    """Whether ``value``, and everything in it, runs only code of torch.nn and lazytorch.layers if it is called."""
    if isinstance(value, functools.partial):
        value = (value.func, value.args, value.keywords)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return all(map(is_known, value))
    try:
        return not callable(value) or value in known
    except TypeError:  # it has no hash
        return False


def is_unchanged() -> bool:
    """Whether no constructor and no ``reset_parameters`` of the layers in ``RESETS`` was replaced."""
    return all((layer.__init__, layer.reset_parameters) == methods for layer, methods in RESETS.items())


def skip_init(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``layer``; within ``skipping_init``, and if ``layer`` is in ``RESETS``, without its default initialization."""
    if getattr(_local, "skipped", None) is None or not (layer in RESETS or (_local.shapes_only and layer in NORMS)):
        return layer
    return functools.partial(construct_uninitialized, layer)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def thread_local(values: threading.local, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of ``values``, for this thread and this block."""
    outer = getattr(values, name, None)
    setattr(values, name, value)
    try:
        yield
    finally:
        setattr(values, name, outer)


@contextlib.contextmanager
def skipping_init(*, shapes_only: bool = False) -> Iterator[list[nn.Module]]:
    """Skip initialization in this block; yields the list of the layers that are left uninitialized.

    Args:
        shapes_only: Whether only the shapes of the parameters are used, not their values.
    """
    skipped: list[nn.Module] = []
    with thread_local(_local, "skipped", skipped), thread_local(_local, "shapes_only", shapes_only):
        yield skipped


def construct_uninitialized(layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    module = without_reset(layer, _local.shapes_only)(*args, **kwargs)
    object.__setattr__(module, "__class__", layer)  # nn.Module's own is slow
    _local.skipped.append(module)
    return module


@functools.cache
def without_reset(layer: type[nn.Module], shapes_only: bool) -> type[nn.Module]:
    methods: dict[str, Any] = {"reset_parameters": lambda self: None}
    return type(layer.__name__, (layer,), methods | {"__setattr__": set_attribute} if shapes_only else methods)


def set_attribute(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute as ``nn.Module`` does, but numbers and strings as ``object`` does, which is faster."""
    is_state = value is None or isinstance(value, (Tensor, nn.Module))
    set_value: Callable[..., None] = nn.Module.__setattr__ if is_state else object.__setattr__
    set_value(module, name, value)


def default_fills(layer: nn.Module) -> dict[str, Fill]:
    """PyTorch's default initial values of a convolution or a linear layer: Kaiming uniform with a = sqrt(5)."""
    fan_in = layer.weight[0].numel()  # pyright: ignore[reportIndexIssue]
    bound = Uniform(1 / math.sqrt(fan_in) if fan_in else 0.0)
    return {"weight": bound} if layer.bias is None else {"weight": bound, "bias": bound}


def draw_seed() -> int:
    """A seed from ``seeds_from`` or the global generator, of 32 bits: PyTorch's CPU generator uses no more."""
    seeds = getattr(_local, "seeds", None)
    return int(torch.randint(1 << 32, (), device="cpu")) if seeds is None else next(seeds)


def seeds_from(seed: int) -> AbstractContextManager[None]:
    """Derive the seeds of lazy modules that are constructed in this block from ``seed``."""
    return thread_local(_local, "seeds", (mix(seed, f"part {index}") for index in itertools.count()))


def mix(seed: int, key: str) -> int:
    """Derive the seed of the random stream ``key`` from ``seed``."""
    return (seed + 0x9E3779B1 * zlib.crc32(key.encode())) % (1 << 32)


class Initialization:
    """Initializes the parameters of a module that was just built, once, when it is called.

    Args:
        fills: The parameters by name, with the functions that fill them.
        seed: The seed of the values.
    """

    def __init__(self, fills: Mapping[str, tuple[Tensor, Fill]], seed: int) -> None:
        self.fills = fills
        self.seed = seed
        self.lock = threading.Lock()

    def __call__(self) -> None:
        initialize([self])

    def pieces(self, except_for: Collection[int]) -> Iterator[Piece]:
        """The tensors to fill, each with its own seed; large parameters are split into pieces."""
        for name, (tensor, each) in self.fills.items():
            if tensor.is_meta or id(tensor) in except_for:
                continue
            stream, flat = mix(self.seed, name), tensor.detach()
            if tensor.device.type != "cpu" or tensor.numel() <= PIECE or not tensor.is_contiguous():
                yield flat, each, stream
                continue
            for index, piece in enumerate(flat.view(-1).split(PIECE)):
                yield piece, each, mix(stream, str(index))


def initialize(those: Iterable[Initialization], except_for: Collection[int] = ()) -> None:
    """Compute initial values, in several threads if there are many values.

    Args:
        those: The initializations to run; one that has run before does nothing.
        except_for: The ids of parameters to leave out.
    """
    with contextlib.ExitStack() as stack:
        pieces: list[Piece] = []
        for each in those:
            stack.enter_context(each.lock)  # another thread that needs these values waits here
            pieces += each.pieces(except_for)
            each.fills = {}
        others = min(torch.get_num_threads(), sum(piece.numel() for piece, _, _ in pieces) // PIECE) - 1
        if others < 1:
            fill(pieces)
            return
        with ThreadPoolExecutor(others) as pool:
            running = [pool.submit(fill, pieces) for _ in range(others)]
            fill(pieces)
        for thread in running:
            thread.result()


def fill(pieces: list[Piece]) -> None:
    """Fill pieces from the list until it is empty."""
    with torch.no_grad():  # threads do not inherit no_grad
        while pieces:
            try:
                tensor, each, seed = pieces.pop()
            except IndexError:  # another thread took it
                return
            generator = None if type(each) is Constant else torch.Generator(tensor.device).manual_seed(seed)
            each(tensor, generator)


def postponing(postponed: list[Initialization] | None) -> AbstractContextManager[None]:
    """Add initializations in this block to ``postponed`` instead of running them; None: run them at once."""
    return thread_local(_local, "postponed", postponed)


def postpone(later: Initialization) -> bool:
    """Add ``later`` to the list of ``postponing``, if this thread is in such a block."""
    postponed = getattr(_local, "postponed", None)
    if postponed is not None:
        postponed.append(later)
    return postponed is not None


def initialize_postponed() -> None:
    """Run the postponed initializations, because the values may now be read."""
    postponed = getattr(_local, "postponed", None)
    if postponed:
        initialize(postponed)
        postponed.clear()
