"""lazify: a lazy class in one line; and the bases of the convolutional layers, which infer channels and rank."""

import inspect
import sys
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from lazytorch.drawing import undrawn
from lazytorch.errors import ShapeInferenceError
from lazytorch.lazy_module import LazyModule, describe, target_class
from lazytorch.signature import constructor_signature, create_lazy_signature

__all__ = [
    "LazyConv2dExpansionModule",
    "LazyConv2dInChannelModule",
    "LazyConv2dReductionModule",
    "LazyConvExpansionModule",
    "LazyConvInChannelModule",
    "LazyConvReductionModule",
    "lazify",
]

Rule = int | Callable[[tuple[Any, ...]], Any]


def lazify(module_cls: type[nn.Module], /, **inferred: Rule) -> type[LazyModule]:
    """Make a lazy class from any module class.

    Args:
        module_cls: The class to build.
        inferred: For each constructor parameter to infer, a dimension of the first input, or a function of the
            tuple of inputs.

    Returns:
        A class named ``Lazy...`` with the signature of ``module_cls`` less the inferred parameters.

    Raises:
        TypeError: If the constructor has no parameter of that name, or a rule is neither a dimension nor a function.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lazytorch import lazify
        >>> LazyLinear = lazify(nn.Linear, in_features=-1)
        >>> LazyLinear(10)
        LazyLinear(in_features=?, out_features=10)
        >>> LazyLinear(10)(torch.zeros(2, 3)).shape
        torch.Size([2, 10])
    """
    if not isinstance(module_cls, type) or not issubclass(module_cls, nn.Module):
        raise TypeError(f"lazify: what is made lazy must be a module class, got {module_cls!r}.")
    if issubclass(module_cls, LazyModuleMixin):
        raise TypeError(f"lazify: what is made lazy must not be lazy already, got {module_cls.__name__}.")
    if not inferred:
        raise TypeError(f"lazify({module_cls.__name__}): at least one parameter must be inferred, got none.")
    for name, rule in inferred.items():
        if isinstance(rule, bool) or not (isinstance(rule, int) or callable(rule)):
            raise TypeError(
                f"lazify({module_cls.__name__}): {name} must be inferred by a dimension or a function, got {rule!r}."
            )
    lazy_class = type(
        f"Lazy{module_cls.__name__}",
        (_Lazified, module_cls),
        {
            "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
            "__doc__": f"{module_cls.__name__} that infers {', '.join(inferred)} from its first input.",
            "_target": module_cls,
            "_rules": inferred,
        },
    )
    return create_lazy_signature(exclude=inferred)(lazy_class)


class _Lazified(LazyModule):
    _target: ClassVar[type[nn.Module]]
    _rules: ClassVar[Mapping[str, Rule]]

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        known = {name: self._infer(name, rule, inputs) for name, rule in self._rules.items()}
        # The arguments given are those of the signature without the inferred parameters: name them all.
        bound = inspect.signature(type(self)).bind(*module_args, **module_kwargs)
        positional: list[Any] = []
        keyword = dict(known)
        of_target = constructor_signature(self._target).parameters
        rest = [name for name, parameter in of_target.items() if parameter.kind is parameter.VAR_POSITIONAL]
        before_rest = bool(rest) and bool(bound.arguments.get(rest[0]))
        for name, parameter in of_target.items():
            values = known if name in known else bound.arguments
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional.extend(values.get(name, ()))
                before_rest = False
            elif parameter.kind is parameter.VAR_KEYWORD:
                keyword.update(values.get(name, {}))
            elif name in values and (before_rest or parameter.kind is parameter.POSITIONAL_ONLY):
                positional.append(values[name])
                keyword.pop(name, None)
            elif name in values:
                keyword[name] = values[name]
        return undrawn(self._target)(*positional, **keyword)

    def _infer(self, name: str, rule: Rule, inputs: tuple[Any, ...]) -> Any:
        if not isinstance(rule, int):
            return rule(inputs)
        tensor = first_tensor(self, inputs)
        if not -tensor.dim() <= rule < tensor.dim():
            raise ShapeInferenceError(
                f"{type(self).__name__}: {name} is dimension {rule} of the input, which has {tensor.dim()} dimensions "
                f"(input {describe(inputs)})."
            )
        return tensor.size(rule)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class made by lazify need not be found by its name: make it again.
        found = getattr(sys.modules.get(type(self).__module__), type(self).__name__, None)
        if found is type(self):
            return super().__reduce_ex__(protocol)
        return _remade, (self._target, dict(self._rules)), self.__getstate__()


def _remade(module_cls: type[nn.Module], rules: dict[str, Rule]) -> LazyModule:
    lazy_class = lazify(module_cls, **rules)
    return lazy_class.__new__(lazy_class)


def first_tensor(module: LazyModule, inputs: tuple[Any, ...]) -> Tensor:
    """The first input, which must be a tensor."""
    if not inputs or not isinstance(inputs[0], Tensor):
        got = f"{type(inputs[0]).__name__} as its first input" if inputs else "no input"
        raise ShapeInferenceError(f"{type(module).__name__}: shapes are inferred from a tensor, got {got}.")
    return inputs[0]


class LazyConvInChannelModule(LazyModule):
    """Base of lazy layers that infer the input channels, and the number of spatial dimensions, from (N, C, *spatial).

    The target is the other base class of the lazy class; its constructor takes the input channels first, and
    ``spatial_dims``.
    """

    spatial_dims: ClassVar[int | None] = None

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        channels, spatial_dims = self.channels_and_rank(inputs)
        leading = self.leading_arguments(channels, module_kwargs, describe(inputs))
        return self.build(spatial_dims, *leading, *module_args, **module_kwargs)

    def build(self, spatial_dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        """Construct the target for ``spatial_dims`` dimensions."""
        target = target_class(type(self))
        if target is None:
            raise TypeError(f"{type(self).__name__} must inherit the module class that it builds, or override build.")
        if self.spatial_dims is None:
            kwargs["spatial_dims"] = spatial_dims
        return undrawn(target)(*args, **kwargs)

    def channels_and_rank(self, inputs: tuple[Any, ...]) -> tuple[int, int]:
        """Input channels and number of spatial dimensions of the first input."""
        tensor = first_tensor(self, inputs)
        allowed = (1, 2, 3) if self.spatial_dims is None else (self.spatial_dims,)
        if tensor.dim() - 2 not in allowed:
            names = ["length", "height, width", "depth, height, width"]
            shapes = " or ".join(f"(batch, channels, {names[dims - 1]})" for dims in allowed)
            raise ShapeInferenceError(
                f"{type(self).__name__}: the input must be {shapes}, got {tensor.dim()} dimensions "
                f"(input {describe(inputs)})."
            )
        if tensor.size(1) == 0:
            raise ShapeInferenceError(
                f"{type(self).__name__}: the input must have at least one channel, got 0 (input {describe(inputs)})."
            )
        return tensor.size(1), tensor.dim() - 2

    def leading_arguments(self, in_channels: int, module_kwargs: dict[str, Any], shown: str) -> tuple[Any, ...]:
        """The target's first arguments; what was only needed for them is taken out of ``module_kwargs``."""
        return (in_channels,)


class LazyConvExpansionModule(LazyConvInChannelModule):
    """Base of lazy layers with ``expansion_ratio`` times as many output channels as input channels.

    Args:
        expansion_ratio: Output channels over input channels.
    """

    def __init__(self, expansion_ratio: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, expansion_ratio=positive("expansion_ratio", expansion_ratio, self), **kwargs)

    def leading_arguments(self, in_channels: int, module_kwargs: dict[str, Any], shown: str) -> tuple[Any, ...]:
        ratio = module_kwargs.pop("expansion_ratio")
        if in_channels * ratio % 1:
            raise ShapeInferenceError(
                f"{type(self).__name__}: the input channels times expansion_ratio={ratio} must be a whole number, "
                f"got {in_channels} (input {shown})."
            )
        return in_channels, int(in_channels * ratio)


class LazyConvReductionModule(LazyConvInChannelModule):
    """Base of lazy layers with ``reduction_ratio`` times fewer output channels than input channels.

    Args:
        reduction_ratio: Input channels over output channels.
    """

    def __init__(self, reduction_ratio: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, reduction_ratio=positive("reduction_ratio", reduction_ratio, self), **kwargs)

    def leading_arguments(self, in_channels: int, module_kwargs: dict[str, Any], shown: str) -> tuple[Any, ...]:
        ratio = module_kwargs.pop("reduction_ratio")
        if in_channels % ratio:
            raise ShapeInferenceError(
                f"{type(self).__name__}: the input channels must be a multiple of reduction_ratio={ratio}, "
                f"got {in_channels} (input {shown})."
            )
        return in_channels, int(in_channels // ratio)


class LazyConv2dInChannelModule(LazyConvInChannelModule):
    """``LazyConvInChannelModule`` of 2-D inputs (N, C, H, W) alone; the target needs no ``spatial_dims``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lazytorch import LazyConv2dInChannelModule
        >>> class LazyTransposed(LazyConv2dInChannelModule, nn.ConvTranspose2d):
        ...     pass
        >>> LazyTransposed(4, kernel_size=2, stride=2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 4, 16, 16])
    """

    spatial_dims = 2


class LazyConv2dExpansionModule(LazyConvExpansionModule):
    """``LazyConvExpansionModule`` of 2-D inputs (N, C, H, W) alone; the target needs no ``spatial_dims``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lazytorch import LazyConv2dExpansionModule
        >>> class LazyWidening(LazyConv2dExpansionModule, nn.ConvTranspose2d):
        ...     pass
        >>> LazyWidening(2, kernel_size=2, stride=2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 6, 16, 16])
    """

    spatial_dims = 2


class LazyConv2dReductionModule(LazyConvReductionModule):
    """``LazyConvReductionModule`` of 2-D inputs (N, C, H, W) alone; the target needs no ``spatial_dims``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lazytorch import LazyConv2dReductionModule
        >>> class LazyUpsampling(LazyConv2dReductionModule, nn.ConvTranspose2d):
        ...     pass
        >>> LazyUpsampling(2, kernel_size=2, stride=2)(torch.zeros(1, 6, 8, 8)).shape
        torch.Size([1, 3, 16, 16])
    """

    spatial_dims = 2


T = TypeVar("T", int, float)


def positive(name: str, value: T, owner: object, kind: type = Real) -> T:
    """``value``, which must be a positive number."""
    if type(value) is int and value > 0:
        return value
    if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
        what = "a positive whole number" if kind is Integral else "positive"
        raise ValueError(f"{type(owner).__name__.removeprefix('Lazy')}: {name} must be {what}, got {value!r}.")
    return value


def whole(name: str, value: int, owner: object) -> int:
    """``value``, which must be a whole number of at least 0: padding, classes."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{type(owner).__name__}: {name} must be a whole number of at least 0, got {value!r}.")
    return value


def positive_whole(name: str, value: int, owner: object) -> int:
    """``value``, which must be a positive whole number: channels, pixels."""
    return positive(name, value, owner, Integral)
