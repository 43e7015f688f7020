"""Network: a backbone made of a stem, rows of blocks and a head; the base class of every family."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import ClassVar, NamedTuple, TypedDict, TypeVar, get_type_hints

from torch import nn

from lazytorch._init.initialize import known, known_code
from lazytorch._lazy.scopes import outside_modes
from lazytorch.arguments import INPUT_CHANNELS, ValueRules, with_signature
from lazytorch.layers import LazyAdaptiveAvgPool
from lazytorch.layers.checks import Sizes, choice, flag, largest, positive_sizes, positive_whole, several
from lazytorch.layers.factories import maker
from lazytorch.layers.rules import RULES, checked
from lazytorch.layers.twins import lazy_twin
from lazytorch.models._weights.loading import load_weights
from lazytorch.models._weights.names import Rules
from lazytorch.models._weights.sources import Weights
from lazytorch.models.backbone import OPTIONS, Backbone
from lazytorch.models.layout import places
from lazytorch.models.tables import table_of
from lazytorch.models.trunk import Blocks
from lazytorch.signature import sections, with_sections_of

__all__ = ["RELU", "RELU6", "SILU", "Network", "NetworkOptions", "Row", "family"]

RELU = partial(nn.ReLU, inplace=True)
RELU6 = partial(nn.ReLU6, inplace=True)
SILU = partial(nn.SiLU, inplace=True)
Layer = Callable[..., nn.Module]
F = TypeVar("F", bound="type[Network]")
# The rules for options of families and networks, by name. A name has the same meaning in all of them.
FAMILY_RULES: ValueRules = {
    **RULES,
    **OPTIONS,
    "output_stride": choice(8, 16, 32),
    **dict.fromkeys(("stem_channels", "final_channels", "hidden_channels"), positive_whole),
    **dict.fromkeys(("stem_kernel_size", "stem_stride"), positive_sizes),
    "stem_pool": maker("max_pool"),
    **dict.fromkeys(("preactivation", "rates_end", "zero_init"), flag),
}


class NetworkOptions(TypedDict, total=False):
    """The options of every network, in addition to those of its family. ``Network`` defines their default values.

    Attributes:
        dropout: Dropout probability of the pooled features, before the classifier.
        drop_path_rate: Stochastic depth: the probability that training drops the branch of the last block, for each
            example. It grows linearly from 0 at the first block.
        norm_layer: Called with the channels, after each convolution; None for no norms. A class of torch.nn is replaced
            by its version for the number of spatial dimensions.
        activation: Called without arguments, for activations that the family does not fix; None for no activations.
        conv_layer: Called like ``nn.Conv2d``, for the convolutions of blocks, stem and final layer: ``nn.Conv2d``,
            ``SameConv2d`` or another one. A class of torch.nn is replaced by its version for the number of spatial
            dimensions.
        output_stride: Ratio of the input size to the size of the last stage's output: 8, 16 or 32. Strides that would
            exceed it are replaced by dilation.
        global_pool: Called with the size of its output, 1 in most families; None for no pooling, and therefore no
            classifier.
        gradient_checkpointing: Whether the backward pass recomputes the activations of each block, instead of storing
            them.
        spatial_dims: Number of spatial dimensions of the input: 1 for signals, 2 for images, 3 for volumes. Other
            inputs raise an error. By default it is inferred from the first input.
        weights: ``"torchvision"`` or ``"timm"`` for the weights that this zoo recommends for the model of this name, or
            with a tag (``"timm:a1_in1k"``) for others; one of torchvision's enums of weights; or a ``.safetensors``,
            ``.pt`` or ``.pth`` file or a state dict, with the names of torchvision, timm or lazytorch. The weight of
            the stem is converted if the input has other channels.

    Example:
        >>> from torch import nn
        >>> from lazytorch.models import NetworkOptions, ResNet
        >>> options: NetworkOptions = {"dropout": 0.2, "norm_layer": nn.InstanceNorm2d}
        >>> model = ResNet(10, depths=(1, 1, 1, 1), **options)
    """

    dropout: float
    drop_path_rate: float
    norm_layer: Callable[[int], nn.Module] | None
    activation: Callable[[], nn.Module] | None
    conv_layer: Callable[..., nn.Module]
    output_stride: int
    global_pool: Callable[[int], nn.Module] | None
    gradient_checkpointing: bool
    spatial_dims: int | None
    weights: Weights | None


@checked(block=maker("LazyBottleneckBlock"), repeats=positive_whole, residual=flag)
class Row(NamedTuple):
    """A row of a network's table: ``repeats`` blocks, the first of them with ``stride``.

    Attributes:
        block: Called with the keyword arguments ``out_channels``, ``stride``, ``dilation``, ``input_dilation`` (the
            dilation of the previous block), ``norm_layer``, ``activation``, ``conv_layer`` and, if it is ``residual``,
            ``drop_path_rate``. Pass a ``functools.partial`` to set other arguments.
        out_channels: Channels of the blocks' output.
        repeats: Number of blocks.
        stride: Stride of the first block, in pixels; one number, or one for each spatial dimension.
        residual: Whether the block has a branch that stochastic depth can drop.

    Example:
        >>> from functools import partial
        >>> from lazytorch.layers import LazyBottleneckBlock
        >>> from lazytorch.models import Row
        >>> row = Row(partial(LazyBottleneckBlock, 64), out_channels=256, repeats=3, stride=2)
        >>> row._replace(repeats=2).repeats
        2
    """

    block: Layer
    out_channels: int
    repeats: int = 1
    stride: Sizes = 1
    residual: bool = True


@known_code
@checked(
    stem=maker("LazyConvNormActivation"),
    stem_pool=maker("LazyMaxPool"),
    stem_reduction=positive_sizes,
    stages=several(table_of(Row), "[[Row(...)], [Row(...)]]"),
    final=maker("LazyPointwiseConv"),
    hidden=maker("a function that returns layers by name"),
    rates_end=flag,
    output_stride=FAMILY_RULES["output_stride"],
    **OPTIONS,
)
class Network(Backbone):
    """A backbone made of a stem, rows of blocks and a head.

    It is the base class of the families, which pass it their own choices and the options of every network.

    Args:
        num_classes: Number of classes; 0 for no classifier: the output is then the pooled features. By default the
            number of classes of ``weights``, or 1000.
        stem: Called with ``norm_layer``, ``activation`` and ``conv_layer``; returns the stem.
        stem_pool: Called with the same arguments; returns the pooling after the stem. None for no pooling.
        stem_reduction: Ratio of the input size to the size of the first stage's input.
        stages: The rows of each stage.
        final: Called with the same arguments as ``stem``; returns the layer after the last stage. None for no layer.
        pool_size: Size of the pooling's output along each dimension, in pixels.
        hidden: Called with the same arguments as ``stem``; returns ``{"pooled": layer}`` for a layer after the pooling,
            or ``{"hidden": layer}`` for a layer on the flattened vectors.
        rates_end: Whether the rate of the last block is ``drop_path_rate``; otherwise it is one step smaller.
        initialize: Applied to every module when it is built, to initialize its weights; None for PyTorch's default
            initialization.
        names: Rules for the names of the weights in ``"torchvision"`` and ``"timm"``.
        dropout: See ``NetworkOptions``, also for the other parameters.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, num_classes)``

    Raises:
        ValueError: If a number is out of its range, or there are no such weights.
        RuntimeError: If the weights do not fit the model.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from lazytorch.layers import LazyBottleneckBlock, LazyConvNormActivation
        >>> from lazytorch.models import Network, Row
        >>> narrow, wide = (partial(LazyBottleneckBlock, mid_channels) for mid_channels in (8, 16))
        >>> rows = [[Row(narrow, 32, repeats=2)], [Row(wide, 64, stride=2)]]
        >>> stem = partial(LazyConvNormActivation, 16, stride=2)
        >>> model = Network(10, stem=stem, stem_reduction=2, stages=rows)
        >>> model(torch.zeros(2, 12, 64, 64)).shape
        torch.Size([2, 10])
        >>> [info.reduction for info in model.stage_info]
        [2, 4]
    """

    # Rules for a family's own options, which replace those of ``FAMILY_RULES``.
    rules: ClassVar[ValueRules] = {}
    # A family's default values for options of every network, if they differ; its constructor passes them on.
    defaults: ClassVar[NetworkOptions] = {}
    # The last sentence of the error for weights with other entries: how to load them.
    remedy: ClassVar[str] = ""

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stem: Layer,
        stem_pool: Layer | None = None,
        stem_reduction: Sizes,
        stages: Sequence[Sequence[Row]],
        final: Layer | None = None,
        pool_size: int = 1,
        hidden: Callable[..., dict[str, nn.Module]] | None = None,
        rates_end: bool = True,
        initialize: Callable[[nn.Module], None] | None = None,
        names: Mapping[str, Rules] | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = RELU,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        output_stride: int = 32,
        global_pool: Callable[[int], nn.Module] | None = LazyAdaptiveAvgPool,
        gradient_checkpointing: bool = False,
        spatial_dims: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        layer = {"norm_layer": norm_layer, "activation": activation, "conv_layer": conv_layer}
        table = [[row for row in rows for _ in range(row.repeats)] for rows in stages]
        strides = [rows[0].stride for rows in stages if rows]
        inner = [row.stride for rows in stages for row in rows[1:] if largest(row.stride) != 1]
        if inner:
            raise ValueError(
                f"{type(self).__name__}: only the first row of a stage may have a stride, got {inner[0]} in another."
            )
        placed = places(
            strides, [len(rows) for rows in table], stem_reduction=stem_reduction, output_stride=output_stride
        )
        count = sum(row.residual for rows in table for row in rows)
        if drop_path_rate != 0 and count == 0:
            raise ValueError(
                f"{type(self).__name__}: drop_path_rate must be 0 without residual branches, got {drop_path_rate!r}."
            )
        # Rates grow linearly with the index of a block: Huang et al. 2016, section 3, https://arxiv.org/abs/1603.09382.
        last = max(1, count - 1 if rates_end else count)
        rates = (drop_path_rate * index / last for index in range(count))
        made = []
        for rows, its_places in zip(table, placed, strict=True):
            stage = Blocks(
                *(
                    lazy_twin(row.block)(
                        out_channels=row.out_channels,
                        **place._asdict(),
                        **layer,
                        **({"drop_path_rate": next(rates)} if row.residual else {}),
                    )
                    for row, place in zip(rows, its_places, strict=True)
                )
            )
            stage.dilated = its_places[0].dilation != its_places[0].input_dilation
            made.append(stage)
        super().__init__(
            stem=stem(**layer),
            stem_pool=None if stem_pool is None else stem_pool(**layer),
            stages=made,
            final=None if final is None else final(**layer),
            pool_size=pool_size,
            **({} if hidden is None else hidden(**layer)),
            num_classes=num_classes,
            dropout=dropout,
            global_pool=global_pool,
            gradient_checkpointing=gradient_checkpointing,
            spatial_dims=spatial_dims,
            initialize=initialize,
            reference_names=names,
        )
        if weights is not None:
            with outside_modes():  # tensors created in inference mode cannot be trained
                load_weights(self, weights, num_classes)


def family(cls: F) -> F:
    """Decorator that adds the options of ``NetworkOptions`` to the signature and docstring of a family's class.

    The docstring omits what is the same in all families; ``with_shared_sections`` adds it.
    """
    network, own = signature(Network.__init__).parameters, signature(cls.__init__)
    parameters = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    shared = [network[name] for name in get_type_hints(NetworkOptions)]
    shared = [each.replace(default=cls.defaults.get(each.name, each.default)) for each in shared]
    options = sections(NetworkOptions.__doc__ or "").get("Attributes", "")
    cls.__doc__ = with_shared_sections(cls.__doc__ or "").replace(
        "    options: The options of every network; see ``NetworkOptions``.", options
    )
    known.add(cls)
    shown = own.replace(parameters=[*parameters, *shared])
    return with_signature(cls, cls.__init__, shown, cls.__name__, {**FAMILY_RULES, **cls.rules}, INPUT_CHANNELS)


def with_shared_sections(doc: str) -> str:
    """A family's docstring with ``num_classes`` and the sections that it omits, from the docstring of ``Network``."""
    of_network = Network.__doc__ or ""
    num_classes = sections(of_network).get("Args", "").partition("\n    stem:")[0]
    doc = with_sections_of(doc, "    Shape:" + of_network.partition("    Shape:")[2], ())
    return doc if "\n    num_classes: " in doc else doc.replace("Args:\n", f"Args:\n{num_classes}\n", 1)
