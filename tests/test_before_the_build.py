"""What is done to a lazy module, or to a parent of it, takes effect as if it were done to what is built."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lazytorch import LazyModule, is_lazy, lazify, materialize
from lazytorch.layers import LazyConvNormActivation
from tests.modules import Block, LazyBlock, every_depth, image

CONVERSIONS = {
    "double": lambda module: module.double(),
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to dtype": lambda module: module.to(torch.float64),
    "to device and dtype": lambda module: module.to("cpu", torch.half),
    "there and back": lambda module: module.half().float(),
    "to another": lambda module: module.to(torch.empty(0, dtype=torch.float64)),
    "to device": lambda module: module.to("meta"),
    "to_empty": lambda module: module.to_empty(device="meta"),
    "channels last": lambda module: module.to(memory_format=torch.channels_last),
    "contiguous again": lambda module: module.to(memory_format=torch.channels_last).to(
        memory_format=torch.contiguous_format
    ),
    "channels last half": lambda module: module.to(torch.half, memory_format=torch.channels_last),
    "shared": lambda module: module.share_memory(),
    "type": lambda module: module.type(torch.float64),
    "cpu": lambda module: module.cpu(),
}


def placed(module):
    """What a conversion changes, of every tensor of ``module``."""
    return {
        name: (value.dtype, value.device, value.stride(), value.is_shared() or value.is_meta)
        for name, value in module.state_dict().items()
    }


@every_depth
@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_conversions(make, convert):
    lazy = make()
    eager = convert(materialize(copy.deepcopy(lazy), (2, 3, 16, 16)))
    assert convert(lazy) is lazy
    assert is_lazy(lazy)
    materialize(lazy, (2, 3, 16, 16))
    assert placed(lazy) == placed(eager)
    if not next(eager.parameters()).is_meta:
        torch.testing.assert_close(lazy.state_dict(), eager.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_copies_repeat_conversions(convert):
    lazy = convert(nn.Sequential(LazyBlock(4)))
    copies = [copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))]
    expected = placed(materialize(lazy, (2, 3, 16, 16)))
    for each in copies:
        assert placed(materialize(each, (2, 3, 16, 16))) == expected


def test_channels_last_of_volumes():
    lazy = LazyConvNormActivation(4).to(memory_format=torch.channels_last_3d)
    lazy(torch.zeros(1, 3, 8, 8, 8))
    assert lazy.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_eager_refuses_is_refused():
    with pytest.raises(TypeError, match="only accepts floating point or complex"):
        LazyBlock(4).to(torch.int)
    meta = LazyBlock(4).to("meta")
    with pytest.raises(NotImplementedError, match="to_empty"):
        meta.to("cpu")
    meta.to_empty(device="cpu")
    assert meta(image()).device.type == "cpu"


def test_device_and_dtype_given_to_the_constructor():
    lazy = lazify(nn.Linear, in_features=-1)(4, device="meta", dtype=torch.float64)
    lazy.to_empty(device="cpu")
    lazy(torch.zeros(2, 3, dtype=torch.float64))
    assert (lazy.weight.device.type, lazy.weight.dtype) == ("cpu", torch.float64)


def test_defaults_of_the_place_of_construction():
    torch.set_default_dtype(torch.float64)
    try:
        lazy = nn.Sequential(LazyBlock(4))
    finally:
        torch.set_default_dtype(torch.float32)
    lazy(image().double())
    assert {value.dtype for value in lazy.parameters()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32
    with torch.device("meta"):
        lazy = nn.Sequential(LazyBlock(4))
    materialize(lazy, (2, 3, 8, 8))
    assert all(value.is_meta for value in (*lazy.parameters(), *lazy.buffers()))


@pytest.mark.gpu
@every_depth
@pytest.mark.parametrize("how", ["to", "cuda", "context"])
def test_accelerator(make, how):
    device = torch.accelerator.current_accelerator()
    if how == "context":
        with torch.device(device):
            lazy = make()
    else:
        lazy = make().to(device) if how == "to" else make().cuda()
    lazy(image().to(device)).sum().backward()
    assert {value.device.type for value in (*lazy.parameters(), *lazy.buffers())} == {device.type}


@every_depth
def test_train_and_eval(make):
    for modes in ((False,), (False, True), (True, False)):
        lazy = make()
        for mode in modes:
            assert lazy.train(mode) is lazy
        assert lazy.training == modes[-1]
        lazy(image())
        assert {each.training for each in lazy.modules()} == {modes[-1]}


def test_mode_of_one_part_and_of_the_flag_alone():
    model = nn.Sequential(LazyBlock(4), LazyBlock(4), LazyBlock(4))
    model[0].eval()
    model[1].training = False
    model(image())
    assert [each.training for each in model] == [False, False, True]
    assert [each.dropout.training for each in model] == [False, True, True]


class PartlyFrozen(nn.Module):
    """A target whose constructor freezes a part."""

    def __init__(self, in_channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels).eval().requires_grad_(False)
        self.conv = nn.Conv2d(in_channels, 4, 1)

    def forward(self, x):
        return self.conv(self.norm(x))

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module,
        lambda module: module.train(),
        lambda module: module.eval(),
        lambda module: module.requires_grad_(True),
        lambda module: module.requires_grad_(False),
        lambda module: module.requires_grad_(False).requires_grad_(True),
    ],
    ids=["nothing", "train", "eval", "grad", "no grad", "no grad, grad"],
)
def test_what_the_constructor_set_stays_unless_it_is_changed(change):
    lazy, eager = change(nn.Sequential(lazify(PartlyFrozen, in_channels=1)())), change(nn.Sequential(PartlyFrozen(3)))
    lazy(image())
    assert [each.training for each in lazy.modules()] == [each.training for each in eager.modules()]
    assert [each.requires_grad for each in lazy.parameters()] == [each.requires_grad for each in eager.parameters()]


@every_depth
@pytest.mark.parametrize("how", ["parent", "parameters", "attribute"])
def test_freezing(make, how):
    lazy = make()
    if how == "parent":
        assert lazy.requires_grad_(False) is lazy
    for parameter in lazy.parameters():
        if how == "parameters":
            parameter.requires_grad_(requires_grad=False)
        elif how == "attribute":
            parameter.requires_grad = False
        assert not parameter.requires_grad
    lazy(image())
    assert not any(parameter.requires_grad for parameter in lazy.parameters())


def zero(module):
    if isinstance(module, nn.Conv2d):
        nn.init.zeros_(module.weight)


def count_up(module):
    if isinstance(module, nn.Conv2d):
        with torch.no_grad():
            module.weight += 1


@every_depth
def test_apply_reaches_every_part_in_order(make):
    lazy, seen = make(), []
    assert lazy.apply(zero).apply(count_up).apply(lambda module: seen.append(type(module))) is lazy
    early = len(seen)
    lazy(image())
    convs = [each for each in lazy.modules() if isinstance(each, nn.Conv2d)]
    assert convs
    assert all(bool((each.weight == 1).all()) for each in convs)
    assert len(seen) == len(list(lazy.modules()))
    assert not any(issubclass(each, LazyModule) for each in seen)
    assert early < len(seen)


def test_apply_keeps_its_place_between_other_calls():
    dtypes = []

    def look(module):
        if isinstance(module, nn.Conv2d):
            dtypes.append((module.weight.dtype, module.training, module.weight.requires_grad))

    lazy = LazyConvNormActivation(4)
    lazy.apply(look).double().apply(look).eval().apply(look).requires_grad_(False).apply(look)
    lazy(image().double())
    assert dtypes == [
        (torch.float32, True, True),
        (torch.float64, True, True),
        (torch.float64, False, True),
        (torch.float64, False, False),
    ]


@every_depth
def test_zero_grad_does_nothing_as_in_eager(make):
    lazy = make()
    lazy.zero_grad()
    lazy.zero_grad(set_to_none=False)
    assert is_lazy(lazy)


def test_what_is_done_acts_at_once_on_what_the_user_added():
    lazy, seen = LazyBlock(4), []
    lazy.extra = nn.Linear(2, 2)
    lazy.register_buffer("mean", torch.ones(3))
    lazy.register_buffer("count", torch.ones(3), persistent=False)
    lazy.register_parameter("gain", nn.Parameter(torch.ones(())))
    lazy.double().eval().apply(lambda module: seen.append(module)).requires_grad_(False)
    assert {each.dtype for each in (*lazy.extra.parameters(), lazy.mean, lazy.count, lazy.gain)} == {torch.float64}
    assert not lazy.extra.training
    assert seen == [lazy.extra]
    assert not any(each.requires_grad for each in (lazy.gain, *lazy.extra.parameters()))
    eager = Block(3, 4)
    eager.extra = nn.Linear(2, 2)
    eager.register_buffer("mean", torch.zeros(3))
    eager.register_parameter("gain", nn.Parameter(torch.zeros(())))
    state = eager.double().state_dict()
    assert str(lazy.load_state_dict(state)) == "<All keys matched successfully>"
    assert float(lazy.gain) == 0
    torch.testing.assert_close(lazy.extra.weight, eager.extra.weight.detach(), rtol=0, atol=0)
    lazy(image().double())
    assert [each for each in seen if each is lazy.extra] == [lazy.extra]
    assert {type(each) for each in seen} == {nn.Linear, *(type(each) for each in lazy.modules())}
    assert len(seen) == len(list(lazy.modules()))
    torch.testing.assert_close(dict(lazy.state_dict()), dict(state), rtol=0, atol=0)
    assert not any(each.requires_grad for each in lazy.parameters())


def test_attributes_parts_and_buffers_set_before_are_kept():
    lazy = LazyBlock(4)
    lazy.name_of_mine = "stem"
    lazy.extra = nn.Linear(2, 2)
    lazy.register_buffer("mean", torch.ones(3), persistent=False)
    lazy.register_parameter("gain", nn.Parameter(torch.ones(())))
    lazy(image())
    assert type(lazy) is Block
    assert lazy.name_of_mine == "stem"
    assert set(dict(lazy.named_parameters())) >= {"gain", "extra.weight", "conv.conv.weight"}
    assert "mean" in dict(lazy.named_buffers())
    assert "mean" not in lazy.state_dict()


def test_forward_set_before_is_kept():
    lazy = LazyBlock(4)
    lazy.forward = lambda x: 3 * lazy.conv(x)
    x = image()
    output = lazy.eval()(x)
    torch.testing.assert_close(output, 3 * lazy.conv(x))


def test_shared_module_is_built_once():
    shared = LazyConvNormActivation(3)
    model = nn.Sequential(shared, nn.Sequential(shared))
    model(image())
    assert model[0] is model[1][0]
    assert int(shared.norm.num_batches_tracked) == 2
