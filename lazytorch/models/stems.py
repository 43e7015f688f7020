"""Stems: the convolutions of ResNet and DenseNet before the first stage, and the poolings of these and others."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lazytorch.layers import LazyAvgPool, LazyBlurPool, LazyConvNormActivation, LazyMaxPool
from lazytorch.layers.checks import Sizes
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import LazyZeroPad

__all__ = [
    "average_pool",
    "blurred_max_pool",
    "ceil_max_pool",
    "convolutions",
    "max_pool",
    "strided_convolution",
    "unpadded_max_pool",
    "zero_padded_max_pool",
]


def max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """The paper's pooling of the stem."""
    return LazyMaxPool(3, stride=2, padding=1)


def ceil_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Caffe's pooling of the stem: nothing is added but what the last maximum needs."""
    return LazyMaxPool(3, stride=2, ceil_mode=True)


def unpadded_max_pool(*, stride: int, ceil_mode: bool = False, **_: Callable[..., nn.Module] | int | None) -> nn.Module:
    """The first block of a stage of AlexNet or SqueezeNet; where the network dilates instead, it keeps the size."""
    return LazyMaxPool(3, stride, padding=int(stride == 1), ceil_mode=ceil_mode)


def zero_padded_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """BiT's pooling: zeros around the image are values like others."""
    return NamedSequential(pad=LazyZeroPad(1), max=LazyMaxPool(3, stride=2))


def average_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Averages in place of maxima."""
    return LazyAvgPool(2)


def blurred_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Zhang 2019, section 3.2: the maximum at every pixel, then a blur with the stride."""
    return NamedSequential(max=LazyMaxPool(3, stride=1, padding=1), blur=LazyBlurPool())


def strided_convolution(out_channels: int, **layer: Callable[..., nn.Module] | None) -> nn.Module:
    """ResNet-RS: a convolution with a stride in place of pooling."""
    return LazyConvNormActivation(out_channels, stride=2, **layer)  # pyright: ignore[reportArgumentType]


def convolutions(
    channels: Sequence[int],
    *,
    kernel_size: Sizes = 7,
    stride: Sizes = 2,
    preactivation: bool = False,
    **layer: Any,
) -> nn.Module:
    """The stem: one convolution, by default of 7x7 pixels, or several of 3x3; the first has the stride.

    With ``preactivation``, the first block has the norm and the activation after the last convolution.
    """
    last = layer
    if preactivation:
        last = layer | {"norm_layer": None, "activation": None, "bias": layer["norm_layer"] is None}
    if len(channels) == 1:
        return LazyConvNormActivation(channels[0], kernel_size, stride, **last)
    strides = [stride, *[1] * (len(channels) - 1)]
    parts = [
        LazyConvNormActivation(each, stride=stride, **options)
        for each, stride, options in zip(channels, strides, [*[layer] * (len(channels) - 1), last], strict=True)
    ]
    return NamedSequential(**{f"conv{index}": part for index, part in enumerate(parts, start=1)})
