"""What a lazy module holds until it is built: its constructor's arguments, and everything asked of it since."""

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import peek_interpreter_stack
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._ops import _len_torch_dispatch_stack_pre_dispatch
from torch.utils._python_dispatch import _disable_current_modes

from lazytorch.callers import frame_of
from lazytorch.drawing import Drawing, Scheme, is_ours, is_overwritten, putting_off
from lazytorch.shapes import with_arithmetic

__all__ = ["Pending", "not_yet", "plain_torch"]

LOAD_STATE_DICT = nn.Module.load_state_dict  # as PyTorch has it: who puts another in its place calls it


def not_yet(owner: str, lacks: str, before: str) -> str:
    """The message of an error: what a lazy module lacks, why, and what to do before what was tried."""
    built = "they are" if lacks.endswith("s") else "it is"
    return (
        f"{owner} has no {lacks} yet: {built} built from its first input. "
        f"Call lazytorch.materialize(model, (1, 3, 224, 224)) before {before}."
    )


class Pending:
    """The constructor's arguments of a lazy module, where and how to build, and what to do to what is built.

    Plain data, so that a lazy module copies and pickles as any other.
    """

    def __init__(self, owner: type[nn.Module], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]) -> None:
        self.owner = owner.__name__
        self.is_ours = is_ours(owner)
        self.module_args = module_args
        self.module_kwargs = module_kwargs
        here = torch.empty(0)
        self.device = here.device
        self.default_dtype = here.dtype
        self.random_state = branch_random_state()
        self.deeds: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.prepended: set[int] = set()
        self.compile: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that parameters will have, as far as it was asked for."""
        dtype = self.default_dtype
        for method, args, kwargs in self.deeds:
            dtype = args[0] if method == "type" else kwargs.get("dtype", dtype)
        return dtype

    def copied_as(self) -> dict[int, Any]:
        """What ``copy.deepcopy`` is to take, by identity, for what a copy without values may share or need not hold."""
        loaded = (self.loaded() or {}).values()
        given = (*self.module_args, *self.module_kwargs.values())
        return {
            id(self.random_state): self.random_state,
            **{id(each): each for each in given if isinstance(each, functools.partial)},
            **{id(each): torch.empty_like(each, device="meta") for each in loaded if isinstance(each, Tensor)},
        }

    def log(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Note a method to call, in order, on what is built. A second of the same kind in a row replaces the first."""
        if method in ("train", "requires_grad_") and self.deeds and self.deeds[-1][0] == method:
            self.deeds.pop()
        self.deeds.append((method, args, kwargs))

    def log_conversion(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Note what ``nn.Module._apply`` was given, which cannot be pickled, by what it does to two small tensors."""
        with plain_torch():
            try:
                plain, strided = (convert(probe) for probe in self.probes(4))
            except RuntimeError:  # channels_last_3d takes no tensor of four dimensions; another reason raises again
                plain, strided = (convert(probe) for probe in self.probes(5))
            counter = convert(torch.empty(2, dtype=torch.int64, device=self.device))
            try:
                emptied = not convert(torch.empty(2, device="meta")).is_meta
            except RuntimeError:  # Tensor.to has no data to move, Tensor.share_memory_ none to share
                emptied = False
        to: dict[str, Any] = {}
        if plain.device != self.device or emptied:
            to["device"] = self.device = plain.device
        if counter.dtype != torch.int64:
            self.log("type", counter.dtype)
        elif plain.dtype == strided.dtype:
            to["dtype"] = plain.dtype
        last = torch.channels_last if plain.dim() == 4 else torch.channels_last_3d
        for memory_format in (torch.contiguous_format, last):
            if all(result.is_contiguous(memory_format=memory_format) for result in (plain, strided)):
                to["memory_format"] = memory_format
        if emptied:
            self.log("to_empty", device=to.pop("device"))
        if to:
            self.log("to", **to)
        if plain.device.type == "cpu" and plain.is_shared():
            self.log("share_memory")

    def probes(self, dims: int) -> tuple[Tensor, Tensor]:
        """Two tensors that differ in dtype and memory format: what agrees after a conversion was asked for by it."""
        memory_format = torch.channels_last if dims == 4 else torch.channels_last_3d
        plain = torch.empty((2,) * dims, device=self.device, dtype=torch.float32)
        strided = torch.empty((2,) * dims, device=self.device, dtype=torch.bfloat16, memory_format=memory_format)
        return plain, strided

    def log_load(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool) -> None:
        """Note the part of ``state_dict`` below ``prefix``, and how it was asked to be loaded."""
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        metadata = {prefix[:-1]: local_metadata}
        # nn.Module hands neither to its children: both stand in the frame of the load_state_dict that was called.
        caller = frame_of(LOAD_STATE_DICT)
        if caller is not None:
            strict = caller.f_locals["strict"]
            metadata = caller.f_locals["metadata"] or metadata
        state: OrderedDict[str, Any] = OrderedDict()
        for key, value in state_dict.items():
            if key.startswith(prefix):
                copied = not assign and isinstance(value, Tensor)
                state[key.removeprefix(prefix)] = value.detach().clone() if copied else value
        below = {key[len(prefix) :]: value for key, value in metadata.items() if (key + ".").startswith(prefix)}
        state._metadata = below  # pyright: ignore[reportAttributeAccessIssue]
        # An earlier one that this one overwrites is void, also if it could not have been loaded.
        self.deeds = [
            deed for deed in self.deeds if deed[0] != "load_state_dict" or not deed[1][0].keys() <= state.keys()
        ]
        self.log("load_state_dict", state, strict=strict, assign=assign)

    def loaded(self) -> dict[str, Any] | None:
        """The entries that were loaded so far; None if nothing was, as a load that is not strict may have had none."""
        loads = [(args[0], kwargs["strict"]) for method, args, kwargs in self.deeds if method == "load_state_dict"]
        states = [state for state, strict in loads if state or strict]
        return {key: value for state in states for key, value in state.items()} if states else None

    @property
    def runs_ours_alone(self) -> bool:
        """Whether no code but lazytorch's and torch's runs when it is built."""
        return self.is_ours and is_ours((*self.module_args, *self.module_kwargs.values()))

    def is_as_constructed(self) -> bool:
        """Whether nothing was asked of it that could be seen in what is built but for its values."""
        if not self.runs_ours_alone or self.compile is not None:
            return False
        same = ("to", (), {"dtype": self.default_dtype})
        return all(deed[0] == "train" or deed == same or is_scheme(deed) for deed in self.deeds)

    def drawing(self) -> Drawing | None:
        """What puts off the drawing of weights, where some may be overwritten or have no values; else None."""
        if not self.runs_ours_alone:
            return None
        if is_overwritten(self) and not any(deed[0] == "apply" and not is_scheme(deed) for deed in self.deeds):
            return Drawing(self.device, constants=True, never=True)
        moot = self.device.type == "meta" or any(method == "load_state_dict" for method, _, _ in self.deeds)
        if any(map(is_scheme, self.deeds)):
            return Drawing(self.device, self.random_state, constants=moot)
        return Drawing(self.device, constants=True) if moot else None

    def replay(self, built: nn.Module, drawing: Drawing | None) -> None:
        """Do to ``built`` all that was asked of the lazy module, in order."""
        overwritten = self.overwritten(built)
        for index, (method, args, kwargs) in enumerate(self.deeds):
            if drawing is not None and is_scheme(self.deeds[index]):
                if index >= overwritten and self.device.type != "meta":
                    drawing.finish(functools.partial(built.apply, *args))
                continue
            # Parts that are lazy still, which have no dtype yet, are in nothing that a drawing is of.
            same = drawing is not None and method == "to" and kwargs.keys() == {"dtype"}
            if same and has_dtype(built, kwargs["dtype"]):
                continue
            if drawing is not None and method not in ("train", "requires_grad_"):
                if method != "load_state_dict":  # it may read values
                    drawing.finish()
                drawing.draw()  # or what was put off would overwrite what it writes
            if method == "to_empty" and not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers())):
                built.to(**kwargs)  # weights that are drawn are as good as weights of any value
            elif method == "load_state_dict":
                built.load_state_dict(fitted(built, args[0]), **kwargs)
            else:
                getattr(built, method)(*args, **kwargs)
        if drawing is not None:
            drawing.finish()

    def overwritten(self, built: nn.Module) -> int:
        """The place among the deeds from which on values count.

        That of a load that has every parameter of ``built``, if nothing that may read them comes before it.
        """
        loads = [place for place, (method, *_) in enumerate(self.deeds) if method == "load_state_dict"]
        names = {name for name, _ in built.named_parameters()} if loads else set()
        whole = (place for place in reversed(loads) if names <= self.deeds[place][1][0].keys())
        place = next(whole, 0)
        read = any(deed[0] == "apply" and not is_scheme(deed) for deed in self.deeds[:place])
        return 0 if read else place

    @contextlib.contextmanager
    def world(self) -> Iterator[Drawing | None]:
        """The device, default dtype and random numbers that the eager constructor would have met.

        What it yields puts off the drawing of weights until ``replay``, where that is of use.
        """
        accelerated = self.device.type not in ("cpu", "meta")
        default_dtype = torch.get_default_dtype()
        with contextlib.ExitStack() as stack:
            if accelerated:  # seeding reaches every device of a kind
                devices = range(torch.get_device_module(self.device).device_count())
                stack.enter_context(torch.random.fork_rng(devices, device_type=self.device.type))
            stack.callback(torch.set_rng_state, torch.get_rng_state())
            torch.set_rng_state(self.random_state)
            if accelerated:
                torch.manual_seed(draw_seed())
            if torch.empty(0).device != self.device:
                stack.enter_context(self.device)
            if default_dtype != self.default_dtype:
                stack.callback(torch.set_default_dtype, default_dtype)
                torch.set_default_dtype(self.default_dtype)
            drawing = self.drawing()
            with putting_off(drawing):
                yield drawing


def fitted(built: nn.Module, state: OrderedDict[str, Any]) -> dict[str, Any]:
    """``state``; if its metadata say how it is fitted to what is built, the result of that."""
    fit = state._metadata.get("", {}).get("fit")  # pyright: ignore[reportAttributeAccessIssue]
    return state if fit is None else fit(built, state)


def has_dtype(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether all floating-point values of ``module`` are of that dtype."""
    tensors = (*module.parameters(), *module.buffers())
    return all(tensor.dtype is dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex())


def is_scheme(deed: tuple[str, tuple[Any, ...], dict[str, Any]]) -> bool:
    return deed[0] == "apply" and isinstance(deed[1][0], Scheme)


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """No fake tensors, function transforms, inference mode or autocast: what is built is real and can be trained."""
    with contextlib.ExitStack() as stack:
        if peek_interpreter_stack() is not None:
            stack.enter_context(temporarily_clear_interpreter_stack())
        if _len_torch_dispatch_stack() or _len_torch_dispatch_stack_pre_dispatch():
            stack.enter_context(_disable_current_modes())
        if _len_torch_function_stack():
            stack.enter_context(with_arithmetic())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


def branch_random_state() -> Tensor:
    """The state from which the eager constructor would draw now; the global stream goes on from a seed of its own.

    So a lazy module draws what its eager twin would have drawn in its place, whenever and from whatever input it
    is built, copies of it draw the same, and what is drawn in between is independent of it.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(draw_seed())
    return state


def draw_seed() -> int:
    return int(torch.randint(2**63 - 1, (), device="cpu"))
