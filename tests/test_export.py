"""Our models leave PyTorch: torch.export, ONNX, quantisation."""

import copy
import warnings
from operator import attrgetter

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from lazytorch import UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import LazyLinear
from lazytorch.models import get_model
from scripts.parity import randomize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on what torchao's build was made for
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

# Residual and inverted bottlenecks; ECA, squeeze-excitation and hard swish; blur pools; signals and volumes.
MODELS = {
    "mobilenetv3_small_050": (3, 64, 64),
    "resnetblur18": (3, 64, 64),
    "ecaresnet26t": (2, 256),
    "tinynet_e": (1, 32, 32, 32),
}
ANY_BATCH = ({0: Dim.DYNAMIC},)


def built(name, shape):
    model = materialize(get_model(name, num_classes=7), (2, *shape)).eval()
    randomize(model)
    return model


@pytest.mark.parametrize(("name", "shape"), MODELS.items())
def test_exported_for_any_batch_to_torch_and_onnx(name, shape, tmp_path):
    model, x = built(name, shape), torch.randn(2, *shape)
    program = torch.export.export(model, (x,), dynamic_shapes=ANY_BATCH)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert isinstance(given.shape[0], str)
    assert given.shape[1:] == list(shape)
    torch.export.save(program, tmp_path / "model.pt2")
    again = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        for batch in (1, 5):
            x = torch.randn(batch, *shape)
            expected = model(x)
            assert expected.std() > 0.1
            torch.testing.assert_close(again(x), expected)
            (answer,) = session.run(None, {given.name: x.numpy()})
            torch.testing.assert_close(torch.from_numpy(answer), expected, rtol=1e-4, atol=1e-4)


def test_feature_maps_and_training_are_exported():
    features = materialize(get_model("resnet10t", features_only=True, out_indices=(1, -1)), (2, 3, 64, 64)).eval()
    program = torch.export.export(features, (torch.randn(2, 3, 64, 64),), dynamic_shapes=ANY_BATCH).module()
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(program(x), features(x))
    model = built("resnet10t", (3, 64, 64)).train()
    trained = torch.export.export(copy.deepcopy(model), (x,), strict=True).module()
    torch.testing.assert_close(trained(x), model(x))
    assert trained.get_buffer("stem.conv1.norm.num_batches_tracked") == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_lazy_model_is_not_exported(strict):
    model, x = get_model("resnet10t").eval(), torch.randn(2, 3, 64, 64)
    for export in (
        lambda: torch.export.export(model, (x,), strict=strict),
        lambda: torch.onnx.export(model, (x,), dynamo=True, verbose=False),
    ):
        with pytest.raises(RuntimeError, match=r"Call lazytorch\.materialize\(model"):
            export()
        assert is_lazy(model)


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
