"""--weights of images in runs on signals and volumes, of any channels."""

import re

import pytest
import safetensors.torch
import timm
import torch

import lazytorch
from lazytorch.models import get_model, inflate_state_dict, reduce_state_dict
from scripts import train
from scripts.training import running
from tests.catalogue import first_fast
from tests.scripts.arrays import SIZES, array_data
from tests.scripts.runs import LIGHTNING_WARNINGS

# One step that changes nothing: what is saved is what the run started from, but for the statistics of BatchNorm.
STILL = ["--epochs", "1", "--limit-batches", "1", "--lr", "0", "--batch-size", "2", "--device", "cpu"]
STILL += ["--shift", "0", "--intensity", "0", "--optimizer", "sgd"]
CONVERSIONS = {1: reduce_state_dict, 3: inflate_state_dict}
RULES = {1: "each kernel is summed along its height", 3: "each kernel is repeated along the depth and divided by"}
KERNEL = "stages.0.0.layers.conv1.conv.weight"
STEM = "stem.conv1.conv.weight"

pytestmark = LIGHTNING_WARNINGS


@pytest.fixture(scope="module")
def flat() -> lazytorch.models.Backbone:
    """A network of colour images of two classes."""
    torch.manual_seed(5)
    return lazytorch.materialize(get_model("resnet10t", num_classes=2), (1, 3, 64, 64))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Starts a run on data in memory; returns the weights that it saved and what it printed."""

    def start(data, weights, *arguments, name="run"):
        monkeypatch.setattr(running, "load", lambda *_, **__: data)
        output = tmp_path / name
        train.main(["--model", "resnet10t", "--weights", str(weights), *STILL, "--output", str(output), *arguments])
        return safetensors.torch.load_file(output / "last.safetensors"), capsys.readouterr().out

    return start


@pytest.mark.parametrize("spatial_dims", [1, 3])
@pytest.mark.parametrize("channels", first_fast([5, 3, 1]))
def test_a_file_of_weights_of_images_starts_signals_and_volumes(flat, run, tmp_path, spatial_dims, channels):
    path = tmp_path / "images.safetensors"
    safetensors.torch.save_file(flat.state_dict(), path)
    state, printed = run(array_data(spatial_dims, channels), path)
    assert f"the weights {path} are of images: {RULES[spatial_dims]}" in printed
    expected = CONVERSIONS[spatial_dims](flat.state_dict())
    for name, value in expected.items():
        if name != STEM and "running" not in name and "num_batches" not in name:
            assert torch.equal(state[name], value), name
    stem = expected[STEM]
    assert state[STEM].shape == (stem.size(0), channels, *stem.shape[2:])
    if channels == 3:
        assert torch.equal(state[STEM], stem)
    elif channels == 1:
        torch.testing.assert_close(state[STEM], stem.sum(1, keepdim=True))
    else:
        torch.testing.assert_close(state[STEM], torch.cat([stem, stem[:, :2]], dim=1) * 3 / 5)


@pytest.mark.filterwarnings("ignore:The weights 'timm' have 1000 classes")
@pytest.mark.parametrize("spatial_dims", [1, 3])
def test_published_weights_start_signals_and_volumes(run, monkeypatch, spatial_dims):
    create = timm.create_model
    published = create("resnet10t")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: published)
    state, printed = run(array_data(spatial_dims), "timm")
    assert f"the weights timm are of images: {RULES[spatial_dims]}" in printed
    theirs = CONVERSIONS[spatial_dims](published.state_dict())["layer1.0.conv1.weight"]
    assert torch.equal(state[KERNEL], theirs)
    assert state["head.classifier.weight"].shape == (2, 512)


@pytest.mark.filterwarnings("ignore:The weights .* have 3 classes")
def test_weights_of_a_run_start_runs_of_other_dimensions(run, tmp_path):
    """With a new classifier for other classes; and weights of volumes start volumes as they are."""
    images = array_data(2, classes=3, count=12)
    model = lazytorch.materialize(get_model("resnet10t", num_classes=3), (1, 2, 64, 64))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "start.safetensors")
    first, printed = run(images, tmp_path / "start.safetensors", name="images")
    assert "are of images:" not in printed
    weights = tmp_path / "images" / "last.safetensors"
    volumes, printed = run(array_data(3), weights, name="volumes")
    assert "are of other classes: the classifier is randomly initialized" in printed
    assert torch.equal(volumes[KERNEL], inflate_state_dict(first)[KERNEL])
    assert volumes["head.classifier.weight"].shape == (2, 512)
    again, printed = run(array_data(3), tmp_path / "volumes/last.safetensors", name="again")
    assert "are of images:" not in printed
    assert torch.equal(again[KERNEL], volumes[KERNEL])


def test_weights_that_cannot_be_converted_are_one_sentence(run, tmp_path, capsys):
    volumes = lazytorch.materialize(get_model("resnet10t", num_classes=2), (1, 2, *SIZES[3]))
    path = tmp_path / "volumes.safetensors"
    safetensors.torch.save_file(volumes.state_dict(), path)
    for spatial_dims, message in (
        (1, f"--weights must be of images or signals for signals, got {path} of volumes."),
        (2, f"--weights must be of images for images, got {path} of volumes."),
    ):
        with pytest.raises(SystemExit):
            run(array_data(spatial_dims), path)
        assert capsys.readouterr().err.strip() == message
    small = {"widths": (4, 4, 4, 8, 8), "pool_size": 2, "hidden_channels": 10}
    vgg = lazytorch.materialize(get_model("vgg11", num_classes=2, **small), (1, 3, 64, 64))  # flattens its features
    safetensors.torch.save_file(vgg.state_dict(), path)
    with pytest.raises(SystemExit):
        run(
            array_data(3), path, "--model", "vgg11", "--model-option", *(f"{key}={each}" for key, each in small.items())
        )
    error = capsys.readouterr().err.strip()
    assert re.search(r"vgg11 cannot be built: .*head\.hidden\.linear1\.weight is \(10, 32\), must be \(10, 64\)", error)
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
