"""LazyModule: hold the arguments, build once from the first input, become the target."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._C._dynamo.eval_frame import set_eval_frame
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.stateless import _functional_call
from torch.utils._pytree import tree_map_only

from lazytorch.become import HOOKS, become
from lazytorch.callers import frame_of
from lazytorch.errors import UninitializedModuleError
from lazytorch.first_call import as_one_call, on_failure, path_in_running_model, run_constructors_hooks
from lazytorch.forwards import CallForward, DrawnForward
from lazytorch.pending import Pending, not_yet, plain_torch
from lazytorch.placeholder import PendingParameters
from lazytorch.recording import RecordingModule
from lazytorch.side_by_side import draw_meanwhile
from lazytorch.thread_local import setting

__all__ = ["LazyModule", "describe", "target_class", "watching_builds"]

# One lock, not one a module: locks neither copy nor pickle, and nothing else happens while parameters are made.
_building = threading.RLock()
# Who is to be called with what is built in this thread.
_watching = threading.local()
# Another one, as a constructor may make lazy modules in threads of its own while it is waited for.
_branching = threading.Lock()


class LazyModule(RecordingModule, LazyModuleMixin):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A module that builds itself from the first input it sees, and then *is* the module that it built.

    Subclass it together with the module class to be built, and override ``get_initialized_module``. The constructor
    takes any arguments and keeps them; ``create_lazy_signature`` gives it the target's signature.

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

    cls_to_become = None  # what PyTorch's own lazy modules know beforehand; here it is whatever the build returns

    def __init__(self, *module_args: Any, **module_kwargs: Any) -> None:
        nn.Module.__init__(self)
        with _branching, plain_torch():
            self._pending = Pending(type(self), module_args, module_kwargs)
            vars(self)["_parameters"] = PendingParameters(self._pending)
        # The name by which Dynamo knows that a module is still to be built.
        self._initialize_hook = nn.Module.register_forward_pre_hook(self, build_from, with_kwargs=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Dynamo traces the forward that the class had before the build: it must be the target's own.
        if cls.forward in (nn.Module.forward, forward_of_what_is_built):
            target = target_class(cls)
            inherited = target.forward if target else nn.Module.forward
            cls.forward = forward_of_what_is_built if inherited is nn.Module.forward else inherited

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

    def _infer_parameters(self, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
        """Build from a first input. Dynamo calls this, by this name, in place of the forward pre-hook."""
        known = tree_map_only(Tensor, with_known_shape, (tuple(args), kwargs or {}))
        as_one_call(functools.partial(build, module, *known))

    def _build(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Callable[[], None]:
        """Become what the input says; return how to undo it."""
        pending = self._pending
        try:
            if (
                torch._C._get_tracing_state() is not None
                or torch.compiler.is_exporting()
                or any(isinstance(each, fx.Proxy) for each in (*args, *kwargs.values()))
            ):  # a trace must not depend on the input that builds
                raise UninitializedModuleError(not_yet(pending.owner, "graph", "tracing or exporting"))
            if frame_of(_functional_call) is not None:  # it puts back what it found, also into what is built
                raise UninitializedModuleError(not_yet(pending.owner, "parameters", "functional_call"))
            inputs, input_kwargs = self._bind(args, kwargs)
            more = (input_kwargs,) if takes_input_kwargs(type(self).get_initialized_module) else ()
            with plain_torch():
                with pending.world() as drawing:
                    # The only reference to the new module: become() asks whether its constructor has kept another.
                    built = [
                        self.get_initialized_module(
                            inputs, tuple(pending.module_args), dict(pending.module_kwargs), *more
                        )
                    ]
                    if not isinstance(built[0], nn.Module) or built[0] is self:
                        got = type(built[0]).__name__
                        raise TypeError(f"{pending.owner}.get_initialized_module must return a new module, got {got}.")
                    if isinstance(built[0], LazyModule):
                        built[0]._build(args, kwargs)
                    pending.replay(built[0], drawing)
                if drawing is not None and drawing.batches:
                    drawn = DrawnForward(self, drawing.batches)
                    if draw_meanwhile(drawing.batches, at_end=drawn.drop):
                        vars(built[0])["forward"] = drawn
                    else:
                        drawing.draw()
            drop_call_forward(self)
            undo = become(
                self,
                built,
                dropped={"_pending", "_pending_parameter", "_initialize_hook", "_compiled_call_impl"},
                dropped_hook=self._initialize_hook.id,
                prepended=pending.prepended,
            )
        except Exception as error:
            path = path_in_running_model(self)
            if path and not any(note.startswith("at ") for note in getattr(error, "__notes__", ())):
                error.add_note(f"at {path}")
            if pending.owner not in str(error):
                error.add_note(f"while {pending.owner} was built from input {describe((*args, *kwargs.values()))}")
            raise
        if pending.compile is not None:
            compile_args, compile_kwargs = pending.compile
            self.compile(*compile_args, **compile_kwargs)
        return undo

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
        parameters = list(bound.signature.parameters.values())[1:]
        positional: list[Any] = []
        last = 0
        for each in parameters:
            if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD):
                break
            value = bound.arguments[each.name]
            positional.extend(value if each.kind is each.VAR_POSITIONAL else [value])
            last = len(positional) if each.name in given else last
        by_place = {each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD}
        return tuple(positional[:last]), {name: value for name, value in kwargs.items() if name not in by_place}

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return nn.Module._call_impl(self, *args, **kwargs)
        compile_frame = set_eval_frame(None)
        try:
            if compile_frame is None or len(self._forward_pre_hooks) > 1:
                return LazyModule._first_call(self, *args, **kwargs)
            build(self, args, kwargs)
        finally:
            set_eval_frame(compile_frame)
        return self(*args, **kwargs)  # Dynamo is on, and must not see the build but what is built

    def _first_call(self, *args: Any, **kwargs: Any) -> Any:
        with _building:
            # nn.Module looks the forward up before the pre-hook that builds; what is built may have another.
            if isinstance(self, LazyModule) and "forward" not in vars(self):
                vars(self)["forward"] = CallForward(self)
        try:
            return as_one_call(functools.partial(nn.Module._call_impl, self, *args, **kwargs))
        finally:
            with _building:
                drop_call_forward(self)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Have what is built compiled by ``torch.compile``, with these arguments, from the first call on."""
        self._pending.compile = args, kwargs
        self._compiled_call_impl = functools.partial(build_and_call, self)


def build(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Build ``module`` from a first input, unless another thread has done so."""
    with _building:
        if isinstance(module, LazyModule):
            on_failure(module._build(args, kwargs))
            watch = getattr(_watching, "builds", None)
            if watch is not None:
                watch(module)


def build_from(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """The forward pre-hook that builds; a module-level function, so that lazy modules copy and pickle."""
    known = {key for name in HOOKS for key in vars(module)[name]}
    build(module, args, kwargs)
    return run_constructors_hooks(module, known, args, kwargs)


def build_and_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The first call of a lazy module that is to be compiled: Dynamo must not trace its build."""
    if len(module._forward_pre_hooks) > 1:  # the user's must run, once, before it is known what to build
        return module._call_impl(*args, **kwargs)

    def first_call() -> Any:
        build(module, args, kwargs)
        return module(*args, **kwargs)

    return as_one_call(first_call)


def watching_builds(watch: Callable[[nn.Module], None]) -> AbstractContextManager[None]:
    """Have ``watch`` alone called with every module that this thread builds, before its forward runs."""
    return setting(_watching, "builds", watch)


@functools.cache
def takes_input_kwargs(get_initialized_module: Callable[..., nn.Module]) -> bool:
    return "input_kwargs" in inspect.signature(get_initialized_module).parameters


def with_known_shape(tensor: Tensor) -> Tensor:
    """``tensor``; one of symbolic shape, as Dynamo has them, as one of the shape that it stands for."""
    if all(isinstance(size, int) for size in tensor.shape):
        return tensor
    sizes: Any = [size.node.hint if isinstance(size, torch.SymInt) else size for size in tensor.shape]
    return torch.empty(sizes, dtype=tensor.dtype, device="meta")


def drop_call_forward(module: nn.Module) -> None:
    if isinstance(vars(module).get("forward"), CallForward):
        del vars(module)["forward"]


def forward_of_what_is_built(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of a lazy class that does not inherit one: by the time it runs, the module is built."""
    return self.forward(*args, **kwargs)


# Dynamo treats code by its file. These two stand in for methods of nn.Module, and what they call may be PyTorch's own.
for _function in (forward_of_what_is_built, LazyModule._call_impl):
    _function.__code__ = _function.__code__.replace(co_filename=nn.Module._call_impl.__code__.co_filename)


def target_class(lazy_class: type[nn.Module]) -> type[nn.Module] | None:
    """The class that a lazy class builds: the first of its bases that is a module class and not itself lazy."""
    for base in lazy_class.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module and not issubclass(base, RecordingModule):
            return base
    return None


def describe(values: Sequence[Any]) -> str:
    """Inputs as an error shows them: tensors by shape, others by type."""
    return ", ".join(str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__ for each in values)
