"""Check constructor arguments against a signature and value rules, and show signatures as code."""

import difflib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import Parameter, Signature
from types import NoneType
from typing import Any, TypeVar, get_args

from torch import nn

from lazytorch._lazy.show import show

T = TypeVar("T", bound=type)
# A rule is called with the name and the value of an argument and its owner, the module under construction. It raises an
# error if the value is wrong. A rule for several arguments is called with the owner and their values.
Rule = Callable[..., Any]
ValueRules = Mapping[str | tuple[str, ...], Rule]

# Rules for the constructor parameters of the classes in these modules, by name; ``lazytorch.layers.checks`` adds them.
OF_TORCH = {f"torch.nn.modules.{each}" for each in ("batchnorm", "conv", "linear", "normalization", "pooling", "rnn")}
of_torch: dict[str | tuple[str, ...], Rule] = {}

# Names of our options in other libraries and in the original lazytorch: our option, and the code to write instead.
ELSEWHERE = {
    name: (option, repr(option))
    for name, option in {
        "aa_layer": "anti_aliasing",
        "act_layer": "activation",
        "activation_layer": "activation",
        "attn_layer": "se_layer",
        "block_config": "depths",
        "bn_size": "expansion_ratio",
        "drop_rate": "dropout",
        "grad_checkpointing": "gradient_checkpointing",
        "inference_mode": "reparameterized",
        "layers": "depths",
        "memory_efficient": "gradient_checkpointing",
        "num_conv_branches": "branches",
        "pretrained": "weights",
        "proj_drop_rate": "layer_dropout",
        "stochastic_depth_prob": "drop_path_rate",
        "zero_init_last": "zero_init",
        "zero_init_residual": "zero_init",
    }.items()
} | {
    "device": ("norm_layer", "layer.to(device)"),
    "dtype": ("norm_layer", "layer.to(dtype)"),
    "features_only": ("num_classes", "lazytorch.models.get_model(name, features_only=True)"),
    "out_indices": ("num_classes", "lazytorch.models.get_model(name, features_only=True, out_indices=...)"),
    "use_se": ("se_layer", "se_layer=SqueezeExcitation"),
    "se_reduction_ratio": ("se_layer", "se_layer=functools.partial(SqueezeExcitation, reduction_ratio=...)"),
}
INPUT_CHANNELS = ("in_channels", "in_chans", "channels")


def rules_of(cls: type[nn.Module]) -> ValueRules:
    """The rules for the arguments of a class: its own, or those that all classes of torch.nn share."""
    return getattr(cls.__init__, "rules", of_torch if cls.__module__ in OF_TORCH else {})


def with_signature(
    cls: T,
    init: Callable[..., Any],
    signature: Signature,
    named: str,
    rules: ValueRules | None = None,
    inferred: Collection[str] = (),
    *,
    method: str = "__init__",
) -> T:
    """Give ``cls`` the constructor ``init`` with ``signature``, which checks its arguments.

    The signature is set on the constructor: a subclass with its own constructor would inherit it from the class.

    Args:
        cls: The class.
        init: Its constructor.
        signature: The signature of the constructor. Arguments that do not match it raise a ``TypeError``.
        named: The name of the class in these errors.
        rules: The rules for the values of arguments.
        inferred: Parameters that the signature omits because they are inferred from the first input.
        method: The name of the constructor: ``"__init__"`` or ``"__new__"``.
    """
    rules = rules or {}
    qualname = f"{named}.{method}"
    check: Callable[..., None] | None = None  # compiled in the first call, to keep imports fast

    @functools.wraps(init)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal check
        if check is None:
            check = checker(signature, qualname, rules)
        try:
            check(self, *args, **kwargs)
        except TypeError as error:
            if not str(error).startswith(qualname):
                raise
            raise TypeError(explained(error, signature, inferred)) from None
        return init(self, *args, **kwargs)

    constructor.__signature__ = readable(signature)  # pyright: ignore[reportAttributeAccessIssue]
    constructor.rules = rules  # pyright: ignore[reportAttributeAccessIssue]
    type.__setattr__(cls, method, constructor)
    return cls


def checker(signature: Signature, qualname: str, rules: ValueRules) -> Callable[..., None]:
    """Return a function with this signature that raises errors for wrong arguments and does nothing else.

    Args:
        signature: The signature; its first parameter is the owner of the arguments.
        qualname: The name of the function in Python's errors for arguments that do not match the signature.
        rules: The rules for values. Default values are not checked, nor is None if the annotation allows it.
    """
    # The source contains only names; default values and rules are passed in ``namespace``, annotations are dropped.
    namespace: dict[str, Any] = {}
    bare: list[Parameter] = []
    lines: list[str] = []
    owner, *_ = signature.parameters
    for name, parameter in signature.parameters.items():
        has_default = parameter.default is not Parameter.empty
        default = AsWritten(f"default_{name}") if has_default else Parameter.empty
        bare.append(Parameter(name, parameter.kind, default=default))
        namespace |= {f"default_{name}": parameter.default, f"rule_{name}": rules.get(name)}
        if name in rules:
            skipped = [f"default_{name}"] * has_default + ["None"] * (NoneType in get_args(parameter.annotation))
            given = f"if {' and '.join(f'{name} is not {each}' for each in skipped)}: " if skipped else ""
            lines.append(f"{given}rule_{name}({name!r}, {name}, {owner})")
    for index, (names, rule) in enumerate(rules.items()):
        if isinstance(names, tuple) and all(name in signature.parameters for name in names):
            namespace[f"together_{index}"] = rule
            lines.append(f"together_{index}({owner}, {', '.join(names)})")
    exec("\n    ".join([f"def check{Signature(bare)}:", *lines, "pass"]), namespace)  # noqa: S102 - as dataclasses do
    check = namespace["check"]
    check.__qualname__ = qualname
    return check


def explained(error: TypeError, signature: Signature, inferred: Collection[str] = ()) -> str:
    """The message of Python's error for arguments that do not match a signature, followed by a suggestion.

    Args:
        error: The error.
        signature: The signature.
        inferred: Parameters that the signature omits because they are inferred from the first input.
    """
    message = str(error).partition(". Did you mean")[0]  # Python 3.13 and later also suggest names
    positional = [name for name, each in signature.parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    if positional and re.search("takes .* positional argument|too many positional", message):
        return f"{message}. Pass the arguments after {positional[-1]!r} by name."
    unknown = re.search("unexpected keyword argument '(.+?)'", message)
    if unknown is None:
        return message
    name = unknown[1]
    if name in inferred:
        what = "Input channels are" if name in INPUT_CHANNELS else f"{name!r} is"
        return f"{message}. {what} inferred from the first input."
    ways = {each: way for each, (option, way) in ELSEWHERE.items() if option in signature.parameters}
    meant = name if name in ways else close_to(name, [*signature.parameters, *ways])
    return f"{message}. Did you mean {ways.get(meant, repr(meant))}?" if meant else message


def close_to(name: str, names: Iterable[str]) -> str | None:
    """The most similar of ``names``, or None if none is similar to ``name``."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1)), None)


class AsWritten(str):
    """A string whose ``repr`` is the string itself, without quotes."""

    __slots__ = ()

    __repr__ = str.__str__


class ReadableParameter(Parameter):
    """A parameter that shows its default value as in code, without memory addresses."""

    def __str__(self) -> str:
        return str(self.shown())

    def _format(self, **options: Any) -> str:
        """What ``Signature.format`` of Python 3.14 calls instead of ``str``."""
        return self.shown()._format(**options)  # pyright: ignore[reportAttributeAccessIssue]

    def shown(self) -> Parameter:
        default = self.default if self.default is Parameter.empty else AsWritten(show(self.default))
        return Parameter(self.name, self.kind, default=default, annotation=self.annotation)


def readable(signature: Signature) -> Signature:
    """``signature``, with parameters that are readable."""
    parameters = [
        ReadableParameter(each.name, each.kind, default=each.default, annotation=each.annotation)
        for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)
