"""Features: a backbone without its head, for detection and segmentation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lazytorch._init.initialize import known_code
from lazytorch.models.feature_info import FeatureInfo
from lazytorch.models.notes import note_call
from lazytorch.models.trunk import Trunk

if TYPE_CHECKING:
    from lazytorch.models.backbone import Backbone

__all__ = ["Features"]


@known_code
class Features(Trunk):
    """Computes feature maps of a backbone with its stem and the stages that they need, under the same names.

    The modules are shared with the backbone, not copied: a stage that is frozen in one of them is frozen in both.

    Args:
        backbone: The backbone.
        out_indices: The indices of the feature maps in its ``feature_info``, which may be negative; by default all.

    Attributes:
        feature_info: The feature maps, in order.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: a list, ``(N, info.channels, *spatial / info.reduction)`` for each ``info`` of ``feature_info``

    Raises:
        ValueError: If there is no such feature map.

    Example:
        >>> import torch
        >>> from lazytorch.models import get_model
        >>> model = get_model("resnet18", features_only=True, out_indices=(1, 2, -1))
        >>> model.feature_info.channels(), model.feature_info.reduction()
        ([64, 128, 512], [4, 8, 32])
        >>> [tuple(features.shape) for features in model(torch.zeros(2, 1, 64, 64))]
        [(2, 64, 16, 16), (2, 128, 8, 8), (2, 512, 2, 2)]
    """

    def __init__(self, backbone: "Backbone", out_indices: Sequence[int] | None = None) -> None:
        names = backbone.chosen(out_indices)
        last = [f"stages.{name}" for name in backbone.stages._modules].index(names[-1]) if names != ["stem"] else -1
        super().__init__(
            backbone.stem,
            nn.Identity() if last < 0 else backbone.stem_pool,
            backbone.stages[: last + 1],
            backbone.gradient_checkpointing,
            backbone.freezing,
            backbone.spatial_dims,
        )
        self.names = names
        self.built_from = backbone.built_from

    @property
    def feature_info(self) -> FeatureInfo:
        """The feature maps, computed from the current modules, which may be lazy."""
        return FeatureInfo(info for info in self.outputs() if info.module in self.names)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> list[Tensor]: ...

    def forward(self, x: Tensor) -> list[Tensor]:
        """Shape: ``(N, C, *spatial)`` to a list of ``(N, info.channels, *spatial / info.reduction)``."""
        try:
            return self.run(x, self.names)[1]
        except Exception as error:
            note_call(self, error, x)
            raise
