"""A model built on the meta device gets the initial weights that it would have had elsewhere."""

import pytest
import torch
from torch import nn

from lazytorch import UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation
from lazytorch.models import get_model
from scripts.parity import alike
from tests.catalogue import FEW, SAMPLES, first_fast

SHAPE = (2, 5, 64, 64)


def built_on_meta(name, **options):
    with torch.device("meta"):
        model = materialize(get_model(name, num_classes=7, **options), SHAPE)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(77)
    return model


def groups(channels):
    return nn.GroupNorm(4, channels)


OPTIONS = {"resnet26t": {"zero_init": True}, "resnet14t": {"norm_layer": groups}}


@pytest.mark.parametrize("name", first_fast([*OPTIONS, *sorted(SAMPLES, key=lambda name: name not in FEW)], 7))
def test_initial_weights_are_drawn_as_at_the_build(name):
    options = OPTIONS.get(name, {})
    model, fresh = built_on_meta(name, **options), materialize(get_model(name, num_classes=7, **options), SHAPE)
    model.init_weights()
    tensors = [dict((*each.named_parameters(), *each.named_buffers())) for each in (model, fresh)]
    assert tensors[0].keys() == tensors[1].keys()
    assert alike(*tensors)
    x = torch.randn(SHAPE)
    assert model(x).isfinite().all()
    first = {key: value.clone() for key, value in model.named_parameters()}
    torch.manual_seed(1)
    model.init_weights()
    assert any(not torch.equal(value, first[key]) for key, value in model.named_parameters())
    assert all(not value.any() for key, value in model.named_buffers() if key.endswith("num_batches_tracked"))


def test_weights_depend_on_the_seed_alone_and_keep_what_was_asked():
    model = built_on_meta("resnet10t")
    model.freeze_stages(1)
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        model.init_weights()
        states.append({key: value.clone() for key, value in model.state_dict().items()})
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert {name.split(".")[0] for name, each in model.named_parameters() if not each.requires_grad} == {
        "stem",
        "stages",
    }
    assert not model.stages[0].training


def test_what_has_no_initial_weights_is_an_error():
    lazy = get_model("resnet10t")
    with pytest.raises(UninitializedModuleError, match=r"Call lazytorch\.materialize.* before init_weights\(\)"):
        lazy.init_weights()
    assert is_lazy(lazy)

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.scale

    model = materialize(get_model("resnet10t"), SHAPE)
    model.stages[1].append(Scale())
    before = model.stem.conv1.conv.weight.clone()
    with pytest.raises(TypeError, match=r"must have reset_parameters\(\).* got none in stages\.1\.1"):
        model.init_weights()
    assert torch.equal(model.stem.conv1.conv.weight, before)


def test_changed_parts_are_drawn_as_the_others():
    model = built_on_meta("resnet10t")
    model.stem = LazyConvNormActivation(64, 7, stride=4)
    materialize(model, SHAPE)
    model.init_weights()
    assert model.stem.conv.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
