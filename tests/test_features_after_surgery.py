"""Feature maps, freezing and gradient checkpointing are those of the network as it is, whatever was changed in it."""

import copy
import pickle
import threading
from collections import OrderedDict

import pytest
import timm
import torch
import torch.nn.utils.prune
from torch import nn

from lazytorch import is_lazy, materialize
from lazytorch.layers import LazyAdaptiveMaxPool, LazyBasicBlock, LazyConvNormActivation, LazyInvertedBottleneck
from lazytorch.models import Backbone, Features, MobileNet, ResNet, Stage, get_model, resnet10t, resnet18

SHAPE = (2, 3, 64, 64)


def image():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def built(model):
    return materialize(model, SHAPE).eval()


def share_a_block(model):
    model.stages[1].append(model.stages[1][-1])


def use_a_stage_twice(model):
    model.stages.insert(1, model.stages[0])


class Halving(nn.Sequential):
    """A stage with a forward of its own."""

    def forward(self, x):
        return super().forward(x) / 2


def give_a_stage_its_own_forward(model):
    model.stages[1] = Halving(*model.stages[1])


def replace_a_forward(model):
    stage, before = model.stages[1], model.stages[1].forward
    stage.forward = lambda x: before(x) / 2


def give_the_stem_its_own_forward(model):
    model.stem = Halving(model.stem)


def hook_a_stage(model):
    model.stages[1].register_forward_hook(lambda _, __, output: output / 2)


def hook_the_stem(model):
    model.stem.register_forward_hook(lambda _, __, output: output / 2)


CHANGES = [
    share_a_block, use_a_stage_twice, give_a_stage_its_own_forward, replace_a_forward, give_the_stem_its_own_forward,
    hook_a_stage, hook_the_stem,
]  # fmt: skip


MODELS = {
    "pooled stem": lambda: ResNet(3, depths=(2, 2), widths=(8, 16), block=LazyBasicBlock, expansion=1, stem=(8,)),
    "deep stem": lambda: ResNet(3, depths=(2, 2), widths=(2, 4), stem=(8, 8), stem_pool=None),
    "table": lambda: MobileNet(3, stem_channels=8, stages=[Stage(8, 2), Stage(16, 2, 2)], final_channels=24),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_stages_and_stem_are_called(make, change):
    model = built(make())
    if change is use_a_stage_twice:
        model.stages[0] = model.stages[0][1:]
    before = model(image())
    change(model)
    x = image()
    expected = model(x)
    assert not torch.allclose(expected, before)
    features, maps = model.forward_intermediates(x)
    torch.testing.assert_close(model.forward_head(features), expected)
    torch.testing.assert_close(maps[-1], model.stages(model.stem_pool(model.stem(x))))
    torch.testing.assert_close(Features(model)(x), maps)
    gradient = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    model.set_grad_checkpointing()
    checkpointed = model(x)
    torch.testing.assert_close(checkpointed, expected)
    torch.testing.assert_close(torch.autograd.grad(checkpointed.square().sum(), list(model.parameters())), gradient)
    torch.testing.assert_close(model.forward_intermediates(x), (features, maps))


@pytest.mark.parametrize("kind", [nn.Sequential, Halving])
def test_a_stage_without_blocks_of_ours_is_checkpointed_as_a_whole(kind):
    model = built(resnet10t(num_classes=3, gradient_checkpointing=True))
    calls = []
    model.stages[1] = kind(*model.stages[1])
    model.stages[1].register_forward_pre_hook(lambda *_: calls.append(1))
    model(image()).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        model(image())
    assert len(calls) == 3


@pytest.mark.parametrize("run", [Features, Backbone.forward_intermediates], ids=["Features", "forward_intermediates"])
def test_a_replaced_stem_is_in_the_first_call_and_is_the_first_map(run):
    model = resnet18(num_classes=3)
    model.stem = nn.Sequential(LazyConvNormActivation(8), LazyConvNormActivation(24, stride=2))
    assert model.feature_info[0] == (24, 2, "stem")
    maps = (
        Features(model)(image()) if run is Features else model.forward_intermediates(image(), intermediates_only=True)
    )
    assert not is_lazy(model.stem)
    assert [tuple(each.shape) for each in maps[:2]] == [(2, 24, 32, 32), (2, 64, 16, 16)]
    model.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU())
    torch.testing.assert_close(Features(model)(image())[0], model.stem(image()))


def cut(model):
    model.stages = model.stages[:2]
    return [(64, 2, "stem"), (64, 4, "stages.0"), (128, 8, "stages.1")]


def delete(model):
    del model.stages[2]
    return [(64, 2, "stem"), (64, 4, "stages.0"), (128, 8, "stages.1"), (512, 16, "stages.2")]


def insert(model):
    model.stages.insert(2, nn.Sequential(LazyInvertedBottleneck(40, stride=2)))
    kept = [(64, 2, "stem"), (64, 4, "stages.0"), (128, 8, "stages.1"), (40, 16, "stages.2")]
    return [*kept, (256, 32, "stages.3"), (512, 64, "stages.4")]


def widen(model):
    model.stages[3] = nn.Sequential(LazyBasicBlock(72, 72, stride=2))
    return [(64, 2, "stem"), (64, 4, "stages.0"), (128, 8, "stages.1"), (256, 16, "stages.2"), (72, 32, "stages.3")]


def keep_the_size(model):
    model.stages[3] = nn.Sequential(LazyBasicBlock(72, 72))
    return [(64, 2, "stem"), (64, 4, "stages.0"), (128, 8, "stages.1"), (72, 16, "stages.3")]


@pytest.mark.parametrize("change", [cut, delete, insert, widen, keep_the_size])
@pytest.mark.parametrize("when", ["lazy", "built before", "built after"])
def test_feature_info_describes_the_network_as_it_is(change, when):
    model = resnet18(num_classes=0)
    if when == "built before" and change in (delete, insert):
        pytest.skip("the channels of the stages that follow would not fit")
    if when == "built before":
        materialize(model, SHAPE)
        assert len(model.forward_intermediates(image(), intermediates_only=True)) == 5
    expected = change(model)
    if when == "built after":
        materialize(model, SHAPE)
    lazy = is_lazy(model)
    assert [tuple(info) for info in model.feature_info] == expected
    assert model.num_features == model.hidden_channels == expected[-1][0]
    assert [info.module for info in model.stage_info] == [f"stages.{index}" for index in range(len(model.stages))]
    assert is_lazy(model) is lazy
    maps = model.eval().forward_intermediates(image(), intermediates_only=True)
    assert [(each.shape[1], 64 // each.shape[2]) for each in maps] == [info[:2] for info in expected]
    torch.testing.assert_close(model.forward_intermediates(image(), [-1], intermediates_only=True), maps[-1:])
    features = Features(model, (0, -1))
    assert features.feature_info == [model.feature_info[0], model.feature_info[-1]]
    torch.testing.assert_close(features(image()), [maps[0], maps[-1]])


def test_feature_info_follows_a_stride_that_is_changed_in_a_built_network():
    model = built(resnet18())
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 5
    model.stages[3][0].layers.conv1.conv.stride = model.stages[3][0].shortcut.conv.stride = (1, 1)
    assert model.feature_info.reduction() == [2, 4, 8, 16]
    assert model.feature_info.module_name() == ["stem", "stages.0", "stages.1", "stages.3"]
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 4


CALLS = []  # materialize and summary would restore a list that only the hook refers to


def test_feature_info_changes_nothing_and_runs_no_hooks():
    torch.manual_seed(0)
    model = resnet10t(num_classes=3)
    state = torch.get_rng_state()
    CALLS.clear()
    model.stages[0][0].register_forward_hook(lambda *_: CALLS.append(1))
    assert len(model.feature_info) == 5
    assert is_lazy(model)
    assert CALLS == []
    assert torch.equal(torch.get_rng_state(), state)
    materialize(model, SHAPE).train()
    CALLS.clear()
    before = copy.deepcopy(model.state_dict())
    assert len(model.feature_info) == 5
    assert CALLS == []
    assert model.training
    torch.testing.assert_close(model.state_dict(), before)
    model.forward_intermediates(image())
    assert CALLS == [1]


def test_a_network_of_volumes_alone_and_one_of_other_channels():
    model = Backbone(
        stem=nn.Conv3d(5, 8, 3, 2, 1), stages=[[nn.Conv3d(8, 12, 3, (1, 2, 2), 1)]], num_classes=0
    )  # fmt: skip
    assert [tuple(info) for info in model.feature_info] == [(8, 2, "stem"), (12, (2, 4, 4), "stages.0")]
    lazy = Backbone(stem=LazyConvNormActivation(8, stride=(1, 2, 2)), stages=[[LazyConvNormActivation(6)]])
    assert [tuple(info) for info in lazy.feature_info] == [(6, (1, 2, 2), "stages.0")]


def test_feature_info_of_a_network_that_does_not_run_is_the_error_of_its_forward():
    model = resnet10t()
    model.stages[1] = nn.Sequential(nn.Conv2d(7, 8, 1))
    with pytest.raises(RuntimeError, match="to have 7 channels, but got 64 channels"):
        _ = model.feature_info


def frozen(module):
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("when", ["lazy", "built", "built between"])
def test_freezing_undoes_only_what_it_froze(when):
    model = resnet10t(num_classes=3)
    if when == "built":
        materialize(model, SHAPE)
    model.stem.requires_grad_(False)
    model.stages[2].requires_grad_(False)
    if when == "built":
        model.stages[0][0].layers.conv1.conv.weight.requires_grad_(False)
    wanted = frozen(model) if when == "built" else None
    model.freeze_stages(2)
    if when == "built between":
        materialize(model, SHAPE)
    model.freeze_stages(None)
    materialize(model, SHAPE)
    inside = {name for name, _ in model.named_parameters() if name.startswith(("stem.", "stages.2."))}
    assert frozen(model) == (inside if wanted is None else wanted)
    assert all(module.training for module in model.modules())


def test_freezing_fewer_stages_trains_the_others_again():
    model = built(resnet10t(num_classes=3)).train()
    model.freeze_stages(3)
    model.freeze_stages(1)
    assert {name.split(".")[1] for name in frozen(model) if name.startswith("stages")} == {"0"}
    assert not model.stages[0].training
    assert model.stages[1].training
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert frozen(copied) == frozen(model)
    copied.train()
    assert not copied.stages[0].training
    copied.freeze_stages(None)
    assert frozen(copied) == set()
    assert frozen(model) != set()


def test_freezing_survives_weights_that_replace_parameters():
    model = built(resnet10t(num_classes=3))
    model.freeze_stages(1)
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    assert frozen(model)
    model.freeze_stages(None)
    assert frozen(model) == set()


def test_a_new_stage_in_place_of_a_frozen_one_trains():
    model = built(resnet10t(num_classes=3)).train()
    model.freeze_stages(2)
    model.stages[1] = nn.Sequential(LazyBasicBlock(128, 128, stride=2))
    materialize(model, SHAPE).train()
    assert model.stages[1].training
    assert not model.stages[0].training
    del model.stages[0]
    model.train()
    assert model.stages[0].training


@pytest.mark.parametrize("frozen_by", ["backbone", "features"])
@pytest.mark.parametrize("first", ["features first", "frozen first"])
def test_features_and_their_backbone_are_frozen_together(frozen_by, first):
    backbone = built(resnet10t(num_classes=3)).train()
    features = Features(backbone) if first == "features first" else None
    if frozen_by == "features" and features is None:
        features = Features(backbone)
    (backbone if frozen_by == "backbone" else features).freeze_stages(2)
    features = features or Features(backbone)
    for model in (features, backbone):
        model.train()
        assert not any(each.training for each in (model.stem, model.stages[0], model.stages[1]))
        assert model.stages[2].training
    before = copy.deepcopy(features.state_dict())
    features(image())
    moved = {key for key, value in features.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert not any(key.startswith(("stem", "stages.0.", "stages.1.")) for key in moved)
    features.freeze_stages(None)
    assert all(each.training for each in backbone.train().modules())
    assert frozen(backbone) == set()
    with pytest.raises(ValueError, match="Features: count must be at most the 4 stages, got 5"):
        features.freeze_stages(5)


def test_features_take_checkpointing():
    features = get_model("resnet10t", features_only=True).train()
    features(image())
    calls = []
    features.stages[0][0].register_forward_pre_hook(lambda *_: calls.append(1))
    features.set_grad_checkpointing()
    features(image())[-1].sum().backward()
    assert len(calls) == 2
    features.set_grad_checkpointing(False)
    features(image())[-1].sum().backward()
    assert len(calls) == 3


def test_forward_intermediates_takes_timms_options():
    ours, theirs = built(get_model("resnet18")), timm.create_model("resnet18").eval()
    x = image()
    options = {"norm": True, "stop_early": True, "output_fmt": "NCHW", "intermediates_only": True}
    maps = ours.forward_intermediates(x, [1, 2], **options)
    assert [each.shape for each in maps] == [each.shape for each in theirs.forward_intermediates(x, [1, 2], **options)]
    calls = []
    ours.stages[2].register_forward_hook(lambda *_: calls.append(1))
    last, maps = ours.forward_intermediates(x, [0, 2], stop_early=True)
    assert calls == []
    assert last is maps[-1]
    stem, maps = ours.forward_intermediates(x, [0], stop_early=True)
    assert stem is maps[0]
    ours.forward_intermediates(x, [0, 2])
    assert calls == [1]
    with pytest.raises(ValueError, match="ResNet: output_fmt must be 'NCHW', got 'NHWC'"):
        ours.forward_intermediates(x, output_fmt="NHWC")


def test_feature_maps_in_a_compiled_function():
    model = built(get_model("mobilenetv2_035", num_classes=3))

    @torch.compile(backend="eager", fullgraph=True)
    def last_two(x):
        return model.forward_intermediates(x, 2, intermediates_only=True)

    torch.testing.assert_close(last_two(image()), model.forward_intermediates(image(), 2, intermediates_only=True))


@pytest.mark.parametrize("build", [True, False], ids=["built", "lazy"])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "mobilenetv2_035"])
def test_reset_classifier_removes_the_pooling_as_timm_does(name, build):
    ours, theirs = get_model(name, num_classes=3), timm.create_model(name, num_classes=3)
    if build:
        materialize(ours, SHAPE)
    ours.reset_classifier(0, "")
    theirs.reset_classifier(0, "")
    x = image()
    features = ours.eval().forward_features(x)
    torch.testing.assert_close(ours(x), ours.head[:-1](features))
    assert not is_lazy(ours)
    assert ours(x).shape == theirs.eval()(x).shape
    with pytest.raises(ValueError, match=r"num_classes must be 0 without pooling.*, got 5"):
        ours.reset_classifier(5)
    ours.reset_classifier(5, LazyAdaptiveMaxPool)
    assert not is_lazy(ours)
    pooled = ours.head[1:-1](features.amax(dim=(2, 3), keepdim=True))
    torch.testing.assert_close(ours(x), ours.get_classifier()(pooled))
    for wrong in ("avg", LazyAdaptiveMaxPool(1), 3):
        with pytest.raises(TypeError, match="global_pool must be a class or function that makes the pooling, such as"):
            ours.reset_classifier(5, wrong)


class Doubling(nn.Module):
    """A stage that depends on the values of its input, so it cannot run on shapes."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_feature_maps_of_a_network_that_depends_on_values():
    model = built(resnet10t(num_classes=0))
    expected = model.forward_intermediates(image())[1]
    model.stages.append(Doubling())
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 5
    torch.testing.assert_close(model.forward_intermediates(image(), [0, 1], intermediates_only=True), expected[:2])
    with pytest.raises(RuntimeError) as error:
        _ = model.feature_info
    assert "while the stem and stages ran on the shape of an image" in "".join(error.value.__notes__)


def test_feature_maps_of_stages_with_other_names_or_sizes():
    model = built(resnet10t(num_classes=0))
    model.stages.append(nn.Upsample(scale_factor=1))
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 5
    model.stages[4] = nn.Upsample(scale_factor=0.5)
    assert model.feature_info.module_name()[-2:] == ["stages.3", "stages.4"]
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 6
    model.stages[4].scale_factor = 1
    assert len(model.forward_intermediates(image(), intermediates_only=True)) == 5
    model.stages = nn.Sequential(OrderedDict(zip("abcde", model.stages, strict=True)))
    maps = model.forward_intermediates(image(), intermediates_only=True)
    assert [info.channels for info in model.feature_info] == [each.shape[1] for each in maps]
    torch.testing.assert_close(Features(model, (-1,))(image()), maps[-1:])


def test_a_container_of_stages_with_its_own_forward_is_refused():
    model = built(resnet10t(num_classes=0))
    model.stages = Halving(*model.stages)
    for run in (model.forward_intermediates, Features(model)):
        with pytest.raises(TypeError, match=r"model.stages must be an nn.Sequential without a forward of its own, as"):
            run(image())


def test_slices_of_a_dilated_stage_are_dilated():
    model = get_model("mobilenetv2_035", output_stride=16)
    expected = model.feature_info.reduction()
    model.stages[5] = model.stages[5][:1]
    assert model.feature_info.reduction() == expected
    assert not model.stages[5][1:].dilated


@pytest.mark.parametrize("call", ["forward_features", "forward_intermediates"])
def test_a_first_call_of_another_method_is_one_of_the_whole_network(call):
    model = resnet10t(num_classes=3)
    model.stages[2] = nn.Sequential(nn.Conv2d(7, 8, 1))
    with pytest.raises(RuntimeError, match="to have 7 channels") as error:
        getattr(model, call)(torch.randn(1, 5, 64, 64))
    assert error.value.__notes__[0] == "at stages.2.0"
    assert all(map(is_lazy, (model.stem, model.stages[0], model.get_classifier())))
    del model.stages[2]
    with pytest.warns(UserWarning, match=r"the input \(3, 64, 64\) was read as"):
        getattr(resnet10t().eval(), call)(torch.zeros(3, 64, 64))
    getattr(model, call)(image())
    assert not is_lazy(model)
    for run in (getattr(model, call), model, Features(model)):
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 5") as error:
            run(torch.zeros(2, 5, 64, 64))
        assert "was built from input (2, 3, 64, 64), and called with (2, 5, 64, 64)" in error.value.__notes__[-1]


def test_feature_info_during_the_first_call_of_another_thread():
    for _ in range(5):
        model, failed = resnet10t(num_classes=3), []

        def run(call, failed=failed):
            try:
                call()
            except Exception as error:
                failed.append(error)

        calls = (
            lambda m=model: m(image()),
            lambda m=model: m.feature_info,
            lambda m=model: m.forward_intermediates(image()),
        )
        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failed == []
        assert not is_lazy(model)


class Positions(nn.Module):
    """A stage that takes inputs of one size alone."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, 512, 2, 2))

    def forward(self, x):
        return x + self.values


def test_feature_info_of_a_network_that_takes_one_size_or_unshuffles():
    model = built(resnet10t(num_classes=3))
    expected = [tuple(info) for info in model.feature_info[:4]]
    model.stages.append(Positions())
    assert [tuple(info) for info in model.feature_info] == [*expected, (512, 32, "stages.4")]
    stem = nn.Sequential(nn.PixelUnshuffle(4), LazyConvNormActivation(8))
    unshuffled = Backbone(stem=stem, stages=[[LazyInvertedBottleneck(8, stride=2)]], num_classes=5)
    unshuffled(torch.randn(2, 1, 64, 64))
    assert [tuple(info) for info in unshuffled.feature_info] == [(8, 4, "stem"), (8, 8, "stages.0")]


class Wrong(nn.Module):
    def forward(self, x):
        return self.missing(x)


def test_an_error_in_a_stage_is_not_hidden_by_the_property():
    model = resnet10t()
    model.stages.append(Wrong())
    with pytest.raises(RuntimeError, match="'Wrong' object has no attribute 'missing'"):
        _ = model.feature_info


@pytest.mark.parametrize("change", ["prune", "parametrize", "adapter"])
def test_freezing_is_undone_after_changes_of_the_frozen_part(change):
    model = resnet10t(num_classes=3)
    model.freeze_stages(1)
    materialize(model, SHAPE)
    conv = model.stages[0][0].layers.conv1.conv
    if change == "prune":
        nn.utils.prune.l1_unstructured(conv, "weight", 0.5)
    elif change == "parametrize":
        nn.utils.parametrizations.weight_norm(conv)
    else:
        model.stages[0][0].adapter = nn.Linear(2, 2).requires_grad_(False)
    model.freeze_stages(None)
    adapter = {name for name, _ in model.named_parameters() if ".adapter." in name}
    assert frozen(model) == adapter


def test_what_the_user_put_on_a_lazy_part_stays_frozen():
    model = resnet10t(num_classes=3)
    model.stages[0][0].register_parameter("extra", nn.Parameter(torch.zeros(1), requires_grad=False))
    model.freeze_stages(1)
    model.freeze_stages(None)
    assert not model.stages[0][0].extra.requires_grad
    materialize(model, SHAPE)
    assert frozen(model) == {"stages.0.0.extra"}


class Both(nn.Module):
    """A pooling that doubles the channels."""

    def __init__(self, output_size):
        super().__init__()
        self.average, self.largest = nn.AdaptiveAvgPool2d(output_size), nn.AdaptiveMaxPool2d(output_size)

    def forward(self, x):
        return torch.cat([self.average(x), self.largest(x)], dim=1)


def test_reset_classifier_fits_the_channels_of_the_new_pooling():
    model = built(resnet10t(num_classes=3))
    model.reset_classifier(7, Both)
    assert model.get_classifier().in_features == model.hidden_channels == 1024
    assert model(image()).shape == (2, 7)
