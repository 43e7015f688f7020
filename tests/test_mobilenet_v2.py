"""MobileNetV2, and what every backbone does."""

import pytest
import timm
import torch

import lazytorch
from lazytorch.models import Stage, load_reference_state_dict, mobilenet_v2
from lazytorch.models.mobilenet import MOBILENET_V2
from scripts import parity


def test_has_the_parameters_of_the_reference():
    model = lazytorch.materialize(mobilenet_v2(), (1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_504_872


def test_is_made_of_lazy_layers_alone():
    model = mobilenet_v2()
    parts = [each for each in model.modules() if next(each.parameters(recurse=False), None) is not None]
    assert parts
    assert all(isinstance(each, lazytorch.LazyModule) for each in parts)


@pytest.mark.parametrize("channels", [1, 12])
@pytest.mark.parametrize("spatial", [(64,), (32, 48), (32, 32, 32)], ids=["1d", "2d", "3d"])
def test_takes_any_channels_and_rank(channels, spatial):
    assert mobilenet_v2(num_classes=4)(torch.randn(2, channels, *spatial)).shape == (2, 4)


def test_known_before_any_input():
    model = mobilenet_v2()
    assert [info.channels for info in model.stage_info] == [16, 24, 32, 64, 96, 160, 320]
    assert [info.reduction for info in model.stage_info] == [2, 4, 8, 16, 16, 32, 32]
    assert model.num_features == 1280
    assert lazytorch.is_lazy(model)


def test_features_and_head():
    model = mobilenet_v2(num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    features = model.forward_features(x)
    assert features.shape == (2, 1280, 2, 2)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean(dim=(2, 3)))
    torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    for info in model.stage_info:
        part = model.stem(x)
        for stage in model.stages[: int(info.module.removeprefix("stages.")) + 1]:
            part = stage(part)
        assert part.shape == (2, info.channels, 64 // info.reduction, 64 // info.reduction)


def test_reset_classifier():
    model = mobilenet_v2(num_classes=0)
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 1280)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.num_classes == 3
    assert model.get_classifier().weight.std() < 0.02
    assert not model.get_classifier().bias.any()
    model.eval().reset_classifier(4)
    assert not lazytorch.is_lazy(model)
    assert not model.get_classifier().training
    torch.optim.SGD(model.parameters(), lr=0.1)
    model.to("meta").double().reset_classifier(2)
    model(x.double().to("meta"))
    assert model.get_classifier().weight.is_meta
    assert model.get_classifier().weight.dtype == torch.float64
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 0, got -1"):
        model.reset_classifier(-1)


def test_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError, match="num_clases"):
        mobilenet_v2(num_clases=10)


def test_another_table():
    rows = [*MOBILENET_V2[:3], Stage(expansion_ratio=4, out_channels=40, repeats=2, stride=2)]
    model = mobilenet_v2(num_classes=2, stages=rows)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 2)
    assert model.feature_info[-1] == (40, 16, "stages.3")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"output_stride": 8}, {"output_stride": 8}),
        ({"output_stride": 16}, {"output_stride": 16}),
        ({"drop_path_rate": 0.3}, {"drop_path_rate": 0.3}),
        ({"dropout": 0.3}, {"drop_rate": 0.3}),
    ],
    ids=str,
)
def test_is_the_mobilenetv2_100_of_timm(ours, theirs):
    theirs = timm.create_model("mobilenetv2_100", num_classes=5, **theirs)
    model = mobilenet_v2(num_classes=5, **{"dropout": 0.0} | ours)
    parity.randomize(theirs)
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    found = parity.difference(model, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
