"""Convert eager classes to lazy ones and back, because options accept both."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from lazytorch.layers.rank import LazyAdaptiveAvgPool, LazyAdaptiveMaxPool, LazyAvgPool, LazyMaxPool, sibling
from lazytorch.lazify import lazify
from lazytorch.lazy_module import LazyModule, target_class

POOLS = {each.layer: each for each in (LazyAdaptiveAvgPool, LazyAdaptiveMaxPool, LazyAvgPool, LazyMaxPool)}


def spatial_dims(inputs: tuple[Any, ...]) -> int:
    return inputs[0].dim() - 2


def lazy_twin(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The lazy version of an eager class or a ``functools.partial`` of one; other callables are not changed.

    Args:
        layer: A class of ``lazytorch.layers``, a pooling of torch.nn, a class whose constructor takes ``in_channels``,
            or any other callable.

    Example:
        >>> from lazytorch.layers import BottleneckBlock
        >>> from lazytorch.layers.twins import lazy_twin
        >>> lazy_twin(BottleneckBlock).__name__
        'LazyBottleneckBlock'
    """
    if isinstance(layer, functools.partial):
        return functools.partial(lazy_twin(layer.func), *layer.args, **layer.keywords)
    if not isinstance(layer, type) or not issubclass(layer, nn.Module) or issubclass(layer, LazyModuleMixin):
        return layer
    found = POOLS.get(sibling(layer, 2)) or vars(importlib.import_module(layer.__module__)).get(f"Lazy{layer.__name__}")
    if found is not None and issubclass(found, LazyModule):
        return found
    parameters = inspect.signature(layer).parameters
    if "in_channels" not in parameters:
        return layer
    inferred: dict[str, Any] = {"in_channels": 1}
    if "spatial_dims" in parameters:
        inferred["spatial_dims"] = spatial_dims
    return lazify(layer, **inferred)


def eager_twin(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The class that a lazy class or a ``functools.partial`` of one builds; other callables are not changed.

    Args:
        layer: A lazy class such as ``LazySqueezeExcitation``, or any other callable.

    Example:
        >>> from lazytorch.layers import LazySqueezeExcitation
        >>> from lazytorch.layers.twins import eager_twin
        >>> eager_twin(LazySqueezeExcitation).__name__
        'SqueezeExcitation'
    """
    if isinstance(layer, functools.partial):
        eager = eager_twin(layer.func)
        if eager is layer.func:
            return layer
        # By keyword: the inferred parameters come first in the eager class.
        given = inspect.signature(layer.func).bind_partial(*layer.args, **layer.keywords).arguments
        return functools.partial(eager, **given)
    if isinstance(layer, type) and issubclass(layer, LazyModule):
        return target_class(layer) or layer
    return layer
