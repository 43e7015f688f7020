"""The rules for the arguments of layers and models, and the decorator that makes a class check its arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from lazytorch._lazy.show import show
from lazytorch.arguments import Rule, ValueRules, of_torch, with_signature
from lazytorch.layers.checks import (
    choice,
    flag,
    fraction_below_one,
    optional,
    padding,
    positive,
    positive_sizes,
    positive_whole,
    sizes,
    who,
)
from lazytorch.layers.factories import factory, refusal_of_call

T = TypeVar("T", bound=type)

norm_layer = factory("channels", example="nn.BatchNorm2d")
activation_layer = factory(example="nn.ReLU")
conv_layer = factory(
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    example="nn.Conv2d",
    bias="",
)
spatial_layer = factory(
    *("in_channels", "out_channels", "kernel_size", "stride"),
    example="SplitAttentionConv",
    **dict.fromkeys(("groups", "dilation", "activation", "norm_layer", "conv_layer", "spatial_dims"), ""),
)
shortcut_layer = factory(
    *("in_channels", "out_channels", "stride"),
    example="projection",
    **dict.fromkeys(("dilation", "input_dilation", "norm_layer", "conv_layer", "spatial_dims"), ""),
)

attention = factory("channels", example="SqueezeExcitation", spatial_dims="")


def se_layer(name: str, value: Any, owner: object) -> Any:
    """The rule of ``se_layer``, which is also called with ``squeeze_channels`` if ``squeeze_ratio`` is given."""
    is_function = callable(value) and not isinstance(value, nn.Module)
    if is_function and refusal_of_call(value, 1, ("spatial_dims", "squeeze_channels")) is None:
        return value
    return attention(name, value, owner)


def conv_layers(name: str, value: Any, owner: object) -> Any:
    """The rule of ``conv_layers``: convolutions by the name of a block's part."""
    parts = ("expand", "depthwise", "project")
    if not isinstance(value, Mapping) or not {*value} <= {*parts}:
        raise ValueError(f"{who(owner)}: {name} must be a dict with some of the names {parts}, got {show(value)}.")
    for part, layer in value.items():
        conv_layer(f"{name}[{part!r}]", layer, owner)
    return value


# The rules of parameters by name. A name has the same meaning in all layers and models.
RULES: dict[str | tuple[str, ...], Rule] = {
    **dict.fromkeys(("in_channels", "out_channels", "mid_channels", "channels", "groups"), positive_whole),
    **dict.fromkeys(("reduce_ratio", "group_size"), positive_whole),
    **dict.fromkeys(("kernel_size", "stride", "dilation", "input_dilation"), positive_sizes),
    **dict.fromkeys(("expansion_ratio", "reduction_ratio", "squeeze_ratio"), positive),
    "padding": padding,
    "padding_mode": choice("zeros", "reflect", "replicate", "circular"),
    "bias": flag,
    "drop_path_rate": fraction_below_one,
    "spatial_dims": choice(1, 2, 3),
    "norm_layer": norm_layer,
    "activation": activation_layer,
    **dict.fromkeys(("expand_activation", "project_activation"), activation_layer),
    "gate": activation_layer,
    "conv_layer": conv_layer,
    "conv_layers": conv_layers,
    "se_layer": se_layer,
    "anti_aliasing": factory("channels", "stride", example="BlurPool", spatial_dims=""),
    "spatial_layer": spatial_layer,
    "rounding": factory("channels", example="round_channels"),
    **dict.fromkeys(("se_last", "expand_from_output", "expand_always", "project_always", "ceil_mode"), flag),
}
# The rules of parameters of torch.nn's classes.
of_torch.update(
    {
        **dict.fromkeys(("out_channels", "groups", "out_features", "num_groups"), positive_whole),
        **dict.fromkeys(("hidden_size", "num_layers", "num_heads", "divisor_override"), positive_whole),
        **dict.fromkeys(("kernel_size", "stride", "dilation"), positive_sizes),
        **{name: RULES[name] for name in ("padding", "padding_mode", "ceil_mode", "spatial_dims")},
        "bias": optional(flag),
        "output_size": sizes(optional(positive_whole)),
        **dict.fromkeys(("return_indices", "count_include_pad", "batch_first", "bidirectional"), flag),
    }
)


def checked(together: ValueRules | None = None, /, **rules: Rule) -> Callable[[T], T]:
    """Decorator that makes the constructor of a class check its arguments.

    Args:
        together: The rules for several parameters together, by their names; called with the owner and the values.
        rules: Rules by parameter name, which replace those of ``RULES``.
    """

    def decorate(cls: T) -> T:
        method = "__new__" if issubclass(cls, tuple) else "__init__"
        init, of_class = getattr(cls, method), {**RULES, **rules, **(together or {})}
        return with_signature(cls, init, inspect.signature(init), cls.__name__, of_class, method=method)

    return decorate
