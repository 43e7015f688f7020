"""What the layers refuse, and where they follow their papers."""

import pytest
import torch
from torch import nn

from lazytorch import NamedSequential
from lazytorch.layers import (
    BottleneckBlock,
    ConvNormActivation,
    InvertedBottleneck,
    LazyInvertedBottleneck,
    SqueezeExcitation,
    of_rank,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConvNormActivation(3, 8, padding="full"),
            "padding must be a whole number, 'same' or 'valid', got 'full'",
        ),
        (lambda: ConvNormActivation(3, 8, padding=-1), "padding must be a whole number of at least 0, got -1"),
        (lambda: ConvNormActivation(3, 8, padding=(1,)), r"padding must be one number or 2 of them, got \(1,\)"),
        (lambda: ConvNormActivation(0, 8), "in_channels must be a positive whole number, got 0"),
        (lambda: InvertedBottleneck(8, 8, stride=(1, 0)), "stride must be a positive whole number, got 0"),
        (lambda: InvertedBottleneck(8, 8, stride="2"), "stride must be a positive whole number, got '2'"),
        (
            lambda: InvertedBottleneck(8, 8, stride=(1, 2, 2)),
            r"stride must be one number or 2 of them, got \(1, 2, 2\)",
        ),
        (lambda: InvertedBottleneck(8, 8, kernel_size=4), "kernel_size must be odd to keep the size, got 4"),
        (lambda: BottleneckBlock(8, 4, 8, kernel_size=(3, 4)), r"kernel_size must be odd .*, got \(3, 4\)"),
        (lambda: SqueezeExcitation(8, -1, squeeze_channels=2), "reduction_ratio must be positive, got -1"),
        (lambda: of_rank(nn.Conv2d, True), "spatial_dims must be 1, 2 or 3, got True"),
        (lambda: ConvNormActivation(3, 8, spatial_dims=4), "spatial_dims must be 1, 2 or 3, got 4"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "options", [{"norm_layer": nn.BatchNorm2d(8)}, {"activation": nn.ReLU()}, {"activation": "relu"}]
)
def test_modules_and_names_in_place_of_classes(options):
    with pytest.raises(TypeError, match="must be a class or function that makes it, got"):
        ConvNormActivation(3, 8, **options)


def test_inverted_bottleneck_is_that_of_the_paper():
    """Sandler et al. 2018, table 1: expand, depthwise, linear projection; the sum only where shapes agree."""
    block = InvertedBottleneck(8, 8, expansion_ratio=6)
    kinds = [[type(part).__name__ for part in layer] for layer in block.layers]
    assert kinds == [["Conv2d", "BatchNorm2d", "ReLU6"], ["Conv2d", "BatchNorm2d", "ReLU6"], ["Conv2d", "BatchNorm2d"]]
    assert block.layers.depthwise.conv.groups == 48
    assert "expand" not in InvertedBottleneck(8, 8, expansion_ratio=1).layers._modules
    x = torch.randn(2, 8, 8, 8)
    block.eval()
    torch.testing.assert_close(block(x), x + block.layers(x))
    other = InvertedBottleneck(8, 9).eval()
    torch.testing.assert_close(other(x), other.layers(x))


def test_bottleneck_is_that_of_the_paper():
    """He et al. 2015, equation 2: the sum of both ways, then the activation."""
    x = torch.randn(2, 8, 8, 8)
    block = BottleneckBlock(8, 4, 8).eval()
    assert isinstance(block.shortcut, nn.Identity)
    torch.testing.assert_close(block(x), torch.relu(x + block.layers(x)))
    wide = BottleneckBlock(8, 4, 16, stride=2).eval()
    assert [type(part).__name__ for part in wide.shortcut] == ["Conv2d", "BatchNorm2d"]
    torch.testing.assert_close(wide(x), torch.relu(wide.shortcut(x) + wide.layers(x)))


def test_squeeze_excitation_is_that_of_the_paper():
    """Hu et al. 2018, equations 2 to 4."""
    x = torch.randn(2, 32, 8, 8)
    block = SqueezeExcitation(32, reduction_ratio=16)
    averages = x.mean(dim=(2, 3))
    squeezed = torch.relu(nn.functional.linear(averages, block.reduce.weight.flatten(1), block.reduce.bias))
    gates = torch.sigmoid(nn.functional.linear(squeezed, block.expand.weight.flatten(1), block.expand.bias))
    assert squeezed.shape == (2, 2)
    torch.testing.assert_close(block(x), x * gates[:, :, None, None])


def test_squeeze_excitation_in_a_block_has_its_rank():
    lazy = LazyInvertedBottleneck(6, se_layer=SqueezeExcitation)
    assert lazy(torch.randn(2, 6, 4, 4, 4)).shape == (2, 6, 4, 4, 4)
    assert isinstance(lazy.layers.se.reduce, nn.Conv3d)


def test_named_sequential():
    parts = NamedSequential(a=nn.Linear(2, 3), b=nn.ReLU(), c=nn.Linear(3, 1))
    assert list(dict(parts.named_children())) == ["a", "b", "c"]
    assert parts[1] is parts.b
    assert list(dict(parts[1:].named_children())) == ["b", "c"]
    del parts[1]
    assert list(dict(parts.named_children())) == ["a", "c"]
    assert parts(torch.zeros(4, 2)).shape == (4, 1)
    with pytest.raises(TypeError, match="needs a name"):
        parts.insert(0, nn.ReLU())
    with pytest.raises(TypeError, match="is not a Module subclass"):
        NamedSequential(a=3)
