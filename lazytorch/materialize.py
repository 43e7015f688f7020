"""materialize: build a whole model from input shapes. is_lazy: whether a model has modules that are not built."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as is_uninitialized

from lazytorch import _torch
from lazytorch._init.initialize import InitFunction, Initialization, initialize, is_known, known, postpone, postponing
from lazytorch._lazy.inputs import require_call, require_dims, require_input
from lazytorch._lazy.scopes import all_or_nothing, outside_modes, undo_on_failure, watching_builds
from lazytorch._lazy.state import Adoption, Snapshot
from lazytorch._shapes.mode import ShapeMode, map_tensors
from lazytorch.errors import listed
from lazytorch.lazy_module import LazyModule

__all__ = ["is_lazy", "is_shape", "materialize", "modules_of", "run_on_shapes", "runs_known_code", "survey"]

M = TypeVar("M", bound=nn.Module)


def is_lazy(module: nn.Module) -> bool:
    """Whether ``module`` or any of its submodules is not built yet.

    Raises:
        TypeError: If ``module`` is not a module.

    Example:
        >>> import torch, lazytorch
        >>> conv = lazytorch.layers.LazyPointwiseConv2d(8)
        >>> lazytorch.is_lazy(conv)
        True
        >>> lazytorch.is_lazy(lazytorch.materialize(conv, (1, 3, 8, 8)))
        False
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"is_lazy: the argument must be a module, got {module!r}.")
    surveyed = survey(module)
    return bool(surveyed.lazy or surveyed.lazy_of_torch)


def modules_of(module: nn.Module) -> list[nn.Module]:
    """The modules that ``module.modules()`` yields, in another order; many times faster."""
    found, left = {module: None}, [module]
    while left:
        for part in left.pop()._modules.values():
            if part is not None and part not in found:
                found[part] = None
                left.append(part)
    return list(found)


class Survey(NamedTuple):
    """The modules of a model, collected in one traversal.

    Attributes:
        modules: All modules.
        lazy: Modules of lazytorch that are not built yet.
        lazy_of_torch: Lazy modules of PyTorch that are not built yet.
        device: The device of the first floating-point tensor or lazy module; PyTorch's default device if none is found.
        dtype: The dtype of the same tensor or lazy module; PyTorch's default dtype if none is found.
    """

    modules: list[nn.Module]
    lazy: list[LazyModule]
    lazy_of_torch: list[Any]
    device: torch.device
    dtype: torch.dtype


def survey(module: nn.Module) -> Survey:
    modules = modules_of(module)
    lazy: list[LazyModule] = []
    lazy_of_torch: list[Any] = []
    found: tuple[torch.device, torch.dtype] | None = None
    for each in modules:
        if isinstance(each, LazyModule):
            lazy.append(each)
            deferred = vars(each).get("_deferred")  # another thread may build it at the same time
            found = found or (None if deferred is None else (deferred.device, deferred.dtype))
            continue
        if found is not None and type(each) in known:  # it has no uninitialized parameters
            continue
        tensors = [tensor for tensor in (*each._parameters.values(), *each._buffers.values()) if tensor is not None]
        if any(map(is_uninitialized, tensors)):
            lazy_of_torch.append(each)
        if found is None:
            floating = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
            found = None if floating is None else (floating.device, floating.dtype)
    device, dtype = found or (torch.empty(0).device, torch.get_default_dtype())
    return Survey(modules, lazy, lazy_of_torch, device, dtype)


def materialize(module: M, /, *inputs: Any, spatial_dims: int | None = None, **kwargs: Any) -> M:
    """Build all lazy modules in ``module`` from example inputs or their shapes.

    The forward runs on shapes, without arithmetic. It changes neither values, such as BatchNorm's statistics, nor the
    training flag, the attributes of modules or PyTorch's random state. If it fails, nothing is built.

    Args:
        module: Any module. It may be lazy itself or contain lazy modules at any depth.
        inputs: The arguments of the forward. A tuple of ints such as ``(1, 3, 224, 224)`` is the shape of a tensor with
            the module's device and dtype.
        spatial_dims: The number of spatial dimensions that the first input must have: 1, 2 or 3. None: any of them.
        kwargs: The keyword arguments of the forward, also as tensors or shapes.

    Returns:
        ``module`` itself.

    Raises:
        TypeError: If ``module`` is not a module, or its forward takes other arguments.
        ShapeInferenceError: If a layer cannot infer an argument, or the forward depends on the values of the input.
        RuntimeError: If the forward does not call a lazy module.

    Example:
        >>> import torch, lazytorch
        >>> model = lazytorch.models.mobilenet_v2(num_classes=10)
        >>> _ = lazytorch.materialize(model, (1, 12, 64, 64))
        >>> model.get_classifier()
        Linear(in_features=1280, out_features=10, bias=True)
    """
    mode = ShapeMode(f"materialize({type(module).__name__})")
    require_call(mode.owner, module, inputs, kwargs)
    run_on_shapes(module, survey(module), inputs, kwargs, mode, spatial_dims=spatial_dims)
    return module


def run_on_shapes(
    module: nn.Module,
    surveyed: Survey,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any],
    mode: ShapeMode,
    watch: Callable[[nn.Module], None] | None = None,
    *,
    spatial_dims: int | None = None,
) -> None:
    """Run the forward on shapes, which builds all lazy modules in ``module``. If it fails, none is built.

    Args:
        module: The module.
        surveyed: The result of ``survey(module)``.
        inputs: The arguments of the forward, as in ``materialize``.
        kwargs: The keyword arguments of the forward.
        mode: The mode that computes the shapes.
        watch: Called with ``module`` before its forward, and with every module that is built before its own forward.
        spatial_dims: The number of spatial dimensions that the first input must have; None for any.
    """
    require_dims(mode.owner, spatial_dims)
    lazy_of_torch, device, dtype = list(surveyed.lazy_of_torch), surveyed.device, surveyed.dtype

    def shape(value: Any) -> Any:
        if is_shape(value):
            return mode.of(tuple(value), dtype, device)
        return map_tensors(lambda each: mode.of(each.shape, each.dtype, each.device), value)

    compiled: list[tuple[nn.Module, Any]] = []
    mode.device = device
    snapshot = Snapshot(ignored=getattr(watch, "__self__", None))

    def built(each: nn.Module) -> None:
        if type(each) not in known or is_hooked(each):
            inner = survey(each)
            lazy_of_torch.extend(inner.lazy_of_torch)
            begin(inner)
        if watch is not None:
            watch(each)

    def begin(found: Survey) -> None:
        for each in found.modules:
            if (call := vars(each).pop("_compiled_call_impl", None)) is not None:
                compiled.append((each, call))
            if (type(each) not in known or is_hooked(each)) and each not in found.lazy_of_torch:
                snapshot.add(each)
                mode.protected.update(map(id, (*each._parameters.values(), *each._buffers.values())))
        for each in found.lazy_of_torch:
            each.initialize_parameters = LazyOfTorch(each).initialize

    with outside_modes(), all_or_nothing(is_first_call=True):
        args, named = [shape(each) for each in inputs], {name: shape(each) for name, each in kwargs.items()}
        first = next(iter((*args, *named.values())), None)
        if spatial_dims is not None and isinstance(first, Tensor):
            require_input(mode.owner, first.shape, spatial_dims)
        begin(surveyed)
        try:
            if watch is not None:
                watch(module)
            postponed: list[Initialization] = []
            with torch.no_grad(), mode, watching_builds(built), postponing(postponed):
                module(*args, **named)
            if not all(map(postpone, postponed)):
                initialize(postponed)
        finally:
            snapshot.restore()
            for each, call in compiled:
                each._compiled_call_impl = call
            for each in lazy_of_torch:
                vars(each).pop("initialize_parameters", None)
        after = survey(module)
        left = {*after.lazy, *after.lazy_of_torch}
        if left:
            names = [name or "itself" for name, each in module.named_modules() if each in left]
            raise RuntimeError(
                f"{mode.owner}: the forward must reach every lazy module, got no call of {listed(names)}. Give an "
                "input that reaches them, or remove them."
            )


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks or attributes of ``module``, not of its submodules, may run code that is not its class's."""
    state = vars(module)
    pre_hooks = state["_forward_pre_hooks"].values()
    hooks = [each for each in pre_hooks if not isinstance(getattr(each, "__self__", None), Adoption)]
    if hooks or state["_forward_hooks"] or state["_backward_hooks"] or state["_backward_pre_hooks"]:
        return True
    own = [each for each in state.values() if callable(each) and not isinstance(each, (InitFunction, type))]
    return any(type(getattr(each, "__self__", None)) not in known for each in own)


def runs_known_code(surveyed: Survey) -> bool:
    """Whether the first call of the model runs only code of lazytorch and torch.nn."""
    if _torch.has_any_global_hook():
        return False
    if any(type(each) not in known or is_hooked(each) for each in surveyed.modules):
        return False
    deferred = [vars(each).get("_deferred") for each in surveyed.lazy]
    return all(each is not None and is_known((each.module_args, each.module_kwargs)) for each in deferred)


class LazyOfTorch:
    """Builds a lazy module of PyTorch outside modes, and makes it lazy again if the call fails."""

    def __init__(self, lazy: Any) -> None:
        self.lazy, self.kind, self.state = lazy, type(lazy), Snapshot()
        self.state.add(lazy)
        tensors = (*lazy._parameters.values(), *lazy._buffers.values())
        self.uninitialized: list[tuple[Any, type, Tensor]] = [
            (each, type(each), each.data) for each in tensors if each is not None and is_uninitialized(each)
        ]

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Create real parameters, in place of ``initialize_parameters``."""
        del self.lazy.initialize_parameters
        undo_on_failure(self)
        with outside_modes():
            self.lazy.initialize_parameters(*args, **kwargs)

    def keep(self) -> None:
        """Do nothing: the module is already built."""

    def undo(self) -> None:
        for tensor, kind, data in self.uninitialized:
            tensor.data = data
            tensor.__class__ = kind
        self.state.restore()
        object.__setattr__(self.lazy, "__class__", self.kind)


def is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(type(each) is int for each in value)
