"""The README's table of lazytorch, torch.nn's lazy modules, timm and torchvision: one test for each row."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import lazytorch
from lazytorch import is_lazy, lazify, materialize
from lazytorch.layers import LazyLinear, LazyPointwiseConv
from lazytorch.models import get_model, list_models, load_reference_state_dict, reference_state_dict

IMAGE = (2, 1, 64, 64)
README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_row_names_its_test():
    rows = re.findall(r"^\| .* \| \[test\]\(tests/test_comparison\.py\) `(\w+)` \|$", README, re.MULTILINE)
    here = {name for name in globals() if name.startswith("test_") and name != "test_every_row_names_its_test"}
    assert {f"test_{row}" for row in rows} == here


def test_channels():
    assert get_model("resnet10t", num_classes=3)(torch.zeros(IMAGE)).shape == (2, 3)
    assert sum(name.startswith("Lazy") for name in dir(nn)) == 13
    assert timm.create_model("resnet10t", in_chans=1, num_classes=3)(torch.zeros(IMAGE)).shape == (2, 3)
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels, but got 1"):
        torchvision.models.resnet18()(torch.zeros(IMAGE))


def test_dimensions():
    volume = torch.zeros(2, 3, 32, 32, 32)
    assert get_model("resnet10t", num_classes=3)(volume).shape == (2, 3)
    for model in (nn.LazyConv2d(4, 1), timm.create_model("resnet10t"), torchvision.models.resnet18()):
        with pytest.raises(RuntimeError, match=r"Expected 3D \(unbatched\) or 4D \(batched\) input"):
            model(volume)
    assert torchvision.models.video.r3d_18(num_classes=3)(volume).shape == (2, 3)


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.weight


def test_any_module():
    scale = lazify(Scale, channels=1)()
    scale(torch.zeros(IMAGE))
    assert type(scale) is Scale
    with pytest.raises(TypeError):
        Scale()


def test_afterwards():
    for lazy in (LazyLinear(3), nn.LazyLinear(3)):
        lazy(torch.zeros(1, 7))
        assert type(lazy) is nn.Linear


def test_failure():
    batch = torch.zeros(1, 3, 8, 8)  # 6 channels cannot be divided into 4 groups
    ours = nn.Sequential(LazyPointwiseConv(6), lazify(nn.Conv2d, in_channels=1)(8, 1, groups=4))
    theirs = nn.Sequential(nn.LazyConv2d(6, 1), nn.LazyConv2d(8, 1, groups=4))
    with pytest.raises(ValueError, match="must be divisible by groups"):
        materialize(ours, batch)
    assert [is_lazy(part) for part in ours] == [True, True]
    for model in (ours, theirs):  # called directly, nn.Sequential is PyTorch's
        with pytest.raises(ValueError, match="must be divisible by groups"):
            model(batch)
        assert [is_lazy(part) for part in model] == [False, True]


def weight(lazy_class, seed_at_construction, seed_at_first_call):
    torch.manual_seed(seed_at_construction)
    lazy = lazy_class(3)
    torch.manual_seed(seed_at_first_call)
    lazy(torch.zeros(1, 7))
    return lazy.weight


def test_weights():
    assert torch.equal(weight(LazyLinear, 0, 1), weight(LazyLinear, 0, 2))
    assert not torch.equal(weight(LazyLinear, 0, 1), weight(LazyLinear, 2, 1))
    assert torch.equal(weight(nn.LazyLinear, 0, 1), weight(nn.LazyLinear, 2, 1))
    assert not torch.equal(weight(nn.LazyLinear, 0, 1), weight(nn.LazyLinear, 0, 2))


def test_loading():
    entries = materialize(get_model("resnet10t", num_classes=3), IMAGE).state_dict()
    del entries["head.classifier.bias"]
    ours = get_model("resnet10t", num_classes=3)
    result = ours.load_state_dict(entries | {"other": torch.zeros(1)}, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["head.classifier.bias"], ["other"])
    assert not is_lazy(ours)
    theirs = nn.LazyLinear(3)
    theirs.load_state_dict(nn.Linear(7, 3).state_dict())
    assert theirs.weight.shape == (3, 7)


def test_models():
    assert len(list_models()) == 404
    assert len(timm.list_models()) > 1000
    assert len(torchvision.models.list_models()) > 100
    assert "vit_base_patch16_224" in timm.list_models()
    assert "maskrcnn_resnet50_fpn" in torchvision.models.list_models()


def test_exchange():
    theirs = torchvision.models.resnet18(num_classes=3)
    ours = get_model("resnet18", num_classes=3)
    load_reference_state_dict(ours, theirs.state_dict(), "torchvision")
    timm.create_model("resnet18", num_classes=3).load_state_dict(reference_state_dict(ours, "timm"))
    torchvision.models.resnet18(num_classes=3).load_state_dict(reference_state_dict(ours, "torchvision"))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)"):
        torchvision.models.mobilenet_v2().load_state_dict(timm.create_model("mobilenetv2_100").state_dict())


def test_options():
    with pytest.raises(TypeError, match="Did you mean 'num_classes'"):
        lazytorch.models.mobilenet_v3_small(num_clases=10)
    for refused in (lambda: nn.LazyLinear(3, biass=True), lambda: timm.create_model("resnet18", num_clases=10)):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            refused()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        torchvision.models.resnet18(num_clases=10)
    assert torchvision.models.mobilenet_v3_small(num_clases=10).classifier[-1].out_features == 1000
