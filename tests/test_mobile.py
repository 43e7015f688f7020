"""The tables are the way to compose: another table, block, kernel or attention takes a line or two."""

from functools import partial
from math import ceil

import pytest
import torch
from torch import nn

import lazytorch
from lazytorch.layers import LazyFusedInvertedBottleneck, LazyUniversalInvertedBottleneck, SqueezeExcitation
from lazytorch.models import MobileNet, Stage, get_model, list_models, mobilenet_v2
from lazytorch.models.heads import linear
from lazytorch.models.mobile import blocks
from lazytorch.models.mobilenet import MOBILENET_V2

TABLES = {
    "another table": [Stage(8), Stage(16, repeats=2, stride=2, expansion_ratio=4), Stage(24, stride=2)],
    "another block in one row": [MOBILENET_V2[0], MOBILENET_V2[1]._replace(block=LazyFusedInvertedBottleneck)],
    "another block in every row": [row._replace(block=LazyUniversalInvertedBottleneck) for row in MOBILENET_V2[:4]],
    "a larger kernel in one stage": [*MOBILENET_V2[:2], MOBILENET_V2[2]._replace(kernel_size=7)],
    "squeeze-excitation everywhere": [row._replace(se_layer=SqueezeExcitation) for row in MOBILENET_V2],
    "another activation in one row": [*MOBILENET_V2[:2], MOBILENET_V2[2]._replace(activation=nn.GELU)],
    "a stage of several rows": [MOBILENET_V2[0], [Stage(24, stride=2), Stage(24, kernel_size=5, expansion_ratio=3)]],
}


@pytest.mark.parametrize("how", ["call", "materialize"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_mobilenet_of_another_table(table, how):
    model = mobilenet_v2(num_classes=3, stages=table)
    x = torch.randn(2, 5, 32, 32, requires_grad=True)
    if how == "materialize":
        lazytorch.materialize(model, tuple(x.shape))
        assert not lazytorch.is_lazy(model)
    model(x).square().sum().backward()
    assert x.grad.any()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len(model.stages) == len(table)


def test_what_was_asked_for_is_there():
    x = torch.zeros(2, 3, 32, 32)
    model = mobilenet_v2(stages=TABLES["squeeze-excitation everywhere"])
    model(x)
    assert all(isinstance(block.layers.se, SqueezeExcitation) for stage in model.stages for block in stage)
    model = mobilenet_v2(stages=TABLES["a larger kernel in one stage"])
    model(x)
    assert model.stages[2][0].layers.depthwise.conv.kernel_size == (7, 7)
    assert model.stages[1][0].layers.depthwise.conv.kernel_size == (3, 3)
    model = mobilenet_v2(stages=TABLES["another block in one row"])
    model(x)
    assert model.stages[1][0].layers.conv.conv.groups == 1
    assert isinstance(mobilenet_v2(stages=TABLES["another activation in one row"]).stages[2][0], lazytorch.LazyModule)


def test_no_table():
    with pytest.raises(
        ValueError,
        match=r"MobileNet: stages must be a sequence of at least one value, such as \[Stage\(...\), Stage\(...\)\]",
    ):
        MobileNet(3)


def test_compound_scaling():
    """Tan & Le 2019: channels to the nearest multiple of 8, blocks up to the next whole number."""
    table = blocks([Stage(16), Stage(24, repeats=2, stride=2)], 1.4, 1.8, lazytorch.layers.round_channels, ceil, False)
    assert [[row.out_channels for row in rows] for rows in table] == [[24, 24], [32, 32, 32, 32]]
    assert [[row.stride for row in rows] for rows in table] == [[1, 1], [2, 1, 1, 1]]  # the first block alone takes it
    ends = blocks([Stage(8), Stage(8, repeats=2), Stage(8)], 1.0, 2.0, round, ceil, True)
    assert [len(rows) for rows in ends] == [1, 4, 1]
    each = blocks([Stage(8, repeats=3), Stage(8, repeats=3)], 1.0, (1.0, 1.5), round, ceil, False)
    assert [len(rows) for rows in each] == [3, 5]
    several = blocks([[Stage(8), Stage(8, kernel_size=5, repeats=3)]], 1.0, 1.5, round, ceil, False)
    assert [row.kernel_size for row in several[0]] == [3, 3, 5, 5, 5, 5]
    with pytest.raises(ValueError, match="depth must be one number or one a stage, got 3 for 2"):
        blocks([Stage(8), Stage(8)], 1.0, (1, 1, 1), round, ceil, False)


def test_hidden_layer_after_the_pooling():
    for hidden in (linear, partial(lazytorch.models.heads.pointwise, norm=True)):
        model = MobileNet(3, stages=MOBILENET_V2[:2], hidden_channels=40, hidden=hidden)
        x = torch.zeros(2, 1, 32, 32)
        assert model(x).shape == (2, 3)
        assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 40)
        assert (model.num_features, model.hidden_channels) == (24, 40)
        model.reset_classifier(0)
        assert model(x).shape == (2, 40)


@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 12, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize(
    "name",
    ["mobilenetv1_100", "mobilenet_v3_small", "mobilenetv3_small_050", "mobilenetv4_conv_blur_medium", "lcnet_050",
     "semnasnet_050", "efficientnet_lite0", "efficientnet_es", "tinynet_e", "mobilenet_edgetpu_v2_xs"],
)  # fmt: skip
def test_takes_any_channels_and_rank(name, shape):
    assert get_model(name, num_classes=4).eval()(torch.randn(shape)).shape == (shape[0], 4)


def test_every_part_with_weights_is_lazy():
    for name in list_models(["mobilenet*", "efficientnet*", "*nasnet*", "tinynet_a", "lcnet_100", "fbnetc_100"]):
        parts = [each for each in get_model(name).modules() if next(each.parameters(recurse=False), None) is not None]
        assert parts
        assert all(isinstance(each, lazytorch.LazyModule) for each in parts)
