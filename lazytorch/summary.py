"""summary: output shapes, parameters and multiply-accumulates (MACs) of every layer, without changing the model."""

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as is_uninitialized

from lazytorch import _torch
from lazytorch._init.initialize import known, known_code, seeds_from, skipping_init
from lazytorch._lazy.inputs import require_call
from lazytorch._lazy.scopes import outside_modes, path_in_running_model
from lazytorch._lazy.state import HOOKS, MODULE_STATE
from lazytorch._lazy.unbuilt import PLACEHOLDER
from lazytorch._shapes.mode import META, ShapeMode, map_tensors, without_shapes
from lazytorch.lazy_module import LazyModule, describe
from lazytorch.materialize import is_shape, modules_of, run_on_shapes, runs_known_code, survey
from lazytorch.summary_table import LayerSummary, Summary

__all__ = ["output_shapes", "summary"]

WATCH = -1  # the id of a hook that no RemovableHandle has
BLOCK_DEPTH = 3  # the depth of blocks in a network of the zoo: stages.stage.block
# The attributes of every lazy module.
LAZY_STATE = MODULE_STATE.keys() | {"_deferred"}


def summary(
    module: nn.Module, /, *inputs: Any, depth: int | None = BLOCK_DEPTH, spatial_dims: int | None = None, **kwargs: Any
) -> Summary:
    """The output shapes, parameters and multiply-accumulates (MACs) of every layer of a model.

    The model is not changed, and lazy modules stay lazy: the forward runs on a copy without values, in evaluation mode.
    ``print`` shows the table; a notebook also shows a bar chart of the stages, which ``plot`` draws with matplotlib.
    ``to_markdown`` returns the table as Markdown. ``summary(a, shape).compare(summary(b, shape))`` compares two models.

    Args:
        module: Any module.
        inputs: The arguments of the forward. A tuple of ints such as ``(1, 3, 224, 224)`` is the shape of a tensor with
            the module's device and dtype.
        depth: The number of levels of submodules in the table. The default shows the blocks of a network of the zoo.
            None: all levels.
        spatial_dims: The number of spatial dimensions that the first input must have: 1, 2 or 3. None: any of them.
        kwargs: The keyword arguments of the forward, also as tensors or shapes.

    Raises:
        TypeError: If ``module`` is not a module, or its forward takes other arguments.
        ShapeInferenceError: If a layer cannot infer an argument.

    Example:
        >>> import lazytorch
        >>> model = lazytorch.models.resnet18(num_classes=10)
        >>> lazytorch.summary(model, (1, 12, 64, 64), depth=1)
        input: (1, 12, 64, 64), read as (batch, channels, height, width)
        layer                       output shape     parameters         MACs
        ResNet                      (1, 10)          11,209,866  176,952,320
          stem: ConvNormActivation  (1, 64, 32, 32)      37,760   38,535,168
          stem_pool: MaxPool2d      (1, 64, 16, 16)           0            0
          stages: Sequential        (1, 512, 2, 2)   11,166,976  138,412,032
          final: Identity           (1, 512, 2, 2)            0            0
          head: NamedSequential     (1, 10)               5,130        5,120
        parameters: 11,209,866 (11,209,866 trainable), MACs: 176,952,320
        >>> lazytorch.is_lazy(model)
        True
    """
    owner = f"summary({type(module).__name__})"
    if depth is not None and (type(depth) is not int or depth < 0):
        raise ValueError(f"summary: depth must be a whole number of at least 0, or None, got {depth!r}.")
    require_call(owner, module, inputs, kwargs)
    layers, trainable = recorded(module, inputs, kwargs, owner, spatial_dims=spatial_dims)
    given = [each for each in (*inputs, *kwargs.values()) if isinstance(each, Tensor) or is_shape(each)]
    shapes = [tuple(each.shape if isinstance(each, Tensor) else each) for each in given]
    return Summary(layers, trainable, depth, shapes)


def output_shapes(module: nn.Module, *inputs: Any) -> list[tuple[int, ...]]:
    """The shapes of the tensors that a call of ``module`` returns, computed on a copy without values and hooks."""
    layers, _ = recorded(module, inputs, {}, type(module).__name__, with_hooks=False)
    return layers[0].output_shapes


def recorded(
    module: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    owner: str,
    *,
    with_hooks: bool = True,
    spatial_dims: int | None = None,
) -> tuple[list[LayerSummary], int]:
    """The row of every module, and the number of trainable parameters.

    Args:
        module: The module, which is not changed.
        inputs: The arguments of the forward, as in ``summary``.
        kwargs: The keyword arguments of the forward.
        owner: The name of the caller, for messages.
        with_hooks: Whether to run hooks that the user registered, and to record submodules.
        spatial_dims: The number of spatial dimensions that the first input must have; None for any.
    """
    surveyed = survey(module)
    blocks: dict[LazyModule, Block] = {}
    recorder = Recorder(ShapeMode(owner, count_macs=True))
    if runs_known_code(surveyed) and all(map(is_as_constructed, surveyed.lazy)):
        blocks = {each: Block(each, recorder) for each in surveyed.lazy}
    with outside_modes():
        copied = without_values(surveyed.modules, blocks, with_hooks)
        copied_survey = survey(copied)._replace(device=surveyed.device, dtype=surveyed.dtype)
        try:
            watch = recorder.watch if with_hooks else recorder.watch_one
            run_on_shapes(copied, copied_survey, inputs, kwargs, recorder.mode, watch, spatial_dims=spatial_dims)
            return recorder.rows(copied)
        finally:
            recorder.end()
            for block in blocks.values():
                block.lazy = ()


class Recorder:
    """Records output shapes and MACs of modules, with hooks, while a forward runs on shapes."""

    def __init__(self, mode: ShapeMode) -> None:
        self.mode = mode
        self.running: list[tuple[nn.Module, int]] = []
        self.macs: dict[nn.Module, int] = {}
        self.output_shapes: dict[nn.Module, list[tuple[int, ...]]] = {}
        self.watched: set[nn.Module] = set()
        self.memo: dict[Any, tuple[list[LayerSummary], int]] = {}  # rows by the key of a layer and its input

    def end(self) -> None:
        """Remove the reference cycles between modules and hooks, which only the garbage collector would free."""
        for each in self.watched:
            each._forward_pre_hooks.clear()
            each._forward_hooks.clear()
        for kept in (self.watched, self.running, self.macs, self.output_shapes):
            kept.clear()

    def watch_one(self, model: nn.Module) -> None:
        if not self.watched:
            self.watch(model, [model])

    def watch(self, model: nn.Module, modules: Sequence[nn.Module] | None = None) -> None:
        for each in modules_of(model) if modules is None else modules:
            if each not in self.watched and not isinstance(each, torch.jit.ScriptModule):
                self.watched.add(each)
                before, after = each._forward_pre_hooks, each._forward_hooks
                if before or after:
                    each.register_forward_pre_hook(self.enter, prepend=True)
                    each.register_forward_hook(self.leave)
                else:  # without RemovableHandles: creating them takes as long as a small layer
                    before[WATCH], after[WATCH] = self.enter, self.leave

    def enter(self, module: nn.Module, _: Any) -> None:
        self.running.append((module, self.mode.macs))

    def leave(self, module: nn.Module, _: Any, output: Any) -> None:
        entered, before = self.running.pop()
        while entered is not module:  # a call that raised, in a forward that caught the error
            entered, before = self.running.pop()
        self.macs[module] = self.macs.get(module, 0) + self.mode.macs - before
        shapes = self.output_shapes[module] = []
        if isinstance(output, Tensor):
            shapes.append(tuple(output.shape))
        else:
            map_tensors(lambda tensor: shapes.append(tuple(tensor.shape)), output)

    def rows(self, model: nn.Module) -> tuple[list[LayerSummary], int]:
        """The row of every module of ``model``, and the number of its trainable parameters."""
        layers: list[LayerSummary] = []
        # The numbers of elements and of trainable elements of each parameter, by the parameter's id, by module.
        counts: dict[nn.Module, dict[int, tuple[int, int]]] = {}

        def add(name: str, module: nn.Module) -> dict[int, tuple[int, int]]:
            if module in counts:
                return counts[module]
            counted = counts[module] = {}
            if isinstance(module, Block):
                layers.extend(layer.below(name) for layer in module.layers)
                if module.layers:
                    counted[id(module)] = module.layers[0].parameters, module.trainable
                return counted
            shapes, macs = self.output_shapes.get(module, []), self.macs.get(module, 0)
            row = LayerSummary(name, type(module).__name__, shapes, 0, macs)
            layers.append(row)
            for key, part in module._modules.items():
                if part is not None:
                    counted.update(add(f"{name}.{key}" if name else key, part))
            for each in module._parameters.values():
                if each is not None:
                    counted[id(each)] = each.numel(), each.numel() * each.requires_grad
            row.parameters = sum(elements for elements, _ in counted.values())
            return counted

        return layers, sum(trainable for _, trainable in add("", model).values())


@known_code
class Block(nn.Module):
    """Replaces a lazy layer of ``lazytorch.layers`` in a summary, to summarize equal layers once.

    Args:
        lazy: The layer, unchanged since its construction.
        recorder: The recorder of the summary.
    """

    def __init__(self, lazy: LazyModule, recorder: Recorder) -> None:
        super().__init__()
        self.lazy: tuple[LazyModule, ...] = (lazy,)  # not a submodule
        self.recorder = recorder
        self.first: Tensor | None = None
        self.layers: list[LayerSummary] = []
        self.trainable = 0
        deferred = lazy._deferred
        rate = deferred.module_kwargs.get("drop_path_rate")
        same = {"drop_path_rate": 0.5} if type(rate) is float and 0 < rate < 1 else {}  # no result depends on the rate
        self.module_args, self.module_kwargs = deferred.module_args, deferred.module_kwargs | same

    def forward(self, x: Tensor) -> Tensor:
        lazy, mode = self.lazy[0], self.recorder.mode
        with without_shapes():
            given, x = x, mode.of(x.shape, x.dtype, torch.device("cpu"))  # the device on which the layer is constructed
        key = None
        if self.first is None:
            key = key_of((type(lazy), self.module_args, self.module_kwargs, tuple(x.shape), x.dtype))
        found = None if key is None else self.recorder.memo.get(key)
        if found is None:
            found = self.summarize(x if self.first is None else self.first, x)
            if key is not None:
                self.recorder.memo[key] = found
        else:
            mode.macs += found[0][0].macs
        layers, self.trainable = found
        if self.first is None:
            self.first, self.layers = x, layers
        else:
            pairs = zip(layers, self.layers, strict=True)
            self.layers = [dataclasses.replace(layer, macs=layer.macs + before.macs) for layer, before in pairs]
        with without_shapes():
            return mode.like(given, layers[0].output_shapes[0])

    def summarize(self, first: Tensor, x: Tensor) -> tuple[list[LayerSummary], int]:
        """The rows of the layer that is built from ``first`` and called with ``x``."""
        lazy, recorder = self.lazy[0], Recorder(self.recorder.mode)
        try:
            with (
                outside_modes(),
                skipping_init(shapes_only=True),
                seeds_from(lazy._deferred.seed),
                _torch.disable_torch_function(),
            ):
                built = lazy.get_initialized_module((first,), self.module_args, dict(self.module_kwargs))
                recorder.watch(built)
                for each in recorder.watched:
                    vars(each)["training"] = False
            built(x)
            with _torch.disable_torch_function():
                return recorder.rows(built)
        except Exception as error:
            path = path_in_running_model(self)
            error.add_note(f"at {path}")
            if lazy._deferred.owner not in str(error):
                error.add_note(f"while {lazy._deferred.owner} was built from input {describe((first,))}")
            raise
        finally:
            recorder.end()


IMMUTABLE = (bool, int, float, str, torch.dtype, type(None))


def key_of(value: Any) -> Any:
    """A cache key: two keys are equal if values and types are equal. None if ``value`` cannot be compared."""
    kind = type(value)
    if kind in IMMUTABLE:
        return kind, value
    if isinstance(value, functools.partial):
        value = (value.func, value.args, value.keywords)
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, (tuple, list)):
        parts = [key_of(each) for each in value]
        return None if None in parts else (kind, tuple(parts))
    return (kind, value) if isinstance(value, type) or value in known else None


def is_as_constructed(lazy: LazyModule) -> bool:
    """Whether a lazy layer was not changed after its construction in a way that its summary shows."""
    deferred = lazy._deferred
    added = lazy._modules or lazy._buffers or lazy._parameters.keys() != {PLACEHOLDER} or vars(lazy).keys() - LAZY_STATE
    if added or not deferred.dtype is deferred.constructed_as is torch.get_default_dtype():
        return False
    changes = [call for call in deferred.calls if call[0] not in ("train", "apply")]
    return not changes and deferred.runs_known_code


def without_values(
    modules: list[nn.Module], blocks: Mapping[LazyModule, nn.Module], with_hooks: bool = True
) -> nn.Module:
    """Copy a model, the first of ``modules``, to the meta device, with lazy layers replaced by ``blocks``."""
    memo: dict[int, Any] = {id(lazy): block for lazy, block in blocks.items()}

    def remember(value: Any) -> None:
        if isinstance(value, Tensor) and id(value) not in memo and value.layout is torch.strided:
            memo[id(value)] = on_meta(value)
        elif isinstance(value, dict):
            for each in value.values():
                remember(each)
        elif isinstance(value, (tuple, list, set)):
            for each in value:
                remember(each)

    for each in modules:
        if each in blocks:
            continue
        # deepcopy uses the entries of its memo, which is many times faster than copying an empty dict.
        hooks = (vars(each)[name] for name in HOOKS)
        memo.update({id(hook): type(hook)() for hook in hooks if not (hook and with_hooks)})
        if isinstance(each, LazyModule):
            memo.update({id(arg): arg for arg in each._deferred.module_kwargs.values() if callable(arg)})
            for method, args in each._deferred.calls:
                if method == "load":
                    remember(args[0].entries)
            state = {name: value for name, value in vars(each).items() if name not in ("_parameters", "_deferred")}
            remember((state, [value for name, value in each._parameters.items() if name != PLACEHOLDER]))
        else:
            remember(vars(each))
    copied = copy.deepcopy(modules[0], memo)
    memo.clear()  # it refers to the model, and is in a reference cycle that only the garbage collector would free
    for each in modules_of(copied):
        if isinstance(each, LazyModule):
            deferred = each._deferred
            deferred.constructed_on = deferred.device = META
            deferred.calls = [call for call in deferred.calls if call[0] != "_apply"]
            deferred.calls.append(("_apply", (functools.partial(to_dtype, deferred.dtype),)))
    return copied.eval()


def to_dtype(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def on_meta(tensor: Tensor) -> Tensor:
    """A tensor like this one without values; a parameter of one of PyTorch's lazy modules stays uninitialized."""
    if not tensor.is_floating_point() and not tensor.is_meta and tensor.numel() <= 4096:
        return tensor.clone()  # a counter or an index, whose values the forward may read
    if is_uninitialized(tensor):
        kind: Any = type(tensor)
        return kind(tensor.requires_grad, device=META, dtype=tensor.dtype)
    empty = torch.empty_like(tensor, device=META)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
