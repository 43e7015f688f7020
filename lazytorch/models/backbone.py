"""Backbone: stem, stages, head; what every network of the zoo is."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor, nn

from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.rank import LazyAdaptiveAvgPool
from lazytorch.lazify import whole
from lazytorch.materialize import placement
from lazytorch.named_sequential import NamedSequential

__all__ = ["Backbone", "StageInfo"]


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
        num_classes: Classes to tell apart; 0 for no classifier.
        dropout: Share of the pooled features that training sets to zero.
        initialize: Called with every module once it is built, to draw its initial weights.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``, or ``(N, num_features)`` without classes

    Raises:
        ValueError: If ``num_classes`` is not a whole number of at least 0, or ``dropout`` is not from 0 to 1.

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
        num_classes: int = 1000,
        dropout: float = 0.0,
        initialize: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.final = nn.Identity() if final is None else final
        self.head = NamedSequential(
            pool=LazyAdaptiveAvgPool(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            classifier=nn.Identity(),
        )
        self.num_features = num_features
        self.feature_info = [
            StageInfo(width, reduction, f"stages.{index}")
            for index, (width, reduction) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.initialize = initialize
        if initialize is not None:
            self.apply(initialize)
        self.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Shape: ``(N, C, *spatial)`` to ``(N, num_features, *reduced)``, before pooling."""
        return self.final(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify; or, with ``pre_logits``, stop before the classifier.

        Shape: ``(N, num_features, *reduced)`` to ``(N, num_classes)``, or with ``pre_logits`` ``(N, num_features)``.
        """
        return self.head[:-1](x) if pre_logits else self.head(x)

    def get_classifier(self) -> nn.Module:
        """The layer that computes the classes."""
        return self.head.get_submodule("classifier")

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one, on the model's device; 0 classes for none, which leaves pooled features.

        Raises:
            ValueError: If ``num_classes`` is not a whole number of at least 0.
        """
        self.num_classes = whole("num_classes", num_classes, self)
        if num_classes == 0:
            self.head.classifier = nn.Identity()
            return
        device, dtype = placement(self)
        classifier = LazyLinear(num_classes).to(device, dtype)
        self.head.classifier = classifier if self.initialize is None else classifier.apply(self.initialize)
