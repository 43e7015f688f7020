"""RecordingModule: what is done to a module before it is built is noted, and what it lacks until then is refused."""

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.hooks import RemovableHandle

from lazytorch.callers import frame_of, is_asked_by
from lazytorch.errors import UninitializedAttributeError, UninitializedModuleError
from lazytorch.pending import Pending, not_yet

__all__ = ["RecordingModule"]


GETTERS = [each.__code__ for each in (nn.Module.get_submodule, nn.Module.get_parameter, nn.Module.get_buffer)]
# These replace layers by quantized ones, and would pass over those that are not there yet.
QUANTIZING = ("torchao.quantization", "torch.ao.quantization")


class RecordingModule(nn.Module):
    """The methods of ``nn.Module`` for a module that is still to be built.

    What changes it is noted in ``_pending``, to be done to what is built; what asks for its contents is refused.
    """

    _pending: Pending
    _initialize_hook: RemovableHandle

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What the target makes of nn.Module's methods needs what is not built yet, and it is no container either.
        lazily = {
            name for base in cls.__mro__ if issubclass(base, (RecordingModule, LazyModuleMixin)) for name in vars(base)
        }
        for name, plain in vars(nn.Module).items():
            if name not in lazily | {"__call__", "__init__", "forward"} and getattr(cls, name) is not plain:
                setattr(cls, name, plain)
        for name in ("__len__", "__iter__", "__getitem__", "__contains__", "__reversed__"):
            if hasattr(cls, name):
                setattr(cls, name, functools.partialmethod(RecordingModule._refuse_items))

    def _refuse_items(self, *_: Any) -> Any:
        raise UninitializedModuleError(not_yet(self._pending.owner, "items", "asking for them"))

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
        handle = nn.Module.register_forward_hook(
            self, hook, prepend=prepend, with_kwargs=with_kwargs, always_call=always_call
        )
        return self._note_prepended(handle, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        return self._note_prepended(nn.Module.register_full_backward_hook(self, hook, prepend), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        return self._note_prepended(nn.Module.register_full_backward_pre_hook(self, hook, prepend), prepend)

    def _note_prepended(self, handle: RemovableHandle, prepend: bool) -> RemovableHandle:
        if prepend:
            self._pending.prepended.add(handle.id)
        return handle

    def train(self, mode: bool = True) -> Self:
        nn.Module.train(self, mode)
        self._pending.log("train", mode)
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        self._pending.log("apply", fn)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._pending.log_conversion(fn)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        if frame_of(nn.SyncBatchNorm.convert_sync_batchnorm) is not None:
            raise UninitializedModuleError(not_yet(self._pending.owner, "BatchNorm", "convert_sync_batchnorm"))
        if is_asked_by(QUANTIZING):
            raise UninitializedModuleError(not_yet(self._pending.owner, "parameters", "quantizing them"))
        return nn.Module.named_children(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        loaded = self._pending.loaded()
        if loaded is None:
            raise UninitializedModuleError(not_yet(self._pending.owner, "state", "state_dict()"))
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

    def __copy__(self) -> Self:
        raise UninitializedModuleError(not_yet(self._pending.owner, "parameters", "copy.copy, which shares them"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if name.startswith("__") or name == "_pending":  # one whose constructor failed, in a traceback say
                raise
        message = not_yet(self._pending.owner, f"attribute {name!r}", "asking for it")
        # These take an AttributeError for leave to say that there is none, ever.
        caller = sys._getframe(1)
        norms_it = caller.f_globals["__name__"].startswith("torch.nn.utils") and name != "parametrizations"
        if norms_it or caller.f_code in GETTERS:
            raise UninitializedModuleError(message)
        raise UninitializedAttributeError(message)

    def __repr__(self) -> str:
        pending = self._pending
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


def show(value: Any) -> str:
    """``repr``, but classes and functions by their names, as they stand in code."""
    if isinstance(value, functools.partial):
        arguments = [show(each) for each in value.args] + [
            f"{key}={show(each)}" for key, each in value.keywords.items()
        ]
        return f"partial({', '.join([show(value.func), *arguments])})"
    return value.__name__ if isinstance(value, (type, FunctionType)) else repr(value)
