"""Trunk: a stem and stages, which are called in sequence; the base class of Backbone and Features."""

import functools
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lazytorch import _torch
from lazytorch._init.initialize import known_code
from lazytorch._lazy.inputs import require_input
from lazytorch.layers.checks import whole
from lazytorch.materialize import is_lazy, modules_of
from lazytorch.models.feature_info import FeatureInfo, StageInfo
from lazytorch.models.first_call import FirstCall, lock_of, waiting
from lazytorch.models.freezing import Freezing
from lazytorch.models.measuring import has_stride, is_dilated, is_plain, reduction_of, shapes_of
from lazytorch.models.notes import note_call

__all__ = ["Blocks", "Trunk", "called_with_input"]

F = TypeVar("F", bound=Callable[..., Any])


@known_code
class Blocks(nn.Sequential):
    """A stage: blocks that are called in sequence.

    Attributes:
        dilated: Whether dilation replaced the stage's stride.
    """

    dilated = False

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Shape: ``(N, C, *spatial)`` to ``(N, out_channels, *reduced)``.

        Args:
            x: The input.
            checkpointing: Whether the backward pass recomputes the activations of each block.
        """
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)  # pyright: ignore[reportAssignmentType]
        return x

    def __getitem__(self, idx: Any) -> Any:
        part: Any = super().__getitem__(idx)
        if isinstance(idx, slice) and [*part][:1] == [*self][:1]:
            vars(part)["dilated"] = self.dilated
        return part


def called_with_input(method: F) -> F:
    """Decorator of a ``Trunk``'s methods that take an input: the first call builds the network; errors get notes."""

    @functools.wraps(method)
    def called(self: "Trunk", x: Tensor, *args: Any, **kwargs: Any) -> Any:
        first_call = None if torch.compiler.is_compiling() else waiting(self)
        try:
            if first_call is None:
                return method(self, x, *args, **kwargs)
            return first_call.call(method, (x, *args), kwargs, ((x,), {}))
        except Exception as error:
            note_call(self, error, x)
            raise

    return called  # pyright: ignore[reportReturnType]


class Trunk(nn.Module):
    """A stem, its pooling, and stages.

    Args:
        stem: The first layer.
        stem_pool: The pooling after the stem.
        stages: The stages.
        gradient_checkpointing: Whether the backward pass recomputes the activations of each block.
        freezing: The frozen parts.
        spatial_dims: Number of spatial dimensions of the input: 1, 2 or 3; None to infer it from the first input.
    """

    built_from: tuple[int, ...] | None

    def __init__(
        self,
        stem: nn.Module,
        stem_pool: nn.Module,
        stages: nn.Sequential,
        gradient_checkpointing: bool,
        freezing: Freezing,
        spatial_dims: int | None,
    ) -> None:
        super().__init__()
        FirstCall(self)
        self.stem = stem
        self.stem_pool = stem_pool
        self.stages = stages
        self.gradient_checkpointing = gradient_checkpointing
        self.freezing = freezing
        self.spatial_dims = spatial_dims
        self.known_names: tuple[Any, list[str]] = None, []

    @property
    def stage_info(self) -> FeatureInfo:
        """The outputs of all stages, computed from the current modules, which may be lazy."""
        return FeatureInfo(self.outputs()[2:])

    @property
    def feature_info(self) -> FeatureInfo:
        """The feature maps, computed from the current modules, which may be lazy.

        The output of the stem or of a stage is a feature map if the next module has a stride, even if dilation replaced
        this stride. The last output is also a feature map.
        """
        stem, pool, *stages = self.outputs()
        before = [stem] if stem.reduction == pool.reduction else [stem, pool]
        dilated = {f"stages.{name}" for name, stage in self.stages._modules.items() if is_dilated(stage)}
        outputs = [*before, *stages]
        return FeatureInfo(
            info
            for info, after in zip(outputs, [*outputs[1:], None], strict=True)
            if info is not pool and (after is None or after.reduction != info.reduction or after.module in dilated)
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"known_names": (None, [])}  # weak references cannot be pickled

    def output_shapes(self, *after: nn.Module) -> list[tuple[int, ...]]:
        """The shapes of an input, and of the outputs of stem, pooling, every stage and the modules ``after`` them."""
        with lock_of(self):
            return shapes_of([self.stem, self.stem_pool, *self.stages, *after], self.built_from)

    def outputs(self) -> list[StageInfo]:
        """The outputs of the stem, of its pooling, and of every stage."""
        names = ["stem", "stem_pool", *(f"stages.{name}" for name in self.stages._modules)]
        example, *shapes = self.output_shapes()
        return [
            StageInfo(shape[1], reduction_of(example[2:], shape[2:]), name)
            for name, shape in zip(names, shapes, strict=True)
        ]

    @_torch.constant_in_graphs
    def map_names(self) -> list[str]:
        """The names of modules that return the feature maps; computed again if a module or a stride has changed."""
        if is_lazy(self):
            return self.feature_info.module_name()
        modules = modules_of(nn.ModuleList([self.stem, self.stem_pool, self.stages]))[1:]
        key = [(weakref.ref(each), *filter(is_plain, vars(each).values())) for each in modules]
        key += [(name, is_dilated(stage)) for name, stage in self.stages._modules.items()]
        if self.known_names[0] != key:
            try:
                self.known_names = key, self.feature_info.module_name()
            except Exception:  # the network is sharded, or its shapes depend on values
                self.known_names = key, self.names_by_strides()
        return self.known_names[1]

    def names_by_strides(self) -> list[str]:
        """The names of modules whose outputs are the feature maps, if every layer with a stride reduces the size."""
        parts = {"stem": self.stem, "": self.stem_pool} | {
            f"stages.{name}": each for name, each in self.stages._modules.items()
        }
        if not has_stride(self.stem_pool):
            del parts[""]
        after = [*map(has_stride, parts.values()), True][1:]
        return [name for name, ends in zip(parts, after, strict=True) if ends and name]

    def chosen(self, indices: int | Sequence[int] | None) -> list[str]:
        """The names of modules of feature maps: of the last ``indices``, of those with these indices, or of all.

        Raises:
            ValueError: If there is no such feature map.
        """
        names = self.map_names()
        if indices is None:
            return names
        kind = type(self).__name__
        places = list(indices) if isinstance(indices, Sequence) else [indices]
        if any(type(each) is not int for each in places):
            raise TypeError(f"{kind}: the indices of feature maps must be whole numbers, got {indices!r}.")
        if isinstance(indices, int):
            places = list(range(-indices, 0))
        missing = [place for place in places if not -len(names) <= place < len(names)]
        if missing or not places:
            raise ValueError(
                f"{kind}: indices must be those of the {len(names)} feature maps with reductions "
                f"{self.feature_info.reduction()}, got {indices!r}."
            )
        return [names[place] for place in sorted({place % len(names) for place in places})]

    def call_stem(self, x: Tensor) -> Tensor:
        if self.spatial_dims is not None:
            require_input(type(self).__name__, x.shape, self.spatial_dims)
        return self.stem(x)

    def run(self, x: Tensor, names: Collection[str] = (), stop_early: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The output of the last stage, and the outputs of the modules with these names.

        Args:
            x: The input.
            names: The names of modules: ``stem`` or stages.
            stop_early: Whether to stop after the last of these modules.
        """
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        if type(self.stages).forward is not nn.Sequential.forward:
            raise TypeError(
                f"{type(self).__name__}: for feature maps and gradient checkpointing, model.stages must be an "
                "nn.Sequential without a forward of its own, as each stage is called, got "
                f"{type(self.stages).__name__}."
            )
        x = self.call_stem(x)
        maps = [x] if "stem" in names else []
        if stop_early and len(maps) == len(names):
            return x, maps
        x = self.stem_pool(x)
        for name, stage in self.stages._modules.items():
            assert stage is not None
            if not checkpointing:
                x = stage(x)
            elif getattr(stage.forward, "__func__", None) is Blocks.forward:
                x = stage(x, checkpointing=True)
            else:
                x = checkpoint(stage, x, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
            if f"stages.{name}" in names:
                maps.append(x)
                if stop_early and len(maps) == len(names):
                    break
        return x, maps

    def freeze_stages(self, count: int | None) -> None:
        """Freeze the stem and the first stages: no gradients, and BatchNorm and dropout stay in evaluation mode.

        Parts that an earlier call froze are unfrozen. Parameters that did not require gradients before still do not.

        Args:
            count: Number of stages; 0 for the stem alone; None to freeze nothing.

        Raises:
            ValueError: If there are fewer stages.
        """
        if count is not None and whole("count", count, self) > len(self.stages):
            raise ValueError(
                f"{type(self).__name__}: count must be at most the {len(self.stages)} stages, got {count}."
            )
        stages = list(self.stages)[:count]
        self.freezing.freeze([] if count is None else [self.stem, self.stem_pool, *stages])
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as ``nn.Module.train`` does; frozen parts stay in evaluation mode."""
        super().train(mode)
        self.freezing.evaluate()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of each block in the backward pass instead of storing them: slower, less memory.

        A stage that is not made of blocks, such as your own module, is recomputed as a whole. With recomputation,
        BatchNorm updates its running statistics twice for every batch.

        Source:
            Chen et al. 2016, https://arxiv.org/abs/1604.06174.
        """
        self.gradient_checkpointing = enable
