"""LazyModule: a module that keeps its constructor arguments and builds itself from its first input."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.hooks import BackwardHook

from lazytorch import _torch
from lazytorch._init.initialize import draw_seed, is_known, is_unchanged, known, postponing
from lazytorch._lazy.deferred import Deferred, device_and_dtype_of_parameters
from lazytorch._lazy.scopes import all_or_nothing, notify_built, outside_modes, path_in_running_model
from lazytorch._lazy.state import Adoption
from lazytorch._lazy.unbuilt import Parameters, UnbuiltModule
from lazytorch._shapes.mode import map_tensors
from lazytorch.errors import ShapeInferenceError, UninitializedModuleError, not_yet

__all__ = ["LazyModule", "describe", "target_class"]


class LazyModule(UnbuiltModule, LazyModuleMixin):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A module that builds a module from its first input, and then becomes this module: the object changes its class.

    Subclass it together with the module class to build, and override ``get_initialized_module``. The constructor
    accepts any arguments and keeps them; ``create_lazy_signature`` gives it the target's signature.

    Calls of ``to``, ``train``, ``requires_grad_``, ``apply`` and ``load_state_dict`` before the first input, on the
    module or on a parent, are deferred and repeated on the built module in the same order; hooks are kept. If the first
    call fails, the module stays lazy. Initial values depend on a seed that the constructor draws from PyTorch's global
    generator.

    Args:
        module_args: Positional arguments for ``get_initialized_module``.
        module_kwargs: Keyword arguments for it.

    Raises:
        TypeError: When a subclass is defined with its target before ``LazyModule`` among its bases.

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

    cls_to_become = None  # PyTorch's lazy modules set a class here; ours is known only after the build
    _initialize_hook = True  # Dynamo checks this name to recognize a module that is not built yet

    def __init__(self, *module_args: Any, **module_kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            _torch.graph_break()
        nn.Module.__init__(self)
        with outside_modes():
            device, dtype = device_and_dtype_of_parameters()
            deferred = Deferred(type(self).__name__, module_args, module_kwargs, device, dtype, draw_seed())
            parameters = Parameters(deferred)
        vars(self).update(_deferred=deferred, _parameters=parameters)
        deferred.given = dict(vars(self))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        bases = [base for base in cls.__mro__ if issubclass(base, nn.Module)]
        first = bases.index(LazyModule) if LazyModule in bases else 0
        eager = next((base for base in bases[:first] if not issubclass(base, LazyModule)), None)
        if eager is not None:
            raise TypeError(
                f"{cls.__name__}: a lazy base class must come before the module class that it builds, got "
                f"{eager.__name__} first. Write class {cls.__name__}(LazyModule, {eager.__name__})."
            )
        super().__init_subclass__(**kwargs)
        owner = next(base for base in bases if "forward" in vars(base))  # a lazy base has replaced its forward already
        if owner is cls or not issubclass(owner, LazyModule):
            cls.forward = late(cls.forward)

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        """Build the module for a first input. Override this.

        An override that declares a fourth parameter, ``input_kwargs``, also gets the keyword-only arguments.

        Args:
            inputs: The arguments of the first call in positional order, including those passed by keyword.
            module_args: The positional arguments of the constructor.
            module_kwargs: The keyword arguments of the constructor; a copy, which may be changed.

        Returns:
            The built module. If it is also lazy, it is built from the same input.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override get_initialized_module(inputs, module_args, module_kwargs)."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # The module is already built: by Dynamo, which builds a lazy module before it traces the call; by another
        # thread; or before a call of a bound method that was stored while it was lazy.
        if torch.compiler.is_dynamo_compiling() or not isinstance(self, LazyModule):
            return self(*args, **kwargs)
        owner = type(self).__name__
        with all_or_nothing():
            try:
                hooks = self._forward_pre_hooks or self._forward_hooks_always_called or _torch.has_any_global_hook()
                if hooks and "forward" not in vars(self):  # ``late`` builds it after hooks, which may change the input
                    return nn.Module.__call__(self, *args, **kwargs)
                build(self, args, kwargs)
                return self(*args, **kwargs)
            except Exception as error:
                is_built = not isinstance(self, LazyModule)  # and is made lazy again
                if is_built and not hasattr(error, "__notes__") and not isinstance(error, ShapeInferenceError):
                    error.add_note(f"after {owner} was built from input {describe((*args, *kwargs.values()))}")
                raise

    def _infer_parameters(self, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
        """Build from a first input. Dynamo calls this, by this name, before it traces a call."""
        with all_or_nothing(keep=True):
            build(module, *map_tensors(with_known_shape, (tuple(args), kwargs or {})))

    def _build(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Adoption:
        """Become the module for this input."""
        deferred = self._deferred
        try:
            if is_traced((*args, *kwargs.values())):
                raise UninitializedModuleError(not_yet(deferred.owner, "graph", "tracing or exporting"))
            inputs, input_kwargs = self._bind(args, kwargs)
            more = (input_kwargs,) if takes_input_kwargs(type(self).get_initialized_module) else ()
            given = deferred.module_args, deferred.module_kwargs
            runs_known_code = type(self) in known and is_known(given) and is_unchanged()
            with outside_modes(), deferred.construction(runs_known_code) as skipped:
                module_args, module_kwargs = tuple(deferred.module_args), dict(deferred.module_kwargs)
                with postponing(None):  # a constructor may read initial values of the modules that it builds
                    built = self.get_initialized_module(inputs, module_args, module_kwargs, *more)
                    if not isinstance(built, nn.Module) or built is self:
                        got = type(built).__name__
                        raise TypeError(f"{deferred.owner}.get_initialized_module must return a new module, got {got}.")
                    if isinstance(built, LazyModule):
                        built._build(args, kwargs).keep()
                initialization = deferred.finish(built, skipped)
            rebind = not (runs_known_code and deferred.runs_known_code)
            adoption = Adoption(self, built, rebind=rebind, initialization=initialization)
        except Exception as error:
            path = path_in_running_model(self)
            if path and not any(note.startswith("at ") for note in getattr(error, "__notes__", [])):
                error.add_note(f"at {path}")
            if deferred.owner not in str(error):
                error.add_note(f"while {deferred.owner} was built from input {describe((*args, *kwargs.values()))}")
            raise
        if deferred.compile is not None:
            compile_args, compile_kwargs = deferred.compile
            self.compile(*compile_args, **compile_kwargs)
        return adoption

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments in positional order, and the keyword-only ones."""
        forward = type(self).forward
        if not kwargs or not hasattr(forward, "__wrapped__"):
            return (*args, *kwargs.values()), dict(kwargs)
        try:
            bound = inspect.signature(forward).bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.forward() {error}") from None
        parameters = bound.signature.parameters
        given = set(bound.arguments)
        bound.apply_defaults()
        by_position = [
            name for name, each in parameters.items() if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)
        ]
        while by_position[-1] not in given:  # the defaults after the last given argument are not passed
            del bound.arguments[by_position.pop()]
        return bound.args[1:], {name: value for name, value in kwargs.items() if name not in by_position}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the built module with ``torch.compile`` and these arguments."""
        self._deferred.compile = args, kwargs


def late(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a lazy class: builds the module if it is lazy, and calls the forward of the built module.

    It has the signature of ``forward``, which it replaces. After Dynamo has built a module, it still traces the forward
    of the lazy class.
    """

    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_dynamo_compiling() and isinstance(self, LazyModule):
            before = {*self._forward_pre_hooks, *self._backward_hooks, *self._backward_pre_hooks}
            with all_or_nothing():
                build(self, args, kwargs)
            args, kwargs = run_hooks_of_constructor(self, before, args, kwargs)
        return self.forward(*args, **kwargs)

    return method if forward is nn.Module.forward else functools.wraps(forward)(method)


def run_hooks_of_constructor(module: nn.Module, before: set[int], args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Run the hooks that the target's constructor registered after ``nn.Module.__call__`` had already run its hooks.

    Args:
        module: The module that was just built.
        before: The ids of the hooks that it had before.
        args: The call's positional arguments.
        kwargs: The call's keyword arguments.

    Returns:
        The arguments after the hooks.
    """
    for key, hook in list(module._forward_pre_hooks.items()):
        if key not in before:
            with_kwargs = key in module._forward_pre_hooks_with_kwargs
            result: Any = hook(module, args, kwargs) if with_kwargs else hook(module, args)
            if with_kwargs and result is not None:
                args, kwargs = result
            elif result is not None:
                args = result if isinstance(result, tuple) else (result,)
    after = [hook for key, hook in module._backward_hooks.items() if key not in before]
    ahead = [hook for key, hook in module._backward_pre_hooks.items() if key not in before]
    if after or ahead:
        backward = BackwardHook(module, after, ahead)
        args = backward.setup_input_hook(args)

        def finish(_: nn.Module, __: Any, output: Any) -> Any:
            handle.remove()
            return backward.setup_output_hook(output)

        handle = module.register_forward_hook(finish)
    return args, kwargs


def build(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Build ``module`` from a first input, unless another thread has done so."""
    deferred = vars(module).get("_deferred")
    if deferred is not None:
        with deferred.lock:
            if isinstance(module, LazyModule):
                notify_built(module, module._build(args, kwargs))


@functools.cache
def takes_input_kwargs(get_initialized_module: Callable[..., nn.Module]) -> bool:
    return "input_kwargs" in inspect.signature(get_initialized_module).parameters


def is_traced(inputs: Sequence[Any]) -> bool:
    """Whether a graph is being traced; a graph must not depend on the input from which a module is built."""
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch.compiler.is_exporting() or any(isinstance(each, fx.Proxy) for each in inputs)


def with_known_shape(tensor: Tensor) -> Tensor:
    """``tensor``, or a meta tensor of the shape in this call if its shape is symbolic, as in Dynamo."""
    if all(isinstance(size, int) for size in tensor.shape):
        return tensor
    sizes: Any = [size.node.hint if isinstance(size, torch.SymInt) else size for size in tensor.shape]
    return torch.empty(sizes, dtype=tensor.dtype, device="meta")


def target_class(lazy_class: type[nn.Module]) -> type[nn.Module] | None:
    """The class that a lazy class builds: the first of its bases that is a module class and not itself lazy."""
    for base in lazy_class.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module and not issubclass(base, UnbuiltModule):
            return base
    return None


def describe(values: Sequence[Any]) -> str:
    """Format inputs for an error message: tensors by shape, others by type."""
    return ", ".join(str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__ for each in values)
