"""Network builds a backbone from rows of blocks; families are classes derived from it."""

import copy
import inspect
import pickle
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn

from lazytorch import is_lazy, materialize, summary
from lazytorch.layers import (
    BlurPool,
    BottleneckBlock,
    EfficientChannelAttention,
    InvertedBottleneck,
    LazyAdaptiveAvgPool,
    LazyAdaptiveMaxPool,
    LazyBasicBlock,
    LazyBlurPool,
    LazyBottleneckBlock,
    LazyConvNormActivation,
    LazyEfficientChannelAttention,
    LazyInvertedBottleneck,
    LazyPointwiseConv,
    LazySqueezeExcitation,
    SqueezeExcitation,
    of_rank,
)
from lazytorch.models import (
    Backbone,
    MobileNet,
    Network,
    NetworkOptions,
    ResNet,
    Row,
    Stage,
    get_model,
    mobilenet_v2,
    resnet18,
)

STEM = partial(LazyConvNormActivation, 8, stride=2)
SMALL = {"depths": (1, 1), "widths": (8, 16), "stem": (8,)}


class Watched(LazyPointwiseConv):
    """A block that keeps what it was called with."""

    calls: ClassVar[list[dict]] = []

    def __init__(self, out_channels, own, **options):
        self.calls.append({"out_channels": out_channels, "own": own, **options})
        super().__init__(out_channels)


@pytest.fixture
def calls():
    Watched.calls.clear()
    return Watched.calls


def network(rows, **options):
    return Network(3, stem=STEM, stem_reduction=2, stages=rows, **options)


def test_a_block_is_called_by_keyword_with_its_place_and_the_networks_layers(calls):
    rows = [[Row(partial(Watched, own=1), 8, repeats=2, stride=2), Row(partial(Watched, own=2), 4)]]
    model = network(rows, norm_layer=nn.InstanceNorm2d, activation=nn.SiLU, drop_path_rate=0.2)
    common = {"norm_layer": nn.InstanceNorm2d, "activation": nn.SiLU, "conv_layer": nn.Conv2d}
    common |= {"dilation": 1, "input_dilation": 1}
    rates = [call.pop("drop_path_rate") for call in calls]
    assert calls == [
        {"out_channels": 8, "own": 1, "stride": 2, **common},
        {"out_channels": 8, "own": 1, "stride": 1, **common},
        {"out_channels": 4, "own": 2, "stride": 1, **common},
    ]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert model.feature_info[-1].channels == 4
    assert model(torch.zeros(2, 5, 32, 32)).shape == (2, 3)


def test_stochastic_depth_counts_residual_rows_alone(calls):
    rows = [[Row(partial(Watched, own=1), 8)], [Row(partial(Watched, own=2), 8, residual=False)]] * 2
    network(rows, drop_path_rate=0.3)
    assert [call.get("drop_path_rate") for call in calls] == [0, None, 0.3, None]
    calls.clear()
    network(rows, drop_path_rate=0.3, rates_end=False)
    assert [call.get("drop_path_rate") for call in calls] == [0, None, 0.15, None]


def test_dilation_replaces_strides(calls):
    rows = [[Row(partial(Watched, own=0), 8, repeats=2, stride=stride)] for stride in (1, 2, 2, 2, 2)]
    network(rows, output_stride=8)
    assert [call["stride"] for call in calls] == [1, 1, 2, 1, 2, 1, 1, 1, 1, 1]
    assert [call["dilation"] for call in calls] == [1, 1, 1, 1, 1, 1, 2, 2, 4, 4]
    assert [call["input_dilation"] for call in calls] == [1, 1, 1, 1, 1, 1, 1, 2, 2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": []}, r"Network: stages must be a sequence of at least one value, such as .*, got \[\]"),
        ({"stages": [[]]}, r"Network: stages\[0\] must be a sequence of at least one value, such as .*, got \[\]"),
        (
            {"stages": [[Row(STEM, 8), Row(STEM, 8, stride=2)]]},
            "the first row of a stage may have a stride, got 2",
        ),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"drop_path_rate": 1}, "drop_path_rate must be from 0 to below 1, got 1"),
    ],
)
def test_wrong_values(options, message):
    rows = [[Row(partial(Watched, own=0), 8)]]
    with pytest.raises(ValueError, match=message):
        network(**{"rows": options.pop("stages", rows), **options})


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ResNet(3, **SMALL), ResNet),
        (lambda: resnet18(3), ResNet),
        (lambda: get_model("seresnet50t"), ResNet),
        (lambda: MobileNet(3, stages=[Stage(8)]), MobileNet),
        (lambda: mobilenet_v2(3), MobileNet),
    ],
)
def test_families_are_classes(make, kind):
    model = make()
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(each) is kind
        assert isinstance(each, Network)
        assert isinstance(each, Backbone)
        assert repr(each).startswith(f"{kind.__name__}(")
    assert summary(model, (1, 3, 64, 64)).layers[0].kind == kind.__name__
    materialize(model, (1, 3, 64, 64))
    assert type(model) is kind


class Wide(ResNet):
    """A family of a user's own."""

    def __init__(self, num_classes, factor=2, **options):
        super().__init__(num_classes, depths=(1, 1), widths=(8 * factor, 16 * factor), stem=(8,), **options)

    def forward(self, x):
        return super().forward(x * 0)


def test_a_class_derived_from_a_family():
    model = Wide(5, factor=3, dropout=0.1).eval()
    outputs = model(torch.randn(2, 4, 32, 32))
    assert outputs.shape == (2, 5)
    torch.testing.assert_close(outputs[0], outputs[1])  # its own forward runs
    assert not is_lazy(model)
    assert model.num_features == 192
    assert inspect.signature(Wide).parameters.keys() == {"num_classes", "factor", "options"}


@pytest.mark.parametrize("kind", [ResNet, MobileNet])
def test_the_signature_and_documentation_of_a_family_have_the_options_of_every_network(kind):
    parameters = inspect.signature(kind).parameters
    shared = NetworkOptions.__annotations__
    assert [*parameters][-len(shared) :] == [*shared]
    defaults = inspect.signature(Network).parameters
    assert all(parameters[name].default == defaults[name].default for name in shared)
    assert all(f"    {name}: " in inspect.getdoc(kind) for name in parameters)
    assert all(f"    {name}: " in inspect.getdoc(NetworkOptions) for name in shared)
    with pytest.raises(
        TypeError, match=rf"{kind.__name__}\.__init__\(\) got an unexpected keyword argument 'num_clases'"
    ):
        kind(num_clases=10)


def test_a_network_without_a_family():
    rows = [[Row(partial(LazyBottleneckBlock, mid_channels=4), 16)], [Row(partial(LazyBottleneckBlock, 8), 32, 2, 2)]]
    final = partial(LazyConvNormActivation, 24, 1)
    model = network(rows, final=final)
    assert model(torch.zeros(2, 3, 32)).shape == (2, 3)
    assert model.get_classifier().in_features == 24


class Square(nn.Module):
    """An eager block of a user, which knows all numbers of dimensions."""

    def __init__(self, in_channels, out_channels, stride=1, spatial_dims=2, **options):
        super().__init__()
        self.conv = nn.Sequential(of_rank(nn.Conv2d, spatial_dims)(in_channels, out_channels, 1, stride))

    def forward(self, x):
        return self.conv(x).square()


EAGER_OR_LAZY = [
    ("block", BottleneckBlock, LazyBottleneckBlock, ResNet, SMALL),
    ("block", partial(BottleneckBlock, reduce_ratio=2), partial(LazyBottleneckBlock, reduce_ratio=2), ResNet, SMALL),
    ("se_layer", SqueezeExcitation, LazySqueezeExcitation, ResNet, SMALL),
    ("se_layer", partial(SqueezeExcitation, reduction_ratio=2), partial(LazySqueezeExcitation, 2), ResNet, SMALL),
    ("se_layer", EfficientChannelAttention, LazyEfficientChannelAttention, ResNet, SMALL | {"block": LazyBasicBlock}),
    ("anti_aliasing", BlurPool, LazyBlurPool, ResNet, SMALL),
    ("anti_aliasing", BlurPool, LazyBlurPool, MobileNet, {"stages": [Stage(8, 2, 2)]}),
    ("global_pool", nn.AdaptiveMaxPool2d, LazyAdaptiveMaxPool, ResNet, SMALL),
    ("global_pool", nn.AdaptiveAvgPool1d, LazyAdaptiveAvgPool, ResNet, SMALL),
]


@pytest.mark.parametrize("shape", [(2, 3, 48), (2, 3, 48, 48), (1, 3, 32, 32, 32)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize(("option", "eager", "lazy", "kind", "options"), EAGER_OR_LAZY)
def test_options_take_a_lazy_class_or_its_eager_twin(option, eager, lazy, kind, options, shape):
    models = []
    for value in (eager, lazy):
        torch.manual_seed(0)
        models.append(materialize(kind(3, **options | {option: value}), shape).eval())
    assert str(models[0]) == str(models[1])
    x = torch.randn(shape)
    torch.testing.assert_close(models[0](x), models[1](x))


@pytest.mark.parametrize("block", ["se_layer", "block"])
@pytest.mark.parametrize("lazy", [False, True])
def test_blocks_of_a_row_take_both(block, lazy):
    values = {
        "se_layer": (SqueezeExcitation, LazySqueezeExcitation),
        "block": (InvertedBottleneck, LazyInvertedBottleneck),
    }
    model = MobileNet(3, stages=[Stage(8, **{block: values[block][lazy]})])
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 3, 32), (2, 3, 32, 32), (2, 3, 16, 16, 16)])
def test_an_eager_block_of_a_user_infers_its_input_channels(shape):
    model = network([[Row(Square, 8)], [Row(Square, 4, repeats=2, stride=2)]])
    assert is_lazy(pickle.loads(pickle.dumps(model)))
    assert model(torch.zeros(shape)).shape == (2, 3)
    assert type(model.stages[1][0]) is Square
    assert [model.stages[1][index].conv[0].in_channels for index in (0, 1)] == [8, 4]
