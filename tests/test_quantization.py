"""Our models are quantized by torchao and by torch.ao; lazy ones are refused."""

import warnings
from operator import attrgetter

import pytest
import torch
from torch import nn

from lazytorch import UninitializedModuleError, is_lazy
from lazytorch.layers import LazyLinear
from lazytorch.models import get_model
from tests.test_export import ANY_BATCH, built

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on what torchao's build was made for
    pytest.importorskip("torchao.quantization", exc_type=ImportError, reason="torchao needs a newer PyTorch")
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8Tensor,
        Int8WeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )


@pytest.mark.parametrize("config", [Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig])
def test_linear_layers_quantized_by_torchao(config):
    model, x = built("mobilenetv3_small_050", (3, 64, 64)), torch.randn(4, 3, 64, 64)
    expected = model(x)
    quantize_(model, config())
    assert isinstance(model.get_classifier().weight, Int8Tensor)
    error = (model(x) - expected).norm() / expected.norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_convolutions_quantized_by_torchao(name):
    """After training, on what torch.export gives: weights and activations of 8 bits."""
    model, x = built(name, (3, 64, 64)), torch.randn(4, 3, 64, 64)
    convolutions = sum(isinstance(each, nn.Conv2d) for each in model.modules())
    program = torch.export.export(model, (x,), dynamic_shapes=ANY_BATCH).module()
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program, quantizer)
    prepared(x)
    quantized = convert_pt2e(prepared)
    kernels = [node for node in quantized.graph.nodes if "dequantize_per_channel" in str(node.target)]
    assert len(kernels) == convolutions + 1  # and the classifier
    assert all(attrgetter(node.args[0].target)(quantized).dtype == torch.int8 for node in kernels)
    expected = model(x)
    assert 0 < (quantized(x) - expected).norm() / expected.norm() < 0.05
    assert quantized(x[:1]).shape == (1, 7)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize(
    "quantize",
    [
        lambda model: quantize_(model, Int8WeightOnlyConfig()),
        lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}),
    ],
    ids=["torchao", "torch.ao"],
)
@pytest.mark.parametrize("make", [lambda: LazyLinear(3), lambda: get_model("resnet10t")], ids=["layer", "model"])
def test_a_lazy_model_is_not_quantized(make, quantize):
    model = make()
    remedy = r"no submodules yet: .* Call lazytorch\.materialize\(.* before walking them"
    with pytest.raises(UninitializedModuleError, match=remedy):
        quantize(model)
    assert is_lazy(model)
