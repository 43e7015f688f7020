"""Feature maps are timm's and known before any input; freezing and groups of parameters."""

import pytest
import timm
import timm.optim
import torch
from timm.models._features import FeatureGetterNet, FeatureHookNet, FeatureListNet
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from lazytorch import UninitializedModuleError, is_lazy, materialize
from lazytorch.models import Features, get_model, list_models, load_reference_state_dict, references, resnet10t
from scripts import parity
from tests.catalogue import every_network, first_fast

SAMPLES = [
    "resnet18", "resnet26t", "resnetrs50", "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035", "efficientnet_es", "lcnet_050", "tinynet_e", "densenet121", "densenetblur121d",
    "mixnet_s", "tf_mixnet_s", "rexnet_100", "rexnetr_100",
    "resnetv2_18", "resnetv2_50x1_bit", "regnetv_040", "gcresnext26ts",
]  # fmt: skip


@every_network(name for name in list_models() if "timm" in references(name))
def test_what_is_known_of_features_is_what_timm_knows(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, features_only=True)
    ours = get_model(name)
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    assert is_lazy(ours)


@pytest.mark.parametrize(
    "options", [{}, {"out_indices": (1, -1)}, {"out_indices": (0,)}, {"output_stride": 16}], ids=str
)
@pytest.mark.parametrize("name", first_fast(SAMPLES, 3))
def test_feature_maps_are_those_of_timm(name, options):
    if "output_stride" in options and name.startswith(("densenet", "mobilenetv3", "mobilenetv4", "lcnet")):
        pytest.skip("timm's MobileNetV3 and DenseNet have no output_stride")
    theirs = timm.create_model(name, features_only=True, **options).eval()
    parity.randomize(theirs)
    # timm names what it keeps of a network by flattening the path: of the whole, it is the same.
    whole = timm.create_model(name, **{key: value for key, value in options.items() if key != "out_indices"})
    parity.randomize(whole)
    backbone = get_model(name, **{key: value for key, value in options.items() if key != "out_indices"}).eval()
    load_reference_state_dict(backbone, whole.state_dict(), "timm")
    ours = Features(backbone, options.get("out_indices")).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = whole.eval().forward_intermediates(
        x, indices=list(options.get("out_indices", range(5))), intermediates_only=True
    )
    torch.testing.assert_close(ours(x), expected)
    assert [tuple(each.shape) for each in theirs(x)] == [tuple(each.shape) for each in expected]
    assert ours.feature_info.channels() == theirs.feature_info.channels()


def test_an_index_that_is_not_there_is_an_error():
    for wrong in ((5,), (-6,), (1, 7), ()):
        with pytest.raises(
            ValueError, match=r"indices must be those of the 5 feature maps with reductions \[2, 4, 8, 16, 32\]"
        ):
            get_model("resnet18", features_only=True, out_indices=wrong)
    with pytest.raises(
        TypeError, match=r"out_indices must be None without features_only, got \(1,\)\. Pass features_only=True"
    ):
        get_model("resnet18", out_indices=(1,))


def test_features_keep_nothing_that_they_do_not_need():
    model = get_model("resnet18", features_only=True, out_indices=(0, 2))
    model(torch.zeros(2, 1, 64, 64))[1].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"stem", "stages"}
    assert len(model.stages) == 2
    stem = get_model("resnetrs50", features_only=True, out_indices=(0,))
    assert [tuple(each.shape) for each in stem(torch.zeros(2, 4, 32, 32, 32))] == [(2, 64, 16, 16, 16)]
    assert not is_lazy(stem)
    assert [name for name, _ in stem.stem.named_children()] == ["conv1", "conv2", "conv3"]


def test_feature_maps_come_in_the_order_of_the_network():
    model = get_model("resnet18", features_only=True, out_indices=(-1, 1, 4))
    assert model.feature_info.reduction() == [4, 32]
    assert model.feature_info.module_name() == ["stages.0", "stages.3"]
    assert [each.shape[1] for each in model(torch.zeros(2, 3, 64, 64))] == model.feature_info.channels() == [64, 512]


def test_checkpointed_features_are_computed_again_for_the_gradient():
    model = get_model("resnet10t", features_only=True, gradient_checkpointing=True)
    calls = []
    model(torch.randn(2, 3, 64, 64))
    model.stages[1][0].register_forward_pre_hook(lambda *_: calls.append(1))
    maps = model(torch.randn(2, 3, 64, 64))
    assert len(calls) == 1
    maps[-1].sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_035"])
def test_forward_intermediates(name, checkpointing):
    model = get_model(name, gradient_checkpointing=checkpointing).eval()
    x = torch.randn(2, 3, 64, 64)
    features, maps = model.forward_intermediates(x)
    torch.testing.assert_close(features, model.forward_features(x))
    assert [each.shape[1] for each in maps] == model.feature_info.channels()
    assert [64 // each.shape[2] for each in maps] == model.feature_info.reduction()
    torch.testing.assert_close(model.forward_intermediates(x, 2, intermediates_only=True), maps[-2:])
    torch.testing.assert_close(model.forward_intermediates(x, [-1, 0], intermediates_only=True), [maps[0], maps[-1]])


def test_weights_of_features(tmp_path):
    source = materialize(resnet10t(num_classes=7), (1, 3, 64, 64)).eval()
    parity.randomize(source)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = get_model("resnet10t", features_only=True, weights=tmp_path / "weights.pt").eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), source.forward_intermediates(x, intermediates_only=True))


def test_torchvisions_extractor_works_after_the_build():
    model = resnet10t().eval()
    with pytest.raises(UninitializedModuleError, match=r"Call lazytorch\.materialize\(.* before walking them"):
        create_feature_extractor(model, {"stages.0": "4"})
    materialize(model, (2, 3, 64, 64))
    names = {info.module: str(info.reduction) for info in model.feature_info}
    extractor = create_feature_extractor(
        model, {name + ".0" if "stages" in name else name: key for name, key in names.items()}
    )
    x = torch.randn(2, 3, 64, 64)
    maps = extractor(x)
    assert {key: tuple(value.shape[1:]) for key, value in maps.items()} == {
        str(info.reduction): (info.channels, 64 // info.reduction, 64 // info.reduction) for info in model.feature_info
    }
    torch.testing.assert_close(list(maps.values()), model.forward_intermediates(x, intermediates_only=True))


@pytest.mark.parametrize("built", [False, True], ids=["lazy", "built"])
def test_frozen_stages_do_not_train(built):
    model = get_model("resnet10t", num_classes=3)
    if built:
        materialize(model, (2, 3, 64, 64))
    model.freeze_stages(2)
    model.train()
    x = torch.randn(2, 3, 64, 64)
    model(x).sum().backward()
    frozen = [*model.stem.modules(), *model.stages[0].modules(), *model.stages[1].modules()]
    assert not any(module.training for module in frozen)
    for name, parameter in model.named_parameters():
        inside = name.startswith(("stem.", "stages.0.", "stages.1."))
        assert parameter.requires_grad is not inside
        assert (parameter.grad is None) is inside
    counters = {name: int(value) for name, value in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert {name.split(".")[0] + name.split(".")[1][:1] for name, count in counters.items() if count} == {
        "stages2",
        "stages3",
    }
    model.freeze_stages(None)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="count must be at most the 4 stages, got 5"):
        model.freeze_stages(5)
    with pytest.raises(ValueError, match="count must be a whole number of at least 0, got -1"):
        model.freeze_stages(-1)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_035"])
def test_groups_of_parameters_in_timms_form(name):
    model = materialize(get_model(name, num_classes=3), (2, 3, 64, 64))
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale, decay = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[id(parameter)], decay[id(parameter)] = group["lr_scale"], group["weight_decay"]
    blocks = sum(len(stage) for stage in model.stages)
    for key, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0 if parameter.dim() < 2 else 0.1)
        if key.startswith("stem."):
            assert scale[id(parameter)] == pytest.approx(0.5 ** (blocks + 1))
        if key.startswith("head."):
            assert scale[id(parameter)] == 1
    first, last = model.stages[0][0], model.stages[-1][-1]
    assert scale[id(next(first.parameters()))] == pytest.approx(0.5**blocks)
    assert scale[id(next(last.parameters()))] == pytest.approx(0.5)
    assert model.no_weight_decay() == set()
    coarse = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    assert len(coarse) > len(model.stages)
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "regnetx_002", "vgg11", "densenetblur121d"])
def test_feature_info_has_timms_keys(name):
    ours, theirs = get_model(name).feature_info, timm.create_model(name, features_only=True).feature_info
    expected = theirs.get_dicts(["num_chs", "reduction"])
    assert ours.get_dicts() == [each | {"module": info.module} for each, info in zip(expected, ours, strict=True)]
    assert ours.get_dicts(["num_chs"], out_indices=[-1]) == theirs.get_dicts(["num_chs"])[-1:]
    assert ours[0]["num_chs"] == ours[0].channels == ours[0][0]
    assert tuple(ours[0]) == (ours[0]["num_chs"], ours[0]["reduction"], ours[0]["module"])
    with pytest.raises(KeyError, match="the key must be 'num_chs' or 'reduction' or 'module', got 'channels'"):
        ours[0]["channels"]


@pytest.mark.parametrize(
    ("wrapper", "options"),
    [(FeatureGetterNet, {}), (FeatureHookNet, {}), (FeatureListNet, {"flatten_sequential": True})],
)
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_035"])
def test_timms_feature_wrappers_take_a_network(wrapper, options, name):
    model = materialize(get_model(name), (1, 3, 64, 64)).eval()
    x = torch.randn(1, 3, 64, 64)
    indices = (1, 2, 4)  # FeatureListNet takes a stem of several convolutions apart
    expected = model.forward_intermediates(x, indices, intermediates_only=True)
    wrapped = wrapper(model, out_indices=indices, **options)
    torch.testing.assert_close(list(wrapped(x)), expected)
    assert wrapped.feature_info.channels() == [each.shape[1] for each in expected]
    info = model.feature_info[0]
    assert all(key in info for key in ("num_chs", "reduction", "module"))
    assert "index" not in info
