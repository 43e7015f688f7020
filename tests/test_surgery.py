"""Models are changed before their first input without counting channels, and afterwards with lazy parts."""

import copy

import pytest
import torch
from torch import nn

from lazytorch import is_lazy, materialize
from lazytorch.layers import (
    LazyBasicBlock,
    LazyConvNormActivation,
    LazyInvertedBottleneck,
    LazyLinear,
    LazySqueezeExcitation,
)
from lazytorch.models import ResNet, get_model, mobilenet_v2, resnet18

SHAPE = (2, 5, 64, 64)


def replace_stem(model):
    model.stem = LazyConvNormActivation(24, kernel_size=5, stride=2)


def insert_block(model):
    model.stages[1].insert(1, LazyInvertedBottleneck(20, kernel_size=7))


def remove_block(model):
    del model.stages[-2][0]


def swap_blocks(model):
    stage = model.stages[-2]
    stage.append(LazyBasicBlock(16, 40))
    stage[0], stage[-1] = stage[-1], stage[0]


def repeat_block(model):
    model.stages[1].append(copy.deepcopy(model.stages[1][-1]))


def widen_stage(model):
    model.stages[1] = nn.Sequential(LazyBasicBlock(72, 72, stride=2), LazyBasicBlock(72, 72))


def attend_after_block(model):
    model.stages[1][0] = nn.Sequential(model.stages[1][0], LazySqueezeExcitation(reduction_ratio=8))


def cut_after_stage(model):
    model.stages = model.stages[:2]


def share_block(model):
    block = LazyBasicBlock(16, 40)
    model.stages[1].extend([LazyBasicBlock(16, 40), block, block])


def graft_stage(model):
    model.stages[-1] = get_model("resnet26d").stages[-1]


CHANGES = [
    replace_stem,
    insert_block,
    remove_block,
    swap_blocks,
    repeat_block,
    widen_stage,
    attend_after_block,
    cut_after_stage,
    share_block,
    graft_stage,
]


@pytest.mark.parametrize("how", ["call", "materialize"])
@pytest.mark.parametrize("name", ["resnet18", "ecaresnet26t", "mobilenet_v2", "mobilenetv3_small_050", "tinynet_e"])
@pytest.mark.parametrize("change", CHANGES)
def test_change_before_the_first_input(change, name, how):
    model = get_model(name, num_classes=3)
    change(model)
    x = torch.randn(SHAPE, requires_grad=True)
    if how == "materialize":
        materialize(model, SHAPE)
    output = model(x)
    assert not is_lazy(model)
    assert output.shape == (2, 3)
    output.square().sum().backward()
    assert x.grad.any()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_is_shared_has_one_set_of_weights():
    model = get_model("resnet18")
    share_block(model)
    count = len(list(model.stages[1]))
    materialize(model, SHAPE)
    first, again = model.stages[1][-2:]
    assert first is again
    assert len(model.stages[1]) == count == 5
    assert all(each is other for each, other in zip(first.parameters(), again.parameters(), strict=True))


def new_stem(model):
    model.stem = LazyConvNormActivation(64, kernel_size=5, stride=4)


def new_blocks(model):
    model.stages[1][1] = LazyBasicBlock(32, 128)
    model.stages[1].insert(1, LazyInvertedBottleneck(128, kernel_size=7))


def new_attention(model):
    model.stages[1].append(LazySqueezeExcitation(reduction_ratio=4))


def new_stage(model):
    model.stages[0] = nn.Sequential(LazyBasicBlock(24, 64), LazyBasicBlock(24, 64))


def new_last_stage_and_classifier(model):
    model.stages[-1] = get_model("resnet26d").stages[-1]
    model.head.classifier = LazyLinear(3)


@pytest.mark.parametrize("how", ["call", "materialize"])
@pytest.mark.parametrize("change", [new_stem, new_blocks, new_attention, new_stage, new_last_stage_and_classifier])
def test_lazy_parts_of_a_built_model_fit_what_they_are_given(change, how):
    model = materialize(get_model("resnet18", num_classes=3), SHAPE)
    kept = model.stages[2][0].layers.conv1.conv.weight
    before = kept.clone()
    change(model)
    assert is_lazy(model)
    x = torch.randn(SHAPE, requires_grad=True)
    if how == "materialize":
        materialize(model, SHAPE)
        assert not is_lazy(model)
    model(x).square().sum().backward()
    assert not is_lazy(model)
    assert x.grad.any()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.stages[2][0].layers.conv1.conv.weight is kept
    assert torch.equal(kept, before)
    if change is new_blocks:
        assert model.stages[1][2].layers.conv1.conv.in_channels == 128


@pytest.mark.parametrize("features", [False, True], ids=["classes", "features"])
def test_what_does_not_fit_is_named(features):
    model = get_model("resnet18", features_only=True) if features else get_model("resnet18")
    materialize(model, SHAPE)
    model.stages[0][1] = LazyBasicBlock(32, 48)
    with pytest.raises(RuntimeError, match="to have 64 channels, but got 48 channels instead") as error:
        model(torch.randn(SHAPE))
    assert error.value.__notes__ == ["at stages.1.0.layers.conv1.conv"]


@pytest.mark.parametrize("make", [resnet18, mobilenet_v2])
@pytest.mark.parametrize(
    ("name", "replace"),
    [
        ("fc", r"reset_classifier\(num_classes\)"),
        ("classifier", r"reset_classifier\(num_classes\)"),
        ("conv1", r"model\.stem"),
        ("conv_stem", r"model\.stem"),
        ("layer4", r"model\.stages\[3\]"),
        ("features", r"model\.stages"),
        ("avgpool", r"model\.head\.pool"),
        ("maxpool", r"model\.stem_pool"),
    ],
)
def test_attributes_of_other_libraries_are_refused_with_the_way_that_works(make, name, replace):
    model = make(num_classes=3)
    with pytest.raises(AttributeError, match=f"no {name!r}, unlike networks of other libraries. Use .*{replace}"):
        setattr(model, name, nn.Identity())
    assert name not in dict(model.named_children())
    with pytest.raises(AttributeError, match=f"no {name!r}, unlike networks of other libraries. Use .*{replace}"):
        getattr(model, name)
    assert not hasattr(model, name)


class WithHead(ResNet):
    """A network of a user's with a module of such a name, which it calls."""

    def __init__(self):
        super().__init__(0, depths=(1, 1), widths=(8, 16), stem=(8,))
        self.fc = nn.Linear(64, 2)

    def forward(self, x):
        return self.fc(super().forward(x))


def test_a_class_of_a_user_may_have_them():
    model = WithHead()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    assert isinstance(model.fc, nn.Linear)
    with pytest.raises(AttributeError, match="no attribute 'layer4'"):
        _ = model.layer4


def test_other_missing_attributes_are_pytorchs_errors():
    with pytest.raises(AttributeError, match="'ResNet' object has no attribute 'stage'"):
        _ = resnet18().stage
