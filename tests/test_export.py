"""Our models leave PyTorch: torch.export, ONNX."""

import copy

import onnxruntime
import pytest
import torch
from torch.export import Dim

from lazytorch import is_lazy, materialize
from lazytorch.models import get_model
from scripts.parity import randomize
from tests.catalogue import first_fast

# Residual and inverted bottlenecks and ConvNeXt blocks; ECA, squeeze-excitation and hard swish; blur pools; norms over
# channels; splits and shuffles of channels; signals and volumes; global context;
# parallel branches.
MODELS = {
    "mobilenetv3_small_050": (3, 64, 64),
    "resnetblur18": (3, 64, 64),
    "ecaresnet26t": (2, 256),
    "tinynet_e": (1, 32, 32, 32),
    "convnext_atto": (3, 64, 64),
    "convnextv2_atto": (1, 64),
    "shufflenet_v2_x0_5": (2, 256),
    "gcresnext26ts": (3, 64, 64),
    "mobileone_s0": (3, 64, 64),
}
ANY_BATCH = ({0: Dim.DYNAMIC},)


def built(name, shape):
    model = materialize(get_model(name, num_classes=7), (2, *shape)).eval()
    randomize(model)
    return model


@pytest.mark.parametrize(
    ("name", "shape"),
    first_fast(MODELS.items()),
)
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
        # Older versions of PyTorch refuse before we do where ``strict``.
        with pytest.raises((RuntimeError, AssertionError), match=r"Call lazytorch\.materialize\(model|Expected lazy"):
            export()
        assert is_lazy(model)
