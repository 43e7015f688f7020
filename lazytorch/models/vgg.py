"""VGG and AlexNet: plain convolutions, max-pooling, and hidden linear layers.

VGG: Simonyan & Zisserman 2014, "Very Deep Convolutional Networks", table 1, https://arxiv.org/abs/1409.1556. Names
with bn have a BatchNorm after each convolution, which keeps its bias. They equal torchvision's at every size, and
timm's up to 224 pixels: torchvision pools every feature map to 7x7 pixels before the linear layers; timm applies the
first linear layer as a convolution of 7x7 pixels to a larger feature map, and then pools.

AlexNet: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", footnote 1,
https://arxiv.org/abs/1404.5997: the network of 2012 without its split into two columns and without response
normalization. It equals torchvision's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import InitFunction
from lazytorch.arguments import ValueRules
from lazytorch.layers import LazyConvNormActivation, LazyLinear, LazyMaxPool
from lazytorch.layers.checks import positive_whole, several
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal
from lazytorch.models.registry import model, rows_of
from lazytorch.models.stems import unpadded_max_pool
from lazytorch.models.tables import same_length

# fmt: off
__all__ = [
    "VGG", "AlexNet", "alexnet",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
]
# fmt: on

HEADS = {
    "torchvision": """
        head.hidden.linear1  classifier.0
        head.hidden.linear2  classifier.3
        head.classifier      classifier.6
    """,
    "timm": """
        head.hidden.linear1  pre_logits.fc1  like=*x*x{size}x{size}
        head.hidden.linear2  pre_logits.fc2  like=*x*x1x1
        head.classifier      head.fc
    """,
}
ALEXNET = Rules("""
    stem.conv            features.0
    stages.S.B.conv      features.{2*N-S+1}
    head.hidden.linear1  classifier.1
    head.hidden.linear2  classifier.4
    head.classifier      classifier.6
""")
Layer = Callable[..., nn.Module] | None


def names(depth: int, modules: int, pool_size: int) -> dict[str, Rules]:
    """The names in both zoos, where convolutions, norms, activations and poolings have consecutive numbers.

    Args:
        depth: Number of convolutions in the stem.
        modules: Number of modules in both zoos for each convolution: itself, its norm if it has one, and its
            activation.
        pool_size: As in ``VGG``.
    """
    index = f"{modules}*N-{modules - 1}*S+{modules * (depth - 1)}"
    lines = [f"stages.S.B.(conv|norm) features.({{{index}+1}}|{{{index}+2}})"]
    for place in range(depth):
        first = modules * place
        lines.append(f"stem.conv{place + 1}.(conv|norm) features.({first}|{first + 1})")
    return {source: Rules("\n".join([*lines, head.format(size=pool_size)])) for source, head in HEADS.items()}


def convolution(out_channels: int, kernel_size: int = 3, **options: Layer | int) -> nn.Module:
    """A convolution with a bias, even before a norm."""
    layer = {name: options[name] for name in ("norm_layer", "activation", "conv_layer", "dilation") if name in options}
    return LazyConvNormActivation(out_channels, kernel_size, bias=True, **layer)  # pyright: ignore[reportArgumentType]


def max_pool(*, stride: int, **_: Layer | int) -> nn.Module:
    """The first block of a stage; if dilation replaces its stride, it keeps the size."""
    return LazyMaxPool(2, stride) if stride > 1 else LazyMaxPool(3, stride, padding=1)


def convolutions(channels: int, depth: int, **layer: Layer) -> nn.Module:
    """The stem."""
    return NamedSequential(**{f"conv{index + 1}": convolution(channels, **layer) for index in range(depth)})  # pyright: ignore[reportArgumentType]


def linear_layers(
    channels: int, dropout: float, activation: Layer, *, dropout_first: bool = False, **_: Layer
) -> dict[str, nn.Module]:
    """The head's layers before its dropout and the classifier."""
    make = nn.Identity if activation is None else activation
    parts = {"dropout0": nn.Dropout(dropout)} if dropout_first else {}
    parts |= {"linear1": LazyLinear(channels), "activation1": make(), "dropout": nn.Dropout(dropout)}
    return {"hidden": NamedSequential(**parts, linear2=LazyLinear(channels), activation2=make())}


@family
class VGG(Network):
    """A network of plain convolutions of 3x3 pixels and max-pooling, with two hidden linear layers in its head.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes). The
    stem contains the convolutions before the first pooling. Each stage begins with a pooling; the last stage contains
    only a pooling. So the feature maps are the inputs of the poolings, and the output of the last one. The size of the
    head's first layer depends on ``pool_size`` and the number of dimensions: for volumes, 7x7x7 pixels of 512 channels
    require 719 million weights.

    Args:
        num_classes: Number of classes; 0 for no classifier: the output is then that of the last hidden layer. By
            default the number of classes of ``weights``, or 1000.
        depths: Number of convolutions before each pooling.
        widths: Channels of these convolutions.
        pool_size: Size of the pooled features along each dimension, in pixels.
        hidden_channels: Channels of the two hidden layers. Dropout follows each.
        options: The options of every network; see ``NetworkOptions``.

    Shape:
        - Input: ``(N, C, *spatial)``, at least 32 pixels along a side
        - Output: ``(N, num_classes)``

    Source:
        Simonyan & Zisserman 2014, table 1, https://arxiv.org/abs/1409.1556. Dilation in place of the last strides:
        Chen et al. 2014 (DeepLab), section 3.1, https://arxiv.org/abs/1412.7062.

    Example:
        >>> import torch
        >>> from lazytorch.models import VGG
        >>> model = VGG(10, widths=(8, 16, 24, 32, 32), pool_size=2, hidden_channels=64)
        >>> [(info.channels, info.reduction) for info in model.feature_info]
        [(8, 1), (16, 2), (24, 4), (32, 8), (32, 16), (32, 32)]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        **same_length("depths", "widths"),
        "depths": several(positive_whole, "(1, 1, 2, 2, 2)"),
        "widths": several(positive_whole, "(64, 128, 256, 512, 512)"),
    }

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (1, 1, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        pool_size: int = 7,
        hidden_channels: int = 4096,
        **options: Unpack[NetworkOptions],
    ) -> None:
        rows = [
            [Row(max_pool, width, stride=2, residual=False), Row(convolution, width, depth, residual=False)]
            for depth, width in zip(depths[1:], widths[1:], strict=True)
        ]
        super().__init__(
            num_classes,
            stem=partial(convolutions, widths[0], depths[0]),
            stem_reduction=1,
            stages=[*rows, [Row(max_pool, widths[-1], stride=2, residual=False)]],
            pool_size=pool_size,
            hidden=partial(linear_layers, hidden_channels, options.get("dropout", 0.0)),
            initialize=InitFunction(fan_out_normal, per_group=False, linear=small_normal),
            names=names(depths[0], 2 if options.get("norm_layer", nn.BatchNorm2d) is None else 3, pool_size),
            **options,
        )


@rows_of(VGG)
def row(name: str, *depths: int) -> Any:
    """The columns are the number of convolutions before each pooling."""
    norm_layer = nn.BatchNorm2d if name.endswith("_bn") else None
    return ["torchvision", "timm"], {"depths": depths, "norm_layer": norm_layer, "dropout": 0.5}


vgg11 = row("vgg11", 1, 1, 2, 2, 2)
vgg11_bn = row("vgg11_bn", 1, 1, 2, 2, 2)
vgg13 = row("vgg13", 2, 2, 2, 2, 2)
vgg13_bn = row("vgg13_bn", 2, 2, 2, 2, 2)
vgg16 = row("vgg16", 2, 2, 3, 3, 3)
vgg16_bn = row("vgg16_bn", 2, 2, 3, 3, 3)
vgg19 = row("vgg19", 2, 2, 4, 4, 4)
vgg19_bn = row("vgg19_bn", 2, 2, 4, 4, 4)


@family
class AlexNet(Network):
    """A network of few convolutions with large kernels, and two hidden linear layers in its head.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes). The
    stem is a convolution of 11x11 pixels with a stride of 4. Each stage begins with a max-pooling; the last stage
    contains only a max-pooling. The size of the head's first layer depends on ``pool_size`` and the number of
    dimensions: for volumes, 6x6x6 pixels of 256 channels require 226 million weights.

    Args:
        num_classes: Number of classes; 0 for no classifier: the output is then that of the last hidden layer. By
            default the number of classes of ``weights``, or 1000.
        stem_channels: Channels of the first convolution.
        stages: Channels of the convolutions of each stage; of 5x5 pixels in the first, and of 3x3 in others.
        pool_size: Size of the pooled features along each dimension, in pixels.
        hidden_channels: Channels of the two hidden layers. Dropout precedes each, and not the classifier.
        options: The options of every network; see ``NetworkOptions``.

    Shape:
        - Input: ``(N, C, *spatial)``, at least 63 pixels along a side
        - Output: ``(N, num_classes)``

    Source:
        Krizhevsky 2014, section 3 and footnote 1, https://arxiv.org/abs/1404.5997.

    Example:
        >>> import torch
        >>> from lazytorch.models import AlexNet
        >>> model = AlexNet(10, stem_channels=8, stages=((16,), (32, 24)), pool_size=2, hidden_channels=64)
        >>> [(info.channels, info.reduction) for info in model.feature_info]
        [(8, 4), (16, 8), (24, 16), (24, 32)]
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    rules: ClassVar[ValueRules] = {
        "stages": several(several(positive_whole, "(384, 256, 256)"), "((192,), (384, 256, 256))"),
    }
    defaults: ClassVar[NetworkOptions] = {"norm_layer": None}

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = ((192,), (384, 256, 256)),
        pool_size: int = 6,
        hidden_channels: int = 4096,
        **options: Unpack[NetworkOptions],
    ) -> None:
        wide = partial(convolution, kernel_size=5)
        rows = [
            [
                Row(unpadded_max_pool, widths[0], stride=2, residual=False),
                *(Row(convolution if index else wide, width, residual=False) for width in widths),
            ]
            for index, widths in enumerate(stages)
        ]
        options = {**self.defaults, **options}
        hidden = partial(linear_layers, hidden_channels, options.pop("dropout", 0.0), dropout_first=True)
        super().__init__(
            num_classes,
            stem=partial(LazyConvNormActivation, stem_channels, 11, 4, padding=2, bias=True),
            stem_reduction=4,
            stages=[*rows, [Row(unpadded_max_pool, stages[-1][-1], stride=2, residual=False)]],
            pool_size=pool_size,
            hidden=hidden,
            names={"torchvision": ALEXNET},
            **options,
        )


alexnet = model("alexnet", AlexNet, ["torchvision"], dropout=0.5)
