"""Res2Net, ResNeSt, SKNet and the first SENets: what their blocks compute, and what they share with timm's."""

from functools import partial

import pytest
import timm
import timm.optim
import torch
from torch import nn
from torch.nn import functional as F

from lazytorch import LazyModule, is_lazy, materialize
from lazytorch.layers import (
    BasicBlock,
    BlurPool,
    BottleneckBlock,
    LazyBasicBlock,
    LazyBottleneckBlock,
    SelectiveKernelConv,
    SplitAttentionConv,
    SqueezeExcitation,
    projection,
)
from lazytorch.materialize import runs_known_code, survey
from lazytorch.models import (
    Features,
    ResNet,
    get_model,
    load_reference_state_dict,
    optimize_for_inference,
    reference_state_dict,
)
from lazytorch.models.stems import ceil_max_pool
from scripts import parity
from tests.catalogue import first_fast
from tests.families import assert_checkpointing_computes_the_same

NAMES = ["res2net50_48w_2s", "resnest14d", "skresnet18", "legacy_seresnet18"]
SMALL = {"depths": (1, 2, 1), "widths": (8, 16, 24), "stem": (8,)}
BLOCKS = {
    "res2net": {"block": partial(LazyBottleneckBlock, splits=4), "base_width": 64},
    "resnest": {"block": partial(LazyBottleneckBlock, spatial_layer=SplitAttentionConv)},
    "sknet": {"block": partial(LazyBottleneckBlock, spatial_layer=SelectiveKernelConv)},
    "sknet_basic": {"block": partial(LazyBasicBlock, spatial_layer=SelectiveKernelConv), "expansion": 1},
    "senet": {"block": partial(LazyBottleneckBlock, stride_first=True), "se_layer": SqueezeExcitation},
    "senet_basic": {"block": partial(LazyBasicBlock, project_activation=nn.ReLU), "se_layer": SqueezeExcitation},
}
every_block = pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)


def with_weights_of_timm(name, **options):
    """Both networks with the same random weights, in evaluation."""
    theirs = timm.create_model(name, num_classes=5, **options).eval()
    parity.randomize(theirs)
    ours = get_model(name, num_classes=5, **options).eval()
    load_reference_state_dict(ours, theirs.state_dict(), "timm")
    return ours, theirs


def small(options, shape=(2, 3, 64, 64), **more):
    model = materialize(ResNet(3, **SMALL, **options, **more), shape)
    parity.randomize(model)
    return model


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", first_fast([*NAMES[:3], "res2net50d", "resnest50d_1s4x24d"]))
def test_dilated_networks_equal_timms(name, output_stride):
    ours, theirs = with_weights_of_timm(name, output_stride=output_stride)
    found = parity.difference(ours, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}
    assert ours.feature_info[-1].reduction == output_stride


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", first_fast(["senet", "senet_basic", "sknet"]))
def test_dilated_networks_compute_the_pixels_between(name, output_stride):
    """The first SENets of timm have no output_stride; where averages are in a block, they are not dilated."""
    options = {"depths": (1, 1, 1, 1), "widths": (8, 8, 8, 8), "stem": (8,)} | BLOCKS[name]
    options["block"] = partial(options["block"], **({"spatial_layer": center} if name == "sknet" else {}))
    options["se_layer"] = None  # the averages of all pixels differ
    strided = materialize(ResNet(0, **options), (1, 3, 128, 128)).eval()
    dilated = ResNet(0, **options, output_stride=output_stride).eval()
    parity.randomize(strided)
    dilated.load_state_dict(strided.state_dict())
    x, step = torch.randn(1, 3, 128, 128), 32 // output_stride
    outputs = dilated.forward_features(x)
    assert outputs.shape[2:] == (128 // output_stride,) * 2
    torch.testing.assert_close(outputs[..., ::step, ::step], strided.forward_features(x), rtol=1e-4, atol=1e-4)


def center(*args, **options):
    """A selective kernel whose attention is the same at every size."""
    layer = SelectiveKernelConv(*args, **options)
    layer.gate[0] = nn.AdaptiveMaxPool2d(1)
    layer.gate[0].forward = lambda x: torch.zeros_like(x[..., :1, :1])
    return layer


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("res2net50_48w_2s", {"drop_path_rate": 0.3}),
        ("skresnet18", {"drop_path_rate": 0.3}),
        ("skresnet18", {"global_pool": "max"}),
    ],
)
def test_options_equal_timms(name, options):
    theirs = timm.create_model(name, num_classes=5, **options)
    parity.randomize(theirs)
    ours = {"global_pool": nn.AdaptiveMaxPool2d} if "global_pool" in options else options
    model = get_model(name, num_classes=5, **ours)
    load_reference_state_dict(model, theirs.state_dict(), "timm")
    found = parity.difference(model, theirs, "timm", 64)
    assert {what: value for what, value in found.items() if not value <= parity.TOLERANCE} == {}


@pytest.mark.parametrize("options", [{}, {"out_indices": (0, -1)}], ids=str)
@pytest.mark.parametrize("name", first_fast(NAMES))
def test_feature_maps_are_those_of_timm(name, options):
    backbone, whole = with_weights_of_timm(name)
    theirs = timm.create_model(name, features_only=True, **options)
    ours = Features(backbone, options.get("out_indices"))
    x = torch.randn(2, 3, 64, 64)
    indices = list(options.get("out_indices", range(5)))
    expected = whole.forward_intermediates(x, indices=indices, intermediates_only=True)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


@pytest.mark.parametrize("name", first_fast([*NAMES, "resnest50d_1s4x24d", "res2next50"], 2))
def test_weights_go_to_timm_and_back(name, tmp_path):
    model, theirs = with_weights_of_timm(name)
    torch.testing.assert_close(reference_state_dict(model, "timm"), dict(theirs.state_dict()), rtol=0, atol=0)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    gray = get_model(name, weights=tmp_path / "timm.pth").eval()
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(gray(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_groups_parameters_as_timm_does(name):

    model, theirs = with_weights_of_timm(name)
    scales = []
    for network in (model, theirs):
        groups = timm.optim.param_groups_layer_decay(network, layer_decay=0.5)
        found = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
        scales.append({key: found[id(each)] for key, each in network.named_parameters()})
    there = dict(zip(model.state_dict(), reference_state_dict(model, "timm"), strict=True))
    assert {there[key]: value for key, value in scales[0].items()} == scales[1]


@every_block
def test_frozen_stages_keep_their_weights(options):
    model = ResNet(3, **SMALL, **options)
    model.freeze_stages(2)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    trained = {".".join(name.split(".")[:2]) for name, each in model.named_parameters() if each.grad is not None}
    assert trained == {"stages.2", "head.classifier"}
    assert not any(each.training for each in model.stages[0].modules())


@every_block
def test_gradient_checkpointing_computes_the_same(options):
    assert_checkpointing_computes_the_same(small(options), torch.randn(2, 3, 64, 64))


@every_block
def test_exported_traced_and_folded_networks_compute_the_same(options):
    model = small(options).eval()
    x = torch.randn(2, 3, 64, 64)
    folded = optimize_for_inference(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(program(x), expected)
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
        torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@every_block
@pytest.mark.parametrize("shape", [(2, 1, 64), (2, 5, 48, 64), (1, 2, 32, 32, 32)])
@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, None])
def test_takes_any_channels_and_rank(options, shape, norm_layer):
    model = ResNet(4, **SMALL, **options, norm_layer=norm_layer, output_stride=8).eval()
    assert model(torch.randn(shape)).shape == (shape[0], 4)
    assert model.forward_features(torch.randn(shape)).shape[2:] == tuple(size // 8 for size in shape[2:])


@every_block
def test_a_volume_of_one_slice_is_an_image(options):
    """If no kernel extends beyond the slice."""
    image = small(options).eval()
    flat = {"kernel_size": (1, 3, 3)}
    block = partial(options["block"], **flat)
    strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2)]
    volume = ResNet(
        3, **SMALL, **options | {"block": block}, strides=strides, stem_kernel_size=(1, 7, 7), stem_stride=(1, 2, 2),
        stem_pool=partial(flat_max_pool),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 64, 64)
    materialize(volume, (2, 3, 1, 64, 64))
    shapes = volume.state_dict()
    volume.load_state_dict({key: each.view(shapes[key].shape) for key, each in image.state_dict().items()})
    torch.testing.assert_close(volume(x.unsqueeze(2)), image(x), rtol=1e-4, atol=1e-4)


def flat_max_pool(out_channels, **_):
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))


def test_splits_see_the_outputs_of_those_before():
    block = BottleneckBlock(16, 8, 16, splits=4)
    assert isinstance(block.shortcut, nn.Identity)
    conv = block.layers.conv.eval()
    parity.randomize(conv)
    x = torch.randn(2, 8, 9, 9)
    first, second, third, fourth = x.chunk(4, 1)
    one = conv[0](first)
    two = conv[1](second + one)
    expected = torch.cat([one, two, conv[2](third + two), fourth], 1)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_splits_of_a_block_with_a_projection_are_convolved_alone(stride):
    block = BottleneckBlock(8, 6, 16, stride=stride, splits=3)
    conv = block.layers.conv.eval()
    parity.randomize(conv)
    x = torch.randn(2, 6, 9, 9)
    first, second, third = x.chunk(3, 1)
    expected = [conv[0](first), conv[1](second), F.avg_pool2d(third, 3, stride, 1)]
    torch.testing.assert_close(conv(x), torch.cat(expected, 1))


@pytest.mark.parametrize(("radix", "groups"), [(1, 1), (1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("pool_first", [False, True])
def test_split_attention_equals_timms(radix, groups, pool_first):
    theirs = timm.layers.SplitAttn(12, 8, groups=groups, radix=radix, norm_layer=nn.BatchNorm2d).eval()
    ours = SplitAttentionConv(12, 8, radix=radix, groups=groups).eval()
    parity.randomize(theirs)
    assert len(ours.state_dict()) == len(theirs.state_dict())
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 12, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    strided = SplitAttentionConv(12, 8, stride=2, radix=radix, groups=groups, pool_first=pool_first).eval()
    strided.load_state_dict(ours.state_dict())
    average = nn.AvgPool2d(3, 2, 1)
    torch.testing.assert_close(strided(x), theirs(average(x)) if pool_first else average(theirs(x)))


@pytest.mark.parametrize("split_input", [False, True])
@pytest.mark.parametrize(("groups", "dilation", "stride"), [(1, 1, 1), (2, 1, 2), (2, 2, 1)])
def test_selective_kernel_equals_timms(split_input, groups, dilation, stride):
    options = {"groups": groups, "dilation": dilation, "stride": stride, "split_input": split_input}
    theirs = timm.layers.SelectiveKernel(12, 8, rd_ratio=0.5, rd_divisor=2, **options).eval()
    ours = SelectiveKernelConv(12, 8, reduction_ratio=2, divisor=2, **options).eval()
    parity.randomize(theirs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 12, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))


def test_selective_kernel_prefers_one_of_its_outputs():
    layer = SelectiveKernelConv(4, 6).eval()
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        layer.gate[1].norm.bias.fill_(1)
        layer.gate[2].conv.weight[:6] = 100
        layer.gate[2].conv.weight[6:] = -100
        torch.testing.assert_close(layer(x), layer.narrow(x))
        layer.gate[2].conv.weight.neg_()
        torch.testing.assert_close(layer(x), layer.wide(x))
    assert layer.wide.conv.dilation == (2, 2)


@pytest.mark.parametrize("block", [BottleneckBlock, BasicBlock])
@pytest.mark.parametrize("spatial_layer", [SplitAttentionConv, partial(SelectiveKernelConv, split_input=True)])
def test_the_spatial_layer_of_a_block_has_its_stride(block, spatial_layer):
    strided = block(8, 4, 8, stride=2, spatial_layer=spatial_layer)
    dilated = block(8, 4, 8, dilation=2, input_dilation=1, spatial_layer=spatial_layer)
    assert strided.state_dict().keys() == dilated.state_dict().keys()
    kind = getattr(spatial_layer, "func", spatial_layer)
    assert [type(each) for each in strided.layers].count(kind) == 1
    x = torch.randn(2, 8, 8, 8)
    assert strided(x).shape == (2, 8, 4, 4)
    assert dilated(x).shape == (2, 8, 8, 8)
    blurred = block(8, 4, 8, stride=2, spatial_layer=spatial_layer, anti_aliasing=BlurPool)
    assert isinstance(blurred.layers.blur, BlurPool)
    assert blurred(x).shape == (2, 8, 4, 4)


def test_the_first_convolution_may_have_the_stride():
    block = BottleneckBlock(8, 4, 16, stride=2, stride_first=True)
    assert (block.layers.reduce.conv.stride, block.layers.conv.conv.stride) == ((2, 2), (1, 1))
    # The strided network's kernel is on the pixels after the stride.
    dilated = BottleneckBlock(8, 4, 16, dilation=2, input_dilation=1, stride_first=True)
    assert dilated.layers.conv.conv.dilation == (2, 2)
    assert BottleneckBlock(8, 4, 16, dilation=2, input_dilation=1).layers.conv.conv.dilation == (1, 1)
    blurred = BottleneckBlock(8, 4, 16, stride=2, stride_first=True, anti_aliasing=BlurPool)
    assert blurred.layers.reduce.conv.stride == blurred.layers.conv.conv.stride == (1, 1)
    assert blurred(torch.zeros(1, 8, 8, 8)).shape[2:] == (4, 4)


def test_an_activation_may_precede_the_attention():
    block = BasicBlock(8, 8, 8, project_activation=nn.ReLU, se_layer=SqueezeExcitation)
    assert block.layers[:-1](torch.randn(2, 8, 9, 9)).min() == 0
    assert BasicBlock(8, 8, 8).layers(torch.randn(2, 8, 9, 9)).min() < 0


def test_the_pooling_of_the_first_senets_adds_nothing_before_the_image():
    pool = materialize(ceil_max_pool(3), (1, 3, 8, 8))
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert pool(x).shape == (1, 3, 4, 4)
    assert pool(x)[0, 0, 0, 0] == x[0, 0, 2, 2]


def test_initial_values():
    model = materialize(ResNet(3, **SMALL, **BLOCKS["resnest"], zero_init=True), (1, 3, 64, 64))
    block = model.stages[2][0]
    assert not block.layers.restore.norm.weight.any()
    assert block.layers.conv.gate[2].conv.weight.std().item() == pytest.approx((2 / 48) ** 0.5, rel=0.1)
    assert block.layers.conv.gate[2].conv.bias.any()
    assert block.layers.conv.conv.norm.weight.all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LazyBottleneckBlock(8, 8, splits=3),
            "LazyBottleneckBlock: groups must divide .*, got 3 for 8",
        ),
        (lambda: BottleneckBlock(8, 8, 8, groups=2, splits=8), "groups must divide the channels, got 2 \\* 8 for 8"),
        (lambda: LazyBottleneckBlock(8, 8, splits=0), "splits must be a positive whole number, got 0"),
        (lambda: LazyBottleneckBlock(8, 8, splits=2, reduce_ratio=2), "splits must be 1 with a reduce_ratio .*, got 2"),
        (
            lambda: LazyBottleneckBlock(8, 8, splits=2, spatial_layer=SplitAttentionConv),
            "splits must be 1 with a reduce_ratio or spatial_layer, got 2",
        ),
        (lambda: SplitAttentionConv(6, 8, radix=4), "groups must divide the channels, got 4 for 6"),
        (lambda: SplitAttentionConv(8, 6, groups=4), "groups must divide the channels, got 4 for 6"),
        (lambda: SplitAttentionConv(8, 8, radix=0), "radix must be a positive whole number, got 0"),
        (lambda: SplitAttentionConv(8, 8, 2), "kernel_size must be odd to keep the size, got 2"),
        (lambda: SelectiveKernelConv(7, 8, split_input=True), "groups must divide the channels, got 2 for 7"),
        (lambda: SelectiveKernelConv(8, 8, divisor=0), "divisor must be a positive whole number, got 0"),
        (lambda: SelectiveKernelConv(8, 8, reduction_ratio=0), "reduction_ratio must be positive, got 0"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LazyBottleneckBlock(8, 8, stride_first=2), "stride_first must be True or False, got 2"),
        (lambda: SplitAttentionConv(8, 8, pool_first=None), "pool_first must be True or False, got None"),
        (lambda: SelectiveKernelConv(8, 8, split_input=2), "split_input must be True or False, got 2"),
        (
            lambda: LazyBasicBlock(8, 8, spatial_layer=3),
            "spatial_layer must be a class or function that makes .*, got 3",
        ),
        (lambda: LazyBasicBlock(8, 8, spatial_layer=projection), "spatial_layer must be .* when called with .*groups"),
        (lambda: LazyBasicBlock(8, 8, project_activation=nn.ReLU()), "project_activation must be a class or function"),
    ],
)
def test_wrong_kinds(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_built_on_shapes(name):
    model = get_model(name)
    assert runs_known_code(survey(model))
    parts = [each for each in model.modules() if next(each.parameters(recurse=False), None) is not None]
    assert all(isinstance(each, LazyModule) for each in parts)


def test_a_lazy_network_stays_lazy_where_the_radix_does_not_fit():
    block = partial(LazyBottleneckBlock, spatial_layer=partial(SplitAttentionConv, radix=3))
    model = ResNet(3, **SMALL, block=block)
    with pytest.raises(ValueError, match="SplitAttentionConv: groups must divide the channels, got 3 for 8"):
        model(torch.zeros(2, 3, 32, 32))
    assert is_lazy(model)
