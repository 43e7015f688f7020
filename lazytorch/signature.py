"""create_lazy_signature: give a lazy class the signature of its target without the inferred parameters."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from typing import Any, Concatenate, ParamSpec, TypeVar, get_overloads

from torch import nn

from lazytorch.arguments import close_to, rules_of, with_signature
from lazytorch.lazy_module import LazyModule, target_class

__all__ = ["create_lazy_signature", "without_first"]

P = ParamSpec("P")
T = TypeVar("T", bound=type[nn.Module])
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def without_first(
    init: Callable[Concatenate[Any, Any, P], None], /
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Decorator: replace a constructor by that of ``LazyModule``, which accepts any arguments.

    Type checkers read it as ``init`` without its first parameter. At run time, ``create_lazy_signature`` gives it that
    signature.
    """
    constructor: Any = LazyModule.__init__
    return lambda declared: constructor


def create_lazy_signature(
    exclude: Iterable[str] = (), *, optional: Iterable[str] = (), target: type[nn.Module] | None = None
) -> Callable[[T], T]:
    """Give a lazy class the signature of its target, and check constructor arguments against it.

    ``inspect.signature``, ``help()`` and Jupyter then show the target's parameters, with their annotations and
    defaults. The constructor of the lazy module raises the target's ``TypeError`` for wrong arguments. If the target is
    a layer of lazytorch or torch.nn, it also raises an error for wrong values.
    The parameters of the lazy class's own ``__init__`` come first.

    Args:
        exclude: Names of the target's parameters that are inferred and therefore omitted.
        optional: Names of parameters that are inferred if they are not given; their default is None.
        target: The class that will be built; by default the base of the lazy class that is not itself lazy.

    Raises:
        TypeError: If the target has no parameter of a name in ``exclude``, or no target can be found.

    Example:
        >>> import inspect
        >>> from torch import nn
        >>> from lazytorch import LazyModule, create_lazy_signature
        >>> @create_lazy_signature(exclude=["in_features"])
        ... class LazyLinear(LazyModule, nn.Linear):
        ...     def get_initialized_module(self, inputs, module_args, module_kwargs):
        ...         return nn.Linear(inputs[0].size(-1), *module_args, **module_kwargs)
        >>> str(inspect.signature(LazyLinear)).startswith("(out_features: int, bias: bool = True")
        True
        >>> LazyLinear(8, biass=False)
        Traceback (most recent call last):
        ...
        TypeError: Linear.__init__() got an unexpected keyword argument 'biass'. Did you mean 'bias'?
    """
    if isinstance(exclude, type):
        raise TypeError(
            f"create_lazy_signature: exclude must be names of parameters, got {exclude!r}. "
            "Write @create_lazy_signature(exclude=[...])."
        )
    excluded = [exclude] if isinstance(exclude, str) else list(exclude)

    def decorate(cls: T) -> T:
        built_class = target or target_class(cls)
        if built_class is None:
            raise TypeError(
                f"{cls.__name__}: a lazy class must have a module class to build among its bases, got none. "
                "Pass target= to create_lazy_signature."
            )
        init = inspect.unwrap(cls.__init__)
        signature = lazy_signature(init, built_class, excluded, optional)
        rules = rules_of(built_class)
        with_signature(cls, init, signature, built_class.__qualname__, rules, [*excluded, *optional])
        cls.__init__.inferred = (*excluded, *optional)  # pyright: ignore[reportFunctionMemberAccess]
        cls.__doc__ = with_sections_of(cls.__doc__ or "", built_class.__doc__ or "", excluded, optional)
        return cls

    return decorate


def lazy_signature(
    init: Callable[..., None], built_class: type[nn.Module], excluded: Iterable[str], optional: Iterable[str] = ()
) -> Signature:
    """``self``, the other parameters of ``init``, then the parameters of ``built_class`` that are not inferred."""
    this, *own = inspect.signature(init).parameters.values()
    of_target = dict(constructor_signature(built_class).parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in of_target.values())
    unknown = [name for name in excluded if name not in of_target and not takes_any]
    if unknown:
        close = close_to(unknown[0], of_target)
        meant = f" Did you mean {close!r}?" if close else ""
        raise TypeError(
            f"{built_class.__name__} takes {', '.join(of_target)}; it has no parameter {unknown[0]!r} to infer.{meant}"
        )
    for name in optional:
        parameter = of_target.get(name) or Parameter(name, Parameter.KEYWORD_ONLY, annotation=int)
        of_target[name] = parameter.replace(default=None, annotation=parameter.annotation | None)
    return Signature(
        [
            this.replace(kind=Parameter.POSITIONAL_ONLY),
            *(parameter for parameter in own if parameter.kind not in VARIADIC),
            *(parameter for name, parameter in of_target.items() if name not in set(excluded)),
        ]
    )


def constructor_signature(module_cls: type[nn.Module]) -> Signature:
    """``inspect.signature``; the first overload if the constructor takes only ``*args, **kwargs``, as ``nn.LSTM``'s."""
    signature = inspect.signature(module_cls)
    overloads = get_overloads(module_cls.__init__)
    if overloads and all(each.kind in VARIADIC for each in signature.parameters.values()):
        return inspect.signature(functools.partial(overloads[0], None))
    return signature


def with_sections_of(doc: str, target_doc: str, excluded: Iterable[str], optional: Iterable[str] = ()) -> str:
    """``doc``, with missing sections (Args, Shape, Raises, Source) copied from the target's docstring."""
    own, of_target = sections(doc), sections(target_doc)
    entries = re.split(r"\n(?=    \w)", of_target.get("Args", ""))
    inferred = tuple(f"    {name}{after}" for name in excluded for after in (":", " "))
    given = tuple(f"    {name}:" for name in optional)
    entries = [each + " By default inferred from the first input." * each.startswith(given) for each in entries]
    of_target["Args"] = "\n".join(each for each in entries if not each.startswith(inferred))
    merged = {"": own[""]}
    for name in ("Args", "Shape", "Raises", "Source"):
        merged[name] = own.get(name) or of_target.get(name, "")
    merged |= {name: text for name, text in own.items() if name not in merged}
    return "\n\n".join(f"{name}:\n{text}" if name else text for name, text in merged.items() if text)


def sections(doc: str) -> dict[str, str]:
    """The sections of a Google-style docstring by heading; the text before the first heading is under ``""``."""
    head, *rest = re.split(
        r"^(Args|Shape|Returns|Raises|Source|Example|Examples|Note|Attributes):+ *$", inspect.cleandoc(doc), flags=re.M
    )
    return {"": head.rstrip()} | {
        name: text.strip("\n").rstrip() for name, text in zip(rest[::2], rest[1::2], strict=True)
    }
