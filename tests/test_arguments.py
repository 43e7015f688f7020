"""Wrong arguments fail at construction, with the rule, the value and what to do; signatures read as code."""

import inspect
import re
from functools import partial

import pytest
import torch
from torch import nn

from lazytorch import is_lazy, lazify, materialize, models, summary
from lazytorch.layers import (
    BasicBlock,
    BlurPool,
    BottleneckBlock,
    ConvNormActivation,
    DenseLayer,
    LazyBasicBlock,
    LazyBottleneckBlock,
    LazyConvNeXtBlock,
    LazyConvNormActivation,
    LazyDenseLayer,
    LazyDepthSepConv2d,
    LazyDepthwiseConv,
    LazyEfficientChannelAttention,
    LazyExpansionConv2d,
    LazyExpansionPointwiseConv,
    LazyInvertedBottleneck,
    LazyMaxPool,
    LazyPointwiseConv,
    LazySqueezeExcitation,
    LazyUniversalInvertedBottleneck,
    SqueezeExcitation,
    StochasticDepth,
)
from lazytorch.models import Backbone, ByobNet, ConvNeXt, MobileNet, Network, RegNet, ResNet, Row, Stage, get_model
from tests.catalogue import LAYERS

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.lazy_class.__name__)
MAKES_IT = "must be a class or function that makes it"
WHOLE = "must be a positive whole number"

WRONG_VALUES = [
    # classes and functions
    (lambda: models.resnet18(se_layer=True), f"ResNet: se_layer {MAKES_IT}, got True. Pass one such as SqueezeEx"),
    (lambda: models.resnet50(se_layer="se"), f"ResNet: se_layer {MAKES_IT}, got 'se'. Pass one such as SqueezeEx"),
    (lambda: Stage(16, se_layer="se"), f"Stage: se_layer {MAKES_IT}, got 'se'"),
    (
        lambda: models.resnet18(activation="relu"),
        f"ResNet: activation {MAKES_IT}, got 'relu'. Pass one such as nn.ReLU",
    ),
    (lambda: LazyConvNormActivation(8, activation="silu"), f"activation {MAKES_IT}, got 'silu'. .* such as nn.SiLU"),
    (lambda: models.resnet18(activation=nn.ReLU()), f"ResNet: activation {MAKES_IT}, got ReLU"),
    (lambda: ConvNormActivation(3, 8, activation=nn.GELU()), f"activation {MAKES_IT}, got GELU.* such as nn.GELU"),
    (lambda: models.resnet18(block=LazyBasicBlock(8, 8)), f"ResNet: block {MAKES_IT}, got LazyBasicBlock"),
    (lambda: LazySqueezeExcitation(gate=nn.Sigmoid()), f"LazySqueezeExcitation: gate {MAKES_IT}, got Sigmoid"),
    (lambda: LazyConvNormActivation(8, conv_layer=None), f"conv_layer {MAKES_IT}, got None"),
    (lambda: LazyBottleneckBlock(8, 8, shortcut=False), f"shortcut {MAKES_IT}, got False. Pass one such as projection"),
    (lambda: get_model("resnet18", global_pool="avg"), f"global_pool {MAKES_IT}, got 'avg'"),
    (lambda: Network(stem=nn.Identity(), stem_reduction=1, stages=[[]]), f"Network: stem {MAKES_IT}, got Identity"),
    (lambda: Backbone(stem=LazyPointwiseConv, stages=[]), "Backbone: stem must be a module, got .* Call it"),
    # those that need other arguments
    (
        lambda: LazyConvNormActivation(8, norm_layer=nn.GroupNorm),
        f"norm_layer {MAKES_IT} when called with .channels., got GroupNorm: missing a required argument: 'num_channels'"
        ". Pass functools.partial.GroupNorm, ",
    ),
    (lambda: models.resnet18(norm_layer=nn.GroupNorm), "ResNet: norm_layer .* got GroupNorm: missing"),
    (lambda: models.resnet18(anti_aliasing=nn.AvgPool2d), "anti_aliasing .* got AvgPool2d: .* 'spatial_dims'"),
    (lambda: models.resnet18(conv_layer=nn.LazyConv2d), "conv_layer .* got LazyConv2d: multiple values for argument"),
    (
        lambda: LazyConvNormActivation(8, activation=nn.Threshold),
        "when called without arguments, got Threshold: missing",
    ),
    (lambda: LazyInvertedBottleneck(8, se_layer=nn.Conv2d), "se_layer .* got Conv2d: missing .* 'out_channels'"),
    # numbers
    (lambda: LazyConvNormActivation(0), f"LazyConvNormActivation: out_channels {WHOLE}, got 0"),
    (lambda: LazyConvNormActivation(8.0), f"LazyConvNormActivation: out_channels {WHOLE}, got 8.0"),
    (lambda: LazyConvNormActivation(8, stride=0), f"LazyConvNormActivation: stride {WHOLE}, got 0"),
    (lambda: LazyDepthSepConv2d(8, stride="2"), f"LazyDepthSepConv2d: stride {WHOLE}, got '2'"),
    (lambda: LazyExpansionConv2d(2, 3, stride=0), f"LazyExpansionConv2d: stride {WHOLE}, got 0"),
    (lambda: LazyMaxPool(0), f"LazyMaxPool: kernel_size {WHOLE}, got 0"),
    (lambda: LazyBasicBlock(8, 8, kernel_size=4), "LazyBasicBlock: kernel_size must be odd to keep the size, got 4"),
    (lambda: LazyEfficientChannelAttention(2), "kernel_size must be odd to keep the size, got 2"),
    (lambda: BlurPool(8, padding_mode="zeros"), "padding_mode must be 'constant', .* got 'zeros'"),
    (lambda: LazyUniversalInvertedBottleneck(8, 0, 2), "stride must be taken by a depthwise .* got stride=2"),
    (lambda: LazySqueezeExcitation("4"), "LazySqueezeExcitation: reduction_ratio must be positive, got '4'"),
    (lambda: LazySqueezeExcitation(squeeze_channels=0), f"squeeze_channels {WHOLE}, got 0"),
    (lambda: LazyExpansionPointwiseConv("6"), "expansion_ratio must be positive, got '6'"),
    (lambda: LazyConvNeXtBlock(8, layer_scale="x"), "LazyConvNeXtBlock: layer_scale must be a number, got 'x'"),
    (lambda: LazyDenseLayer(8, stride=2), "LazyDenseLayer: stride must be 1, as the output contains the input, got 2"),
    (lambda: DenseLayer(4, 8, dropout="x"), "DenseLayer: dropout must be from 0 to 1, got 'x'"),
    (lambda: StochasticDepth("x"), "StochasticDepth: rate must be from 0 to below 1, got 'x'"),
    (lambda: LazyConvNormActivation(8, groups=3), "groups must divide the channels, got 3 for 8"),
    (lambda: BasicBlock(8, 8, 12, groups=8), "BasicBlock: groups must divide the channels, got 8 for 12"),
    (lambda: LazyConvNormActivation(8, (3, 3, 3, 3)), "kernel_size must be one number, or one for each dimension, got"),
    (
        lambda: LazyConvNormActivation(8, padding="full"),
        "padding must be a whole number, 'same' or 'valid', got 'full'",
    ),
    (lambda: LazyDepthwiseConv(padding="same", stride=2), "padding='same' needs a stride of 1, as in torch.nn, got 2"),
    (
        lambda: LazyPointwiseConv(8, padding_mode="mirror"),
        "padding_mode must be 'zeros', .* or 'circular', got 'mirror'",
    ),
    (lambda: LazyConvNormActivation(8, bias="none"), "bias must be True or False, got 'none'"),
    (lambda: LazyInvertedBottleneck(8, shortcut="no"), "shortcut must be True or False, got 'no'"),
    (lambda: models.mobilenet_v2(width="1.4"), "MobileNet: width must be positive, got '1.4'"),
    (lambda: models.mobilenet_v2(dropout="x"), "MobileNet: dropout must be from 0 to 1, got 'x'"),
    (lambda: models.mobilenet_v2(depth=(1, "2")), r"MobileNet: depth\[1\] must be positive, got '2'"),
    (lambda: get_model("resnet18", num_classes="10"), "num_classes must be a whole number of at least 0, got '10'"),
    (lambda: get_model("resnet18", drop_path_rate=None), "drop_path_rate must be from 0 to below 1, got None"),
    (lambda: get_model("resnet18", output_stride=7), "ResNet: output_stride must be 8, 16 or 32, got 7"),
    (lambda: get_model("resnet18", spatial_dims=4), "ResNet: spatial_dims must be 1, 2 or 3, got 4"),
    (lambda: get_model("resnet18", gradient_checkpointing="yes"), "must be True or False, got 'yes'"),
    (lambda: get_model("resnet18", features_only="yes"), "get_model: features_only must be True or False, got 'yes'"),
    (lambda: get_model("resnet18", features_only=True, out_indices="all"), "must be whole numbers, got 'all'"),
    (lambda: get_model("resnet18", weights=3), "weights must be a file .* got 3"),
    (lambda: RegNet(depth=2, first_width=8, slope=1, factor=1, group_size=8), "RegNet: factor must be above 1, got 1"),
    # tables
    (
        lambda: ResNet(depths=3),
        r"ResNet: depths must be a sequence of at least one value, such as \(3, 4, 6, 3\), got 3",
    ),
    (lambda: ConvNeXt(depths=3), "ConvNeXt: depths must be a sequence of at least one value, .*, got 3"),
    (lambda: models.resnet18(depths=(2, 2, 2)), "ResNet: depths and widths must have the same length, got 3 and 4"),
    (lambda: models.resnet18(depths=(2, 2, 2, 0)), rf"ResNet: depths\[3\] {WHOLE}, got 0"),
    (lambda: MobileNet(stages=Stage(16)), r"MobileNet: stages must be a sequence of .* got Stage\(16, 1, 1"),
    (lambda: MobileNet(stages=[(16, 1, 1)]), r"stages\[0\] must be a Stage, or a .* got \(16, 1, 1\). Write Stage"),
    (lambda: MobileNet(stages=3), "MobileNet: stages must be a sequence of at least one value, .* got 3"),
    (lambda: ByobNet(stages=[[Row(LazyBasicBlock, 16)]]), r"ByobNet: stages\[0\] must be a Row, got <1 rows>"),
    (lambda: Backbone(stem=nn.Identity(), stages=3), "Backbone: stages must be modules, or the blocks .* got 3"),
    (lambda: Backbone(stem=nn.Identity(), stages=[3]), r"Backbone: stages must be modules, .* got \[3\]"),
    (lambda: Stage("16"), "Stage: out_channels must be positive, got '16'"),
    (lambda: Stage(16, stride=0), f"Stage: stride {WHOLE}, got 0"),
    (lambda: Row(LazyBottleneckBlock, 16, repeats=0), f"Row: repeats {WHOLE}, got 0"),
    # lazified classes
    (lambda: lazify(nn.Linear, in_features=-1)("10"), f"LazyLinear: out_features {WHOLE}, got '10'"),
    (lambda: lazify(nn.Conv2d, in_channels=1)(8, 3, stride=0), f"LazyConv2d: stride {WHOLE}, got 0"),
    (lambda: lazify(nn.LSTM, input_size=-1)(0), f"LazyLSTM: hidden_size {WHOLE}, got 0"),
    (lambda: lazify(BottleneckBlock, in_channels=1)(8, 0), f"LazyBottleneckBlock: out_channels {WHOLE}, got 0"),
    (lambda: lazify(nn.Linear(3, 4), in_features=-1), "lazify: module_cls must be a module class, got Linear"),
    # functions
    (lambda: materialize(models.resnet18(), 1, 3, 64, 64), "must be one tuple, got 4 numbers. Pass .1, 3, 64, 64."),
    (lambda: materialize(models.resnet18(), (1, -3, 64, 64)), "sizes of a shape must be at least 0, got .1, -3,"),
    (lambda: materialize(models.resnet18()), "forward takes x, got others: missing a required argument: 'x'"),
    (
        lambda: summary(models.resnet18(), input_size=(1, 3, 64, 64)),
        r"summary\(ResNet\): the forward takes x, got an argument 'input_size'. .* summary\(model, \(1, 3, 224",
    ),
    (lambda: summary(models.resnet18(), (1, 3, 64, 64), depth="x"), "summary: depth must be a whole .* got 'x'"),
    (lambda: is_lazy(3), "is_lazy: the argument must be a module, got 3"),
    (lambda: get_model(3), "get_model: the name of a model must be a string, got 3"),
]
WRONG_NAMES = [
    (
        lambda: LazyConvNormActivation(8, in_channels=3),
        "'in_channels'. Input channels are inferred from the first input",
    ),
    (lambda: LazyDepthwiseConv(channels=8), "'channels'. Input channels are inferred from the first input"),
    (lambda: lazify(nn.Linear, in_features=-1)(3, in_features=3), "'in_features' is inferred from the first input"),
    (lambda: LazyConvNormActivation(8, kernal_size=3), "Did you mean 'kernel_size'"),
    (lambda: ConvNormActivation(3, 8, strides=2), "Did you mean 'stride'"),
    (lambda: Stage(16, strides=2), r"Stage.__new__\(\) got an unexpected .* 'strides'. Did you mean 'stride'"),
    (lambda: Row(LazyBasicBlock, 16, repeat=2), "Did you mean 'repeats'"),
    (lambda: lazify(nn.Conv2d, in_channels=1)(8, 3, strid=2), "Did you mean 'stride'"),
    (lambda: lazify(nn.Linear, in_feature=-1), "no parameter 'in_feature' to infer. Did you mean 'in_features'"),
    (lambda: models.resnet18(activaton=nn.ReLU), r"resnet18\(\) got .* 'activaton'. Did you mean 'activation'"),
    (lambda: ResNet(depth=(1, 1, 1, 1)), r"ResNet.__init__\(\) got .* 'depth'. Did you mean 'depths'"),
    (lambda: models.resnet18(features_only=True), r"Did you mean lazytorch.models.get_model\(name, features_only=True"),
    (lambda: ResNet(features_only=True), r"Did you mean lazytorch.models.get_model\(name, features_only=True"),
    (lambda: get_model("resnet18", feature_only=True), r"'feature_only'. Did you mean .*features_only=True"),
    (lambda: models.resnet18(in_chans=1), "'in_chans'. Input channels are inferred from the first input"),
    (lambda: LazyInvertedBottleneck(32, use_se=True), "'use_se'. Did you mean se_layer=SqueezeExcitation"),
    (
        lambda: LazyInvertedBottleneck(8, se_reduction_ratio=4),
        r"Did you mean se_layer=.*\(SqueezeExcitation, reduction_",
    ),
    (lambda: LazyConvNormActivation(8, device="cpu"), r"'device'. Did you mean layer.to\(device\)"),
    (
        lambda: LazyInvertedBottleneck(32, 3, 1, 6, True, 4, nn.BatchNorm2d, nn.ReLU),
        "positional arguments but 9 were given. Pass the arguments after 'expansion_ratio' by name",
    ),
]


@pytest.mark.parametrize(("make", "message"), WRONG_VALUES)
def test_wrong_values_fail_at_construction(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(("make", "message"), WRONG_NAMES)
def test_wrong_names_are_explained(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_wrong_names_of_models():
    with pytest.raises(ValueError, match=r"no model is named 'ResNet18'\. Did you mean 'resnet18'"):
        get_model("ResNet18")


@every_layer
@pytest.mark.parametrize("wrong", [object(), "wrong", -1.5], ids=["object", "string", "negative"])
def test_no_layer_takes_a_wrong_value(layer, wrong):
    """Whatever a parameter is, these are no values of it; its error names the layer and the parameter."""
    parameters = inspect.signature(layer.lazy_class).parameters
    for position, name in enumerate(parameters):
        if name in ("device", "dtype", "eps") or (name in ("initial_value", "layer_scale") and wrong == -1.5):
            continue  # PyTorch checks the first two; numbers may be negative
        args, kwargs = list(layer.args), dict(layer.kwargs)
        if position < len(args):
            args[position] = wrong
        else:
            kwargs[name] = wrong
        with pytest.raises((TypeError, ValueError), match=f"^{layer.lazy_class.__name__}: {name} must"):
            layer.lazy_class(*args, **kwargs)


def test_values_that_look_unusual_and_are_right():
    def norm(channels, *, eps=1e-5):
        return nn.GroupNorm(1, channels, eps)

    class Scaled(nn.Module):
        def __init__(self, channels, *, spatial_dims, squeeze_channels=None):
            super().__init__()

        def forward(self, x):
            return x * 2

    x = torch.zeros(2, 4, 8, 8)
    for lazy in (
        LazyConvNormActivation(8, norm_layer=norm),
        LazyConvNormActivation(8, norm_layer=partial(nn.GroupNorm, 2)),
        LazyConvNormActivation(8, norm_layer=lambda channels: nn.Identity(), activation=lambda: nn.ReLU()),
        LazyConvNormActivation(torch.zeros(8).numel(), bias=0, kernel_size=[3, 5], stride=(1, 2)),
        LazyInvertedBottleneck(4, se_layer=Scaled, squeeze_ratio=2),
        LazyInvertedBottleneck(4, se_layer=partial(LazySqueezeExcitation, 2)),
        LazyInvertedBottleneck(4, se_layer=partial(SqueezeExcitation, squeeze_channels=lambda channels: 3)),
        LazyBottleneckBlock(4, 8, norm_layer=None, activation=None),
    ):
        lazy(x)
        assert not is_lazy(lazy)
    model = MobileNet(3, stages=[Stage(8)._replace(stride=2)], depth=[1.0], rounding=lambda channels: 8)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_classes_of_users_have_their_own_rules():
    """Names that mean something else there: a lazified class is checked by its constructor alone."""

    class Block(nn.Module):
        def __init__(self, in_channels, activation="relu", stride="slow", bias="much"):
            super().__init__()
            self.given = activation, stride, bias

        def forward(self, x):
            return x

    class Derived(ConvNormActivation):
        def __init__(self, in_channels, activation):
            super().__init__(in_channels, 8, activation=getattr(nn, activation))

    block = lazify(Block, in_channels=1)(activation="gelu", stride=0)
    block(torch.zeros(1, 2))
    assert block.given == ("gelu", 0, "much")
    derived = lazify(Derived, in_channels=1)("SiLU")
    derived(torch.zeros(1, 2, 8, 8))
    assert isinstance(derived.activation, nn.SiLU)


BUILDERS = [getattr(models, name) for name in models.list_models()]
FAMILIES = [each for each in vars(models).values() if isinstance(each, type) and issubclass(each, Backbone)]


@pytest.mark.parametrize(
    "make", [*BUILDERS, *FAMILIES, *(each.lazy_class for each in LAYERS)], ids=lambda each: each.__name__
)
def test_signatures_are_readable(make):
    signature = inspect.signature(make)
    texts = [str(signature), *map(str, signature.parameters.values())]
    assert not any(re.search(r"0x[0-9a-f]{6}|<class|functools", text) for text in texts)
    defaults = [text.rpartition(" = ")[2] for text in texts[1:]]
    assert max(map(len, defaults)) < 150


def test_signatures_have_the_defaults_themselves():
    parameters = inspect.signature(models.mobilenet_v3_large).parameters
    assert str(parameters["stages"]).endswith(" = <7 rows>")
    assert str(parameters["activation"]).endswith(" = partial(Hardswish, inplace=True)")
    assert isinstance(parameters["stages"].default[0], Stage)
    assert inspect.signature(LazyConvNormActivation).parameters["norm_layer"].default is nn.BatchNorm2d
