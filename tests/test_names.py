"""Rules give the names of torchvision and timm to the entries of a model's state; parity tests apply them to all."""

import copy
import pickle
import re

import pytest
import torch

from lazytorch import materialize
from lazytorch.layers import SqueezeExcitation
from lazytorch.models import MobileNet, Rules, Stage, load_reference_state_dict, reference_state_dict

TABLE = [
    Stage(8, repeats=2),
    (Stage(8, expansion_ratio=2), Stage(8, expansion_ratio=2, se_layer=SqueezeExcitation)),
]


def built(rules, **options):
    return materialize(MobileNet(3, stages=TABLE, names={"timm": Rules(rules)}, **options), (1, 3, 32, 32))


STEM, FIRST = "stem.conv.weight", "stages.0.1.layers.project.conv.weight"
PLAIN, SQUEEZED = "stages.1.0.layers.project.conv.weight", "stages.1.1.layers.project.conv.weight"


@pytest.mark.parametrize(
    ("rules", "key", "name"),
    [
        ("stem.conv first", STEM, "first.weight"),
        ("stem.conv.weight first.kernel", STEM, "first.kernel"),
        ("stem.conv first", "stem.norm.weight", "stem.norm.weight"),
        ("stem.* {L}.{T}.*", "stem.norm.bias", "2.4.norm.bias"),
        ("stages.S.B.layers.*.conv {S}.{B}.{N}.{P}.*", PLAIN, "1.0.2.2.project.weight"),
        ("stages.S.B.layers.*.conv {P}.{C}", SQUEEZED, "3.2.weight"),
        ("stages.S.B.layers.*.conv {P}.{C}", "stages.1.1.layers.depthwise.conv.weight", "1.1.weight"),
        ("stages.S.B {2*S+3*B-1}", SQUEEZED, "4.layers.project.conv.weight"),
        ("stages.0.B there\nstages.S.B.layers {S}", FIRST, "there.layers.project.conv.weight"),
        ("stages.0.B there\nstages.S.B.layers {S}", SQUEEZED, "1.project.conv.weight"),
        ("stages.S.B a  if=se|conv\nstages.S.B b", SQUEEZED, "a.layers.project.conv.weight"),
        ("stages.S.B a  if=se|conv\nstages.S.B b", PLAIN, "b.layers.project.conv.weight"),
        ("stages.S.B a  unless=expand # a comment\n\n", FIRST, "a.layers.project.conv.weight"),
        ("stages.S.B a  unless=expand", PLAIN, PLAIN),
        ("stem.(conv|norm) (first|bn){L+1}", STEM, "first3.weight"),
        ("stem.(conv|norm) (first|bn){L+1}", "stem.norm.bias", "bn3.bias"),
    ],
)
def test_the_first_rule_that_fits_gives_the_name(rules, key, name):
    assert key in built(rules).state_dict()
    assert Rules(rules).name(built(rules), key) == name


def test_one_name_for_two_entries_is_an_error():
    model = built("stages.S.B.layers.*.conv conv{P}")
    message = "Rules: every entry must have a name of its own, got 'conv0.weight' for stages.0.0.* and stages.0.1.*"
    with pytest.raises(ValueError, match=message):
        reference_state_dict(model, "timm")
    with pytest.raises(ValueError, match=message):
        load_reference_state_dict(model, model.state_dict(), "timm")


def test_a_weight_of_another_shape_there():
    model = built("head.hidden.linear conv like=*x*x2x1\nhead.hidden.linear.bias nothing\nhead.classifier fc like=*x*")
    assert reference_state_dict(model, "timm")["fc.weight"].shape == (3, 8)
    rules = "head.classifier fc like=*x*x2x1"
    state = {name: value + 1 for name, value in reference_state_dict(built(rules), "timm").items()}
    assert state["fc.weight"].shape == (3, 4, 2, 1)
    assert state["fc.bias"].shape == (3,)
    again = built(rules)
    load_reference_state_dict(again, state, "timm")
    torch.testing.assert_close(again.get_classifier().weight, state["fc.weight"].flatten(1))


def test_a_tensor_of_another_shape_there():
    rules = "stem.norm.weight scale like=*x1x1\nstem.norm bn like=*x1"
    state = reference_state_dict(built(rules), "timm")
    assert state["scale"].shape == (32, 1, 1)
    assert state["bn.bias"].shape == (32,)
    again = built(rules)
    load_reference_state_dict(again, {name: value + 1 for name, value in state.items()}, "timm")
    torch.testing.assert_close(again.stem.norm.weight, state["scale"].flatten() + 1)


def test_a_shape_there_that_the_weight_does_not_fit_is_an_error():
    model = built("head.classifier fc like=*x*x7x7")
    assert reference_state_dict(model, "timm")["fc.weight"].shape == (3, 8)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("head")}
    state |= {"fc.weight": torch.zeros(3, 1, 7, 7), "fc.bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match=r"fc.weight is \(3, 1, 7, 7\), must be \(3, 8\)"):
        load_reference_state_dict(model, state, "timm")


@pytest.mark.parametrize(
    "line",
    [
        "stem",
        "stem first dims=2",
        "stem first second",
        "stem first like=1x0",
        "stem first like=*x*x*",
        "stem.(conv|norm) (a|b|c)",
    ],
)
def test_a_line_that_is_not_a_rule_is_an_error(line):
    with pytest.raises(ValueError, match=f"Rules: a line must be 'ours theirs'.*, got '{re.escape(line)}'"):
        Rules(line)


def test_copies_and_pickles_of_a_model_keep_its_rules():
    model = built("stem.conv first")
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "first.weight" in reference_state_dict(copied, "timm")


def test_rules_follow_the_network_as_it_is():
    model = built("stages.S.B.layers.depthwise.conv {N}")
    del model.stages[0][0]
    names = [name for name in reference_state_dict(model, "timm") if name[0].isdigit()]
    assert names == ["0.weight", "1.weight", "2.weight"]
