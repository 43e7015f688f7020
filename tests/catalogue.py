"""Every public lazy layer and model, once: the shared invariants run over this list.

``test_catalogue.py`` fails when a public name is missing here.
"""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lazytorch import layers, models
from scripts import zoo_pages

SIZE = 8


@dataclass(frozen=True)
class Case:
    """One way to build a lazy module, and the same by hand."""

    name: str
    lazy: Callable[[], nn.Module]
    eager: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def input(self, batch: int = 2) -> torch.Tensor:
        return torch.randn(batch, *self.shape[1:])


@dataclass(frozen=True)
class Layer:
    """A lazy class with arguments; ``eager`` builds the same for given channels and rank."""

    lazy_class: type[nn.Module]
    eager: Callable[[int, int], nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    ranks: tuple[int, ...] = (1, 2, 3)
    channels: int = 6


def of_rank(name: str, rank: int) -> Any:
    return getattr(nn, f"{name}{rank}d")


SQUEEZE = partial(layers.SqueezeExcitation, reduction_ratio=4)

LAYERS = [
    Layer(
        layers.LazyAdaptiveAvgPool,
        lambda c, d: of_rank("AdaptiveAvgPool", d)(2),
        (2,),
    ),
    Layer(layers.LazyAdaptiveMaxPool, lambda c, d: of_rank("AdaptiveMaxPool", d)(2), (2,)),
    Layer(layers.LazyAvgPool, lambda c, d: of_rank("AvgPool", d)(2), (2,)),
    Layer(
        layers.LazyBasicBlock,
        lambda c, d: layers.BasicBlock(c, 4, 12, stride=2, anti_aliasing=layers.BlurPool, spatial_dims=d),
        (4, 12),
        {"stride": 2, "anti_aliasing": layers.BlurPool},
    ),
    Layer(layers.LazyBlurPool, lambda c, d: layers.BlurPool(c, spatial_dims=d)),
    Layer(
        layers.LazyBottleneckBlock,
        lambda c, d: layers.BottleneckBlock(c, 4, 12, stride=2, groups=2, spatial_dims=d),
        (4, 12),
        {"stride": 2, "groups": 2},
    ),
    Layer(layers.LazyChannelNorm, lambda c, d: layers.ChannelNorm(c, 1e-5), (1e-5,)),
    Layer(
        layers.LazyConvNeXtBlock,
        lambda c, d: layers.ConvNeXtBlock(c, 12, 3, 2, hidden_norm=layers.ResponseNorm, spatial_dims=d),
        (12, 3, 2),
        {"hidden_norm": layers.ResponseNorm},
    ),
    Layer(
        layers.LazyConvNormActivation,
        lambda c, d: layers.ConvNormActivation(c, 8, 5, 2, activation=nn.SiLU, spatial_dims=d),
        (8, 5, 2),
        {"activation": nn.SiLU},
    ),
    Layer(
        layers.LazyDenseLayer,
        lambda c, d: layers.DenseLayer(c, 10, 5, expansion_ratio=2, dilation=2, spatial_dims=d),
        (10, 5),
        {"expansion_ratio": 2, "dilation": 2},
    ),
    Layer(
        layers.LazyDepthSepConv,
        lambda c, d: layers.DepthSepConv(c, 8, stride=2, spatial_dims=d),
        (8,),
        {"stride": 2},
    ),
    Layer(layers.LazyDepthSepConv2d, lambda c, d: layers.DepthSepConv2d(c, 8), (8,), ranks=(2,)),
    Layer(
        layers.LazyDepthwiseConv,
        lambda c, d: layers.DepthwiseConv(c, 5, dilation=2, spatial_dims=d),
        (5,),
        {"dilation": 2},
    ),
    Layer(layers.LazyDepthwiseConv2d, lambda c, d: layers.DepthwiseConv2d(c, 3, 2), (3, 2), ranks=(2,)),
    Layer(
        layers.LazyEfficientChannelAttention,
        lambda c, d: layers.EfficientChannelAttention(c, spatial_dims=d),
    ),
    Layer(
        layers.LazyExpansionConv,
        lambda c, d: of_rank("Conv", d)(c, 3 * c, kernel_size=3),
        (3,),
        {"kernel_size": 3},
    ),
    Layer(
        layers.LazyExpansionConv2d,
        lambda c, d: nn.Conv2d(c, 9, 3, bias=False),
        (1.5, 3),
        {"bias": False},
        ranks=(2,),
    ),
    Layer(
        layers.LazyExpansionDepthSepConv,
        lambda c, d: layers.DepthSepConv(c, 2 * c, spatial_dims=d),
        kwargs={"expansion_ratio": 2},
    ),
    Layer(layers.LazyExpansionDepthSepConv2d, lambda c, d: layers.DepthSepConv2d(c, 2 * c), (2,), ranks=(2,)),
    Layer(
        layers.LazyExpansionPointwiseConv,
        lambda c, d: layers.PointwiseConv(c, 6 * c, activation=None, spatial_dims=d),
        (6,),
        {"activation": None},
    ),
    Layer(layers.LazyExpansionPointwiseConv2d, lambda c, d: layers.PointwiseConv2d(c, 6 * c), (6,), ranks=(2,)),
    Layer(
        layers.LazyFireModule,
        lambda c, d: layers.FireModule(c, 4, 12, stride=2, spatial_dims=d),
        (4, 12),
        {"stride": 2},
    ),
    Layer(
        layers.LazyInvertedBottleneck,
        lambda c, d: layers.InvertedBottleneck(c, c, expansion_ratio=4, se_layer=SQUEEZE, spatial_dims=d),
        (6,),
        {"expansion_ratio": 4, "se_layer": SQUEEZE},
    ),
    Layer(
        layers.LazyFusedInvertedBottleneck,
        lambda c, d: layers.FusedInvertedBottleneck(c, c, expansion_ratio=4, se_layer=SQUEEZE, spatial_dims=d),
        (6,),
        {"expansion_ratio": 4, "se_layer": SQUEEZE},
    ),
    Layer(
        layers.LazyGlobalContext,
        lambda c, d: layers.GlobalContext(c, 2, gate=nn.Sigmoid, spatial_dims=d),
        (2,),
        {"gate": nn.Sigmoid},
    ),
    Layer(layers.LazyLayerScale, lambda c, d: layers.LayerScale(c, 0.1), (0.1,)),
    Layer(layers.LazyLinear, lambda c, d: nn.Linear(SIZE, 5), (5,), ranks=(2,)),
    Layer(
        layers.LazyNormActivation,
        lambda c, d: layers.NormActivation(c, activation=nn.SiLU, spatial_dims=d),
        kwargs={"activation": nn.SiLU},
    ),
    Layer(
        layers.LazyPointwiseConv,
        lambda c, d: layers.PointwiseConv(c, 8, 2, norm_layer=None, spatial_dims=d),
        (8, 2),
        {"norm_layer": None},
    ),
    Layer(
        layers.LazyMixedConv,
        lambda c, d: layers.MixedConv(c, 8, 3, 2, 1, parts=3, spatial_dims=d),
        (8, 3, 2, 1),
        {"parts": 3},
    ),
    Layer(
        layers.LazyMultiBranchConv,
        lambda c, d: layers.MultiBranchConv(c, c, branches=2, groups=2, se_layer=SQUEEZE, spatial_dims=d),
        (6,),
        {"branches": 2, "groups": 2, "se_layer": SQUEEZE},
    ),
    Layer(layers.LazyMaxPool, lambda c, d: of_rank("MaxPool", d)(3, 2, 1), (3, 2, 1)),
    Layer(layers.LazyPointwiseConv2d, lambda c, d: layers.PointwiseConv2d(c, 8), (8,), ranks=(2,)),
    Layer(
        layers.LazyPreActivationBlock,
        lambda c, d: layers.PreActivationBlock(c, 4, 12, stride=2, se_layer=SQUEEZE, spatial_dims=d),
        (4, 12),
        {"stride": 2, "se_layer": SQUEEZE},
    ),
    Layer(
        layers.LazyReductionConv,
        lambda c, d: of_rank("Conv", d)(c, c // 3, 3, padding=1),
        (3, 3),
        {"padding": 1},
    ),
    Layer(layers.LazyReductionConv2d, lambda c, d: nn.Conv2d(c, c // 2, 1), (2, 1), ranks=(2,)),
    Layer(
        layers.LazyReductionDepthSepConv,
        lambda c, d: layers.DepthSepConv(c, c // 2, spatial_dims=d),
        (2,),
    ),
    Layer(layers.LazyReductionDepthSepConv2d, lambda c, d: layers.DepthSepConv2d(c, c // 2), (2,), ranks=(2,)),
    Layer(
        layers.LazyReductionPointwiseConv,
        lambda c, d: layers.PointwiseConv(c, c // 2, spatial_dims=d),
        (2,),
    ),
    Layer(layers.LazyReductionPointwiseConv2d, lambda c, d: layers.PointwiseConv2d(c, c // 2), (2,), ranks=(2,)),
    Layer(layers.LazyResponseNorm, lambda c, d: layers.ResponseNorm(c, 1e-5), (1e-5,)),
    Layer(
        layers.LazyShuffleBlock,
        lambda c, d: layers.ShuffleBlock(c, 8, 5, dilation=2, spatial_dims=d),
        (8, 5),
        {"dilation": 2},
    ),
    Layer(
        layers.LazySelectiveKernelConv,
        lambda c, d: layers.SelectiveKernelConv(c, 8, stride=2, split_input=True, spatial_dims=d),
        (8,),
        {"stride": 2, "split_input": True},
    ),
    Layer(
        layers.LazySplitAttentionConv,
        lambda c, d: layers.SplitAttentionConv(c, 8, stride=2, spatial_dims=d),
        (8,),
        {"stride": 2},
    ),
    Layer(
        layers.LazySqueezeExcitation,
        lambda c, d: layers.SqueezeExcitation(c, squeeze_channels=3, gate=nn.Hardsigmoid, spatial_dims=d),
        kwargs={"squeeze_channels": 3, "gate": nn.Hardsigmoid},
    ),
    Layer(
        layers.LazyUniversalInvertedBottleneck,
        lambda c, d: layers.UniversalInvertedBottleneck(c, 8, 5, 2, 2, start_kernel_size=3, spatial_dims=d),
        (8, 5, 2, 2),
        {"start_kernel_size": 3},
    ),
]

MODELS = models.list_models()


# The invariants run over these, which have every part that any of the models has; parity runs over all.
SAMPLES = [
    "convnext_atto_ols",
    "convnextv2_atto",
    "densenet121",
    "ecaresnet26t",
    "gernet_s",
    "lcnet_050",
    "mixnet_s",
    "legacy_seresnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenetv4_conv_blur_medium",
    "mobileone_s0",
    "regnetz_005",
    "res2net50_48w_2s",
    "resnest14d",
    "repvgg_a0",
    "resnet10t",
    "resnetblur18",
    "resnetrs50",
    "rexnet_100",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "resnetv2_18d",
    "resnetv2_50x1_bit",
    "tinynet_e",
]


# Those of the samples that ``make test`` runs.
FEW = {"convnext_atto_ols", "mobilenet_v3_small", "resnet10t", "shufflenet_v2_x0_5", "squeezenet1_1"}


def chosen() -> set[str]:
    """The networks of ``make test``: few samples, and the smallest of each file of the zoo, class and reference zoo."""
    parameters = {(each["name"], each["reference"].split()[0]): each["parameters"] for each in zoo_pages.read()}
    smallest: dict[tuple[str, str, str], str] = {}
    for file in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"{models.__name__}.{file.name}")
        for name in set(getattr(module, "__all__", ())) & set(MODELS):
            family = inspect.signature(getattr(models, name)).return_annotation.__name__
            for zoo in models.references(name):
                key = (file.name, family, zoo)
                best = smallest.get(key, name)
                smallest[key] = min(best, name, key=lambda each: (parameters.get((each, zoo), math.inf), each))
    return {*smallest.values(), *FEW}


CHOSEN = chosen()


def slow_unless_chosen(name: str, *values: Any) -> Any:
    """A parameter set of a test that runs for every network; those that are not in ``CHOSEN`` are slow tests."""
    return pytest.param(name, *values, marks=[] if name in CHOSEN else pytest.mark.slow, id="-".join((name, *values)))


def every_network(names: Iterable[str] = MODELS) -> pytest.MarkDecorator:
    """The parametrization of a test by the names of networks."""
    return pytest.mark.parametrize("name", [slow_unless_chosen(name) for name in names])


def first_fast(values: Iterable[Any], fast: int = 1) -> list[Any]:
    """Parameter sets; the tests of all but the first ``fast`` are slow."""
    sets = [each if isinstance(each, tuple) else (each,) for each in values]
    return [pytest.param(*each, marks=[] if index < fast else pytest.mark.slow) for index, each in enumerate(sets)]


every_sample = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in SAMPLES]
)


LAYER_CASES = [
    Case(
        name=f"{layer.lazy_class.__name__}-{rank}d",
        lazy=partial(layer.lazy_class, *layer.args, **layer.kwargs),
        eager=partial(layer.eager, layer.channels, rank),
        shape=(2, layer.channels, *(SIZE,) * rank),
    )
    for layer in LAYERS
    for rank in layer.ranks
]


def built_model(name: str, shape: tuple[int, ...]) -> nn.Module:
    from lazytorch import materialize

    return materialize(getattr(models, name)(num_classes=7), shape)


MODEL_CASES = [
    Case(
        name=f"{name}-{rank}d",
        lazy=partial(getattr(models, name), num_classes=7),
        eager=partial(built_model, name, (2, 3, *(32,) * rank)),
        shape=(2, 3, *(32,) * rank),
    )
    for name in SAMPLES
    for rank in (1, 2)
]
FAST_MODEL_CASES = {"mobilenet_v3_small-1d", *(f"{name}-2d" for name in FEW)}
CASES = LAYER_CASES + MODEL_CASES
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=[] if case in LAYER_CASES or case.name in FAST_MODEL_CASES else pytest.mark.slow,
            id=case.name,
        )
        for case in CASES
    ],
)
