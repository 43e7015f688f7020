"""scripts/draft_rules.py prints rules that name every entry of the models that it was given."""

import pytest
import torch

from lazytorch import materialize
from lazytorch.models import Backbone, Rules, get_model, resnet18
from scripts import draft_rules
from scripts.parity import make_reference

FAMILIES = [
    ("timm", "resnet10t", "seresnet18", "resnet26"),
    ("torchvision", "mobilenet_v2"),
    ("torchvision", "efficientnet_b0", "efficientnet_v2_s"),
    ("timm", "efficientnet_b0", "lcnet_050", "mobilenet_edgetpu_v2_xs"),
    ("timm", "mobilenetv4_conv_medium", "mobilenetv4_conv_small"),
    ("torchvision", "mnasnet0_5"),
]


@pytest.mark.parametrize(("source", "names"), [(source, names) for source, *names in FAMILIES])
def test_the_rules_name_every_entry(source, names, capsys):
    with torch.device("meta"):
        assert draft_rules.main([source, *names]) == 0
        printed = capsys.readouterr().out
        for name in names:
            ours = materialize(get_model(name), (1, 3, 64, 64))
            expected = list(make_reference(name, source).state_dict())
            assert list(Rules(printed).names(ours, ours.state_dict()).values()) == expected
            assert f"# {name}: {len(expected)} of {len(expected)} entries named as in {source}" in printed


def thin_resnet() -> Backbone:
    return resnet18(depths=(1, 1, 1, 1))


def test_a_model_of_your_own(capsys):
    with torch.device("meta"):
        assert draft_rules.main(["timm", "resnet18", "--ours", "lazytorch.models:resnet18"]) == 0
        assert "head.classifier" in capsys.readouterr().out
        assert draft_rules.main(["timm", "resnet18", "--ours", f"{__name__}:thin_resnet"]) == 1
    message = "both sides must have as many modules with entries, got 25 and 41"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("timm", "required: name"),
        ("jax resnet18", "invalid choice: 'jax'"),
        ("timm resnet18 --ours a:b --ours c:d", "--ours must be given once for each name, got 2 for 1"),
        ("timm resnet18 --ours lazytorch.models", "--ours must be MODULE:FUNCTION, got 'lazytorch.models'"),
        ("timm resnet19", "timm has no model 'resnet19'"),
        ("timm visformer_tiny", "lazytorch has no model 'visformer_tiny'. Pass --ours"),
    ],
)
def test_wrong_arguments(wrong, message, capsys):
    with pytest.raises(SystemExit) as exit_status:
        draft_rules.main(wrong.split())
    assert exit_status.value.code == 2
    assert message in capsys.readouterr().err
