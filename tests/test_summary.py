"""A summary shows every layer of a model, changes nothing, and allocates no memory for values."""

import copy
import gc
import io
import resource
import sys
import weakref
from collections import OrderedDict
from xml.etree import ElementTree

import pytest
import rich.console
import torch
import torchvision
from matplotlib import pyplot
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lazytorch
from lazytorch import is_lazy, materialize, summary
from lazytorch.layers import LazyBasicBlock, LazyConvNormActivation, LazyPointwiseConv, LazySqueezeExcitation
from lazytorch.models import Backbone, get_model, mobilenet_v2, resnet10t
from tests.modules import every_depth, image


@every_depth
def test_a_lazy_model_stays_lazy_and_is_shown_as_what_it_becomes(make):
    model = make()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    table = summary(model, (2, 3, 16, 16))
    assert torch.equal(torch.get_rng_state(), state)
    assert is_lazy(model)
    assert "Lazy" not in str(table)
    model(image())
    assert table.parameters == sum(parameter.numel() for parameter in model.parameters())
    named = dict(model.named_modules())
    assert [layer.name for layer in table.layers] == list(named)
    assert [layer.kind for layer in table.layers] == [type(each).__name__ for each in named.values()]


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "mobilenetv3_small_050", "resnetrs50", "efficientnet_b0", "gcresnext26ts", "resnetv2_50x1_bit"],
)
def test_shapes_and_totals_are_those_of_a_real_call(name):
    model = get_model(name, num_classes=7).eval()
    table = summary(model, (2, 5, 64, 64))
    shapes = {}
    x = torch.randn(2, 5, 64, 64)
    model(x)
    for key, each in model.named_modules():
        each.register_forward_hook(lambda _, __, out, key=key: shapes.update({key: [tuple(out.shape)]}))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert {layer.name: layer.output_shapes for layer in table.layers if layer.output_shapes} == shapes
    assert table.macs == counter.get_total_flops() // 2
    assert table.macs == sum(layer.macs for layer in table.layers if layer.depth == 1)
    parts = [layer.parameters for layer in table.layers if layer.depth == 1]
    assert table.parameters == sum(parts) == sum(parameter.numel() for parameter in model.parameters())


def test_any_module_built_or_not():
    model = torchvision.models.resnet18()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    table = summary(model, (1, 3, 224, 224))
    assert (table.parameters, table.macs) == (11_689_512, 1_814_073_344)
    assert model.training
    assert not any(value.is_meta for value in model.state_dict().values())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    double = summary(materialize(resnet10t().double(), (1, 3, 64, 64)), (1, 3, 64, 64))
    assert double.parameters == summary(resnet10t(), (1, 3, 64, 64)).parameters


def test_what_is_shared_is_counted_once_and_computed_as_often_as_it_is_called():
    shared = lazytorch.layers.LazyPointwiseConv(4)
    table = summary(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), shared, shared), (1, 4, 8, 8))
    assert table.parameters == 16 + 16 + 8
    assert table.macs == 3 * 4 * 4 * 64
    assert [layer.macs for layer in table.layers if layer.kind == "PointwiseConv"] == [2 * 4 * 4 * 64]


def test_lazy_modules_of_pytorch_stay_lazy_as_well():
    model = nn.Sequential(
        nn.LazyConv2d(5, 1), nn.LazyBatchNorm2d(), LazyPointwiseConv(4), nn.Flatten(), nn.LazyLinear(3)
    )
    lazy = [type(each) for each in model]
    table = summary(model.double(), (2, 3, 8, 8))
    assert [type(each) for each in model] == lazy
    assert is_lazy(model)
    materialize(model, (2, 3, 8, 8))
    assert [type(each).__name__ for each in model.modules()] == [layer.kind for layer in table.layers]
    assert table.parameters == sum(map(torch.numel, model.parameters()))
    assert str(summary(model, (2, 3, 8, 8))) == str(table)


def test_frozen_parameters_are_counted_apart():
    model = resnet10t(num_classes=3)
    model.freeze_stages(4)
    table = summary(model, (1, 3, 64, 64))
    assert table.trainable_parameters == 512 * 3 + 3
    assert f"({table.trainable_parameters:,} trainable)" in str(table)


def test_nothing_is_allocated():
    model = get_model("resnet152")
    summary(model, (1, 3, 64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary(model, (64, 3, 224, 224))  # its parameters alone are 230 MiB, its activations gigabytes
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 30


def test_as_text_html_and_rich_table():
    table = summary(resnet10t(num_classes=3), (1, 3, 64, 64), depth=2)
    header, *lines = str(table).splitlines()
    assert header == "input: (1, 3, 64, 64), read as (batch, channels, height, width)"
    assert lines[0].split() == ["layer", "output", "shape", "parameters", "MACs"]
    assert lines[1].split() == ["ResNet", "(1,", "3)", f"{table.parameters:,}", f"{table.macs:,}"]
    assert any(line.startswith("    conv1: ConvNormActivation") for line in lines)
    assert not any(line.startswith("      ") for line in lines)
    assert repr(table) == str(table)
    page = table._repr_html_()
    layers, bars = page.split("</table>")[:2]
    assert layers.count("<tr>") == len(lines) - 1
    assert bars.count("<tr>") == 1 + len(table.stages)
    assert "conv1: ConvNormActivation" in page
    console = rich.console.Console(file=io.StringIO(), width=120)
    console.print(table)
    assert "conv1: ConvNormActivation" in console.file.getvalue()
    assert f"{table.macs:,}" in console.file.getvalue()


def test_the_default_depth_shows_blocks_and_none_shows_all():
    model = resnet10t(num_classes=3)
    names = [layer.name for layer in summary(model, (1, 3, 64, 64)).shown]
    assert "stages.3.0" in names
    assert not any(name.startswith("stages.3.0.") for name in names)
    everything = summary(model, (1, 3, 64, 64), depth=None)
    assert everything.shown == everything.layers
    assert "stages.3.0.layers.conv1.conv" in [layer.name for layer in everything.layers]
    with pytest.raises(ValueError, match="summary: depth must be a whole number of at least 0, or None, got -1"):
        summary(model, (1, 3, 64, 64), depth=-1)


def test_stages_are_the_parts_that_a_network_is_made_of():
    table = summary(resnet10t(num_classes=3), (1, 3, 64, 64))
    assert [each.name for each in table.stages] == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]
    assert sum(each.parameters for each in table.stages) == table.parameters
    assert sum(each.macs for each in table.stages) == table.macs
    page = table._repr_html_()
    for each in table.stages:
        assert f"width: {100 * each.parameters / table.parameters:.1f}%" in page
        assert f"{100 * each.macs / table.macs:.1f} %" in page
    assert [each.name for each in summary(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (1, 4)).stages] == ["0"]
    assert summary(nn.ReLU(), (1, 4)).stages == []


def test_as_markdown():
    model = nn.Sequential(OrderedDict({"a|b": lazytorch.layers.LazyConvNormActivation(4), "last": nn.Flatten()}))
    lines = summary(model, (2, 3, 8, 8), depth=1).to_markdown().splitlines()
    assert lines == [
        "input: (2, 3, 8, 8), read as (batch, channels, height, width)",
        "",
        "| layer | output shape | parameters | MACs |",
        "|--|--|--:|--:|",
        "| Sequential | (2, 256) | 116 | 13,824 |",
        "| &emsp;a\\|b: ConvNormActivation | (2, 4, 8, 8) | 116 | 13,824 |",
        "| &emsp;last: Flatten | (2, 256) | 0 | 0 |",
        "",
        "parameters: 116 (116 trainable), MACs: 13,824",
    ]


def test_two_models_side_by_side():
    first = summary(nn.Sequential(OrderedDict(a=nn.Linear(4, 8), c=nn.ReLU())), (1, 4))
    second = summary(nn.Sequential(OrderedDict(a=nn.Linear(4, 6), b=nn.Linear(6, 2), c=nn.Tanh())), (1, 4))
    table = first.compare(second)
    assert list(table.rows()) == [
        ("Sequential", "(1, 8)", "(1, 2)", "40", "44", "32", "36"),
        ("  a: Linear", "(1, 8)", "(1, 6)", "40", "30", "32", "24"),
        ("  b: Linear", "-", "(1, 2)", "-", "14", "-", "12"),
        ("  c: ReLU / Tanh", "(1, 8)", "(1, 2)", "0", "0", "0", "0"),
    ]
    lines = str(table).splitlines()
    assert lines[:2] == ["(1) Sequential, input: (1, 4)", "(2) Sequential, input: (1, 4)"]
    assert lines[-1] == "parameters: 40 and 44, 1.10 times; MACs: 32 and 36, 1.12 times"
    assert table.to_markdown().splitlines()[6] == "| Sequential | (1, 8) | (1, 2) | 40 | 44 | 32 | 36 |"
    assert "|--|--|--|--:|--:|--:|--:|" in table.to_markdown().splitlines()
    assert table._repr_html_().count("<tr>") == 5
    assert "(1) Sequential, input: (1, 4)<br>(2) Sequential" in table._repr_html_()
    with pytest.raises(TypeError, match=r"Summary\.compare: the other must be a Summary, got Linear"):
        first.compare(nn.Linear(4, 8))


def test_bars_of_the_stages_are_drawn():
    table = summary(resnet10t(num_classes=3), (1, 3, 64, 64))
    figure = table.plot()
    parameters, macs = figure.axes
    assert [bar.get_width() for bar in parameters.patches] == [each.parameters for each in table.stages[::-1]]
    assert [bar.get_width() for bar in macs.patches] == [each.macs for each in table.stages[::-1]]
    assert [label.get_text() for label in parameters.get_yticklabels()] == [each.name for each in table.stages[::-1]]
    pyplot.close(figure)


def test_bars_without_matplotlib_are_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=r"matplotlib must be installed. Install it with pip install 'lazytorch\[plot\]'"
    ):
        summary(nn.Linear(4, 8), (1, 4)).plot()


def test_wrong_arguments():
    with pytest.raises(TypeError, match="summary: the first argument must be a module, got 3"):
        summary(3, (1, 3, 8, 8))
    with pytest.raises(lazytorch.ShapeInferenceError):
        summary(resnet10t(), (1, 3))


def test_what_two_modules_share_is_in_both_of_their_rows():
    shared = nn.Linear(4, 4)
    table = summary(nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.Sequential(nn.Linear(4, 4), shared)), (1, 4))
    assert {layer.name: layer.parameters for layer in table.layers if layer.depth == 1} == {"0": 20, "1": 40}
    assert table.parameters == 40


def test_every_form_shows_the_same_cells_and_totals():
    """Also what HTML and rich would take for markup of theirs."""
    model = nn.Sequential(OrderedDict({"<i>[red]": lazytorch.layers.LazyConvNormActivation(4), "last": nn.Flatten()}))
    table = summary(model, (2, 3, 8, 8))
    rows = [
        ("layer", "output shape", "parameters", "MACs"),
        ("Sequential", "(2, 256)", "116", "13,824"),
        ("  <i>[red]: ConvNormActivation", "(2, 4, 8, 8)", "116", "13,824"),
        ("    conv: Conv2d", "(2, 4, 8, 8)", "108", "13,824"),
        ("    norm: BatchNorm2d", "(2, 4, 8, 8)", "8", "0"),
        ("    activation: ReLU", "(2, 4, 8, 8)", "0", "0"),
        ("  last: Flatten", "(2, 256)", "0", "0"),
    ]
    totals = "parameters: 116 (116 trainable), MACs: 13,824"
    above, *lines, below = str(table).splitlines()
    starts = [lines[0].index(column) for column in ("layer", "output shape")]
    assert below == totals
    for line, (layer, shape, *numbers) in zip(lines, rows, strict=True):
        assert line[starts[0] :].startswith(layer + " ")
        assert line[starts[1] :].startswith(shape + " ")
        assert line[starts[1] + len(shape) :].split() == numbers
    assert len({len(line) for line in lines}) == 1
    page = ElementTree.fromstring(f"<div>{table._repr_html_()}</div>")
    assert [tuple("".join(cell.itertext()) for cell in row) for row in page.find("table").iter("tr")] == rows
    assert [part.text for part in page.iter("p")] == [above, totals]
    for row in page.find("table").iter("tr"):
        styles = [cell.get("style", "") for cell in row]
        assert "white-space: pre" in styles[0]  # or the depth is not seen
        assert "right" in styles[2] and "right" in styles[3]  # noqa: PT018
    console = rich.console.Console(file=io.StringIO(), width=120)
    console.print(table)
    printed = console.file.getvalue()
    shown = [tuple(part.strip() for part in line.split("│")[1:-1]) for line in printed.splitlines() if "│" in line]
    assert shown == [tuple(cell.strip() for cell in row) for row in rows[1:]]
    assert "    norm: BatchNorm2d" in printed
    assert totals in printed


def test_tensors_and_a_single_pixel_are_inputs_too():
    model = resnet10t(num_classes=3)
    expected = summary(model, (1, 3, 32, 32))  # one example of one pixel at the end, where training would refuse it
    assert str(summary(model, torch.zeros(1, 3, 32, 32))) == str(summary(model, x=(1, 3, 32, 32))) == str(expected)
    assert model.training


def test_a_part_called_twice_shows_its_last_shape():
    shared = lazytorch.layers.LazyConvNormActivation(4, stride=2)
    (layer,) = (each for each in summary(nn.Sequential(shared, shared), (1, 4, 8, 8)).layers if each.name == "0")
    assert layer.output_shapes == [(1, 4, 2, 2)]


def test_values_of_a_built_model_are_not_copied():
    model = materialize(get_model("resnet152"), (1, 3, 64, 64))
    summary(get_model("resnet10t"), (1, 3, 64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary(model, (1, 3, 64, 64))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 30


class Catching(nn.Module):
    """Continues where a part fails."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.failing = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        y = self.first(x)
        try:
            return self.failing(x)
        except RuntimeError:
            return y


def test_a_part_that_fails_and_is_caught_counts_for_nothing():
    table = summary(Catching(), (1, 3, 8, 8))
    assert [layer.macs for layer in table.layers] == [3 * 4 * 64, 3 * 4 * 64, 0]


class Direct(nn.Module):
    """Calls a part, and is called, past ``__call__``; and calls a copy of another part."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def __call__(self, x):
        return self._call_impl(x)

    def forward(self, x):
        replica = self.second._replicate_for_data_parallel()
        replica.weight, replica.bias = self.second.weight[:2], self.second.bias[:2]
        return replica(self.first._call_impl(x))


def test_calls_past_the_usual_way_count():
    table = summary(Direct(), (2, 4))
    assert [layer.output_shapes for layer in table.layers] == [[(2, 2)], [(2, 4)], []]
    assert [layer.macs for layer in table.layers] == [2 * (4 + 2) * 4, 2 * 4 * 4, 0]


def as_whole(model, shape):
    """The summary of a copy with a hook, as code of users: it is built and called like any other model."""
    copied = copy.deepcopy(model)
    copied.register_forward_hook(lambda *_: None)
    return summary(copied, shape)


def same(table, other):
    return (table.layers, table.trainable_parameters) == (other.layers, other.trainable_parameters)


@pytest.fixture
def constructed(monkeypatch):
    """The convolutions that are constructed."""
    calls, original = [], nn.Conv2d.__init__
    monkeypatch.setattr(nn.Conv2d, "__init__", lambda self, *a, **k: (calls.append(self), original(self, *a, **k))[1])
    return calls


NETWORKS = ["mobilenet_v2", "mobilenetv3_small_100", "resnet18", "seresnext26d_32x4d", "ecaresnet26t", "resnetblur50"]


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 4, 65), (1, 1, 33, 34, 35)])
@pytest.mark.parametrize("name", [*NETWORKS, "efficientnet_b0", "efficientnetv2_rw_s", "fbnetc_100"])
def test_the_summary_of_equal_layers_is_that_of_each(name, shape):
    model = get_model(name)
    table, expected = summary(model, shape), as_whole(model, shape)
    assert same(table, expected)
    for layer in table.layers:
        if layer.kind.startswith("BatchNorm"):
            layer.output_shapes.append(())
    assert same(summary(model, shape), expected)


def test_equal_layers_are_constructed_once(constructed):
    model = get_model("resnet152")
    summary(model, (1, 3, 64, 64))
    assert len(constructed) == 1 + 4 * (4 + 3)  # the stem; of each stage a block with a shortcut, and one without


def test_the_rate_of_stochastic_depth_makes_no_difference_here(constructed):
    counts = []
    for rate in (0.0, 0.2):
        constructed.clear()
        model = get_model("efficientnet_b4", drop_path_rate=rate)
        table = summary(model, (1, 3, 64, 64))
        counts.append(len(constructed))
        assert same(table, as_whole(model, (1, 3, 64, 64)))
    assert counts[0] == counts[1] < 100
    for rate, branches in ((0.0, 0), (0.9, 1)):
        layers = summary(two_of(LazyPointwiseConv(4), LazyBasicBlock(4, 4, drop_path_rate=rate)), (1, 3, 8, 8)).layers
        assert sum(layer.kind == "StochasticDepth" for layer in layers) == branches
    with pytest.raises(ValueError, match=r"got 1\.5"):
        summary(two_of(LazyPointwiseConv(4), LazyBasicBlock(4, 4, drop_path_rate=1.5)), (1, 3, 8, 8))


def test_the_random_state_is_as_before():
    """Also where a layer builds a lazy one, which has a seed of its own."""
    unchanged = []
    for _ in range(2):
        model = nn.Sequential(LazyConvNormActivation(4, activation=LazySqueezeExcitation))
        state = torch.get_rng_state()
        summary(model, (2, 4, 8, 8))
        unchanged.append(torch.equal(torch.get_rng_state(), state))
    assert unchanged == [True, True]


def test_a_layer_of_another_default_dtype_is_summarized_in_it():
    first = LazyPointwiseConv(4)
    torch.set_default_dtype(torch.float64)
    try:
        second = LazyPointwiseConv(4)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(RuntimeError, match="should be the same"):
        summary(nn.Sequential(first, second), (2, 4, 8, 8))


def two_of(first, second):
    return Backbone(stem=first, stages=[[second]], num_classes=2)


def changed(change):
    model = two_of(LazyPointwiseConv(4), LazyPointwiseConv(4))
    change(model)
    return model


UNUSUAL = {
    "one part twice": lambda: two_of(*[LazyPointwiseConv(4)] * 2),
    "frozen": lambda: changed(lambda model: model.stem.requires_grad_(False)),
    "loaded": lambda: changed(lambda model: model.load_state_dict({"stem.conv.weight": torch.ones(4, 3, 1, 1)}, False)),
    "in double": lambda: changed(lambda model: model.double()),
    "with a hook": lambda: changed(lambda model: model.stem.register_forward_hook(lambda _, __, y: y[..., :-1])),
    "another's norm": lambda: two_of(LazyPointwiseConv(4, norm_layer=lambda n: nn.GroupNorm(2, n)), nn.Identity()),
    "within another": lambda: nn.Sequential(mobilenet_v2(), nn.Linear(1000, 3)),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_what_was_done_to_a_layer_is_shown(unusual):
    for _ in range(2):
        # The same layers, but for what is unusual here.
        summary(two_of(LazyPointwiseConv(4), LazyPointwiseConv(4)), (2, 3, 8, 8))
        model = UNUSUAL[unusual]()
        shape = {"within another": (2, 3, 32, 32), "one part twice": (2, 4, 8, 8)}.get(unusual, (2, 3, 8, 8))
        table = summary(model, shape)
        assert same(table, as_whole(model, shape))
        materialize(model, shape)
        assert table.parameters == sum(map(torch.numel, model.parameters()))
        assert table.trainable_parameters == sum(each.numel() for each in model.parameters() if each.requires_grad)
        dtype = next(model.parameters()).dtype
        assert table.layers[0].output_shapes == [tuple(model.eval()(torch.zeros(shape, dtype=dtype)).shape)]


def add_part(layer):
    layer.adapter = nn.Conv2d(4, 4, 1)


def add_parameter(layer):
    layer.register_parameter("scale", nn.Parameter(torch.ones(58)))


@pytest.mark.parametrize("add", [add_part, add_parameter])
@pytest.mark.parametrize("added_first", [True, False])
def test_what_was_added_to_a_layer_is_counted_in_it_alone(add, added_first):
    plain, extended = (two_of(LazyPointwiseConv(4), LazyPointwiseConv(11)) for _ in range(2))
    add(extended.stem)
    for model in (extended, plain) if added_first else (plain, extended):
        table = summary(model, (2, 3, 8, 8))
        materialize(model, (2, 3, 8, 8))
        assert table.parameters == sum(map(torch.numel, model.parameters()))


def test_nothing_is_kept_alive():
    gc.collect()
    gc.disable()
    try:
        model = get_model("resnet18")
        parts = [weakref.ref(each) for each in model.modules()]
        summary(model, (1, 3, 64, 64))
        lazy = {type(each()) for each in parts}
        del model
        assert len(lazy) > 3
        alive = [each() for each in parts if isinstance(each(), lazytorch.LazyModule)]
        assert alive == []
    finally:
        gc.enable()


def test_errors_have_the_place_in_the_model_and_name_summary():
    model = get_model("resnet18")
    with pytest.raises(lazytorch.ShapeInferenceError, match=r"at least one channel, got 0") as error:
        summary(model, (1, 0, 32, 32))
    assert any(note.startswith("at stem") for note in error.value.__notes__)
    assert is_lazy(model)

    class Brightest(nn.Module):
        def forward(self, x):
            return x if x.max() > 0 else -x

    with pytest.raises(
        lazytorch.ShapeInferenceError,
        match=r"summary\(Brightest\): the forward must not depend on the values in tensors",
    ):
        summary(Brightest(), (1, 3))
    with pytest.raises(
        RuntimeError, match=r"summary\(Partial\): the forward must reach every lazy module, got no call of unused"
    ):
        summary(Partial(), (1, 3))


class Partial(nn.Module):
    """Does not call a lazy part."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = lazytorch.layers.LazyLinear(3), lazytorch.layers.LazyLinear(3)

    def forward(self, x):
        return self.used(x)
