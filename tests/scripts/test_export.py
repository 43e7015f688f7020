"""scripts/export.py: the same answers in another runtime, or no file."""

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import lazytorch
from scripts import export
from scripts.training import checkpoints
from tests.catalogue import first_fast

pytestmark = [
    # torch.onnx's and onnxscript's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


def ours(weights: Path) -> nn.Module:
    options = {"width": 0.1, "final_channels": 16}
    return lazytorch.models.mobilenet_v2(**options, weights=weights).eval()


@pytest.mark.parametrize("kind", first_fast(export.FORMATS, 2))
@pytest.mark.parametrize("source", first_fast(["last.safetensors", "checkpoint"]))
def test_answers_as_the_trained_model(kind, source, whole, tmp_path, capsys):
    path = checkpoints.listed(whole)[0] if source == "checkpoint" else whole / source
    output = tmp_path / f"model{export.FORMATS[kind][1]}"
    export.main([str(path), "--format", kind, "--output", str(output)])
    assert "largest difference" in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == [output.name]
    images = torch.randn(3, 3, 16, 16)
    if kind == "onnx":
        session = onnxruntime.InferenceSession(output)
        answer = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        description = {each.key: each.value for each in onnx.load(output).metadata_props}["lazytorch"]
        assert json.loads(description)["classes"] == ["a", "b", "c", "d"]
    elif kind == "torch-export":
        answer = torch.export.load(output).module()(images)
    else:
        answer = ours(output)(images)
    # The run has a moving average, which is what is exported of both.
    expected = ours(whole / "last.safetensors")(images)
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)


def test_a_file_that_answers_otherwise_is_refused(whole, tmp_path, monkeypatch):
    def wrong(model, description, example, path):
        path.write_bytes(b"something else")
        return lambda images: model(images) * 1.001

    monkeypatch.setitem(export.FORMATS, "safetensors", (wrong, ".safetensors"))
    with pytest.raises(SystemExit, match=r"must return the outputs of the trained model, to 0\.0001 .*, got 1\.0e-03"):
        export.main([str(whole / "last.safetensors"), "--format", "safetensors", "--output", str(tmp_path / "x.st")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nothing of ours"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_other_files_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match="must be a checkpoint or a file of weights"):
        export.main([str(tmp_path / name), "--format", "onnx"])
    with pytest.raises(SystemExit, match="must be a checkpoint or a file of weights"):
        export.main([str(tmp_path / "nowhere.ckpt"), "--format", "onnx"])


def test_what_is_exported_is_not_overwritten(whole):
    before = (whole / "last.safetensors").read_bytes()
    with pytest.raises(SystemExit, match="give another --output"):
        export.main([str(whole / "last.safetensors"), "--format", "safetensors"])
    assert (whole / "last.safetensors").read_bytes() == before
