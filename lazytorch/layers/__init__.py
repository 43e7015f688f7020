"""Lazy layers of convolutional networks, each beside the eager layer that it becomes."""

from lazytorch.layers.bottleneck import BottleneckBlock, LazyBottleneckBlock
from lazytorch.layers.conv_norm_activation import ConvNormActivation, LazyConvNormActivation
from lazytorch.layers.depthwise_separable import (
    DepthSepConv,
    DepthSepConv2d,
    DepthwiseConv,
    DepthwiseConv2d,
    LazyDepthSepConv,
    LazyDepthSepConv2d,
    LazyDepthwiseConv,
    LazyDepthwiseConv2d,
    LazyPointwiseConv,
    LazyPointwiseConv2d,
    PointwiseConv,
    PointwiseConv2d,
)
from lazytorch.layers.expansion_reduction import (
    LazyExpansionConv,
    LazyExpansionConv2d,
    LazyExpansionDepthSepConv,
    LazyExpansionDepthSepConv2d,
    LazyExpansionPointwiseConv,
    LazyExpansionPointwiseConv2d,
    LazyReductionConv,
    LazyReductionConv2d,
    LazyReductionDepthSepConv,
    LazyReductionDepthSepConv2d,
    LazyReductionPointwiseConv,
    LazyReductionPointwiseConv2d,
)
from lazytorch.layers.inverted_bottleneck import InvertedBottleneck, LazyInvertedBottleneck
from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.rank import LazyAdaptiveAvgPool, of_rank
from lazytorch.layers.squeeze_excitation import LazySqueezeExcitation, SqueezeExcitation

__all__ = [
    "BottleneckBlock",
    "ConvNormActivation",
    "DepthSepConv",
    "DepthSepConv2d",
    "DepthwiseConv",
    "DepthwiseConv2d",
    "InvertedBottleneck",
    "LazyAdaptiveAvgPool",
    "LazyBottleneckBlock",
    "LazyConvNormActivation",
    "LazyDepthSepConv",
    "LazyDepthSepConv2d",
    "LazyDepthwiseConv",
    "LazyDepthwiseConv2d",
    "LazyExpansionConv",
    "LazyExpansionConv2d",
    "LazyExpansionDepthSepConv",
    "LazyExpansionDepthSepConv2d",
    "LazyExpansionPointwiseConv",
    "LazyExpansionPointwiseConv2d",
    "LazyInvertedBottleneck",
    "LazyLinear",
    "LazyPointwiseConv",
    "LazyPointwiseConv2d",
    "LazyReductionConv",
    "LazyReductionConv2d",
    "LazyReductionDepthSepConv",
    "LazyReductionDepthSepConv2d",
    "LazyReductionPointwiseConv",
    "LazyReductionPointwiseConv2d",
    "LazySqueezeExcitation",
    "PointwiseConv",
    "PointwiseConv2d",
    "SqueezeExcitation",
    "of_rank",
]
