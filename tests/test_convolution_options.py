"""padding, padding_mode, bias, dilation and groups of every convolution layer, and the order of the first lazytorch."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lazytorch import layers, materialize, models, summary
from lazytorch.layers import (
    ConvNormActivation,
    DepthSepConv,
    DepthwiseConv2d,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyDepthSepConv,
    LazyDepthSepConv2d,
    LazyDepthwiseConv2d,
    LazyPointwiseConv2d,
    PointwiseConv2d,
    SameConv2d,
)

CHANNELS = 4
# What a call of each lazy class needs, and the part of the built layer that has the kernel.
CONVOLUTIONS = {
    "ConvNormActivation": ({"out_channels": 8, "kernel_size": 3}, "conv"),
    "DepthwiseConv": ({}, "conv"),
    "DepthwiseConv2d": ({}, "conv"),
    "PointwiseConv": ({"out_channels": 8}, "conv"),
    "PointwiseConv2d": ({"out_channels": 8}, "conv"),
    "DepthSepConv": ({"out_channels": 8}, "depthwise.conv"),
    "DepthSepConv2d": ({"out_channels": 8}, "depthwise.conv"),
    **{
        f"{kind}{name}": ({f"{kind.lower()}_ratio": 2, **needed}, part)
        for kind in ("Expansion", "Reduction")
        for name, needed, part in (
            ("Conv", {"kernel_size": 3}, ""),
            ("Conv2d", {"kernel_size": 3}, ""),
            ("PointwiseConv", {}, "conv"),
            ("PointwiseConv2d", {}, "conv"),
            ("DepthSepConv", {}, "depthwise.conv"),
            ("DepthSepConv2d", {}, "depthwise.conv"),
        )
    },
}
CASES = [
    pytest.param(name, dims, id=f"{name}-{dims}d")
    for name in CONVOLUTIONS
    for dims in ((2,) if name.endswith("2d") else (1, 2, 3))
]


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_options_of_torch(name, dims, padding_mode, bias):
    """The kernel is applied as torch.nn applies it, in a layer that is built from shapes or called."""
    needed, part = CONVOLUTIONS[name]
    options = {"padding": 2, "padding_mode": padding_mode, "dilation": 2, "bias": bias}
    make = getattr(layers, f"Lazy{name}")
    x = torch.randn(2, CHANNELS, *(8,) * dims)
    lazy = make(**needed, **options)
    layer = materialize(lazy, tuple(x.shape)).eval()
    conv = layer.get_submodule(part)
    eager = getattr(nn, f"Conv{dims}d")(
        CHANNELS,
        conv.out_channels,
        conv.kernel_size,
        padding=2,
        dilation=2,
        groups=conv.groups,
        bias=bias,
        padding_mode=padding_mode,
    )
    eager.load_state_dict(conv.state_dict())
    torch.testing.assert_close(conv(x), eager(x), rtol=0, atol=0)
    assert all((each.bias is not None) == bias for each in layer.modules() if isinstance(each, type(eager)))
    assert summary(make(**needed, **options), tuple(x.shape)).layers[0].output_shapes == [tuple(layer(x).shape)]


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize(("padding", "reduced"), [("same", 0), ("valid", 4)])
def test_paddings_by_name(name, dims, padding, reduced):
    needed, part = CONVOLUTIONS[name]
    lazy = getattr(layers, f"Lazy{name}")(**needed, padding=padding, dilation=2)
    side = 8 - (0 if "Pointwise" in name else reduced)
    assert summary(lazy, (2, CHANNELS, *(8,) * dims)).layers[0].output_shapes[0][2:] == (side,) * dims
    assert lazy(torch.zeros(2, CHANNELS, *(8,) * dims)).shape[2:] == (side,) * dims
    assert lazy.get_submodule(part).padding == padding


@pytest.mark.parametrize("padding", [1, (1, 0), "same"])
def test_lazy_and_eager_layers_take_the_same(padding):
    options = {"padding": padding, "padding_mode": "circular", "bias": True, "dilation": (1, 2)}
    x = torch.randn(2, CHANNELS, 9, 8)
    for eager, lazy in (
        (ConvNormActivation(CHANNELS, 8, **options), LazyConvNormActivation(8, **options)),
        (DepthwiseConv2d(CHANNELS, **options), LazyDepthwiseConv2d(**options)),
        (PointwiseConv2d(CHANNELS, 8, groups=2, **options), LazyPointwiseConv2d(8, groups=2, **options)),
        (DepthSepConv(CHANNELS, 8, **options), LazyDepthSepConv(8, **options)),
    ):
        lazy(x)
        assert repr(lazy) == repr(eager)
        eager.load_state_dict(lazy.eval().state_dict())
        torch.testing.assert_close(lazy(x), eager.eval()(x), rtol=0, atol=0)


def test_defaults():
    """The size is kept for an odd kernel; a bias is there if no norm follows; one pixel needs no padding."""
    x = torch.zeros(1, CHANNELS, 9, 9)
    assert LazyDepthSepConv2d(8, 5, dilation=2)(x).shape == (1, 8, 9, 9)
    assert LazyPointwiseConv2d(8)(x).shape == (1, 8, 9, 9)
    assert DepthSepConv(CHANNELS, 8).depthwise.conv.bias is None
    assert DepthSepConv(CHANNELS, 8, norm_layer=None).pointwise.conv.bias is not None


def test_padding_of_tensorflow_is_zeros():
    with pytest.raises(ValueError, match=r"SameConv2d: padding_mode must be 'zeros', .* got 'reflect'"):
        ConvNormActivation(3, 8, padding_mode="reflect", conv_layer=SameConv2d)
    ConvNormActivation(3, 8, padding="same", conv_layer=SameConv2d)


def test_a_function_as_convolution_needs_no_option_that_has_no_effect():
    def conv(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias):
        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    assert ConvNormActivation(3, 8, conv_layer=conv)(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 8, 8)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (layers.ConvNormActivation, {}),
        (layers.MixedConv, {"padding": 1}),
        (layers.MultiBranchConv, {}),
        (layers.SelectiveKernelConv, {"dilation": np.int64(2)}),
        (layers.SplitAttentionConv, {}),
        (partial(layers.BottleneckBlock, CHANNELS, splits=2), {}),
        (lambda *_, kernel_size, stride: models.ResNet(8, stem_stride=stride, stem_kernel_size=kernel_size), {}),
        (lambda *_, kernel_size, stride: models.MobileNet(8, stages=[models.Stage(8, 1, stride, kernel_size)]), {}),
    ],
)
def test_whole_numbers_of_numpy_are_sizes(make, options):
    x = torch.zeros(2, CHANNELS, 16, 16)
    layer = make(CHANNELS, 8, kernel_size=np.int64(3), stride=np.int64(2), **options)
    assert layer(x).shape[:2] == (2, 8)


def test_code_of_the_first_lazytorch_runs():
    """The orders and names of arguments are those of https://github.com/mgmalek/lazytorch (2021)."""
    x = torch.zeros(1, 16, 32, 32)
    layer = LazyDepthSepConv2d(out_channels=32, kernel_size=3, padding=2, dilation=2)
    assert layer(x).shape == (1, 32, 32, 32)
    layer = LazyConvNormActivation(32, 3, 2, nn.InstanceNorm2d, nn.SiLU, True)
    assert layer(x).shape == (1, 32, 16, 16)
    assert [type(part) for part in layer] == [nn.Conv2d, nn.InstanceNorm2d, nn.SiLU]
    assert layer.conv.bias is not None
    assert LazyConvNormActivation(32, 3, 1, groups=4, dilation=2, padding=2).eval()(x).shape == (1, 32, 32, 32)
    layer = LazyDepthSepConv2d(32, 3, 2, nn.InstanceNorm2d, nn.SiLU)
    assert layer(x).shape == (1, 32, 16, 16)
    assert isinstance(layer.depthwise.norm, nn.InstanceNorm2d)
    assert isinstance(layer.pointwise.activation, nn.SiLU)
    layer = LazyDepthwiseConv2d(3, 2, padding=0, bias=True, norm_layer=nn.InstanceNorm2d, activation=nn.Identity)
    assert layer(x).shape == (1, 16, 15, 15)
    assert LazyPointwiseConv2d(out_channels=32, stride=2, groups=4)(x).shape == (1, 32, 16, 16)
    layer = layers.LazyExpansionDepthSepConv2d(4, 3, 2, nn.InstanceNorm2d, nn.SiLU, padding=2, dilation=2)
    assert layer(x).shape == (1, 64, 16, 16)
    assert layers.LazyReductionPointwiseConv2d(reduction_ratio=4, bias=True)(x).shape == (1, 4, 32, 32)
    block = LazyBottleneckBlock(8, 16, 3, 2, 4, 2, nn.SiLU)
    assert block(x).shape == (1, 16, 16, 16)
    assert (block.layers.conv.conv.groups, block.layers.conv.conv.dilation) == (4, (2, 2))
    assert isinstance(block.activation, nn.SiLU)
