"""Every model is found by its name, and takes the options that every model takes."""

import inspect
import pickle

import pytest
import torch

from lazytorch import materialize, models
from lazytorch.models import get_model, list_models, references
from tests.catalogue import every_network

OPTIONS = {
    "num_classes": 0,
    "dropout": 0.1,
    "drop_path_rate": 0.1,
    "norm_layer": None,
    "activation": None,
    "output_stride": 8,
    "global_pool": None,
    "gradient_checkpointing": True,
    "weights": None,
}


def test_lists_by_wildcards():
    assert list_models("resnet1?") == ["resnet18"]
    assert list_models("*resnet18*") == ["legacy_seresnet18", "resnet18", "resnet18d", "seresnet18", "skresnet18"]
    assert list_models(["wide_*", "senet*"]) == ["senet154", "wide_resnet50_2", "wide_resnet101_2"]
    assert list_models("resnet*", exclude=["*[cdst]", "resnet[!1-9]*"]) == [
        "resnet18", "resnet26", "resnet34", "resnet50", "resnet50_gn", "resnet101", "resnet152", "resnet200"
    ]  # fmt: skip
    assert list_models("nothing") == []
    for everything in (None, [], "", {}, "*"):
        assert len(list_models(everything)) == len(list_models())
    assert list_models("mobilenet_v*") == ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]
    assert len(list_models()) == len(set(list_models())) == 404


@pytest.mark.parametrize("name", list_models())
def test_a_typed_function_for_every_name(name):
    build = getattr(models, name)
    parameters = inspect.signature(build).parameters
    assert build.__name__ == name
    assert pickle.loads(pickle.dumps(build)) is build
    assert parameters.keys() >= OPTIONS.keys()
    assert all(each.kind is not each.VAR_KEYWORD for each in parameters.values())
    assert all(each.annotation is not each.empty for each in parameters.values())
    assert f"the {name} of " in inspect.getdoc(build)
    assert all(f"    {option}: " in inspect.getdoc(build) for option in parameters)
    with pytest.raises(TypeError, match=rf"{name}\(\) .*'num_clases'\. Did you mean 'num_classes'\?"):
        build(num_clases=10)
    with pytest.raises(TypeError, match=rf"{name}\(\) too many positional arguments"):
        build(10, 3)


WITHOUT_PADDING = ("alexnet", "squeezenet")
WITHOUT_BRANCHES = ("alexnet", "densenet", "shufflenet", "squeezenet", "vgg")


@every_network()
def test_takes_every_option(name):
    """Built on the meta device, as to compute them all takes long."""
    with torch.device("meta"):
        model = get_model(name, **OPTIONS | ({"drop_path_rate": 0} if name.startswith(WITHOUT_BRANCHES) else {}))
    features = materialize(model, (2, 5, 64, 64))(torch.zeros(2, 5, 64, 64, device="meta"))
    side = 7 if name.startswith(WITHOUT_PADDING) else 8
    assert features.shape == (2, model.num_features, side, side)


def test_a_name_that_is_not_there_is_told_the_nearest():
    for ask in (get_model, references):
        with pytest.raises(ValueError, match=r"no model is named 'resnet5O'\. Did you mean 'resnet50'\?"):
            ask("resnet5O")
    with pytest.raises(ValueError, match=r"no model is named 'xyz'\. lazytorch\.models\.list_models\(\) lists"):
        get_model("xyz")


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        ("drop_rate", "Did you mean 'dropout'"),
        ("act_layer", "Did you mean 'activation'"),
        ("pretrained", "Did you mean 'weights'"),
        ("in_chans", "inferred from the first input"),
    ],
)
def test_options_of_other_zoos_are_known(theirs, hint):
    with pytest.raises(TypeError, match=hint):
        get_model("resnet18", **{theirs: 1})


def test_a_tag_is_no_part_of_a_name():
    with pytest.raises(ValueError, match="Pass weights='timm:a1_in1k' to 'resnet50'"):
        get_model("resnet50.a1_in1k")


def test_get_model_is_the_function_of_that_name():
    torch.manual_seed(0)
    model = get_model("resnet10t", num_classes=3)
    torch.manual_seed(0)
    other = models.resnet10t(3)
    x = torch.randn(2, 4, 64, 64)
    torch.testing.assert_close(model(x), other(x), rtol=0, atol=0)


def test_options_of_a_name_may_be_replaced():
    model = models.resnet18(num_classes=2, stem=(8, 16), widths=(8, 16, 24, 32), stem_pool=None)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 2)
    assert [info[:2] for info in model.feature_info] == [(8, 2), (16, 4), (24, 8), (32, 16)]


def test_what_is_returned_is_a_copy():
    references("resnet18").clear()
    assert references("resnet18") == {"torchvision": "resnet18", "timm": "resnet18"}
