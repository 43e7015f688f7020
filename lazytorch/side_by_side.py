"""Weights are drawn side by side: by all threads at once, and where nothing reads them yet, while more is built."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazytorch.thread_local import setting

__all__ = [
    "Batch",
    "SideBySide",
    "draw_meanwhile",
    "draw_now",
    "drawing_meanwhile",
]

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
BATCH = 1 << 18  # values at most that are drawn in one stream
WORTH_A_THREAD = 1 << 16  # values; for fewer, threads take longer to meet than to draw

_local = threading.local()


class Draw:
    """The drawing of a tensor's values, put off."""

    def __init__(self, tensor: Tensor, draw: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.tensor = tensor
        self.draw = Tensor.normal_ if draw is nn.init.normal_ else draw  # the same, in one call
        self.args = args
        self.kwargs = kwargs

    def __call__(self, tensor: Tensor, generator: torch.Generator | None = None) -> None:
        self.draw(tensor, *self.args, **self.kwargs, generator=generator)

    def parts(self) -> Sequence[Tensor]:
        """The tensor in parts that may be drawn apart: one, where the distribution depends on the shape."""
        if self.tensor.numel() <= BATCH or self.draw is nn.init.kaiming_uniform_ or not self.tensor.is_contiguous():
            return [self.tensor]
        return self.tensor.detach().view(-1).split(BATCH)


class Batch:
    """What is drawn in one random stream: once, by the thread that comes first; others wait for it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.lock = threading.Lock()
        self.draws: list[tuple[Draw, Tensor]] = []
        self.size = 0

    def add(self, draw: Draw, part: Tensor) -> None:
        self.draws.append((draw, part))
        self.size += part.numel()

    def __call__(self) -> None:
        with self.lock:
            if self.draws:
                generator = torch.Generator().manual_seed(self.seed)
                with torch.no_grad():  # which no thread inherits
                    for draw, part in self.draws:
                        draw(part, generator)
                self.draws = []


class SideBySide(TorchFunctionMode):
    """Puts off what is drawn until it is asked for in batches; what may read values finds them drawn.

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
            draw_now(self.batches())
        return func(*args, **kwargs)

    def batches(self) -> list[Batch]:
        """What was put off on the CPU, to be drawn; what is elsewhere is drawn at once, by its device."""
        draws, self.draws = list(self.draws.values()), {}
        batches: list[Batch] = []
        for draw in draws:
            if draw.tensor.device.type != "cpu":
                with torch.no_grad():
                    draw(draw.tensor)
                continue
            for part in draw.parts():
                if not batches or batches[-1].size + part.numel() > BATCH:
                    batches.append(Batch(int(torch.randint(2**63 - 1, (), generator=self.seeds, device="cpu"))))
                batches[-1].add(draw, part)
        return batches


def draw_now(jobs: Sequence[Callable[[], None]]) -> None:
    """Do all ``jobs``, as many at a time as PyTorch has threads."""
    left = list(jobs)

    def work() -> None:
        while left:
            try:
                job = left.pop()
            except IndexError:  # another thread was faster
                return
            job()

    others = min(torch.get_num_threads(), len(left)) - 1
    if others < 1:
        work()
        return
    with ThreadPoolExecutor(others) as pool:
        at_work = [pool.submit(work) for _ in range(others)]
        work()
    for each in at_work:
        each.result()


class Meanwhile:
    """Threads that draw while another one builds.

    Args:
        pool: The threads.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.batches: list[Batch] = []
        self.at_end: list[Callable[[], None]] = []


def draw_meanwhile(batches: Sequence[Batch], at_end: Callable[[], None]) -> bool:
    """Have ``batches`` drawn by other threads, and then ``at_end`` called; False if no threads draw now."""
    meanwhile: Meanwhile | None = getattr(_local, "meanwhile", None)
    if meanwhile is None:
        return False
    for batch in batches:
        if batch.size >= WORTH_A_THREAD:
            meanwhile.pool.submit(batch)
    meanwhile.batches += batches
    meanwhile.at_end.append(at_end)
    return True


@contextlib.contextmanager
def drawing_meanwhile() -> Iterator[None]:
    """Have what ``draw_meanwhile`` is given done by the time this ends; nothing called until then may read values."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        meanwhile = Meanwhile(pool)
        try:
            with setting(_local, "meanwhile", meanwhile):
                yield
            for batch in reversed(meanwhile.batches):  # from the other end than those threads
                batch()
        finally:
            pool.shutdown(cancel_futures=True)
            for call in meanwhile.at_end:
                call()
