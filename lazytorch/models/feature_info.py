"""Information about a network's feature maps: channels, reduction and module."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lazytorch.layers.checks import Sizes

__all__ = ["FeatureInfo", "StageInfo"]


# timm's keys of a feature map, and the attributes of ``StageInfo``.
TIMM = {"num_chs": "channels", "reduction": "reduction", "module": "module"}


class StageInfo(NamedTuple):
    """A feature map.

    Attributes:
        channels: The number of channels.
        reduction: Ratio of the input size to the size of the feature map; one number, or one for each spatial dimension
            if they differ.
        module: The name of the module that returns it.

    Example:
        >>> from lazytorch.models import resnet18
        >>> info = resnet18().feature_info[1]
        >>> info
        StageInfo(channels=64, reduction=4, module='stages.0')
        >>> info["num_chs"]  # timm's key
        64
    """

    channels: int
    reduction: Sizes
    module: str

    def __getitem__(self, key: Any) -> Any:
        """An attribute by its index or by timm's key: ``"num_chs"``, ``"reduction"`` or ``"module"``."""
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in TIMM:
            raise KeyError(f"StageInfo: the key must be {' or '.join(map(repr, TIMM))}, got {key!r}.")
        return getattr(self, TIMM[key])

    def __contains__(self, key: object) -> bool:
        return key in TIMM or tuple.__contains__(self, key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default``, which is not stored. timm's feature wrappers call this."""
        return self[key] if key in TIMM else default


class FeatureInfo(list[StageInfo]):
    """The feature maps of a network, from the finest to the coarsest, with timm's methods."""

    def channels(self) -> list[int]:
        """The channels of each feature map."""
        return [info.channels for info in self]

    def reduction(self) -> list[Sizes]:
        """The reduction of each feature map."""
        return [info.reduction for info in self]

    def get_dicts(
        self, keys: Sequence[str] | None = None, out_indices: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Each feature map as a dict with timm's keys.

        Args:
            keys: The keys to include, of ``"num_chs"``, ``"reduction"`` and ``"module"``; by default all.
            out_indices: The indices of the feature maps; by default all.
        """
        chosen = self if out_indices is None else [self[index] for index in out_indices]
        return [{key: info[key] for key in (TIMM if keys is None else keys)} for info in chosen]

    def module_name(self) -> list[str]:
        """The module name of each feature map."""
        return [info.module for info in self]
