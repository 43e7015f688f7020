"""SqueezeNet: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", table 1.

https://arxiv.org/abs/1602.07360. Version 1.1 is from the authors' repository, https://github.com/forresti/SqueezeNet: a
smaller stem and earlier poolings. Both equal torchvision's. The paper's classifier is a 1x1 convolution; here it is a
linear layer that is applied to every pixel.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import ClassVar, Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from lazytorch._init.initialize import Fill, InitFunction, Uniform, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import LazyConvNormActivation, LazyFireModule
from lazytorch.layers.checks import odd_number, positive, positive_whole, several
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal
from lazytorch.models.registry import model
from lazytorch.models.stems import unpadded_max_pool

__all__ = ["SqueezeNet", "squeezenet1_0", "squeezenet1_1"]

NAMES = Rules("""
    stem.conv                  features.0
    stages.S.B.squeeze.conv    features.{N+2}.squeeze
    stages.S.B.pointwise.conv  features.{N+2}.expand1x1
    stages.S.B.conv.conv       features.{N+2}.expand3x3
    head.classifier            classifier.1              like=*x*x1x1
""")


@known_code
class PixelHead(NamedSequential):
    """A head whose classifier precedes the pooling: it computes scores for every pixel, which are then pooled."""

    pool: nn.Module
    flatten: nn.Module
    dropout: nn.Module
    classifier: nn.Module

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Shape: ``(N, num_features, *reduced)`` to ``(N, num_classes)``; without classes, pooled features."""
        if isinstance(self.classifier, nn.Identity):
            return super().forward(x)
        scores = self.classifier(self.dropout(x).movedim(1, -1)).movedim(-1, 1)
        return self.flatten(self.pool(F.relu(scores)))


def fire(out_channels: int, reduction_ratio: float) -> Callable[..., nn.Module]:
    return partial(LazyFireModule, max(1, round(out_channels / reduction_ratio)))


@family
class SqueezeNet(Network):
    """A network of fire modules, which classifies every pixel and pools the scores.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).
    Each stage begins with a max-pooling. The classifier is a linear layer that is applied to every pixel after dropout.
    A ReLU and the pooling follow it, so no score is negative. With ``num_classes=0`` or ``pre_logits``, the output is
    the pooled features.

    Args:
        stages: Channels of the fire modules of each stage.
        stem_channels: Channels of the first convolution, which has a stride of 2.
        stem_kernel_size: Size of the first convolution's kernel, in pixels.
        reduction_ratio: Ratio of a fire module's output channels to those of its first convolution.
        options: The options of every network; see ``NetworkOptions``.

    Shape:
        - Input: ``(N, C, *spatial)``, at least 21 pixels along a side
        - Output: ``(N, num_classes)``

    Source:
        Iandola et al. 2016, table 1, https://arxiv.org/abs/1602.07360.

    Example:
        >>> import torch
        >>> from lazytorch.models import SqueezeNet
        >>> model = SqueezeNet(10, stages=((16, 16), (32, 32)), stem_channels=8)
        >>> [(info.channels, info.reduction) for info in model.feature_info]
        [(8, 2), (16, 4), (32, 8)]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "stages": several(several(positive_whole, "(128, 128, 256)"), "((128, 128, 256), (256, 384))"),
        "stem_kernel_size": odd_number,
        "reduction_ratio": positive,
    }
    defaults: ClassVar[NetworkOptions] = {"norm_layer": None}

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stages: Sequence[Sequence[int]] = ((128, 128, 256), (256, 384, 384, 512), (512,)),
        stem_channels: int = 96,
        stem_kernel_size: int = 7,
        reduction_ratio: float = 8,
        **options: Unpack[NetworkOptions],
    ) -> None:
        pool = partial(unpadded_max_pool, ceil_mode=True)
        rows = [
            [
                Row(pool, widths[0], stride=2, residual=False),
                *(Row(fire(width, reduction_ratio), width, residual=False) for width in widths),
            ]
            for widths in stages
        ]
        super().__init__(
            num_classes,
            stem=partial(LazyConvNormActivation, stem_channels, stem_kernel_size, 2, padding=0),
            stem_reduction=2,
            stages=rows,
            initialize=InitFunction(initial_values),
            names={"torchvision": NAMES},
            **(self.defaults | options),
        )
        self.head = PixelHead(**self.head._modules)  # pyright: ignore[reportArgumentType]


@known_code
def initial_values(module: nn.Module) -> dict[str, Fill]:
    """He uniform, fan-in, for convolutions, https://arxiv.org/abs/1502.01852; small classifier weights; biases of 0."""
    fills = fan_out_normal(module, per_group=False, linear=small_normal)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        fills["weight"] = Uniform(sqrt(6 / module.weight[0].numel()))
    return fills


EARLY = ((128, 128), (256, 256), (384, 384, 512, 512))
squeezenet1_0 = model("squeezenet1_0", SqueezeNet, ["torchvision"], dropout=0.5)
squeezenet1_1 = model(
    "squeezenet1_1", SqueezeNet, ["torchvision"], stages=EARLY, stem_channels=64, stem_kernel_size=3, dropout=0.5
)
