"""Stems: the convolutions of ResNet and DenseNet before the first stage, and poolings of stems and stages."""

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
    """The pooling after the stem in the paper."""
    return LazyMaxPool(3, stride=2, padding=1)


def ceil_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """The pooling after the stem in Caffe: padding is added only at the end, for the last window."""
    return LazyMaxPool(3, stride=2, ceil_mode=True)


def unpadded_max_pool(*, stride: int, ceil_mode: bool = False, **_: Callable[..., nn.Module] | int | None) -> nn.Module:
    """The first block of a stage of AlexNet or SqueezeNet; if dilation replaces its stride, it keeps the size."""
    return LazyMaxPool(3, stride, padding=int(stride == 1), ceil_mode=ceil_mode)


def zero_padded_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """BiT's pooling: zeros of the padding are included in the maximum."""
    return NamedSequential(pad=LazyZeroPad(1), max=LazyMaxPool(3, stride=2))


def average_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """An average pooling in place of the max-pooling."""
    return LazyAvgPool(2)


def blurred_max_pool(out_channels: int, **_: Callable[..., nn.Module] | None) -> nn.Module:
    """Zhang 2019, section 3.2: a max-pooling with a stride of 1, then a blur with the stride."""
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

    With ``preactivation``, no norm and no activation follow the last convolution: the first block begins with them.
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
