"""Every model of the zoo equals its references; and the comparison finds what is changed."""

from functools import partial

import pytest
from torch import nn

from lazytorch.layers import LazyBasicBlock, LazyMaxPool, average_blur
from lazytorch.models import list_models, references
from lazytorch.models.mobilenet import MOBILENET_V2
from scripts import parity, zoo_pages
from tests.catalogue import slow_unless_chosen

PAIRS = [(name, source) for name in list_models() for source in references(name)]
SHOWN = {(each["name"], each["reference"]): each for each in zoo_pages.read()}
# Above this number of parameters, structure alone, on the meta device: the memory and time of CI do not allow for more.
LARGE = 100_000_000


@pytest.mark.parametrize(("name", "source"), [slow_unless_chosen(*pair) for pair in PAIRS])
def test_equals_its_reference(name, source):
    # The documentation's table of the zoo shows these results; scripts/zoo_pages.py describes how to write it.
    shown = SHOWN[name, f"{source} {references(name)[source]}"]
    found = parity.compare(name, source, structure=shown["parameters"] > LARGE)
    assert found.problems == []
    assert found.parameters > 0
    assert found.macs > 0
    assert (shown["problems"], shown["parameters"], shown["macs"]) == ([], found.parameters, found.macs)


def test_the_output_for_images_of_an_odd_size_is_compared():
    found = parity.compare("mobilenetv4_conv_aa_medium", "timm", anti_aliasing=average_blur)
    assert found.problems == ["output at an odd size"]


def test_rounding_errors_are_no_difference(monkeypatch):
    rounding = parity.compare("convnextv2_atto", "timm").output
    monkeypatch.setattr(parity, "TOLERANCE", 1e-9)  # below the rounding errors of single precision
    found = parity.compare("convnextv2_atto", "timm")
    assert found.problems == []
    assert found.output < 1e-9 < rounding


def max_pool(side, padding, channels, **_):
    return LazyMaxPool(side, stride=2, padding=padding)


def block_of_another_stride(*args, stride, **options):
    return LazyBasicBlock(*args, stride=1 if stride == 2 else stride, **options)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"norm_layer": partial(nn.BatchNorm2d, eps=1e-4)}, "output in evaluation"),
        ({"norm_layer": partial(nn.BatchNorm2d, momentum=0.09)}, "buffers"),
        ({"activation": nn.LeakyReLU}, "output in evaluation"),
        ({"activation": nn.ReLU6}, "gradient in training"),
        ({"block": block_of_another_stride}, "MACs"),
        ({"stem_pool": partial(max_pool, 3, 0)}, "output in evaluation"),
        ({"stem_pool": partial(max_pool, 2, 1)}, "output in evaluation"),
        ({"dropout": 0.1}, "output in training"),
        ({"drop_path_rate": 0.1}, "output in training"),
        ({"zero_init": True}, "initial distributions"),
        ({"depths": (2, 2, 2, 1)}, "parameters"),
        ({"widths": (64, 128, 256, 504)}, "shapes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_comparison_finds_a_change(wrong, found):
    assert found in parity.compare("resnet18", "torchvision", **wrong).problems


@pytest.mark.parametrize(
    "wrong",
    [
        {"norm_layer": partial(nn.BatchNorm2d, eps=1e-4)},
        {"norm_layer": partial(nn.BatchNorm2d, momentum=0.09)},
        {"activation": nn.ReLU},
        {"dropout": 0.3},
        {"stages": [row._replace(stride=2 if row.out_channels == 16 else row.stride) for row in MOBILENET_V2]},
        {"stages": [row._replace(kernel_size=5 if row.out_channels == 96 else 3) for row in MOBILENET_V2]},
    ],
    ids=["eps", "momentum", "activation", "dropout", "stride", "kernel"],
)
def test_comparison_finds_a_change_of_mobilenet(wrong):
    assert parity.compare("mobilenet_v2", "torchvision", **wrong).problems != []


@pytest.mark.slow
def test_script_prints_a_table_and_fails_if_one_differs(capsys, monkeypatch):
    assert parity.main(["resnet18", "--size", "32"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == list(parity.COLUMNS)
    assert [line.split()[:3] for line in table[1:]] == [
        ["resnet18", source, "resnet18"] for source in references("resnet18")
    ]
    assert all(line.endswith("equal") for line in table[1:])
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    assert parity.main(["resnet18", "--source", "timm", "--size", "32", "--markdown"]) == 1
    assert "| differs: output in evaluation" in capsys.readouterr().out
    assert parity.main(["resnet18", "--structure", "--json"]) == 0
    assert '"macs": 18135' in capsys.readouterr().out
    for wrong in (["resnet19"], ["resnet18", "resnet19"], ["resnet18d", "--source", "torchvision"], ["--size", "0"]):
        with pytest.raises(SystemExit) as exit_status:
            parity.main(wrong)
        assert exit_status.value.code == 2


def test_script_goes_on_after_a_model_that_fails_and_stops_when_asked(capsys, monkeypatch):
    compare = parity.compare

    def failing(name, *args, **options):
        if name == "resnet18":
            raise error
        return compare(name, *args, **options)

    monkeypatch.setattr(parity, "compare", failing)
    error = RuntimeError("odd")
    assert parity.main(["mobilenetv2_035", "resnet18", "--structure", "--source", "timm"]) == 1
    table = capsys.readouterr().out
    assert "mobilenetv2_035" in table
    assert "differs: RuntimeError: odd" in table
    error = KeyboardInterrupt()
    assert parity.main(["mobilenetv2_035", "resnet18", "--structure", "--source", "timm"]) == 130
    said = capsys.readouterr()
    assert "mobilenetv2_035" in said.out
    assert "1 of 1 equal, 1 not compared" in said.err


def named(text):
    """Names in the issue's short form: ``mobilenetv2_035/050`` for two."""
    names = []
    for word in text.split():
        first, *others = word.split("/")
        stem = first.rpartition("_")[0]
        names += [first, *(f"{stem}_{other}" for other in others)]
    return set(names)


OF_TORCHVISION = named("""
    convnext_tiny/small/base/large
    mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
    efficientnet_b0/b1/b2/b3/b4/b5/b6/b7 efficientnet_v2_s/m/l
    regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf
    regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf
    vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn densenet121 densenet161 densenet169 densenet201
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    alexnet squeezenet1_0 squeezenet1_1
""")
OF_TIMM = named("""
    convnext_atto/femto/pico/nano/tiny/small/base/large/xlarge/xxlarge convnext_atto_ols convnext_femto_ols
    convnext_pico_ols convnext_nano_ols convnext_tiny_hnf convnext_large_mlp
    convnextv2_atto/femto/pico/nano/tiny/small/base/large/huge
    mobilenetv1_100/100h/125 mobilenetv2_035/050/075/100/110d/120d/140 mnasnet_050/075/100/140/small
    semnasnet_050/075/100/140 spnasnet_100 fbnetc_100 mobilenet_edgetpu_100 mobilenet_edgetpu_v2_xs/s/m/l
    efficientnet_b0/b1/b2/b3/b4/b8/l2 efficientnet_es/em/el efficientnet_lite0/lite1/lite2/lite3/lite4
    efficientnetv2_s/m/l/xl efficientnetv2_rw_t/s/m tinynet_a/b/c/d/e
    mobilenetv3_small_050/075/100 mobilenetv3_large_075/100/150d mobilenetv3_rw lcnet_035/050/075/100/150
    mobilenetv4_conv_small mobilenetv4_conv_small_035/050 mobilenetv4_conv_medium/large mobilenetv4_conv_blur_medium
    mobilenetv4_conv_aa_medium/large
    tf_efficientnet_b0/b1/b2/b3/b4/b5/b6/b7/b8/l2/es/em/el/lite0/lite1/lite2/lite3/lite4
    tf_efficientnetv2_b0/b1/b2/b3/s/m/l/xl
    tf_mobilenetv3_large_075/100 tf_mobilenetv3_small_075/100 tf_mobilenetv3_large_minimal_100
    tf_mobilenetv3_small_minimal_100 hardcorenas_a/b/c/d/e/f fbnetv3_b/d/g
    regnetx_002/004/006/008/016/032/040/064/080/120/160/320 regnetx_004_tv
    regnety_002/004/006/008/016/032/040/064/080/120/160/320/640/1280/2560 regnety_008_tv regnety_080_tv
    gernet_s/m/l resnext26ts seresnext26ts eca_resnext26ts resnet32ts resnet33ts seresnet33ts eca_resnet33ts
    regnetz_005/040 regnetz_040_h regnetz_b16/c16/d8/d32/e8
    vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn densenet121 densenet161 densenet169 densenet201
    densenet264d densenetblur121d mixnet_s/m/l/xl/xxl tf_mixnet_s/m/l
    rexnet_100/130/150/200/300 rexnetr_100/130/150/200/300
    res2net50_14w_8s res2net50_26w_4s/6s/8s res2net50_48w_2s res2net50d res2net101_26w_4s res2net101d res2next50
    resnest14d resnest26d resnest50d resnest50d_1s4x24d/4s2x40d resnest101e resnest200e resnest269e
    skresnet18 skresnet34 skresnet50 skresnet50d skresnext50_32x4d
    legacy_seresnet18 legacy_seresnet34 legacy_seresnet50 legacy_seresnet101 legacy_seresnet152 legacy_senet154
    legacy_seresnext26_32x4d legacy_seresnext50_32x4d legacy_seresnext101_32x4d
    resnetv2_18/18d/34/34d/50/50d/50d_gn/50t/101/101d/152/152d resnetv2_50x1_bit resnetv2_50x3_bit resnetv2_101x1_bit
    resnetv2_101x3_bit resnetv2_152x2_bit resnetv2_152x4_bit regnetv_040/064
    gcresnet33ts gcresnet50t gcresnext26ts gcresnext50ts gc_efficientnetv2_rw_t
    repvgg_a0/a1/a2/b0/b1/b1g4/b2/b2g4/b3/b3g4/d2se mobileone_s0/s1/s2/s3/s4
""")


def test_references_are_those_of_the_zoos():
    """ResNets: the 78 of timm's module that are not pruned or test models, ten of them torchvision's as well."""
    import timm
    import torchvision

    of_timm = {
        name for name in timm.list_models(module="resnet") if "pruned" not in name and not name.startswith("test_")
    }
    here = set(list_models())
    assert len(of_timm) == 78
    assert {name for name in here if "timm" in references(name)} == of_timm | OF_TIMM
    of_torchvision = set(torchvision.models.list_models(module=torchvision.models))
    resnets = {name for name in of_torchvision if "resnet" in name or "resnext" in name}
    assert {name for name in here if "torchvision" in references(name)} == resnets | OF_TORCHVISION
    assert all(called == name for name in here for called in references(name).values())
