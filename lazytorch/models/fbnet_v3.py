"""FBNetV3: Dai et al. 2020, https://arxiv.org/abs/2006.02049; the tables and names are timm's."""

from functools import partial

from torch import nn

from lazytorch._init.initialize import known_code
from lazytorch.layers import LazyInvertedBottleneck, SqueezeExcitation, round_channels
from lazytorch.models.heads import pointwise
from lazytorch.models.mobile import AS_TIMM, HARD_SWISH, Stage, convolution, row

__all__ = ["FBNET_V3_B", "FBNET_V3_D", "FBNET_V3_G", "fbnetv3_b", "fbnetv3_d", "fbnetv3_g"]


@known_code
def squeeze_excitation(channels: int, *, squeeze_channels: int, spatial_dims: int) -> nn.Module:
    """Squeeze-excitation to a multiple of 8 channels."""
    return SqueezeExcitation(
        channels,
        squeeze_channels=round_channels(squeeze_channels, lower_limit=0.95),
        activation=HARD_SWISH,
        gate=nn.Hardsigmoid,
        spatial_dims=spatial_dims,
    )


def plain(out_channels: int, repeats: int, kernel_size: int, expansion_ratio: float, stride: int = 1) -> Stage:
    """A row of inverted bottlenecks."""
    return Stage(out_channels, repeats, stride, kernel_size, expansion_ratio)


def squeezed(out_channels: int, repeats: int, kernel_size: int, expansion_ratio: float, stride: int = 1) -> Stage:
    """A row of inverted bottlenecks with squeeze-excitation to a quarter of the block's input channels."""
    row = plain(out_channels, repeats, kernel_size, expansion_ratio, stride)
    return row._replace(se_layer=squeeze_excitation, block=partial(LazyInvertedBottleneck, squeeze_ratio=4))


# Columns: channels, blocks, kernel size, expansion ratio, stride.
FBNET_V3_B = (
    plain(16, 2, 3, 1),
    (plain(24, 1, 5, 4, 2), plain(24, 3, 5, 2)),
    (squeezed(40, 1, 5, 5, 2), squeezed(40, 4, 5, 3)),
    (plain(72, 1, 5, 5, 2), plain(72, 4, 3, 3)),
    (squeezed(120, 1, 3, 5), squeezed(120, 5, 5, 3)),
    (squeezed(184, 1, 3, 6, 2), squeezed(184, 5, 5, 4), squeezed(224, 1, 5, 6)),
    Stage(1344, kernel_size=1, block=convolution),
)
FBNET_V3_D = (
    plain(16, 2, 3, 1),
    (plain(24, 1, 3, 5, 2), plain(24, 5, 3, 2)),
    (squeezed(40, 1, 5, 4, 2), squeezed(40, 4, 3, 3)),
    (plain(72, 1, 3, 5, 2), plain(72, 4, 3, 3)),
    (squeezed(128, 1, 3, 5), squeezed(128, 6, 5, 3)),
    (squeezed(208, 1, 3, 6, 2), squeezed(208, 5, 5, 5), squeezed(240, 1, 5, 6)),
    Stage(1440, kernel_size=1, block=convolution),
)
FBNET_V3_G = (
    plain(24, 3, 3, 1),
    (plain(40, 1, 5, 4, 2), plain(40, 4, 5, 2)),
    (squeezed(56, 1, 5, 4, 2), squeezed(56, 4, 5, 3)),
    (plain(104, 1, 5, 5, 2), plain(104, 4, 3, 3)),
    (squeezed(160, 1, 3, 5), squeezed(160, 8, 5, 3)),
    (squeezed(264, 1, 3, 6, 2), squeezed(264, 6, 5, 5), squeezed(288, 2, 5, 6)),
    Stage(1728, kernel_size=1, block=convolution),
)

COMMON = {
    "rounding": partial(round_channels, lower_limit=0.95),
    "hidden_channels": 1984,
    "hidden": partial(pointwise, bias=False),
    "activation": HARD_SWISH,
    **AS_TIMM,
}

fbnetv3_b = row("fbnetv3_b", COMMON, stages=FBNET_V3_B, stem_channels=16)
fbnetv3_d = row("fbnetv3_d", COMMON, stages=FBNET_V3_D, stem_channels=24)
fbnetv3_g = row("fbnetv3_g", COMMON, stages=FBNET_V3_G)
