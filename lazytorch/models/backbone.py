"""Backbone: stem, stages and head, the base class of every network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lazytorch._init.initialize import known
from lazytorch.errors import UninitializedModuleError, not_yet
from lazytorch.layers.checks import Sizes, largest, whole
from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import LazyAdaptiveAvgPool
from lazytorch.layers.twins import lazy_twin
from lazytorch.materialize import is_lazy, materialize, survey
from lazytorch.models._weights.names import Rules
from lazytorch.models.building import NoStemWeightError, built_for_weights
from lazytorch.models.elsewhere import replacement_of
from lazytorch.models.features import FeatureInfo, StageInfo, collect, note_path
from lazytorch.models.first_call import FirstCall, waiting
from lazytorch.models.initial_weights import initialize_again, without_initial_values

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A convolutional network: a stem, stages of blocks, and a head that classifies.

    If its parts are lazy, it takes any number of input channels, and signals, images or volumes.

    Args:
        stem: The first layer.
        stages: The blocks of each stage.
        final: The layer between the last stage and the pooling, if there is one.
        channels: The channels of each stage's output.
        reductions: Input size over the size of the output, for each stage; one number, or one for each dimension.
        strides: The stride of each stage, before any is replaced by dilation. A stage is a feature map if the next one
            has a stride. By default every stage is one.
        stem_info: The feature map in the stem, if there is one.
        num_features: Channels that are pooled.
        pool_size: Size of the pooling's output along each dimension, in pixels.
        pooled: The layer after the pooling, if there is one.
        hidden: The layer after that, on vectors, if there is one.
        hidden_channels: Channels of the classifier's input, if ``pooled`` or ``hidden`` change them.
        num_classes: Number of classes; 0 for no classifier; by default 1000, or 0 without pooling.
        dropout: Fraction of the pooled features that training sets to zero.
        global_pool: Called with ``pool_size``; None for no pooling, and so no classifier.
        gradient_checkpointing: Whether the backward pass computes each block's activations again, instead of keeping
            them.
        initialize: Applied to every module when it is built, to initialize its weights.
        reference_names: Rules of the names that ``"torchvision"`` and ``"timm"`` have for the weights.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``; without classes ``(N, hidden_channels)``, and ``(N, num_features, *reduced)``
          without pooling

    Raises:
        ValueError: If ``num_classes`` is not a whole number of at least 0, or not 0 without pooling, or ``dropout`` is
            not from 0 to 1.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyConvNormActivation, LazyInvertedBottleneck
        >>> from lazytorch.models import Backbone
        >>> model = Backbone(
        ...     stem=LazyConvNormActivation(8, stride=2),
        ...     stages=[[LazyInvertedBottleneck(8)], [LazyInvertedBottleneck(16, stride=2, expansion_ratio=6)]],
        ...     channels=[8, 16],
        ...     reductions=[2, 4],
        ...     num_features=16,
        ...     num_classes=5,
        ... )
        >>> model(torch.zeros(2, 12, 32, 32)).shape
        torch.Size([2, 5])
        >>> model.feature_info[-1]
        StageInfo(channels=16, reduction=4, module='stages.1')
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Iterable[Iterable[nn.Module]],
        final: nn.Module | None = None,
        channels: Iterable[int],
        reductions: Iterable[Sizes],
        strides: Sequence[Sizes] | None = None,
        stem_info: StageInfo | None = None,
        num_features: int,
        pool_size: int = 1,
        pooled: nn.Module | None = None,
        hidden: nn.Module | None = None,
        hidden_channels: int | None = None,
        num_classes: int | None = None,
        dropout: float = 0.0,
        global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
        gradient_checkpointing: bool = False,
        initialize: Callable[[nn.Module], None] | None = None,
        reference_names: Mapping[str, Rules] | None = None,
    ) -> None:
        super().__init__()
        FirstCall(self)
        if isinstance(global_pool, nn.Module) or not (global_pool is None or callable(global_pool)):
            raise TypeError(f"Backbone: global_pool must be a class or function that makes it, got {global_pool!r}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"Backbone: dropout must be from 0 to 1, got {dropout!r}.")
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.final = nn.Identity() if final is None else final
        parts = {"pool": nn.Identity(), "flatten": nn.Identity()}
        if global_pool is not None:
            pool = lazy_twin(global_pool)(pool_size)
            parts = {"pool": pool, "pooled": pooled, "flatten": nn.Flatten(), "hidden": hidden}
        self.head = NamedSequential(
            **{name: part for name, part in parts.items() if part is not None},
            dropout=nn.Dropout(dropout),
            classifier=nn.Identity(),
        )
        self.num_features = num_features
        self.hidden_channels = num_features if hidden_channels is None or global_pool is None else hidden_channels
        self.stage_info = [
            StageInfo(width, reduction, f"stages.{index}")
            for index, (width, reduction) in enumerate(zip(channels, reductions, strict=True))
        ]
        after = [2] * len(self.stage_info) if strides is None else [*strides[1:], 2]
        self.feature_info = FeatureInfo([] if stem_info is None else [stem_info])
        self.feature_info += [info for info, stride in zip(self.stage_info, after, strict=True) if largest(stride) > 1]
        self.frozen: list[str] = []
        self.gradient_checkpointing = gradient_checkpointing
        self.initialize = initialize
        self.reference_names = dict(reference_names or {})
        if self.initialize is not None:
            self.apply(self.initialize)
        if num_classes is None:
            num_classes = 0 if global_pool is None else 1000
        self.reset_classifier(num_classes)

    def __setattr__(self, name: str, value: Any) -> None:
        # A class of a user's may have modules of these names; in ours, they would not be called.
        way = replacement_of(name) if isinstance(value, nn.Module) and type(self) in known else None
        if way is not None:
            raise AttributeError(f"{type(self).__name__} has no {name!r}, as other libraries' have. Use {way}.")
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_classes)``."""
        try:
            return self.forward_head(self.forward_features(x))
        except Exception as error:
            note_path(self, error)
            raise

    def forward_features(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_features, *reduced)``, before pooling."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self.final(collect(self.stem, self.stages, x, (), checkpointing=True)[0])
        return self.final(self.stages(self.stem(x)))

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, *, intermediates_only: bool = False
    ) -> tuple[Tensor, list[Tensor]] | list[Tensor]:
        """Compute ``forward_features`` and feature maps.

        Args:
            x: The input.
            indices: The indices of the feature maps in ``feature_info``, which may be negative; a number for that many
                of the last ones; by default all.
            intermediates_only: Whether to return the feature maps alone.

        Shape: ``(N, C, *spatial)`` to ``(N, info.channels, *spatial / info.reduction)`` for each.

        Raises:
            ValueError: If there is no such feature map.
        """
        names = [self.feature_info[index].module for index in self.feature_info.indices(indices)]
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        x, maps = collect(self.stem, self.stages, x, names, checkpointing)
        return maps if intermediates_only else (self.final(x), maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify; or, with ``pre_logits``, stop before the classifier.

        Shape: ``(N, num_features, *reduced)`` to ``(N, num_classes)``, or ``(N, hidden_channels)`` with ``pre_logits``.
        """
        return self.head[:-1](x) if pre_logits else self.head(x)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As ``nn.Module.load_state_dict``. A network that was never called is built for the weights.

        The weight of the stem's first convolution has the input channels and the number of spatial dimensions. To fit
        weights to another input, pass ``weights=`` when the network is constructed.

        Raises:
            RuntimeError: If the entries do not fit, as in PyTorch. A network that was lazy then stays lazy.
        """
        try:
            with built_for_weights(self, state_dict.get, state_dict.__contains__, needs_stem=not strict):
                return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except NoStemWeightError:  # its lazy parts list what is missing
            return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As ``nn.Module.compile``; a network that was never called is compiled at its second call."""
        first_call = waiting(self)
        if first_call is None:
            super().compile(*args, **kwargs)
        else:
            first_call.compile = args, kwargs

    def init_weights(self) -> None:
        """Initialize the weights again: for a model that was built on the meta device, after ``to_empty``.

        Running statistics and constants get their initial values as well. A ``state_dict`` does not contain constants,
        so call this before loading one, too. Of sharded parameters, each process keeps its shard of the values that the
        first process draws.

        Raises:
            UninitializedModuleError: If the model is lazy: its weights are initialized when it is built.
            TypeError: If a module has parameters or buffers, but no ``reset_parameters``.
        """
        kind = type(self).__name__
        if is_lazy(self):
            raise UninitializedModuleError(not_yet(kind, "parameters", "init_weights()"))
        silent = without_initial_values(self)
        if silent:
            raise TypeError(
                f"{kind}.init_weights: a module with parameters or buffers must have reset_parameters(), to give them "
                f"their values, got none in {', '.join(silent)}."
            )
        for part in (self.stem, *self.stages, self.final, self.head):  # one by one: each is whole for a while
            initialize_again(part, self.initialize)

    def freeze_stages(self, count: int | None) -> None:
        """Freeze the stem and the first stages: no gradients, and their BatchNorm and dropout stay in evaluation.

        Args:
            count: Number of stages; 0 for the stem alone; None to freeze nothing.

        Raises:
            ValueError: If there are fewer stages.
        """
        if count is not None and whole("count", count, self) > len(self.stages):
            raise ValueError(f"{type(self).__name__}: there are {len(self.stages)} stages to freeze, got {count}.")
        for part in (self.stem, *self.stages):
            part.requires_grad_(True)
        self.frozen = [] if count is None else ["stem", *(f"stages.{index}" for index in range(count))]
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``; what is frozen stays in evaluation."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for timm's layer-wise decay of the learning rate.

        Args:
            coarse: Whether to group by stages instead of blocks.
        """
        # timm's 99999 is for the group before; what nothing matches, here the head, is the last group.
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None), (r"^final", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, besides norms and biases: none."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block's activations again in the backward pass, instead of keeping them: slower, less memory.

        BatchNorm then updates its running statistics twice for every batch.

        Source:
            Chen et al. 2016, https://arxiv.org/abs/1604.06174.
        """
        self.gradient_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The layer that computes the classes."""
        return self.head.get_submodule("classifier")

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one, on the model's device; 0 classes for none, which leaves pooled features.

        In a built model, the new one is built as well if the old one has ``in_features``.

        Raises:
            ValueError: If ``num_classes`` is not a whole number of at least 0, or not 0 without pooling.
        """
        whole("num_classes", num_classes, self)
        if num_classes > 0 and isinstance(self.head.flatten, nn.Identity):
            raise ValueError(
                f"{type(self).__name__}: num_classes must be 0 without pooling, as a classifier takes one vector for "
                f"each example, got {num_classes}. Pass global_pool, or num_classes=0."
            )
        self.num_classes = num_classes
        if num_classes == 0:
            self.head.classifier = nn.Identity()
            return
        *_, device, dtype = survey(self)
        classifier = LazyLinear(num_classes).train(self.training)
        parameter = next(classifier.parameters())
        if (parameter.device, parameter.dtype) != (device, dtype):
            classifier.to(device, dtype)
        if self.initialize is not None:
            classifier.apply(self.initialize)
        features = getattr(self.get_classifier(), "in_features", None) if not is_lazy(self) else None
        self.head.classifier = classifier if features is None else materialize(classifier, (1, features))


known.add(Backbone)
