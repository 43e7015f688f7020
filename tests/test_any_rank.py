"""Every model of the zoo takes signals, images and volumes; its parameters follow from the kernels' volumes."""

import pytest
import torch
from torch import nn

from lazytorch import ShapeInferenceError, is_lazy, materialize
from lazytorch.layers import LazyConvNormActivation, LazyDepthwiseConv2d
from lazytorch.models import (
    ResNet,
    get_model,
    inflate_state_dict,
    load_reference_state_dict,
    reduce_state_dict,
    reference_state_dict,
)
from scripts.parity import randomize
from tests.catalogue import every_network

SIDES = {1: (64,), 2: (64, 64), 3: (64, 64, 64)}
FOR_ONE_RANK = ("Conv", "BatchNorm", "MaxPool", "AvgPool", "AdaptiveAvgPool", "ZeroPad")


@every_network()
def test_parameters_follow_from_the_volumes_of_the_kernels(name):
    shapes = {}
    for rank, sides in SIDES.items():
        with torch.device("meta"):
            model = get_model(name, num_classes=7)
        materialize(model, (1, 2, *sides))
        shapes[rank] = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        for each in model.modules():
            kind = type(each).__name__
            if kind[:-2] in FOR_ONE_RANK and type(each).__module__.startswith("torch.nn"):
                of_attention = kind == "Conv1d" and each.in_channels == each.out_channels == 1
                assert of_attention or kind.endswith(f"{rank}d")
    assert shapes[1].keys() == shapes[2].keys() == shapes[3].keys()
    pool_size = model.pool_size
    for key, shape in shapes[2].items():
        is_kernel = len(shape) == 4
        if pool_size > 1 and key == "head.hidden.linear1.weight":  # it follows the pooled pixels
            sizes = {rank: (shape[0], shape[1] // pool_size**2 * pool_size**rank) for rank in (1, 2, 3)}
            assert {rank: shapes[rank][key] for rank in (1, 2, 3)} == sizes
            continue
        assert shapes[1][key] == (shape[:3] if is_kernel else shape)
        assert shapes[3][key] == ((*shape, shape[3]) if is_kernel else shape)
    assert any(len(shape) == 4 for shape in shapes[2].values())


@pytest.mark.parametrize("name", ["resnet10t", "ecaresnet26t", "mobilenetv3_small_050", "mobilenetv4_conv_blur_medium"])
@pytest.mark.parametrize("rank", [1, 3])
def test_trains_on_signals_and_volumes(name, rank):
    model = get_model(name, num_classes=3, dropout=0.5, drop_path_rate=0.5)
    x = torch.randn(2, 4, *(64,) if rank == 1 else (32, 32, 32))
    model(x)
    outputs = [model(x) for _ in range(2)]
    assert not torch.equal(*outputs)  # some dropped
    model(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(x).shape == (2, 3)


def test_a_rank_that_a_layer_cannot_take_is_an_error():
    model = get_model("resnet18")
    for shape in ((2, 3), (2, 3, 8, 8, 8, 8)):
        with pytest.raises(ShapeInferenceError, match=rf"the input must be .*, got {len(shape)} dimensions"):
            model(torch.zeros(shape))
        assert is_lazy(model)
    with pytest.raises(ShapeInferenceError, match="got 3 dimensions"):
        LazyDepthwiseConv2d()(torch.zeros(2, 3, 8))
    materialize(model, (1, 3, 64, 64))
    with pytest.raises(RuntimeError, match=r"Expected 3D .* or 4D"):
        model(torch.zeros(2, 3, 8, 8, 8))


@pytest.mark.parametrize("rank", [1, 3])
def test_a_stem_weight_that_is_loaded_decides(rank):
    source = materialize(get_model("resnet10t", num_classes=3), (1, 4, *(32,) * rank)).eval()
    model = get_model("resnet10t", num_classes=3).eval()
    assert str(model.load_state_dict(source.state_dict())) == "<All keys matched successfully>"
    assert not is_lazy(model)
    conv = model.stem.conv1.conv
    assert isinstance(conv, {1: nn.Conv1d, 3: nn.Conv3d}[rank])
    assert conv.in_channels == 4
    for wrong in ((2, 4, 32, 32), (2, 5, *(32,) * rank)):
        with pytest.raises(RuntimeError, match=r"Expected 2D .* or 3D|expected input.* to have 4 channels") as error:
            model(torch.zeros(wrong))
        assert "at stem.conv1.conv" in error.value.__notes__
    x = torch.randn(2, 4, *(32,) * rank)
    torch.testing.assert_close(model(x), source(x), rtol=0, atol=0)
    named = get_model("resnet18", num_classes=3)
    state = reference_state_dict(materialize(get_model("resnet18", num_classes=3), (1, 4, *(32,) * rank)), "timm")
    load_reference_state_dict(named, state, "timm")
    assert isinstance(named.stem.conv, {1: nn.Conv1d, 3: nn.Conv3d}[rank])
    assert named.stem.conv.in_channels == 4
    assert not is_lazy(named)


def inflated(flat):
    model = ResNet(5, depths=(1, 1), widths=(8, 16), stem=(8,)).eval()
    model.load_state_dict(inflate_state_dict(flat.state_dict()))
    return model


def test_inflated_weights_compute_of_a_constant_volume_what_its_slice_gives():
    """Exactly where the receptive field, here 83 voxels, ends before the volume does; elsewhere zeros are seen."""
    flat = materialize(ResNet(5, depths=(1, 1), widths=(8, 16), stem=(8,)), (1, 3, 32, 32)).eval()
    randomize(flat)
    model = inflated(flat)
    image = torch.randn(1, 3, 32, 32)
    volume = image.unsqueeze(2).expand(-1, -1, 160, -1, -1)
    expected, actual = flat.forward_features(image), model.forward_features(volume)
    assert actual.shape == (1, 64, 20, 4, 4)
    for place in range(6, 14):
        torch.testing.assert_close(actual[:, :, place], expected)
    assert not torch.allclose(actual[:, :, 0], expected)


def test_inflated_weights_compute_the_same_where_nothing_is_padded():
    flat = nn.Sequential(
        LazyConvNormActivation(8, 3, padding=0), nn.MaxPool2d(2), LazyConvNormActivation(4, 1), nn.AdaptiveAvgPool2d(1)
    )
    deep = nn.Sequential(
        LazyConvNormActivation(8, 3, padding=0), nn.MaxPool3d(2), LazyConvNormActivation(4, 1), nn.AdaptiveAvgPool3d(1)
    )
    image = torch.randn(2, 3, 16, 16)
    materialize(flat, (2, 3, 16, 16)).eval()
    randomize(flat)
    deep.load_state_dict(inflate_state_dict(flat.state_dict()))
    volume = image.unsqueeze(2).expand(-1, -1, 10, -1, -1)
    torch.testing.assert_close(deep.eval()(volume).flatten(1), flat(image).flatten(1))


def test_reduced_weights_compute_of_a_signal_what_an_image_of_equal_rows_gives():
    """Exactly where the receptive field, here 83 pixels, ends before the image does; elsewhere zeros are seen."""
    flat = materialize(ResNet(5, depths=(1, 1), widths=(8, 16), stem=(8,)), (1, 3, 32, 32)).eval()
    randomize(flat)
    model = ResNet(5, depths=(1, 1), widths=(8, 16), stem=(8,)).eval()
    model.load_state_dict(reduce_state_dict(flat.state_dict()))
    signal = torch.randn(1, 3, 64)
    expected = flat.forward_features(signal.unsqueeze(2).expand(-1, -1, 160, -1))
    actual = model.forward_features(signal)
    assert actual.shape == (1, 64, 8)
    for place in range(6, 14):
        torch.testing.assert_close(actual, expected[:, :, place])
    assert not torch.allclose(actual, expected[:, :, 0])


def test_reduction_undoes_inflation():
    signals = {"conv": torch.randn(4, 3, 5), "norm": torch.randn(4)}
    repeated = signals | {"conv": signals["conv"].unsqueeze(2).repeat(1, 1, 5, 1) / 5}
    torch.testing.assert_close(reduce_state_dict(repeated), signals)


@pytest.mark.parametrize(
    ("name", "source"),
    # The classifiers of the last two are 1x1 convolutions there.
    [("resnet18", "torchvision"), ("resnet18", "timm"), ("squeezenet1_1", "torchvision"), ("resnetv2_18", "timm")],
)
def test_weights_of_other_zoos_are_inflated_under_their_names(name, source):
    flat = materialize(get_model(name, num_classes=5), (1, 3, 64, 64)).eval()
    randomize(flat)
    model = get_model(name, num_classes=5)
    weights = inflate_state_dict(reference_state_dict(flat, source))
    load_reference_state_dict(model, weights, source)
    assert isinstance(model.stem.conv, nn.Conv3d)
    torch.testing.assert_close(model.stem.conv.weight.sum(2), flat.stem.conv.weight)
    torch.testing.assert_close(model.head.classifier.weight, flat.head.classifier.weight)
    assert get_model(name, weights=weights).num_classes == 5
