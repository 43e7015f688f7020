"""Backbone: stem, stages and head, the base class of every network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lazytorch._init.initialize import known_code
from lazytorch._lazy.show import show
from lazytorch.arguments import Rule
from lazytorch.errors import UninitializedModuleError, listed, not_yet
from lazytorch.layers.checks import flag, fraction, module, positive_whole, who, whole
from lazytorch.layers.factories import factory, maker
from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import LazyAdaptiveAvgPool
from lazytorch.layers.rules import checked
from lazytorch.layers.twins import lazy_twin
from lazytorch.materialize import is_lazy, materialize, survey
from lazytorch.models._weights.names import Rules
from lazytorch.models.building import NoStemWeightError, built_for_weights
from lazytorch.models.elsewhere import refuse_name
from lazytorch.models.first_call import waiting
from lazytorch.models.freezing import Freezing
from lazytorch.models.initial_weights import initialize_again, without_initial_values
from lazytorch.models.notes import note_call
from lazytorch.models.trunk import Blocks, Trunk, called_with_input

__all__ = ["OPTIONS", "Backbone"]

# The rules for the options of every network.
OPTIONS: dict[str, Rule] = {
    "num_classes": whole,
    "dropout": fraction,
    "pool_size": positive_whole,
    "global_pool": factory("output_size", example="LazyAdaptiveAvgPool"),
    "gradient_checkpointing": flag,
    "initialize": maker("a function of a module"),
}
PARTS = ("stem_pool", "final", "pooled", "hidden")


def stages_of_modules(name: str, value: object, owner: object) -> None:
    """The rule of the stages of a backbone: a module, or a sequence of blocks, for each stage."""
    stages = value if isinstance(value, Sequence) else [value]
    if not isinstance(value, Iterable) or not all(isinstance(each, (nn.Module, Iterable)) for each in stages):
        raise TypeError(f"{who(owner)}: {name} must be modules, or the blocks of each stage, got {show(value)}.")


@known_code
@checked(stem=module, stages=stages_of_modules, **dict.fromkeys(PARTS, module), **OPTIONS)
class Backbone(Trunk):
    """A convolutional network: a stem, stages of blocks, and a head that classifies.

    If its parts are lazy, the first input determines the input channels and the number of spatial dimensions.

    Args:
        stem: The first layer.
        stem_pool: The pooling after the stem; None for no pooling.
        stages: For each stage, its blocks or one module.
        final: The layer between the last stage and the pooling; None for no layer.
        pool_size: Size of the pooling's output along each dimension, in pixels.
        pooled: The layer after the pooling, on feature maps; None for no layer.
        hidden: The layer after ``pooled``, on flattened vectors; None for no layer.
        num_classes: Number of classes; 0 for no classifier. By default 1000, or 0 without pooling.
        dropout: Dropout probability of the pooled features.
        global_pool: Called with ``pool_size``; None for no pooling, and therefore no classifier.
        gradient_checkpointing: Whether the backward pass recomputes the activations of each block, instead of storing
            them.
        spatial_dims: Number of spatial dimensions of the input: 1, 2 or 3. Other inputs raise an error. By default it
            is inferred from the first input.
        initialize: Applied to every module when it is built, to initialize its weights.
        reference_names: Rules for the names of the weights in ``"torchvision"`` and ``"timm"``.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``; ``(N, hidden_channels)`` without a classifier; ``(N, num_features, *reduced)``
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
        stem_pool: nn.Module | None = None,
        stages: Iterable[Iterable[nn.Module] | nn.Module],
        final: nn.Module | None = None,
        pool_size: int = 1,
        pooled: nn.Module | None = None,
        hidden: nn.Module | None = None,
        num_classes: int | None = None,
        dropout: float = 0.0,
        global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
        gradient_checkpointing: bool = False,
        spatial_dims: int | None = None,
        initialize: Callable[[nn.Module], None] | None = None,
        reference_names: Mapping[str, Rules] | None = None,
    ) -> None:
        super().__init__(
            stem,
            nn.Identity() if stem_pool is None else stem_pool,
            nn.Sequential(*(stage if isinstance(stage, nn.Module) else Blocks(*stage) for stage in stages)),
            gradient_checkpointing,
            Freezing(),
            spatial_dims,
        )
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
        self.pool_size = pool_size
        self.initialize = initialize
        self.reference_names = dict(reference_names or {})
        if self.initialize is not None:
            self.apply(self.initialize)
        if num_classes is None:
            num_classes = 0 if global_pool is None else 1000
        self.reset_classifier(num_classes)

    @property
    def num_features(self) -> int:
        """The channels of the pooling's input, computed from the current modules, which may be lazy."""
        return self.output_shapes(self.final)[-1][1]

    @property
    def hidden_channels(self) -> int:
        """The channels of the classifier's input, computed from the current modules, which may be lazy."""
        return self.output_shapes(self.final, self.head[:-1])[-1][1]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            refuse_name(self, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            refuse_name(self, name)
            raise

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_classes)``."""
        try:
            return self.forward_head(self.forward_features(x))
        except Exception as error:
            note_call(self, error, x)
            raise

    @called_with_input
    def forward_features(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_features, *reduced)``, before pooling."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self.final(self.run(x)[0])
        return self.final(self.stages(self.stem_pool(self.call_stem(x))))

    @called_with_input
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> tuple[Tensor, list[Tensor]] | list[Tensor]:
        """Compute ``forward_features`` and feature maps.

        Args:
            x: The input.
            indices: The indices of the feature maps in ``feature_info``, which may be negative; or a number ``n`` for
                the last ``n`` feature maps. By default all.
            norm: Has no effect, as in timm's networks of these families.
            stop_early: Whether to skip the stages after the last of these feature maps, and the final layer.
            output_fmt: Must be ``"NCHW"``: channels come before all spatial dimensions.
            intermediates_only: Whether to return only the feature maps.

        Shape: ``(N, C, *spatial)`` to ``(N, info.channels, *spatial / info.reduction)`` for each.

        Raises:
            ValueError: If there is no such feature map, or ``output_fmt`` is not ``"NCHW"``.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"{type(self).__name__}: output_fmt must be 'NCHW', got {output_fmt!r}.")
        names = self.chosen(indices)
        x, maps = self.run(x, names, stop_early)
        if intermediates_only:
            return maps
        return (x if stop_early else self.final(x)), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Apply the head; with ``pre_logits``, without the classifier.

        Shape: ``(N, num_features, *reduced)`` to ``(N, num_classes)``, or ``(N, hidden_channels)`` with ``pre_logits``.
        """
        return self.head[:-1](x) if pre_logits else self.head(x)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict, as ``nn.Module.load_state_dict`` does. A lazy network is built for the weights first.

        The shape of the first convolution's weight determines the input channels and the number of spatial dimensions.
        To use the weights for an input with other channels, pass ``weights=`` to the constructor instead.

        Raises:
            RuntimeError: If the entries do not fit, as in PyTorch. A lazy network then stays lazy.
        """
        try:
            with built_for_weights(self, state_dict.get, state_dict.__contains__, needs_stem=not strict):
                return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except NoStemWeightError:  # the lazy modules list the missing entries
            return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the network, as ``nn.Module.compile`` does. A lazy network is compiled at its second call."""
        first_call = waiting(self)
        if first_call is None:
            super().compile(*args, **kwargs)
        else:
            first_call.compile = args, kwargs

    def init_weights(self) -> None:
        """Initialize the weights again. Call this after ``to_empty`` if the model was built on the meta device.

        Running statistics and constants also get their initial values. A ``state_dict`` does not contain constants, so
        also call this before loading one. If parameters are sharded, each process gets its shard of the values that
        the first process computes.

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
                f"{kind}.init_weights: a module with parameters or buffers must have reset_parameters(), which "
                f"initializes them, got none in {listed(silent)}."
            )
        # One by one, because each part is unsharded while it is initialized.
        for part in (self.stem, self.stem_pool, *self.stages, self.final, self.head):
            initialize_again(part, self.initialize)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for timm's layer-wise learning rate decay.

        Args:
            coarse: Whether to group by stages instead of blocks.
        """
        # In timm, 99999 means the previous group. Parameters that match nothing, here the head, are the last group.
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None), (r"^final", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay other than norms and biases; there are none."""
        return set()

    def get_classifier(self) -> nn.Module:
        """The layer that computes the classes."""
        return self.head.get_submodule("classifier")

    def reset_classifier(
        self, num_classes: int, global_pool: Callable[[int], nn.Module] | Literal[""] | None = None
    ) -> None:
        """Replace the classifier by a new one on the model's device. With 0 classes, the output is the pooled features.

        In a built model, the new classifier is built if the old one has ``in_features``.

        Args:
            num_classes: Number of classes.
            global_pool: Called with 1; returns the layer that replaces the pooling. ``""``, as in timm, removes the
                pooling, and the hidden layer on vectors if there is one. By default the pooling is not changed.

        Raises:
            ValueError: If ``num_classes`` is not a whole number of at least 0, or not 0 without pooling.
            TypeError: If ``global_pool`` is neither a class or function nor ``""``.
        """
        whole("num_classes", num_classes, self)
        kind = type(self).__name__
        if global_pool and (isinstance(global_pool, (str, nn.Module)) or not callable(global_pool)):
            raise TypeError(
                f"{kind}: global_pool must be a class or function that makes the pooling, such as LazyAdaptiveAvgPool, "
                f"or '' for none, got {global_pool!r}."
            )
        no_pool = isinstance(self.head.flatten, nn.Identity) if global_pool is None else not global_pool
        if num_classes > 0 and no_pool:
            raise ValueError(
                f"{kind}: num_classes must be 0 without pooling, as a classifier takes one vector for each example, "
                f"got {num_classes}. Pass global_pool, or num_classes=0."
            )
        if global_pool is not None:
            pool = lazy_twin(global_pool)(self.pool_size) if global_pool else nn.Identity()
            if is_lazy(pool) and not is_lazy(self):
                materialize(pool, self.output_shapes(self.final)[-1])
            self.head.pool, self.head.flatten = pool, nn.Flatten() if global_pool else nn.Identity()
            if not global_pool:
                self.head._modules.pop("hidden", None)
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
        features = None
        if not is_lazy(self):
            features = self.hidden_channels if global_pool else getattr(self.get_classifier(), "in_features", None)
        self.head.classifier = classifier if features is None else materialize(classifier, (1, features))
