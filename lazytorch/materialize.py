"""materialize: build a whole model at once, without arithmetic. is_lazy: is anything left to build?"""

import contextlib
import copy
import functools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import peek_interpreter_stack
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.parameter import is_lazy as is_uninitialized
from torch.utils._pytree import tree_map_only

from lazytorch.become import HOOKS, MODULE_STATE
from lazytorch.drawing import is_untouched
from lazytorch.errors import ShapeInferenceError
from lazytorch.first_call import as_one_call, on_failure
from lazytorch.lazy_module import LazyModule
from lazytorch.pending import plain_torch
from lazytorch.shapes import Shapes, shapes_only
from lazytorch.side_by_side import drawing_meanwhile
from lazytorch.tree import modules_of

__all__ = ["build_ahead", "is_lazy", "materialize", "run_on_shapes"]

M = TypeVar("M", bound=nn.Module)


def is_lazy(module: nn.Module) -> bool:
    """Whether ``module``, or any module below it, is still to be built.

    Example:
        >>> import torch, lazytorch
        >>> conv = lazytorch.layers.LazyPointwiseConv2d(8)
        >>> lazytorch.is_lazy(conv)
        True
        >>> lazytorch.is_lazy(lazytorch.materialize(conv, (1, 3, 8, 8)))
        False
    """
    return any(map(needs_building, modules_of(module)))


def needs_building(module: nn.Module) -> bool:
    """Whether ``module`` itself is ours or PyTorch's, and lazy."""
    if isinstance(module, LazyModule):
        return True
    for each in (*module._parameters.values(), *module._buffers.values()):
        if each is not None and is_uninitialized(each):
            return True
    return False


def materialize(module: M, /, *inputs: Any, **kwargs: Any) -> M:
    """Build everything lazy in ``module`` from example inputs, or from nothing but their shapes.

    The forward runs on shapes alone: no arithmetic, no change to BatchNorm statistics, to the training flag or to
    random states. Either everything that the forward reaches is built, or nothing.

    Args:
        module: Any module; itself lazy, or with lazy modules anywhere below it.
        inputs: The forward's arguments. A tuple of ints such as ``(1, 3, 224, 224)`` stands for a tensor of that
            shape, on the module's device and of its dtype.
        kwargs: The forward's keyword arguments, likewise.

    Returns:
        ``module`` itself.

    Raises:
        TypeError: If ``module`` is no module.
        ShapeInferenceError: If a layer cannot infer what it needs, or the forward depends on the values in the input.
        RuntimeError: If the forward leaves a part of the module unbuilt.

    Example:
        >>> import torch, lazytorch
        >>> model = lazytorch.models.mobilenet_v2(num_classes=10)
        >>> _ = lazytorch.materialize(model, (1, 12, 64, 64))
        >>> model.get_classifier()
        Linear(in_features=1280, out_features=10, bias=True)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"materialize: what is built must be a module, got {module!r}.")
    run_on_shapes(module, inputs, kwargs)
    return module


def run_on_shapes(
    module: nn.Module,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any],
    count_macs: Callable[[Shapes], None] | None = None,
) -> None:
    """Run the forward on shapes alone, and so build everything lazy in ``module``.

    Args:
        module: The module.
        inputs: The forward's arguments, as ``materialize`` takes them.
        kwargs: Its keyword arguments.
        count_macs: Called, before the forward, with what will count its multiply-adds.
    """
    device, dtype = placement(module)
    with plain_torch():
        mode = FakeTensorMode()

        def fake(value: Any) -> Any:
            if is_shape(value):
                with mode:
                    return torch.empty(tuple(value), device=device, dtype=dtype)
            return tree_map_only(Tensor, mode.from_tensor, value)

        args = tuple(fake(each) for each in inputs)
        named = {name: fake(each) for name, each in kwargs.items()}

        numpy = sys.modules.get("numpy")

        def run() -> None:
            untouched = is_untouched(module)  # and so without a forward that stores anything
            kept = {} if untouched else dict(stored_tensors(module))
            containers = [] if untouched else [(each, copy.copy(each)) for each in stored_containers(module)]
            states = random.getstate(), numpy.random.get_state() if numpy else None
            try:
                with (
                    drawing_meanwhile() if untouched else contextlib.nullcontext(),
                    shapes_only(mode, count_macs is not None) as shapes,
                    torchs_own_built_for_real(module),
                ):
                    if count_macs is not None:
                        count_macs(shapes)
                    module(*args, **named)
            finally:
                if not untouched:
                    forget_fakes(module, kept)
                for container, contents in containers:
                    container.clear()
                    container.update(contents) if isinstance(container, dict) else container.extend(contents)
                random.setstate(states[0])
                if numpy:
                    numpy.random.set_state(states[1])
            if is_lazy(module):
                left = [name or "itself" for name, each in module.named_modules() if needs_building(each)]
                raise RuntimeError(
                    f"materialize({type(module).__name__}): the forward must reach every lazy part, got none for "
                    f"{', '.join(left)}. Give an input that reaches them, or remove them."
                )

        try:
            as_one_call(run)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ShapeInferenceError(
                f"materialize({type(module).__name__}): the forward must not depend on the values in tensors, as only "
                f"their shapes are known, got {error.func}. Call the model on a real batch instead."
            ) from error


def build_ahead(module: nn.Module, *inputs: Any) -> None:
    """Build ``module`` from shapes before its first call: weights are drawn faster where no arithmetic waits for them.

    Only where nobody can tell. A failure is left to the call itself.
    """
    if not (
        torch.get_num_threads() > 1
        and "torch._dynamo" in sys.modules  # what fake tensors need: its import would take a second
        and all(type(each) is Tensor and each.device.type == "cpu" for each in inputs)
        and placement(module)[0].type == "cpu"
        and is_lazy(module)
        and is_untouched(module)
        and not _has_any_global_hook()
        and torch._C._get_tracing_state() is None
        and _len_torch_function_stack() == _len_torch_dispatch_stack() == 0
        and peek_interpreter_stack() is None
    ):
        return
    try:
        run_on_shapes(module, inputs, {})
    except Exception:
        return


@contextlib.contextmanager
def torchs_own_built_for_real(module: nn.Module) -> Iterator[None]:
    """Have PyTorch's lazy modules make real parameters, and forget them if the call fails."""
    own: list[Any] = [
        each
        for each in modules_of(module)
        if isinstance(each, LazyModuleMixin) and not isinstance(each, LazyModule) and needs_building(each)
    ]

    def initialize(lazy: Any, *args: Any, **kwargs: Any) -> None:
        with plain_torch():
            del lazy.initialize_parameters
            kind, state = type(lazy), dict(vars(lazy))
            hooks = {name: dict(state[name]) for name in HOOKS}
            tensors = (*lazy.parameters(recurse=False), *lazy.buffers(recurse=False))
            unbuilt: list[tuple[Any, type, Tensor]] = [
                (each, type(each), each.data) for each in tensors if is_uninitialized(each)
            ]
            lazy.initialize_parameters(*args, **kwargs)

        def undo() -> None:
            for tensor, tensor_kind, data in unbuilt:
                tensor.data = data
                tensor.__class__ = tensor_kind
            for name, registered in hooks.items():
                state[name].update(registered)
            object.__setattr__(lazy, "__dict__", state)
            object.__setattr__(lazy, "__class__", kind)

        on_failure(undo)

    for each in own:
        each.initialize_parameters = functools.partial(initialize, each)
    try:
        yield
    finally:
        for each in own:
            vars(each).pop("initialize_parameters", None)


Place = tuple[nn.Module, str, str]
STORES = ("__dict__", "_parameters", "_buffers")


def stored_tensors(module: nn.Module) -> Iterator[tuple[Place, Tensor]]:
    """Every tensor that a module below ``module`` holds, and where."""
    for each in modules_of(module):
        for store in STORES:
            for name, value in getattr(each, store).items():
                if isinstance(value, Tensor):
                    yield (each, store, name), value


def stored_containers(module: nn.Module) -> Iterator[list[Any] | dict[Any, Any]]:
    """Every list and dict that a module below ``module`` holds as an attribute of its own: caches, say."""
    for each in modules_of(module):
        for name, value in vars(each).items():
            if name not in MODULE_STATE and isinstance(value, (list, dict)):
                yield value


def forget_fakes(module: nn.Module, kept: Mapping[Place, Tensor]) -> None:
    """Put back what the forward replaced by something computed from its input."""
    for owner in modules_of(module):
        for store in STORES:
            values = getattr(owner, store)
            if FakeTensor not in map(type, values.values()):
                continue
            for name in [name for name, value in values.items() if type(value) is FakeTensor]:
                if (owner, store, name) in kept:
                    values[name] = kept[owner, store, name]
                elif store == "__dict__":
                    del values[name]
                else:
                    raise ShapeInferenceError(
                        f"materialize({type(module).__name__}): the forward must not compute state from its input, got "
                        f"{type(owner).__name__}.{name}. Call the model on a real batch instead."
                    )


def is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0 and all(type(each) is int for each in value)


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the module's floating-point tensors are or will be, and their dtype; PyTorch's defaults if it has none."""
    for each in modules_of(module):
        if isinstance(each, LazyModule):
            return each._pending.device, each._pending.dtype
        for tensor in (*each.parameters(recurse=False), *each.buffers(recurse=False)):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.empty(0).device, torch.get_default_dtype()
