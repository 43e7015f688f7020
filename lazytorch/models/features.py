"""Feature maps: a backbone without its head, for detection and segmentation."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lazytorch._init.initialize import known
from lazytorch.layers.checks import Sizes
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.models.first_call import FirstCall

if TYPE_CHECKING:
    from lazytorch.models.backbone import Backbone

__all__ = ["FeatureInfo", "Features", "StageInfo", "collect", "note_path"]


# timm's keys of a feature map, and the attributes of ``StageInfo``.
TIMM = {"num_chs": "channels", "reduction": "reduction", "module": "module"}


class StageInfo(NamedTuple):
    """A feature map, as it is known before any input.

    Attributes:
        channels: Its channels.
        reduction: Input size over its size; one number, or one for each spatial dimension where they differ.
        module: The name of the module in the backbone whose output it is.

    Example:
        >>> from lazytorch.models import resnet18
        >>> info = resnet18().feature_info[1]
        >>> info
        StageInfo(channels=64, reduction=4, module='stages.0')
        >>> info["num_chs"]  # as timm has it
        64
    """

    channels: int
    reduction: Sizes
    module: str

    def __getitem__(self, key: Any) -> Any:
        """An attribute by its index, or by timm's name: ``"num_chs"``, ``"reduction"``, ``"module"``."""
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in TIMM:
            raise KeyError(f"StageInfo: the key must be {' or '.join(map(repr, TIMM))}, got {key!r}.")
        return getattr(self, TIMM[key])


class FeatureInfo(list[StageInfo]):
    """The feature maps of a model, from the finest to the coarsest, with timm's methods."""

    def channels(self) -> list[int]:
        """The channels of each."""
        return [info.channels for info in self]

    def reduction(self) -> list[Sizes]:
        """The reduction of each."""
        return [info.reduction for info in self]

    def get_dicts(
        self, keys: Sequence[str] | None = None, out_indices: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Each as a dict with timm's keys.

        Args:
            keys: Those of ``"num_chs"``, ``"reduction"`` and ``"module"``; by default all.
            out_indices: The indices of the feature maps; by default all.
        """
        chosen = self if out_indices is None else [self[index] for index in out_indices]
        return [{key: info[key] for key in (TIMM if keys is None else keys)} for info in chosen]

    def module_name(self) -> list[str]:
        """The module of each."""
        return [info.module for info in self]

    def indices(self, wanted: int | Sequence[int] | None) -> list[int]:
        """The indices of the feature maps: of the last ``wanted``, of these indices, or of all.

        Raises:
            ValueError: If there is no such feature map.
        """
        if wanted is None:
            return list(range(len(self)))
        places = list(range(-wanted, 0)) if isinstance(wanted, int) else list(wanted)
        missing = [place for place in places if not -len(self) <= place < len(self)]
        if missing or not places:
            raise ValueError(
                f"Backbone: feature maps must be of the {len(self)} there are, of reductions {self.reduction()}, got "
                f"{wanted!r}."
            )
        return sorted({place % len(self) for place in places})


class Features(nn.Module):
    """The feature maps of a backbone: its stem and the stages that they need, under the same names.

    Args:
        backbone: The backbone; its modules are shared, not copied.
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
        super().__init__()
        FirstCall(self)
        chosen = backbone.feature_info.indices(out_indices)
        self.feature_info = FeatureInfo(backbone.feature_info[index] for index in chosen)
        self.gradient_checkpointing = backbone.gradient_checkpointing
        last = self.feature_info[-1].module
        self.stem, self.stages = backbone.stem, backbone.stages
        if last.startswith("stages."):
            self.stages = backbone.stages[: int(last.removeprefix("stages.")) + 1]
        else:
            self.stages = nn.Sequential()
            if last != "stem":
                parts = dict(backbone.stem.named_children())
                count = list(parts).index(last.removeprefix("stem.")) + 1
                self.stem = NamedSequential(**dict(list(parts.items())[:count]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Shape: ``(N, C, *spatial)`` to a list of ``(N, info.channels, *spatial / info.reduction)``."""
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        try:
            return collect(self.stem, self.stages, x, self.feature_info.module_name(), checkpointing)[1]
        except Exception as error:
            note_path(self, error)
            raise


known.add(Features)


def collect(
    stem: nn.Module, stages: nn.Module, x: Tensor, names: Collection[str], checkpointing: bool
) -> tuple[Tensor, list[Tensor]]:
    """The output of the last stage, and those of the modules with these names."""
    maps = []
    if any(name.startswith("stem.") for name in names):
        for name, part in stem.named_children():
            x = part(x)
            if f"stem.{name}" in names:
                maps.append(x)
    else:
        x = stem(x)
        if "stem" in names:
            maps.append(x)
    for name, stage in stages.named_children():
        if checkpointing:
            for block in stage.children():
                x = checkpoint(block, x, use_reentrant=False)
        else:
            x = stage(x)
        if f"stages.{name}" in names:
            maps.append(x)
    return x, maps


def note_path(model: nn.Module, error: Exception) -> None:
    """Add to ``error`` the name of the module of ``model`` that raised it, unless a note names it already."""
    if any(note.startswith("at ") for note in getattr(error, "__notes__", ())):
        return
    names = {module: name for name, module in model.named_modules()}
    path, traceback = "", error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code is getattr(nn.Module._call_impl, "__code__", None):
            path = names.get(frame.f_locals["self"], "") or path
    if path:
        error.add_note(f"at {path}")
