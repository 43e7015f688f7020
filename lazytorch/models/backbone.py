"""Backbone: stem, stages, head; what every network of the zoo is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.rank import LazyAdaptiveAvgPool
from lazytorch.lazify import whole
from lazytorch.materialize import is_lazy, materialize, placement
from lazytorch.named_sequential import NamedSequential

__all__ = ["Backbone", "StageInfo"]


# What a module is called elsewhere; and, if others there, the spatial dimensions of its weight.
Names = Mapping[str, str | tuple[str, int]]


class StageInfo(NamedTuple):
    """What is known of a stage before any input.

    Attributes:
        channels: Channels that it produces.
        reduction: Input pixels along a side over output pixels along it.
        module: The stage's name within the backbone.
    """

    channels: int
    reduction: int
    module: str


class Backbone(nn.Module):
    """A convolutional network: a stem, stages of blocks, and a head that classifies.

    Built of lazy parts it takes any input channels, and signals, images or volumes.

    Args:
        stem: The first layer.
        stages: The stages; each a sequence of blocks.
        final: What follows the last stage before pooling, if anything.
        channels: The channels that each stage produces.
        reductions: Input pixels along a side over output pixels along it, for each stage.
        num_features: Channels that are pooled.
        pooled: What follows the pooling, at one pixel, if anything.
        hidden: What follows that, on vectors, if anything.
        hidden_channels: Channels that reach the classifier, where ``pooled`` or ``hidden`` change them.
        num_classes: Classes to tell apart; 0 for no classifier; by default 1000, or 0 where nothing is pooled.
        dropout: Share of the pooled features that training sets to zero.
        global_pool: Called with 1, the pixels that it leaves along each side; None for no pooling, and no classifier.
        gradient_checkpointing: Whether the gradient computes each block's activations again, instead of keeping them.
        initialize: Called with every module once it is built, to draw its initial weights.
        reference_names: For ``"torchvision"`` and ``"timm"``, what modules of that zoo's model are called there, by
            their names here; with the number of spatial dimensions of their weights if it is another one there.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``; without classes ``(N, hidden_channels)``, and ``(N, num_features, *reduced)``
          without pooling

    Raises:
        ValueError: If ``num_classes`` is not a whole number of at least 0, or not 0 where nothing is pooled, or
            ``dropout`` is not from 0 to 1.

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
        reductions: Iterable[int],
        num_features: int,
        pooled: nn.Module | None = None,
        hidden: nn.Module | None = None,
        hidden_channels: int | None = None,
        num_classes: int | None = None,
        dropout: float = 0.0,
        global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
        gradient_checkpointing: bool = False,
        initialize: Callable[[nn.Module], None] | None = None,
        reference_names: Mapping[str, Names] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(global_pool, nn.Module) or not (global_pool is None or callable(global_pool)):
            raise TypeError(f"Backbone: global_pool must be a class or function that makes it, got {global_pool!r}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"Backbone: dropout must be from 0 to 1, got {dropout!r}.")
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.final = nn.Identity() if final is None else final
        parts = {"pool": nn.Identity(), "flatten": nn.Identity()}
        if global_pool is not None:
            parts = {"pool": global_pool(1), "pooled": pooled, "flatten": nn.Flatten(), "hidden": hidden}
        self.head = NamedSequential(
            **{name: part for name, part in parts.items() if part is not None},
            dropout=nn.Dropout(dropout),
            classifier=nn.Identity(),
        )
        self.num_features = num_features
        self.hidden_channels = num_features if hidden_channels is None or global_pool is None else hidden_channels
        self.feature_info = [
            StageInfo(width, reduction, f"stages.{index}")
            for index, (width, reduction) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.gradient_checkpointing = gradient_checkpointing
        self.initialize = initialize
        self.reference_names = dict(reference_names or {})
        if initialize is not None:
            self.apply(initialize)
        if num_classes is None:
            num_classes = 0 if global_pool is None else 1000
        self.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_features, *reduced)``, before pooling."""
        x = self.stem(x)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            for stage in self.stages.children():
                for block in stage.children():
                    x = checkpoint(block, x, use_reentrant=False)
        else:
            x = self.stages(x)
        return self.final(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify; or, with ``pre_logits``, stop before the classifier.

        Shape: ``(N, num_features, *reduced)`` to ``(N, num_classes)``, or ``(N, hidden_channels)`` with ``pre_logits``.
        """
        return self.head[:-1](x) if pre_logits else self.head(x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the gradient compute each block's activations again, instead of keeping them: slower, on less memory.

        BatchNorm sees every batch twice then, and moves its running statistics twice.

        Source:
            Chen et al. 2016, https://arxiv.org/abs/1604.06174.
        """
        self.gradient_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The layer that computes the classes."""
        return self.head.get_submodule("classifier")

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one, on the model's device; 0 classes for none, which leaves pooled features.

        In a model that is built, the new one is built as well, if the old one tells of how many features it is.

        Raises:
            ValueError: If ``num_classes`` is not a whole number of at least 0, or not 0 where nothing is pooled.
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
        device, dtype = placement(self)
        classifier = LazyLinear(num_classes).to(device, dtype).train(self.training)
        if self.initialize is not None:
            classifier.apply(self.initialize)
        features = getattr(self.get_classifier(), "in_features", None) if not is_lazy(self) else None
        self.head.classifier = classifier if features is None else materialize(classifier, (1, features))


def branch_rates(drop_path_rate: float, blocks: int, last: int) -> list[float]:
    """The stochastic depth of each block, in proportion to its place, up to ``drop_path_rate`` at the place ``last``.

    Raises:
        ValueError: If ``drop_path_rate`` is not from 0 to below 1.

    Source:
        Huang et al. 2016, section 3, https://arxiv.org/abs/1603.09382.
    """
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"Backbone: drop_path_rate must be from 0 to below 1, got {drop_path_rate!r}.")
    return [drop_path_rate * index / max(1, last) for index in range(blocks)]


class Place(NamedTuple):
    """Where a block stands in its network.

    Attributes:
        stride: The block's step, in pixels.
        dilation: Distance between the pixels that its kernels see.
        input_dilation: That of the block before.
    """

    stride: int
    dilation: int
    input_dilation: int


def places(
    strides: Sequence[int], repeats: Sequence[int], *, stem_reduction: int, output_stride: int
) -> tuple[list[list[Place]], list[int]]:
    """The places of the blocks in each stage, and what each stage has reduced the input by.

    A step that would reduce by more than ``output_stride`` is not taken: the kernels of what follows are dilated
    instead, and see the same input pixels (Yu et al. 2017, https://arxiv.org/abs/1705.09914).

    Args:
        strides: The step of the first block of each stage, in pixels.
        repeats: The blocks of each stage.
        stem_reduction: What the stem reduces by.
        output_stride: What the network is to reduce by, at most: 8, 16 or 32.

    Raises:
        ValueError: If ``output_stride`` is none of these.
    """
    if type(output_stride) is not int or output_stride not in (8, 16, 32):
        raise ValueError(f"Backbone: output_stride must be 8, 16 or 32, got {output_stride!r}.")
    if not repeats or not all(isinstance(count, int) and count > 0 for count in repeats):
        raise ValueError(f"Backbone: there must be stages, of at least one block each, got {list(repeats)}.")
    wanted = list(accumulate(strides, mul, initial=stem_reduction))
    stages = []
    for index, count in enumerate(repeats):
        before, after = (max(1, each // output_stride) for each in wanted[index : index + 2])
        stride = min(wanted[index + 1], output_stride) // min(wanted[index], output_stride)
        stages.append([Place(stride, after, before), *[Place(1, after, after)] * (count - 1)])
    return stages, [min(each, output_stride) for each in wanted[1:]]
