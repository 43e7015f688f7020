"""A lazy layer accepts what its eager twin accepts and computes the same; else it fails alike and stays lazy."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lazytorch import LazyModule, ShapeInferenceError, layers
from lazytorch.lazy_module import target_class

SIDE = st.integers(0, 4)
CHANNELS = st.integers(1, 6)
NORMS = st.sampled_from([nn.BatchNorm2d, nn.InstanceNorm1d, None])
ACTIVATIONS = st.sampled_from([nn.ReLU, nn.Hardswish, None])
COMMON = {"norm_layer": NORMS, "activation": ACTIVATIONS}
OUT = {"out_channels": st.integers(-1, 6)}
KERNEL = {"kernel_size": SIDE, "stride": SIDE}
RESIDUAL = {
    "mid_channels": CHANNELS,
    "groups": SIDE,
    "dilation": SIDE,
    "input_dilation": st.none() | SIDE,
    "shortcut": st.sampled_from(
        [layers.projection, partial(layers.projection, kernel_size=3), layers.pooled_projection]
    ),
    "se_layer": st.sampled_from([None, layers.SqueezeExcitation, layers.EfficientChannelAttention]),
    "anti_aliasing": st.sampled_from([None, layers.BlurPool, layers.average_blur]),
    "drop_path_rate": st.sampled_from([-0.5, 0.0, 1.0]),
}
INVERTED = {
    "expansion_ratio": st.sampled_from([0, 1, 1.5, 2]),
    "rounding": st.sampled_from([round, layers.round_channels]),
    "dilation": SIDE,
    "se_layer": st.sampled_from([None, layers.SqueezeExcitation]),
    "squeeze_ratio": st.sampled_from([None, 0, 2]),
    "anti_aliasing": st.sampled_from([None, layers.BlurPool, layers.average_blur]),
    "shortcut": st.booleans(),
    "drop_path_rate": st.sampled_from([-0.5, 0.0, 1.0]),
}
SPATIAL = st.sampled_from(
    [layers.ConvNormActivation, layers.LazySplitAttentionConv, partial(layers.SelectiveKernelConv, split_input=True)]
)
WEIGHED = {"groups": SIDE, "dilation": SIDE}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "BasicBlock": OUT | KERNEL | COMMON | RESIDUAL | {"spatial_layer": SPATIAL, "project_activation": ACTIVATIONS},
    "BlurPool": {"stride": SIDE, "kernel_size": SIDE},
    "BottleneckBlock": OUT
    | KERNEL
    | COMMON
    | RESIDUAL
    | {
        "reduce_ratio": SIDE,
        "se_last": st.booleans(),
        "stride_first": st.booleans(),
        "splits": SIDE,
        "spatial_layer": SPATIAL,
    },
    "ChannelNorm": {"eps": st.sampled_from([1e-6, 0.1])},
    "ConvNeXtBlock": OUT
    | KERNEL
    | COMMON
    | {
        "expansion_ratio": st.sampled_from([0, 1, 1.5, 4]),
        "layer_scale": st.sampled_from([None, 0.5]),
        "hidden_norm": st.sampled_from([None, layers.ResponseNorm]),
        "dilation": SIDE,
        "input_dilation": st.none() | SIDE,
        "drop_path_rate": st.sampled_from([-0.5, 0.0, 1.0]),
    },
    "ConvNormActivation": OUT
    | COMMON
    | {
        "kernel_size": SIDE | st.lists(SIDE, min_size=1, max_size=3),
        "stride": SIDE,
        "padding": st.none() | SIDE,
        "groups": SIDE,
        "dilation": SIDE,
        "bias": st.sampled_from([None, True, False]),
    },
    "DepthSepConv": OUT | KERNEL | COMMON | {"dilation": SIDE},
    "DepthSepConv2d": OUT | KERNEL | COMMON,
    "DepthwiseConv": KERNEL | COMMON | {"dilation": SIDE},
    "DepthwiseConv2d": KERNEL | COMMON,
    "EfficientChannelAttention": {"kernel_size": st.none() | SIDE},
    "FireModule": OUT
    | KERNEL
    | COMMON
    | {"mid_channels": CHANNELS, "dilation": SIDE, "input_dilation": st.none() | SIDE},
    "FusedInvertedBottleneck": OUT
    | KERNEL
    | COMMON
    | INVERTED
    | {
        "expand_from_output": st.booleans(),
        "project_always": st.booleans(),
        "group_size": st.none() | SIDE,
    },
    "GlobalContext": {
        "reduction_ratio": st.sampled_from([0, 0.5, 2, 16]),
        "squeeze_channels": st.none() | SIDE,
        "gate": st.sampled_from([None, nn.Sigmoid]),
    },
    "InvertedBottleneck": OUT
    | KERNEL
    | COMMON
    | INVERTED
    | {
        "expand_always": st.booleans(),
        "expand_from_output": st.booleans(),
        "group_size": SIDE,
        "input_dilation": st.none() | SIDE,
        "partial_shortcut": st.booleans(),
        "expand_activation": ACTIVATIONS,
        "project_activation": ACTIVATIONS,
        "conv_layers": st.sampled_from([None, {"depthwise": layers.MixedConv, "expand": layers.MixedConv}]),
    },
    "DenseLayer": {"out_channels": st.integers(1, 12), "expansion_ratio": SIDE, "dropout": st.sampled_from([0.0, 1.0])}
    | COMMON,
    "MixedConv": OUT
    | {"kernel_size": SIDE, "stride": SIDE, "padding": SIDE, "dilation": SIDE, "groups": SIDE, "parts": SIDE},
    "MultiBranchConv": OUT
    | KERNEL
    | COMMON
    | {
        "groups": SIDE,
        "dilation": SIDE,
        "branches": SIDE,
        "input_dilation": st.none() | SIDE,
        "se_layer": st.sampled_from([None, layers.SqueezeExcitation]),
        "drop_path_rate": st.sampled_from([-0.5, 0.0, 1.0]),
        "reparameterized": st.booleans(),
    },
    # A lazy layer with a norm that has no entries lists them as missing in a checkpoint, so only BatchNorm is here.
    "NormActivation": {"activation": COMMON["activation"]},
    "LayerScale": {"initial_value": st.sampled_from([0, 0.5])},
    "PointwiseConv": OUT | COMMON | {"stride": SIDE},
    "PointwiseConv2d": OUT | COMMON | {"stride": SIDE},
    "PreActivationBlock": OUT
    | KERNEL
    | COMMON
    | {name: strategy for name, strategy in RESIDUAL.items() if name != "anti_aliasing"}
    | {"basic": st.booleans(), "always": st.booleans(), "squeeze_ratio": st.sampled_from([None, 0])},
    "ResponseNorm": {"eps": st.sampled_from([1e-6, 0.1])},
    "ShuffleBlock": OUT | KERNEL | COMMON | {"dilation": SIDE, "input_dilation": st.none() | SIDE},
    "SelectiveKernelConv": OUT
    | KERNEL
    | COMMON
    | WEIGHED
    | {
        "reduction_ratio": st.sampled_from([0, 0.5, 16]),
        "divisor": st.sampled_from([0, 2]),
        "split_input": st.booleans(),
    },
    "SplitAttentionConv": OUT | KERNEL | COMMON | WEIGHED | {"radix": SIDE, "pool_first": st.booleans()},
    "UniversalInvertedBottleneck": OUT | KERNEL | COMMON | INVERTED | {"start_kernel_size": SIDE},
    "SqueezeExcitation": {
        "reduction_ratio": st.sampled_from([0, 0.5, 2, 16]),
        "squeeze_channels": st.none() | SIDE,
        "norm_layer": st.sampled_from([None, nn.BatchNorm2d]),
    },
}
# Spatial dimensions to convolve, or a layer that is 2-D alone, and the shape of the input.
INPUT = st.tuples(
    st.integers(1, 3),
    CHANNELS,
    st.integers(1, 3).flatmap(lambda rank: st.lists(st.integers(1, 6), min_size=rank, max_size=rank)),
)


def outcome(run: Callable[[], torch.Tensor]) -> torch.Tensor | Exception:
    torch.manual_seed(7)
    try:
        return run()
    except Exception as error:
        return error


def test_every_eager_twin_has_options_here():
    assert set(OPTIONS) == {name.removeprefix("Lazy") for name in layers.__all__ if name.startswith("Lazy")} & set(
        layers.__all__
    )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors", "ignore:Using padding='same'")
@pytest.mark.parametrize("name", OPTIONS)
@given(data=st.data())
def test_lazy_is_as_eager(name: str, data: st.DataObject):
    options = data.draw(st.fixed_dictionaries({}, optional=OPTIONS[name]), label="options")
    batch, channels, spatial = data.draw(INPUT, label="batch, channels, spatial")
    takes_rank = "spatial_dims" in inspect.signature(getattr(layers, name)).parameters
    rank = {"spatial_dims": len(spatial)} if takes_rank else {}
    x = torch.linspace(-1, 1, batch * channels * torch.Size(spatial).numel()).reshape(batch, channels, *spatial)
    lazy_class = getattr(layers, f"Lazy{name}")
    made: list[nn.Module] = []
    states: list[dict[str, torch.Tensor]] = []

    def eagerly() -> torch.Tensor:
        eager = getattr(layers, name)(channels, **options, **rank)
        states.append(copy.deepcopy(eager.state_dict()))
        return eager(x)

    def lazily() -> torch.Tensor:
        made.append(lazy_class(**options))
        if states:
            made[0].load_state_dict(states[0])
        return made[0](x)

    expected = outcome(eagerly)
    actual = outcome(lazily)
    if name.endswith("2d") and len(spatial) != 2 and made:  # eager may take it for an image without a batch
        assert isinstance(actual, ShapeInferenceError)
        assert isinstance(made[0], LazyModule)
        return
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
        assert type(made[0]) is target_class(lazy_class)
        return
    assert isinstance(actual, Exception), f"eager refuses with {expected!r}"
    assert isinstance(actual, type(expected)) or isinstance(expected, type(actual)), (actual, expected)
    assert all(isinstance(each, LazyModule) for each in made)


@given(
    st.sampled_from(["Conv", "PointwiseConv", "DepthSepConv"]),
    st.sampled_from(["Expansion", "Reduction"]),
    st.sampled_from([0, -1, 1, 2, 3, 1.5]),
    INPUT,
)
def test_ratios(kind: str, direction: str, ratio: float, size: tuple[int, int, list[int]]):
    batch, channels, spatial = size
    lazy_class = partial(getattr(layers, f"Lazy{direction}{kind}"), **({"kernel_size": 1} if kind == "Conv" else {}))
    if ratio <= 0:
        with pytest.raises(ValueError, match=f"{direction.lower()}_ratio must be positive, got {ratio}"):
            lazy_class(ratio)
        return
    lazy = lazy_class(ratio, **({} if kind == "Conv" else {"norm_layer": None}))
    before = copy.deepcopy(lazy)
    out_channels = channels * ratio if direction == "Expansion" else channels / ratio
    if out_channels % 1:
        with pytest.raises(ShapeInferenceError, match=f"{direction.lower()}_ratio={ratio}.*got {channels} "):
            lazy(torch.zeros(batch, channels, *spatial))
        assert repr(lazy) == repr(before)
    else:
        assert lazy(torch.zeros(batch, channels, *spatial)).shape == (batch, int(out_channels), *spatial)
