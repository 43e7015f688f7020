"""Deferred: a lazy module's constructor arguments, and the calls to repeat on the module that it builds."""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lazytorch import _torch
from lazytorch._init.initialize import (
    Fill,
    InitFunction,
    Initialization,
    default_fills,
    initialize_postponed,
    postpone,
    seeds_from,
    skipping_init,
)
from lazytorch._lazy.scopes import fork_rng, outside_modes

META = torch.device("meta")
Call = tuple[str, tuple[Any, ...]]


@dataclasses.dataclass(eq=False)
class Deferred:
    """The state of a lazy module until it is built. It can be copied and pickled, as the module can.

    Attributes:
        owner: The name of the lazy class, for messages.
        module_args: The constructor's positional arguments.
        module_kwargs: The constructor's keyword arguments.
        device: The device of the parameters after the deferred calls; at first ``constructed_on``.
        dtype: The dtype of the parameters after the deferred calls; at first ``constructed_as``.
        seed: The seed of the initial values.
        calls: The names and arguments of methods to call, in order, on the built module.
        prepended: The ids of hooks that were registered with ``prepend=True``.
        compile: The arguments of ``compile``, if it was called.
        given: The attributes that the lazy module had when it was constructed.
        lock: Held by the thread that builds the module.
        constructed_on: The device on which to construct.
        constructed_as: The default dtype with which to construct.
    """

    owner: str
    module_args: tuple[Any, ...]
    module_kwargs: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    seed: int
    calls: list[Call] = dataclasses.field(default_factory=list)
    prepended: set[int] = dataclasses.field(default_factory=set)
    compile: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    lock: Any = dataclasses.field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.constructed_on, self.constructed_as = self.device, self.dtype

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"lock": None, "given": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock())

    def log(self, method: str, *args: Any) -> None:
        """Defer a call. Of consecutive calls of ``train``, or of ``requires_grad_``, only the last one is kept."""
        if self.calls and method == self.calls[-1][0] and method in ("train", "requires_grad_"):
            self.calls.pop()
        self.calls.append((method, args))

    def log_conversion(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Defer ``Module._apply``, which ``to``, ``half``, ``to_empty`` and others call."""
        with outside_modes():
            converted = convert(torch.empty(1, dtype=self.dtype, device=self.device))
        self.log("_apply", Conversion(convert))
        self.device, self.dtype = converted.device, converted.dtype

    def log_load(self, state: "DeferredLoad") -> None:
        """Defer a load. It replaces earlier loads, except those before an ``apply``, whose function may read values."""
        read = max((index for index, (method, _) in enumerate(self.calls) if method == "apply"), default=-1)
        self.calls = [call for index, call in enumerate(self.calls) if call[0] != "load" or index < read]
        self.log("load", state)
        if state.assign:
            values = [each for each in state.entries.values() if isinstance(each, Tensor)]
            floating = next((each for each in values if each.is_floating_point()), None)
            if floating is not None:
                self.device, self.dtype = floating.device, floating.dtype

    def loaded_last(self) -> "DeferredLoad | None":
        """The last deferred load, if no later call changes values."""
        changing = [call for call in self.calls if call[0] not in ("train", "requires_grad_")]
        return changing[-1][1][0] if changing and changing[-1][0] == "load" else None

    @property
    def requires_grad(self) -> bool:
        """Whether the parameters will require gradients; True unless it was set."""
        flags = [args[0] for method, args in self.calls if method == "requires_grad_"]
        return flags[-1] if flags else True

    @property
    def runs_known_code(self) -> bool:
        """Whether no function of the user's is called with the built module."""
        return all(method != "apply" or isinstance(args[0], InitFunction) for method, args in self.calls)

    @contextlib.contextmanager
    def construction(self, is_known: bool) -> Iterator[list[nn.Module]]:
        """Construct in this block; yields the list of the layers that ``finish`` must initialize.

        Args:
            is_known: Whether only code of lazytorch and torch.nn runs. Other code runs in a fork of the global random
                state and initializes the modules that it constructs.
        """
        device = self.constructed_on
        if self.device.type == "meta" and self.runs_known_code and all(method != "load" for method, _ in self.calls):
            device = self.device
        with contextlib.ExitStack() as stack:
            stack.enter_context(seeds_from(self.seed))
            if is_known and device.type == "cpu":
                stack.enter_context(_torch.disable_torch_function())
            elif torch.empty(0).device != device:
                stack.enter_context(device)
            if is_known:
                yield stack.enter_context(skipping_init())
            else:
                initialize_postponed()
                stack.enter_context(fork_rng(self.seed, device))
                yield []

    def finish(self, built: nn.Module, skipped: list[nn.Module]) -> Initialization | None:
        """Initialize ``built`` and repeat the deferred calls in order; return the initialization if it is postponed."""
        default = torch.get_default_dtype()
        if default is not self.constructed_as and self.module_kwargs.get("dtype") is None:
            built._apply(lambda tensor: tensor.to(self.constructed_as) if tensor.dtype is default else tensor)
        fills: dict[str, tuple[Tensor, Fill]] = {}
        modules = list(built.named_modules()) if skipped or self.calls else []
        names = {module: f"{name}." if name else "" for name, module in modules}
        for index, layer in enumerate(skipped):
            prefix = names.get(layer, f"{index}.")
            fills.update((prefix + key, (getattr(layer, key), each)) for key, each in default_fills(layer).items())
        methods = [method for method, args in self.calls if not args or not isinstance(args[0], InitFunction)]
        loaded: set[str] = set()
        if "load" in methods and "apply" not in methods[: methods.index("load")]:
            loaded.update(name for method, args in self.calls if method == "load" for name in args[0].entries)
        for method, args in self.calls:
            if args and isinstance(args[0], InitFunction):
                fills |= args[0].of([pair for pair in modules if "_deferred" not in vars(pair[1])])
                for module in (module for _, module in modules if "_deferred" in vars(module)):
                    module.apply(args[0])  # a lazy module defers the call
                continue
            if fills and method not in ("train", "requires_grad_"):
                Initialization({name: each for name, each in fills.items() if name not in loaded}, self.seed)()
                fills = {}
            args[0].into(built) if method == "load" else getattr(built, method)(*args)
        later = Initialization(fills, self.seed)
        if not fills or postpone(later):
            return later
        later()
        return None


class DeferredLoad(NamedTuple):
    """Entries to load into the built module, which must have all of them and no others.

    Attributes:
        entries: The values by their names in the built module.
        assign: As in ``Module.load_state_dict``: whether the entries themselves become the parameters.
        fit: Called with the built module and ``entries``; returns the entries with shapes that fit the module.
        complete: Whether it is known that these are all entries of the module.
    """

    entries: dict[str, Any]
    assign: bool
    fit: Callable[[nn.Module, dict[str, Any]], dict[str, Any]] | None = None
    complete: bool = False

    def into(self, built: nn.Module) -> None:
        entries = self.entries if self.fit is None else self.fit(built, self.entries)
        try:
            built.load_state_dict(entries, assign=self.assign)
        except RuntimeError as error:
            error.add_note("To load a part of the entries, call lazytorch.materialize before load_state_dict.")
            raise


class Conversion(functools.partial[Tensor]):
    """The function of a deferred ``Module._apply``.

    ``to`` and ``half`` pass closures, which cannot be pickled. So the function is called with a few example tensors,
    and the pickle contains how it changed them.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "Conversion":
        return self

    def __reduce__(self) -> Any:
        with outside_modes():
            dtypes = {self(torch.empty(1, dtype=each)).dtype for each in (torch.float32, torch.bfloat16)}
            counter = self(torch.empty(1, dtype=torch.int64, device="cpu"))
            formats = {dims: memory_format_of(self, dims) for dims in (4, 5)}
            try:
                from_meta = self(torch.empty(1, device=META)).device
            except NotImplementedError:  # it moves values to the CPU, and a meta tensor has none
                from_meta = None
            except RuntimeError:  # such as share_memory_, which does not move them
                from_meta = META
        moves = counter.device.type != "cpu" or from_meta != META
        options = {
            "device": counter.device if moves else None,
            "is_empty": from_meta not in (None, META),
            "floating": dtypes.pop() if len(dtypes) == 1 else None,
            "integer": counter.dtype,
            "formats": formats,
            "is_shared": counter.device.type == "cpu" and counter.is_shared(),
        }
        return functools.partial(convert_as, **options).__reduce__()


def memory_format_of(convert: Callable[[Tensor], Tensor], dims: int) -> str:
    """The name of the memory format to which ``convert`` changes tensors of ``dims`` dimensions."""
    formats = ("contiguous_format", "channels_last" if dims == 4 else "channels_last_3d")
    try:
        converted = [convert(torch.empty((2,) * dims, memory_format=getattr(torch, each))) for each in formats]
    except RuntimeError:  # the format is for tensors with another number of dimensions
        return "preserve_format"
    for each in formats:
        if all(result.is_contiguous(memory_format=getattr(torch, each)) for result in converted):
            return each
    return "preserve_format"


def convert_as(
    tensor: Tensor,
    *,
    device: torch.device | None,
    is_empty: bool,
    floating: torch.dtype | None,
    integer: torch.dtype,
    formats: dict[int, str],
    is_shared: bool,
) -> Tensor:
    if is_empty:
        return torch.empty_like(tensor, device=device)
    dtype = tensor.dtype if integer is torch.int64 else integer
    if floating is not None and (tensor.is_floating_point() or tensor.is_complex()):
        dtype = floating
    memory_format = getattr(torch, formats.get(tensor.dim(), "preserve_format"))
    result = tensor.to(device=device or tensor.device, dtype=dtype, memory_format=memory_format)
    return result.share_memory_() if is_shared else result


def device_and_dtype_of_parameters() -> tuple[torch.device, torch.dtype]:
    """The device and dtype of a parameter that is constructed now, as modes, defaults and hooks determine them."""
    module = nn.Module()
    module.register_parameter("parameter", nn.Parameter(torch.empty(0)))
    parameter = next(module.parameters())
    return parameter.device, parameter.dtype
