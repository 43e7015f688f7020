"""LazyModule: hold the arguments, build once from the first input, become the target."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.hooks import RemovableHandle

from lazytorch.become import become
from lazytorch.errors import UninitializedAttributeError, UninitializedModuleError
from lazytorch.first_call import CallForward, as_one_call, on_failure, path_in_running_model
from lazytorch.pending import Pending, PendingParameters, frame_of, plain_torch

__all__ = ["LazyModule", "describe", "target_class"]

# One lock, not one a module: locks neither copy nor pickle, and nothing else happens while parameters are made.
_building = threading.RLock()


class LazyModule(LazyModuleMixin, nn.Module):
    """A module that builds itself from the first input it sees, and then *is* the module that it built.

    Subclass it together with the module class to be built, and override ``get_initialized_module``. The constructor
    takes any arguments and keeps them; :func:`create_lazy_signature` gives it the target's signature.

    Whatever is done to the module before its first input (``to``, ``train``, ``requires_grad_``, ``apply``,
    ``load_state_dict``, hooks, on itself or on any parent) is done, in the same order, to what is built. A first call
    that fails leaves it as lazy as it was.

    Args:
        module_args: Positional arguments for ``get_initialized_module``.
        module_kwargs: Keyword arguments for it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lazytorch import LazyModule
        >>> class LazyConv2d(LazyModule, nn.Conv2d):
        ...     def get_initialized_module(self, inputs, module_args, module_kwargs):
        ...         return nn.Conv2d(inputs[0].size(1), *module_args, **module_kwargs)
        >>> conv = LazyConv2d(8, kernel_size=3)
        >>> conv
        LazyConv2d(8, kernel_size=3)
        >>> conv(torch.zeros(1, 5, 32, 32)).shape
        torch.Size([1, 8, 30, 30])
        >>> conv
        Conv2d(5, 8, kernel_size=(3, 3), stride=(1, 1))
    """

    cls_to_become = None  # known to PyTorch's own lazy modules before their first input; ours is what the build returns

    def __init__(self, *module_args: Any, **module_kwargs: Any) -> None:
        nn.Module.__init__(self)
        self._pending = Pending(type(self).__name__, module_args, module_kwargs)
        with torch.inference_mode(False):
            vars(self)["_parameters"] = PendingParameters(self._pending)
        # The name by which Dynamo knows that a module is still to be built.
        self._initialize_hook = nn.Module.register_forward_pre_hook(self, build_from, with_kwargs=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        target = target_class(cls)
        # Dynamo traces the forward that the class had before the build: it must be the target's own.
        if cls.forward in (nn.Module.forward, forward_of_what_is_built):
            inherited = target.forward if target else nn.Module.forward
            cls.forward = forward_of_what_is_built if inherited is nn.Module.forward else inherited
        # Until it is built, it is no container, and what its target makes of nn.Module's methods needs what is built.
        lazily = {name for base in cls.__mro__ if issubclass(base, LazyModuleMixin) for name in vars(base)}
        for name, plain in vars(nn.Module).items():
            if name not in lazily | {"__call__", "__init__", "forward"} and getattr(cls, name) is not plain:
                setattr(cls, name, plain)
        for name in ("__len__", "__iter__", "__getitem__", "__contains__", "__reversed__"):
            if hasattr(target, name):
                setattr(cls, name, refusing(name))

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        """Build the module for a first input. Override this.

        An override that declares a fourth parameter, ``input_kwargs``, also gets the keyword-only arguments.

        Args:
            inputs: The arguments of the first call in positional order, keyword ones bound to their place.
            module_args: The positional arguments that the constructor got.
            module_kwargs: The keyword arguments that the constructor got; a copy, free to change.

        Returns:
            The module to become. If it is lazy as well, it is built from the same input.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override get_initialized_module(inputs, module_args, module_kwargs)."
        )

    def _infer_parameters(
        self, module: "LazyModule", args: Sequence[Any], kwargs: dict[str, Any] | None = None
    ) -> None:
        """Build from a first input. Dynamo calls this, by this name, in place of the forward pre-hook."""
        build_from(module, args, kwargs or {})

    def _build(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Callable[[], None]:
        """Become what the input says; return how to undo it."""
        pending: Pending = self._pending
        try:
            self._refuse_tracing((*args, *kwargs.values()))
            inputs, input_kwargs = self._bind(args, kwargs)
            more = (
                (input_kwargs,) if "input_kwargs" in inspect.signature(self.get_initialized_module).parameters else ()
            )
            with plain_torch(), pending.world():
                # The only reference to the new module: become() asks whether its constructor has kept another.
                built = [
                    self.get_initialized_module(inputs, tuple(pending.module_args), dict(pending.module_kwargs), *more)
                ]
                if not isinstance(built[0], nn.Module) or built[0] is self:
                    got = type(built[0]).__name__
                    raise TypeError(f"{pending.owner}.get_initialized_module must return a new module, got {got}.")
                if isinstance(built[0], LazyModule):
                    built[0]._build(args, kwargs)
                pending.replay(built[0])
            dropped = {"_pending", "_pending_parameter", "_initialize_hook", "_compiled_call_impl"}
            drop_call_forward(self)
            undo = become(
                self, built, dropped=dropped, dropped_hook=self._initialize_hook.id, prepended=pending.prepended
            )
            if pending.compile is not None:
                args, kwargs = pending.compile
                self.compile(*args, **kwargs)
            return undo
        except Exception as error:
            notes = getattr(error, "__notes__", ())
            path = path_in_running_model(self)
            if path and not any(note.startswith("at ") for note in notes):
                error.add_note(f"at {path}")
            if pending.owner not in str(error):
                error.add_note(f"while {pending.owner} was built from input {describe((*args, *kwargs.values()))}")
            raise

    def _refuse_tracing(self, values: tuple[Any, ...]) -> None:
        if (
            torch._C._get_tracing_state() is not None
            or torch.compiler.is_exporting()
            or any(isinstance(each, fx.Proxy) for each in values)
        ):
            raise UninitializedModuleError(
                f"{type(self).__name__} is not built yet, and a trace must not depend on the input that builds it. "
                "Call lazytorch.materialize(model, (1, 3, 224, 224)) before tracing or exporting."
            )

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments in positional order, and the keyword-only ones."""
        forward = type(self).forward
        if forward is forward_of_what_is_built or not kwargs:
            return (*args, *kwargs.values()), dict(kwargs)
        try:
            bound = inspect.signature(forward).bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.forward() {error}") from None
        given = set(bound.arguments)
        bound.apply_defaults()
        positional: list[Any] = []
        last = 0
        for name, parameter in list(bound.signature.parameters.items())[1:]:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
                break
            value = bound.arguments[name]
            positional.extend(value if parameter.kind is parameter.VAR_POSITIONAL else [value])
            last = len(positional) if name in given else last
        by_place = [
            each.name for each in bound.signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        return tuple(positional[:last]), {name: value for name, value in kwargs.items() if name not in by_place}

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return nn.Module._call_impl(self, *args, **kwargs)
        with _building:
            # nn.Module looks the forward up before the pre-hook that builds; what is built may have another.
            if isinstance(self, LazyModule) and "forward" not in vars(self):
                vars(self)["forward"] = CallForward(self)
        try:
            return as_one_call(functools.partial(nn.Module._call_impl, self, *args, **kwargs))
        finally:
            with _building:
                drop_call_forward(self)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        handle = nn.Module.register_forward_pre_hook(self, hook, prepend=prepend, with_kwargs=with_kwargs)
        # The one that builds stays last: one of the user's may change the channels.
        build = self._forward_pre_hooks.pop(self._initialize_hook.id)
        self._forward_pre_hooks[self._initialize_hook.id] = build
        return self._note_prepended(handle, prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        handle = super().register_forward_hook(hook, prepend=prepend, with_kwargs=with_kwargs, always_call=always_call)
        return self._note_prepended(handle, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        return self._note_prepended(nn.Module.register_full_backward_hook(self, hook, prepend), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        return self._note_prepended(nn.Module.register_full_backward_pre_hook(self, hook, prepend), prepend)

    def _note_prepended(self, handle: RemovableHandle, prepend: bool) -> RemovableHandle:
        if prepend:
            self._pending.prepended.add(handle.id)
        return handle

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Have what is built compiled by :func:`torch.compile`, with these arguments, from the first call on."""
        self._pending.compile = args, kwargs
        self._compiled_call_impl = functools.partial(build_and_call, self)

    def train(self, mode: bool = True) -> "LazyModule":
        nn.Module.train(self, mode)
        self._pending.log("train", mode)
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> "LazyModule":
        self._pending.log("apply", fn)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LazyModule":
        self._pending.log_conversion(fn)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        if frame_of(nn.SyncBatchNorm.convert_sync_batchnorm) is not None:
            raise UninitializedModuleError(
                f"{type(self).__name__} has no BatchNorm to convert yet: it is built from its first input. "
                "Call lazytorch.materialize(model, (1, 3, 224, 224)) before convert_sync_batchnorm."
            )
        return nn.Module.named_children(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        loaded = self._pending.loaded()
        if not loaded:
            raise UninitializedModuleError(
                f"{type(self).__name__} has no state yet: it is built from its first input. "
                "Call lazytorch.materialize(model, (1, 3, 224, 224)) before state_dict()."
            )
        destination.update({prefix + key: value for key, value in loaded.items()})

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._pending.log_load(state_dict, prefix, local_metadata, strict)

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if name.startswith("__"):
                raise
        raise UninitializedAttributeError(
            f"{type(self).__name__} has no attribute {name!r} yet: it is built from its first input. "
            "Call the model on a batch, or lazytorch.materialize(model, (1, 3, 224, 224)), first."
        )

    def __repr__(self) -> str:
        pending: Pending = self._pending
        parameters = inspect.signature(type(self)).parameters.values()
        unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = [
            each.name for each in parameters if each.kind not in unnamed and each.name not in pending.module_kwargs
        ]
        names += [""] * len(pending.module_args)
        shown = [f"{name}=?" for name in getattr(type(self).__init__, "inferred", ())]
        shown += [
            f"{name}={show(value)}" if name else show(value)
            for name, value in (*zip(names, pending.module_args, strict=False), *pending.module_kwargs.items())
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def build_from(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """The forward pre-hook that builds; a module-level function, so that lazy modules copy and pickle."""
    with _building:
        if isinstance(module, LazyModule):  # if not, another thread was first
            on_failure(module._build(args, kwargs))


def build_and_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The first call of a lazy module that is to be compiled: Dynamo must not trace its build."""
    if len(module._forward_pre_hooks) > 1:  # the user's must run, once, before it is known what to build
        return module._call_impl(*args, **kwargs)

    def first_call() -> Any:
        build_from(module, args, kwargs)
        return module(*args, **kwargs)

    return as_one_call(first_call)


def drop_call_forward(module: nn.Module) -> None:
    if isinstance(vars(module).get("forward"), CallForward):
        del vars(module)["forward"]


def forward_of_what_is_built(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of a lazy class that does not inherit one: by the time it runs, the module is built."""
    return self.forward(*args, **kwargs)


# torch.compile wraps, when it is made, a module whose forward is PyTorch's own; this one may become such a module.
forward_of_what_is_built.__code__ = forward_of_what_is_built.__code__.replace(
    co_filename=nn.Module.__init__.__code__.co_filename
)


def refusing(name: str) -> Callable[..., Any]:
    def refuse(self: LazyModule, *_: Any) -> Any:
        return self.__getattr__(name.strip("_"))

    return refuse


def show(value: Any) -> str:
    """``repr``, but classes and functions by their names, as they stand in code."""
    if isinstance(value, functools.partial):
        arguments = [show(each) for each in value.args] + [
            f"{key}={show(each)}" for key, each in value.keywords.items()
        ]
        return f"partial({', '.join([show(value.func), *arguments])})"
    return value.__name__ if isinstance(value, (type, FunctionType)) else repr(value)


def target_class(lazy_class: type[nn.Module]) -> type[nn.Module] | None:
    """The class that a lazy class builds: the first of its bases that is a module class and not itself lazy."""
    for base in lazy_class.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module and not issubclass(base, LazyModule):
            return base
    return None


def describe(values: Sequence[Any]) -> str:
    """Inputs as an error shows them: tensors by shape, others by type."""
    return ", ".join(str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__ for each in values)
