"""UnbuiltModule: the methods of nn.Module before the build. Placeholder: the only parameter before the build."""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter
from torch.utils.hooks import RemovableHandle

from lazytorch._lazy.deferred import Deferred, DeferredLoad
from lazytorch._lazy.show import show
from lazytorch._shapes.mode import map_tensors
from lazytorch.errors import UninitializedAttributeError, UninitializedModuleError, not_yet

PLACEHOLDER = "_placeholder"
# Attributes of tensors that need values or a shape.
NEED_VALUES = {"H", "T", "data", "imag", "mH", "mT", "nbytes", "ndim", "real"}
# Methods of tensors that need neither.
ALLOWED = {Tensor.__hash__, Tensor.get_device, Tensor.is_complex, Tensor.is_floating_point}


class UnbuiltModule(nn.Module):
    """The methods of ``nn.Module`` for a module that is not built yet.

    Methods that change a module act at once on submodules, parameters and buffers that the user added, and are deferred
    for those that will be built. Methods that need the latter raise an ``UninitializedModuleError``.
    """

    _deferred: Deferred
    has_state = True
    """Whether built modules have persistent parameters or buffers; if not, a checkpoint has no entries for them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Overrides of these methods in the target need parameters or submodules that are not built yet.
        own = {
            name for base in cls.__mro__ if issubclass(base, (UnbuiltModule, LazyModuleMixin)) for name in vars(base)
        }
        for name, plain in vars(nn.Module).items():
            if name not in own | {"__call__", "__init__", "forward"} and getattr(cls, name) is not plain:
                setattr(cls, name, plain)
        for name in ("__len__", "__iter__", "__getitem__", "__contains__", "__reversed__"):
            if hasattr(cls, name):
                setattr(cls, name, functools.partialmethod(UnbuiltModule._refuse_items))

    def _refuse(self, missing: str, before: str) -> UninitializedModuleError:
        return UninitializedModuleError(not_yet(self._deferred.owner, missing, before))

    def _refuse_items(self, *_: Any) -> Any:
        raise self._refuse("items", "accessing them")

    def _added_modules(self) -> list[nn.Module]:
        return [each for each in self._modules.values() if each is not None]

    def _added_tensors(self) -> dict[str, Tensor]:
        """The parameters and persistent buffers that the user added, by name."""
        left_out = {PLACEHOLDER, *self._non_persistent_buffers_set}
        tensors = (*self._parameters.items(), *self._buffers.items())
        return {name: each for name, each in tensors if each is not None and name not in left_out}

    def train(self, mode: bool = True) -> Self:
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for each in self._added_modules():
            each.train(mode)
        self._deferred.log("train", mode)
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        for each in self._added_modules():
            each.apply(fn)
        self._deferred.log("apply", fn)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._deferred.log_conversion(fn)
        if recurse:
            for each in self._added_modules():
                each._apply(fn)
        added = nn.Module()  # to convert parameters, gradients and buffers with nn.Module's own code
        parameters = {name: each for name, each in self._parameters.items() if name != PLACEHOLDER}
        vars(added)["_parameters"], vars(added)["_buffers"] = parameters, self._buffers
        added._apply(fn)
        self._parameters.update(parameters)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        raise self._refuse("submodules", "walking them")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        entries: dict[str, Any] = {}
        if self.has_state:
            loaded = self._deferred.loaded_last()
            if loaded is None or not loaded.complete:
                refused = self._refuse("state", "state_dict()")
                raise type(refused)(f"{refused} To load weights, call load_state_dict, which needs no input.")
            entries |= loaded.entries
        entries |= {name: each if keep_vars else each.detach() for name, each in self._added_tensors().items()}
        destination.update({prefix + name: value for name, value in entries.items()})

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
        rest = [missing_keys, unexpected_keys, error_msgs]
        nn.Module._load_from_state_dict(self, state_dict, prefix, local_metadata, False, *rest)  # runs the load hooks
        tensors = self._added_tensors()
        missing_keys += [f"{prefix}{name}" for name in tensors if f"{prefix}{name}" not in state_dict]
        added = {*self._modules, *tensors}
        entries = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix) and key.removeprefix(prefix).partition(".")[0] not in added
        }
        if entries:
            assign = bool(local_metadata.get("assign_to_params_buffers", False))
            copied = OrderedDict(entries if assign else map_tensors(lambda each: each.detach().clone(), entries))
            # state_dict contains the versions of submodules only if load_state_dict was called on this module.
            metadata = getattr(state_dict, "_metadata", None) or {"": local_metadata}
            copied._metadata = metadata  # pyright: ignore[reportAttributeAccessIssue]
            self._deferred.log_load(DeferredLoad(copied, assign=assign))
        elif self.has_state:
            missing_keys.append(f"{prefix}*")

    def __copy__(self) -> Self:
        raise self._refuse("parameters", "copy.copy, which shares them")

    __deepcopy__ = None  # copied by its state, not by a method of the target

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except (AttributeError, UninitializedModuleError):
            if name.startswith("__") or name == "_deferred":  # the constructor failed, and a traceback shows self
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None
        raise UninitializedAttributeError(not_yet(self._deferred.owner, f"attribute {name!r}", "accessing it"))

    def __repr__(self) -> str:
        deferred = self._deferred
        parameters = inspect.signature(type(self)).parameters.values()
        unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = [
            each.name for each in parameters if each.kind not in unnamed and each.name not in deferred.module_kwargs
        ]
        names += [""] * len(deferred.module_args)
        inferred = getattr(type(self).__init__, "inferred", ())
        shown = [f"{name}=?" for name in inferred if deferred.module_kwargs.get(name) is None]
        shown += [
            f"{name}={show(value)}" if name else show(value)
            for name, value in (*zip(names, deferred.module_args, strict=False), *deferred.module_kwargs.items())
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def noting_prepend(register: Callable[..., RemovableHandle]) -> Callable[..., RemovableHandle]:
    """Wrap a method of ``nn.Module`` that registers a hook, to record hooks registered with ``prepend=True``."""
    bind = inspect.signature(register).bind

    @functools.wraps(register)
    def method(self: UnbuiltModule, *args: Any, **kwargs: Any) -> RemovableHandle:
        handle = register(self, *args, **kwargs)
        if bind(self, *args, **kwargs).arguments.get("prepend"):
            self._deferred.prepended.add(handle.id)
        return handle

    return method


for _name in (
    *("register_forward_pre_hook", "register_forward_hook"),
    *("register_full_backward_pre_hook", "register_full_backward_hook"),
):
    setattr(UnbuiltModule, _name, noting_prepend(getattr(nn.Module, _name)))


class Parameters(dict[str, Any]):
    """The ``_parameters`` of a lazy module: accessing a parameter that is not built yet raises an error."""

    def __init__(self, deferred: Deferred) -> None:
        super().__init__({PLACEHOLDER: Placeholder(deferred)})  # pyright: ignore[reportArgumentType]

    def __missing__(self, name: str) -> Any:
        raise self[PLACEHOLDER].refuse(f"accessing {name!r}")

    def __setitem__(self, name: str, value: Any) -> None:
        if name == PLACEHOLDER:
            raise self[PLACEHOLDER].refuse("replacing them, as functional_call does")
        super().__setitem__(name, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        added = iter([(name, each) for name, each in self.items() if name != PLACEHOLDER])
        return type(self), (self[PLACEHOLDER].deferred,), None, None, added


class Placeholder(UninitializedParameter):
    """The only parameter of a lazy module, in place of those that will be built.

    It has their dtype, device and ``requires_grad``. Operations that need their values or shapes raise an
    ``UninitializedModuleError``.
    """

    deferred: Deferred

    def __new__(cls, deferred: Deferred) -> "Placeholder":
        self = super().__new__(cls, device="cpu")
        self.deferred = deferred
        return self

    # UninitializedParameter copies its values, and there are none.
    __deepcopy__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.deferred,)

    @property
    def device(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.deferred.device

    @property
    def dtype(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.deferred.dtype

    @property
    def shape(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise self.refuse("accessing their shape")

    @property
    def requires_grad(self) -> bool:
        return self.deferred.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.deferred.log("requires_grad_", bool(value))

    def requires_grad_(self, requires_grad: bool = True) -> "Placeholder":  # pyright: ignore[reportIncompatibleMethodOverride]
        self.requires_grad = requires_grad
        return self

    def share_memory_(self) -> "Placeholder":
        raise self.refuse("sharing them")

    def refuse(self, before: str) -> UninitializedModuleError:
        return UninitializedModuleError(not_yet(self.deferred.owner, "parameters", before))

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        placeholders: list[Placeholder] = []
        map_tensors(lambda each: placeholders.append(each) if isinstance(each, cls) else None, (args, kwargs or {}))
        if attribute == "is_leaf":
            raise placeholders[0].refuse("making an optimizer")
        if attribute in NEED_VALUES:
            raise placeholders[0].refuse(f"accessing their {attribute}")
        if not attribute and func not in ALLOWED:
            raise placeholders[0].refuse(f"calling {getattr(func, '__name__', func)}")
        return super().__torch_function__(func, types, args, kwargs)
