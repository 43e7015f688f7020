"""A folded model answers as the model that it is a copy of."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lazytorch import UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import ConvNormActivation, NormActivation, ShuffleBlock, StdConv2d
from lazytorch.models import get_model, optimize_for_inference
from scripts.parity import randomize
from tests.catalogue import every_sample

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIDES = {1: (64,), 2: (64, 64), 3: (32, 32, 32)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@every_sample
def test_outputs_are_the_same(name, rank):
    # PyTorch's 3-D average pooling of 3 pixels, which these two have in the last stage, takes no volume of 2 pixels.
    sides = (48, 48, 48) if rank == 3 and name.startswith(("res2net", "resnest")) else SIDES[rank]
    x = torch.randn(2, 4, *sides)
    model = materialize(get_model(name, num_classes=5), x)
    randomize(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = optimize_for_inference(model)
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not folded.training
    parts = [each for each in folded.modules() if isinstance(each, (NormActivation, ConvNormActivation))]
    after_no_convolution = [each.norm for each in parts if not isinstance(getattr(each, "conv", None), CONVOLUTIONS)]
    kept = [each for each in after_no_convolution if isinstance(each, _BatchNorm)]
    assert [each for each in folded.modules() if isinstance(each, _BatchNorm)] == kept
    with torch.no_grad():
        logits, maps = model.eval()(x), model.forward_intermediates(x, intermediates_only=True)
        # The finest tells the examples apart; random networks hardly do further on.
        assert (maps[0][0] - maps[0][1]).abs().max() > 1e-2 * maps[0].abs().max()
        given = [x, x.contiguous(memory_format=torch.channels_last)] if rank == 2 else [x]
        for each in given:
            folded_maps = folded.forward_intermediates(each, intermediates_only=True)
            for actual, expected in zip([folded(each), *folded_maps], [logits, *maps], strict=True):
                scale = expected.abs().max()
                torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=1e-4)
            # A shuffle copies to contiguous memory; a standardized weight is contiguous, and keeps the input's format.
            kinds = (ShuffleBlock, StdConv2d) if each is x else ShuffleBlock
            if rank == 2 and not any(isinstance(part, kinds) for part in model.modules()):
                assert all(each.is_contiguous(memory_format=torch.channels_last) for each in folded_maps)


def test_what_cannot_be_folded_stays():
    norms = {
        "no statistics": lambda channels: nn.BatchNorm2d(channels, track_running_stats=False),
        "groups": lambda channels: nn.GroupNorm(2, channels),
    }
    for norm in norms.values():
        model = nn.Sequential(ConvNormActivation(3, 8, norm_layer=norm), nn.BatchNorm2d(8))
        model[1].running_mean.fill_(2)
        x = torch.randn(2, 3, 8, 8)
        folded = optimize_for_inference(model)
        assert [type(each) for each in folded.modules()] == [type(each) for each in model.modules()]
        torch.testing.assert_close(folded(x), copy.deepcopy(model).eval()(x))


class Doubled(nn.Conv2d):
    """A convolution that computes more."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked(layer):
    layer.norm.register_forward_hook(lambda _, __, output: output + 1)


def transposed(layer):
    layer.conv = nn.ConvTranspose2d(8, 8, 3, padding=1)


def doubled(layer):
    layer.conv = Doubled(8, 8, 3, padding=1)


def parametrized(layer):
    nn.utils.parametrizations.weight_norm(layer.conv)


def normed_first(layer):
    parts = list(layer._modules.items())
    layer._modules.clear()
    layer._modules.update([parts[1], parts[0], parts[2]])


def another_first(layer):
    parts = dict(layer._modules)
    layer._modules.clear()
    layer._modules.update({"extra": nn.Conv2d(8, 8, 1), "norm": parts["norm"], "conv": parts["conv"]})


class Halved(ConvNormActivation):
    """A layer that computes more."""

    def forward(self, x):
        return super().forward(self.conv(x)) / 2


def of_another_class(layer):
    layer.__class__ = Halved


@pytest.mark.parametrize(
    "change", [hooked, transposed, doubled, parametrized, normed_first, another_first, of_another_class]
)
def test_what_computes_more_than_its_kind_stays_as_it_is(change):
    layer = ConvNormActivation(8, 8)
    layer.norm.running_mean.uniform_()
    layer.norm.running_var.uniform_(0.5, 2)
    change(layer)
    x = torch.randn(2, 8, 6, 6)
    folded = optimize_for_inference(layer)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    torch.testing.assert_close(folded(x), layer.eval()(x))


def test_norms_without_weights_and_frozen_convolutions():
    layer = ConvNormActivation(3, 8, bias=True, norm_layer=lambda channels: nn.BatchNorm2d(channels, affine=False))
    layer.norm.running_mean.uniform_()
    layer.requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    folded = optimize_for_inference(layer)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    torch.testing.assert_close(folded(x), layer.eval()(x))


def test_a_lazy_model_is_refused_and_stays_lazy():
    model = get_model("resnet10t")
    with pytest.raises(UninitializedModuleError, match=r"no weights to fold yet.*before optimize_for_inference"):
        optimize_for_inference(model)
    assert is_lazy(model)


@pytest.mark.parametrize("change", ["prune", "weight_norm", "parametrizations.weight_norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_pruned_and_normalized_weights(change):
    model = materialize(get_model("resnet10t", num_classes=3), (1, 3, 64, 64)).eval()
    randomize(model)
    conv = model.stages[1][0].layers.conv1.conv
    if change == "prune":
        torch.nn.utils.prune.l1_unstructured(conv, "weight", 0.5)
    elif change == "weight_norm":
        torch.nn.utils.weight_norm(conv)
    else:
        torch.nn.utils.parametrizations.weight_norm(conv)
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    folded = optimize_for_inference(model)
    torch.testing.assert_close(folded(x), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x), before)
    assert sum(isinstance(each, _BatchNorm) for each in folded.modules()) == 1
