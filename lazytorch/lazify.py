"""lazify: make a lazy class from any module class."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, overload

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from lazytorch._init.initialize import known, skip_init
from lazytorch.errors import ShapeInferenceError
from lazytorch.lazy_module import LazyModule, describe, target_class
from lazytorch.signature import constructor_signature, create_lazy_signature

__all__ = ["first_tensor", "lazify"]

P = ParamSpec("P")
T = TypeVar("T", bound=nn.Module)
T_co = TypeVar("T_co", bound=nn.Module, covariant=True)
Rule = int | Callable[[tuple[Any, ...]], Any]

if TYPE_CHECKING:

    class LazyClass(type, Generic[P, T]):
        """Type of a lazy class, with its constructor's parameters and the class that it builds."""

        def __call__(cls, *args: P.args, **kwargs: P.kwargs) -> T: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    # Classes by the name of the first parameter of their constructor, as it is in torch.nn and most other libraries.
    class OfInChannels(Protocol[P, T_co]):
        def __call__(self, in_channels: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfInFeatures(Protocol[P, T_co]):
        def __call__(self, in_features: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfNumFeatures(Protocol[P, T_co]):
        def __call__(self, num_features: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfChannels(Protocol[P, T_co]):
        def __call__(self, channels: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfInputSize(Protocol[P, T_co]):
        def __call__(self, input_size: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfEmbedDim(Protocol[P, T_co]):
        def __call__(self, embed_dim: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

    class OfDim(Protocol[P, T_co]):
        def __call__(self, dim: Any, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


@overload
def lazify(module_cls: "OfInChannels[P, T]", /, *, in_channels: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfInFeatures[P, T]", /, *, in_features: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfNumFeatures[P, T]", /, *, num_features: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfChannels[P, T]", /, *, channels: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfInputSize[P, T]", /, *, input_size: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfEmbedDim[P, T]", /, *, embed_dim: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: "OfDim[P, T]", /, *, dim: Rule) -> "LazyClass[P, T]": ...
@overload
def lazify(module_cls: Callable[..., T], /, **inferred: Rule) -> "LazyClass[..., T]": ...
def lazify(module_cls: Any, /, **inferred: Any) -> Any:
    """Make a lazy class from any module class.

    Args:
        module_cls: The class that the lazy class builds.
        inferred: For each constructor parameter to infer: the dimension of the first input that has its size, or a
            function that computes it from the tuple of inputs.

    Returns:
        A class named ``Lazy...`` with the signature of ``module_cls`` without the inferred parameters.

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
        raise TypeError(f"lazify: module_cls must be a module class, got {module_cls!r}.")
    if issubclass(module_cls, LazyModuleMixin):
        raise TypeError(f"lazify: module_cls must not be lazy already, got {module_cls.__name__}.")
    if not inferred:
        raise TypeError(f"lazify({module_cls.__name__}): at least one parameter must be inferred, got none.")
    for name, rule in inferred.items():
        if isinstance(rule, bool) or not (isinstance(rule, int) or callable(rule)):
            raise TypeError(
                f"lazify({module_cls.__name__}): {name} must be inferred by a dimension or a function, got {rule!r}."
            )
    lazy_class = type(
        f"Lazy{module_cls.__name__}",
        (Lazified, module_cls),
        {
            "__module__": module_cls.__module__,
            "__doc__": f"{module_cls.__name__} that infers {', '.join(inferred)} from its first input.",
        },
        inferred=inferred,
    )
    if module_cls in known and all(isinstance(rule, int) for rule in inferred.values()):
        known.add(lazy_class)
    lazy_class = create_lazy_signature(exclude=inferred)(lazy_class)
    return _made.setdefault((module_cls, tuple(inferred.items())), lazy_class)


# The classes that ``lazify`` made, by its arguments: equal arguments return the same class, which pickles as them.
_made: dict[tuple[type[nn.Module] | None, tuple[tuple[str, Rule], ...]], type[LazyModule]] = {}


class Lazified(LazyModule):
    """Base of lazy classes that infer each parameter from a dimension of the first input, or by a function.

    The class statement has the rules: ``class LazyLinear(Lazified, nn.Linear, inferred={"in_features": -1})``.
    """

    _rules: ClassVar[Mapping[str, Rule]]

    def __init_subclass__(cls, inferred: Mapping[str, Rule] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inferred is not None:
            cls._rules = inferred

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        target = target_class(type(self))
        assert target is not None
        # Positions refer to the signature without inferred parameters, so all arguments are bound by name.
        given = inspect.signature(type(self)).bind(*module_args, **module_kwargs).arguments
        inferred = {name: self._infer(name, rule, inputs) for name, rule in self._rules.items()}
        signature = constructor_signature(target)
        call = inspect.BoundArguments(signature, OrderedDict(given | inferred))
        more = {name: value for name, value in inferred.items() if name not in signature.parameters}
        return skip_init(target)(*call.args, **more | call.kwargs)

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
        target = target_class(type(self))
        if _made.get((target, tuple(self._rules.items()))) is not type(self):  # from a class statement: pickled by name
            return super().__reduce_ex__(protocol)
        return _constructed, (target, dict(self._rules)), self.__getstate__()


def _constructed(module_cls: type[nn.Module], rules: dict[str, Rule]) -> LazyModule:
    lazy_class: type[LazyModule] = lazify(module_cls, **rules)  # pyright: ignore[reportAssignmentType]
    return lazy_class.__new__(lazy_class)


def first_tensor(module: LazyModule, inputs: tuple[Any, ...]) -> Tensor:
    """The first input, which must be a tensor."""
    if not inputs or not isinstance(inputs[0], Tensor):
        got = f"{type(inputs[0]).__name__} as its first input" if inputs else "no input"
        raise ShapeInferenceError(f"{type(module).__name__}: shapes are inferred from a tensor, got {got}.")
    return inputs[0]
