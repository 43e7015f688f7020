"""Mixup and CutMix of a batch, for signals, images and volumes."""

from typing import Any

from torch import Tensor
from torchvision.transforms import v2 as transforms

from scripts.training.options import Options
from scripts.training.sources import Data


class Mixing:
    """Mixes each sample of a batch with another one, and their targets by the same fractions.

    torchvision's transforms take images. A signal is passed to them as an image of one row, and the slices of a volume
    as further channels: CutMix replaces the same rectangle in all of them.

    Args:
        data: The data to mix.
        options: ``mixup`` and ``cutmix``; with both, each batch has one of them.
    """

    def __init__(self, data: Data, options: Options) -> None:
        mixes = [(transforms.MixUp, options.mixup), (transforms.CutMix, options.cutmix)]
        chosen: list[Any] = [mix(alpha=alpha, num_classes=len(data.classes)) for mix, alpha in mixes if alpha > 0]
        self.mix = transforms.RandomChoice(chosen) if chosen else None

    def __call__(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The samples and targets; the targets are then fractions, (samples, classes)."""
        if self.mix is None:
            return samples, labels
        if samples.dim() == 4:
            return self.mix(samples, labels)
        images = samples.unsqueeze(-2) if samples.dim() == 3 else samples.flatten(1, 2)
        mixed, targets = self.mix(images, labels)
        return mixed.reshape(samples.shape), targets
