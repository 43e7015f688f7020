"""The number of spatial dimensions can be stated; an image without a batch dimension is noticed."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from lazytorch import ShapeInferenceError, is_lazy, materialize, summary
from lazytorch.layers import ConvNormActivation, LazyBlurPool, LazyConvNormActivation, LazyPointwiseConv2d
from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.models import Backbone, Features, MobileNet, ResNet, Stage, get_model, resnet10t
from tests.catalogue import LAYERS

INPUTS = {1: (2, 6, 64), 2: (2, 6, 64, 64), 3: (2, 6, 32, 32, 32)}
LAYOUTS = {
    1: r"\(batch, channels, length\)",
    2: r"\(batch, channels, height, width\)",
    3: r"\(batch, channels, depth, height, width\)",
}
RANK_FREE = [
    each for each in LAYERS if issubclass(each.lazy_class, LazyConvInChannelModule) and not each.lazy_class.spatial_dims
]

MODELS = {
    "a name": lambda dims: resnet10t(num_classes=3, spatial_dims=dims),
    "ResNet": lambda dims: ResNet(3, depths=(1,), widths=(8,), spatial_dims=dims),
    "MobileNet": lambda dims: MobileNet(3, stages=[Stage(8)], spatial_dims=dims),
    "Backbone": lambda dims: Backbone(stem=LazyConvNormActivation(8), stages=[], spatial_dims=dims),
    "features": lambda dims: get_model("resnet10t", features_only=True, spatial_dims=dims),
    "checkpointed": lambda dims: resnet10t(gradient_checkpointing=True, spatial_dims=dims),
}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_takes_inputs_of_the_stated_number_alone(make, dims):
    for wrong in {1, 2, 3} - {dims}:
        model = make(dims)
        for run in (
            model,
            lambda shape, model=model: materialize(model, tuple(shape.shape)),
        ):
            with pytest.raises(ShapeInferenceError, match=f"the input must be {LAYOUTS[dims]}, got {wrong + 2} dim"):
                run(torch.zeros(INPUTS[wrong]))
        with pytest.raises(ShapeInferenceError, match=f"the input must be {LAYOUTS[dims]}, got {wrong + 2} dim"):
            summary(model, INPUTS[wrong])
        assert is_lazy(model)
    model = make(dims)
    model(torch.zeros(INPUTS[dims]))
    assert not is_lazy(model)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(ShapeInferenceError, match=f"the input must be {LAYOUTS[dims]}"):
            each(torch.zeros(INPUTS[dims % 3 + 1]))


@pytest.mark.parametrize("layer", RANK_FREE, ids=lambda layer: layer.lazy_class.__name__)
def test_a_layer_takes_inputs_of_the_stated_number_alone(layer):
    made = layer.lazy_class(*layer.args, **layer.kwargs, spatial_dims=2)
    for wrong in (1, 3):
        with pytest.raises(
            ShapeInferenceError, match=rf"{layer.lazy_class.__name__}: the input must be {LAYOUTS[2]}, got {wrong + 2}"
        ):
            made(torch.zeros(INPUTS[wrong]))
    assert is_lazy(made)
    made(torch.zeros(INPUTS[2]))
    assert not is_lazy(made)
    unstated = layer.lazy_class(*layer.args, **layer.kwargs, spatial_dims=None)
    unstated(torch.zeros(INPUTS[1]))
    assert not is_lazy(unstated)


@pytest.mark.parametrize("wrong", [0, 4, "2", 2.0, True, (2,)])
def test_another_number_is_an_error(wrong):
    model = nn.Sequential(LazyConvNormActivation(8))
    for make in (
        lambda: resnet10t(spatial_dims=wrong),
        lambda: LazyConvNormActivation(8, spatial_dims=wrong),
        lambda: materialize(model, (2, 3, 8, 8), spatial_dims=wrong),
        lambda: summary(model, (2, 3, 8, 8), spatial_dims=wrong),
    ):
        with pytest.raises(ValueError, match=r"spatial_dims must be 1, 2 or 3, got "):
            make()
    assert is_lazy(model)


@pytest.mark.parametrize("layer", RANK_FREE, ids=lambda layer: layer.lazy_class.__name__)
def test_another_number_is_an_error_of_every_layer(layer):
    with pytest.raises(ValueError, match="spatial_dims must be 1, 2 or 3, got 4"):
        layer.lazy_class(*layer.args, **layer.kwargs, spatial_dims=4)


class LazyOwn(LazyConvInChannelModule, ConvNormActivation):
    """A lazy class without the target's signature."""


def test_another_number_is_an_error_of_a_class_of_the_user():
    with pytest.raises(ValueError, match="LazyOwn: spatial_dims must be 1, 2 or 3, got 4"):
        LazyOwn(8, spatial_dims=4)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("give", [tuple, torch.zeros], ids=["shape", "tensor"])
def test_materialize_and_summary_take_it(give):
    model = nn.Sequential(LazyConvNormActivation(8))
    for call in (materialize, summary):
        with pytest.raises(ShapeInferenceError, match=rf"{call.__name__}\(Sequential\): the input must"):
            call(model, give((3, 64, 64)), spatial_dims=2)
        assert is_lazy(model)
    assert summary(model, give((3, 64, 64)), spatial_dims=1).layers[0].output_shapes == [(3, 8, 64)]
    materialize(model, give((3, 64, 64)), spatial_dims=1)
    assert isinstance(model[0].conv, nn.Conv1d)


IMAGES = [(3, 224, 224), (1, 28, 28), (3, 480, 640), (4, 64, 100)]
WARNS = {
    "summary of a model": lambda shape: summary(get_model("efficientnet_b0"), shape),
    "materialize a model": lambda shape: materialize(resnet10t(), shape),
    "call a model": lambda shape: resnet10t().eval()(torch.zeros(shape)),
    "call features": lambda shape: get_model("resnet10t", features_only=True).eval()(torch.zeros(shape)),
    "materialize layers": lambda shape: materialize(nn.Sequential(LazyConvNormActivation(8), LazyBlurPool()), shape),
}


@pytest.mark.parametrize("shape", IMAGES, ids=str)
@pytest.mark.parametrize("run", WARNS.values(), ids=WARNS)
def test_an_image_without_a_batch_dimension_is_noticed(run, shape):
    batched = str((1, *shape)).replace("(", r"\(").replace(")", r"\)")
    read = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.warns(
        UserWarning, match=f"the input {read} was read as {LAYOUTS[1]}.*: {batched}.*spatial_dims=1"
    ) as seen:
        run(shape)
    assert len(seen) == 1
    assert seen[0].filename == __file__


@pytest.mark.parametrize("run", WARNS.values(), ids=WARNS)
@pytest.mark.parametrize("shape", [(8, 12, 500), (2, 3, 64), (4, 64, 500), (16, 64, 64), (1, 3, 64, 64)], ids=str)
def test_signals_and_batches_are_not(run, shape):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(shape)
    assert [str(each.message) for each in seen] == []


def test_where_it_is_stated_nothing_is_noticed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resnet10t(spatial_dims=1)(torch.zeros(3, 64, 64))
        materialize(resnet10t(), (3, 64, 64), spatial_dims=1)
        summary(resnet10t(), (3, 64, 64), spatial_dims=1)
        nn.Sequential(LazyConvNormActivation(32, stride=2), LazyConvNormActivation(64))(torch.zeros(3, 12, 128))
        model = materialize(resnet10t(), (2, 3, 64))
        model(torch.zeros(3, 3, 64))
    with pytest.raises(ShapeInferenceError, match="must be"):
        LazyPointwiseConv2d(8)(torch.zeros(3, 64, 64))


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((8, 12, 500), ", read as (batch, channels, length)"),
        ((1, 3, 64, 64), ", read as (batch, channels, height, width)"),
        ((1, 3, 32, 32, 32), ", read as (batch, channels, depth, height, width)"),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_the_header_of_a_summary_states_how_the_input_was_read(shape, read, built):
    model = materialize(resnet10t(), shape) if built else resnet10t()
    for given in (shape, torch.zeros(shape)):
        table = summary(model, given, depth=1)
        assert str(table).splitlines()[0] == table.header == f"input: {shape}{read}"
        assert table.header in table._repr_html_()
        assert table.input_shapes == [shape]
    assert summary(nn.Linear(4, 2), (3, 7, 4)).header == "input: (3, 7, 4)"


@pytest.mark.parametrize("wrong", [(2, 3, 64, 64), (5, 64, 64)])
def test_an_error_after_the_build_notes_what_the_model_was_built_from(wrong):
    called = resnet10t(num_classes=3)
    called(torch.zeros(2, 5, 64, 64))
    loaded = resnet10t(num_classes=3)
    loaded.load_state_dict(called.state_dict())
    features = Features(called)
    for model, shape in (
        (called, (2, 5, 64, 64)),
        (materialize(resnet10t(), (1, 5, 32, 32)), (1, 5, 32, 32)),
        (loaded, (1, 5, 64, 64)),
        (pickle.loads(pickle.dumps(called)), (2, 5, 64, 64)),
    ):
        with pytest.raises((RuntimeError, ValueError)) as error:
            model(torch.zeros(wrong))
        assert error.value.__notes__[-1] == f"ResNet was built from input {shape}, and called with {wrong}"
    with pytest.raises((RuntimeError, ValueError)) as error:
        features(torch.zeros(wrong))
    with pytest.raises(RuntimeError) as error:
        called(torch.zeros(2, 5, 64, 64, dtype=torch.int64))
    assert error.value.__notes__ == ["at stem.conv1.conv"]
