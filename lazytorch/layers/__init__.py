"""Layers of convolutional networks: eager layers, and lazy layers that become them at the first call.

Example:
    >>> import torch, lazytorch
    >>> layer = lazytorch.layers.LazyInvertedBottleneck(24, stride=2, expansion_ratio=6)
    >>> layer(torch.zeros(2, 16, 32, 32)).shape
    torch.Size([2, 24, 16, 16])
"""

from lazytorch._init.initialize import known
from lazytorch.layers.anti_aliasing import BlurPool, LazyBlurPool, average_blur
from lazytorch.layers.basic import BasicBlock, LazyBasicBlock
from lazytorch.layers.bottleneck import BottleneckBlock, LazyBottleneckBlock
from lazytorch.layers.channel_attention import EfficientChannelAttention, LazyEfficientChannelAttention
from lazytorch.layers.channel_norm import ChannelNorm, LazyChannelNorm
from lazytorch.layers.conv_norm_activation import ConvNormActivation, LazyConvNormActivation
from lazytorch.layers.convnext_block import ConvNeXtBlock, LazyConvNeXtBlock
from lazytorch.layers.dense import DenseLayer, LazyDenseLayer, LazyNormActivation, NormActivation
from lazytorch.layers.depthwise import DepthwiseConv, DepthwiseConv2d, LazyDepthwiseConv, LazyDepthwiseConv2d
from lazytorch.layers.depthwise_separable import DepthSepConv, DepthSepConv2d, LazyDepthSepConv, LazyDepthSepConv2d
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
from lazytorch.layers.fire import FireModule, LazyFireModule
from lazytorch.layers.global_context import GlobalContext, LazyGlobalContext
from lazytorch.layers.inverted_bottleneck import (
    FusedInvertedBottleneck,
    InvertedBottleneck,
    LazyFusedInvertedBottleneck,
    LazyInvertedBottleneck,
)
from lazytorch.layers.layer_scale import LayerScale, LazyLayerScale
from lazytorch.layers.linear import LazyLinear
from lazytorch.layers.mixed_conv import LazyMixedConv, MixedConv
from lazytorch.layers.multi_branch_conv import LazyMultiBranchConv, MultiBranchConv
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.pointwise import LazyPointwiseConv, LazyPointwiseConv2d, PointwiseConv, PointwiseConv2d
from lazytorch.layers.pre_activation import LazyPreActivationBlock, PreActivationBlock
from lazytorch.layers.rank import LazyAdaptiveAvgPool, LazyAdaptiveMaxPool, LazyAvgPool, LazyMaxPool, of_rank
from lazytorch.layers.response_norm import LazyResponseNorm, ResponseNorm
from lazytorch.layers.rounding import round_channels
from lazytorch.layers.same_padding import SameConv1d, SameConv2d, SameConv3d
from lazytorch.layers.shortcut import pooled_projection, projection
from lazytorch.layers.shuffle_block import LazyShuffleBlock, ShuffleBlock
from lazytorch.layers.split_attention import (
    LazySelectiveKernelConv,
    LazySplitAttentionConv,
    SelectiveKernelConv,
    SplitAttentionConv,
)
from lazytorch.layers.squeeze_excitation import LazySqueezeExcitation, SqueezeExcitation
from lazytorch.layers.standardized_conv import StdConv1d, StdConv2d, StdConv3d
from lazytorch.layers.stochastic_depth import StochasticDepth
from lazytorch.layers.universal_inverted_bottleneck import (
    LazyUniversalInvertedBottleneck,
    UniversalInvertedBottleneck,
)

__all__ = [
    "BasicBlock",
    "BlurPool",
    "BottleneckBlock",
    "ChannelNorm",
    "ConvNeXtBlock",
    "ConvNormActivation",
    "DenseLayer",
    "DepthSepConv",
    "DepthSepConv2d",
    "DepthwiseConv",
    "DepthwiseConv2d",
    "EfficientChannelAttention",
    "FireModule",
    "FusedInvertedBottleneck",
    "GlobalContext",
    "InvertedBottleneck",
    "LayerScale",
    "LazyAdaptiveAvgPool",
    "LazyAdaptiveMaxPool",
    "LazyAvgPool",
    "LazyBasicBlock",
    "LazyBlurPool",
    "LazyBottleneckBlock",
    "LazyChannelNorm",
    "LazyConvNeXtBlock",
    "LazyConvNormActivation",
    "LazyDenseLayer",
    "LazyDepthSepConv",
    "LazyDepthSepConv2d",
    "LazyDepthwiseConv",
    "LazyDepthwiseConv2d",
    "LazyEfficientChannelAttention",
    "LazyExpansionConv",
    "LazyExpansionConv2d",
    "LazyExpansionDepthSepConv",
    "LazyExpansionDepthSepConv2d",
    "LazyExpansionPointwiseConv",
    "LazyExpansionPointwiseConv2d",
    "LazyFireModule",
    "LazyFusedInvertedBottleneck",
    "LazyGlobalContext",
    "LazyInvertedBottleneck",
    "LazyLayerScale",
    "LazyLinear",
    "LazyMaxPool",
    "LazyMixedConv",
    "LazyMultiBranchConv",
    "LazyNormActivation",
    "LazyPointwiseConv",
    "LazyPointwiseConv2d",
    "LazyPreActivationBlock",
    "LazyReductionConv",
    "LazyReductionConv2d",
    "LazyReductionDepthSepConv",
    "LazyReductionDepthSepConv2d",
    "LazyReductionPointwiseConv",
    "LazyReductionPointwiseConv2d",
    "LazyResponseNorm",
    "LazySelectiveKernelConv",
    "LazyShuffleBlock",
    "LazySplitAttentionConv",
    "LazySqueezeExcitation",
    "LazyUniversalInvertedBottleneck",
    "MixedConv",
    "MultiBranchConv",
    "NormActivation",
    "PointwiseConv",
    "PointwiseConv2d",
    "PreActivationBlock",
    "ResponseNorm",
    "SameConv1d",
    "SameConv2d",
    "SameConv3d",
    "SelectiveKernelConv",
    "ShuffleBlock",
    "SplitAttentionConv",
    "SqueezeExcitation",
    "StdConv1d",
    "StdConv2d",
    "StdConv3d",
    "StochasticDepth",
    "UniversalInvertedBottleneck",
    "average_blur",
    "of_rank",
    "pooled_projection",
    "projection",
    "round_channels",
]

# Their constructors do not read the values of parameters.
known.update([*(globals()[name] for name in __all__), NamedSequential])


def __dir__() -> list[str]:
    return __all__
