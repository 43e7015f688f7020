"""Layers for signals, images and volumes: the first input determines the 1-D, 2-D or 3-D class of torch.nn."""

import functools
import importlib
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import nn

from lazytorch._init.initialize import known_code, skip_init
from lazytorch.arguments import rules_of, with_signature
from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.rules import RULES
from lazytorch.signature import create_lazy_signature, with_sections_of

T = TypeVar("T", bound=type[nn.Module])


def of_rank(layer: Callable[..., nn.Module], spatial_dims: int) -> Callable[..., nn.Module]:
    """The version of a class such as ``nn.Conv2d`` for ``spatial_dims`` dimensions; other callables are not changed.

    The versions of a class are defined in one Python module, and their names differ only in the number of dimensions.

    Args:
        layer: A class such as ``nn.BatchNorm2d``, a ``functools.partial`` of one, or any other callable.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Raises:
        ValueError: If ``spatial_dims`` is not 1, 2 or 3.

    Example:
        >>> from torch import nn
        >>> from lazytorch.layers import of_rank
        >>> of_rank(nn.BatchNorm2d, 3).__name__
        'BatchNorm3d'
        >>> of_rank(nn.GroupNorm, 3).__name__
        'GroupNorm'
    """
    RULES["spatial_dims"]("spatial_dims", spatial_dims, "of_rank")
    if isinstance(layer, functools.partial):
        return functools.partial(of_rank(layer.func, spatial_dims), *layer.args, **layer.keywords)
    return skip_init(sibling(layer, spatial_dims)) if isinstance(layer, type) else layer


@functools.cache
def sibling(layer: type[nn.Module], spatial_dims: int) -> type[nn.Module]:
    """The version of ``layer`` that is defined in the same module for ``spatial_dims``; ``layer`` if there is none."""
    if not re.search("[123]d$", layer.__name__):
        return layer
    defined = vars(importlib.import_module(layer.__module__))
    found = defined.get(f"{layer.__name__[:-2]}{spatial_dims}d")
    return found if isinstance(found, type) and defined.get(layer.__name__) is layer else layer


def two_dimensional(cls: T) -> T:
    """Set ``spatial_dims`` of a layer to 2, and remove it from the constructor's signature."""
    signature = inspect.signature(cls.__init__)
    kept = [each for name, each in signature.parameters.items() if name != "spatial_dims"]
    cls.__doc__ = with_sections_of(cls.__doc__ or "", cls.__base__.__doc__ or "", ["spatial_dims"])
    init, rules = inspect.unwrap(cls.__init__), rules_of(cls)
    return with_signature(cls, init, signature.replace(parameters=kept), cls.__qualname__, rules)


class _LazyOfRank(LazyConvInChannelModule):
    """Base of lazy layers of torch.nn for which the number of spatial dimensions determines only the class.

    The class statement has the 2-D class: ``class LazyAvgPool(_LazyOfRank, layer=nn.AvgPool2d)``.
    """

    layer: ClassVar[type[nn.Module]]

    has_state = False

    def __init_subclass__(cls, layer: type[nn.Module] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if layer is not None:
            cls.layer = layer
            create_lazy_signature(optional=["spatial_dims"], target=layer)(cls)

    def build(self, spatial_dims: int, in_channels: int, *args: Any, **kwargs: Any) -> nn.Module:
        return of_rank(self.layer, spatial_dims)(*args, **kwargs)


class LazyAdaptiveAvgPool(_LazyOfRank, layer=nn.AdaptiveAvgPool2d):
    """``nn.AdaptiveAvgPool1d``, ``2d`` or ``3d``, depending on the spatial dimensions of the first input.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, C, *output_size)``

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyAdaptiveAvgPool
        >>> LazyAdaptiveAvgPool(1)(torch.zeros(2, 3, 8, 8, 8)).shape
        torch.Size([2, 3, 1, 1, 1])
    """

    if TYPE_CHECKING:

        def __init__(
            self, output_size: int | tuple[int | None, ...] | None, *, spatial_dims: int | None = None
        ) -> None: ...


class LazyAdaptiveMaxPool(_LazyOfRank, layer=nn.AdaptiveMaxPool2d):
    """``nn.AdaptiveMaxPool1d``, ``2d`` or ``3d``, depending on the spatial dimensions of the first input.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, C, *output_size)``

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyAdaptiveMaxPool
        >>> LazyAdaptiveMaxPool(1)(torch.zeros(2, 3, 8, 8, 8)).shape
        torch.Size([2, 3, 1, 1, 1])
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            output_size: int | tuple[int | None, ...] | None,
            return_indices: bool = False,
            *,
            spatial_dims: int | None = None,
        ) -> None: ...


class LazyAvgPool(_LazyOfRank, layer=nn.AvgPool2d):
    """``nn.AvgPool1d``, ``2d`` or ``3d``, depending on the spatial dimensions of the first input.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, C, *floor((spatial + 2 * padding - kernel_size) / stride + 1))``

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyAvgPool
        >>> LazyAvgPool(2)(torch.zeros(2, 3, 8, 8, 8)).shape
        torch.Size([2, 3, 4, 4, 4])
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            kernel_size: int | tuple[int, ...],
            stride: int | tuple[int, ...] | None = None,
            padding: int | tuple[int, ...] = 0,
            ceil_mode: bool = False,
            count_include_pad: bool = True,
            divisor_override: int | None = None,
            *,
            spatial_dims: int | None = None,
        ) -> None: ...


class LazyMaxPool(_LazyOfRank, layer=nn.MaxPool2d):
    """``nn.MaxPool1d``, ``2d`` or ``3d``, depending on the spatial dimensions of the first input.

    Shape:
        - Input: ``(N, C, *spatial)``
        - Output: ``(N, C, *floor((spatial + 2 * padding - kernel_size) / stride + 1))``

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyMaxPool
        >>> LazyMaxPool(3, stride=2, padding=1)(torch.zeros(2, 3, 8, 8, 8)).shape
        torch.Size([2, 3, 4, 4, 4])
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            kernel_size: int | tuple[int, ...],
            stride: int | tuple[int, ...] | None = None,
            padding: int | tuple[int, ...] = 0,
            dilation: int | tuple[int, ...] = 1,
            return_indices: bool = False,
            ceil_mode: bool = False,
            *,
            spatial_dims: int | None = None,
        ) -> None: ...


@known_code
class LazyZeroPad(_LazyOfRank, layer=nn.ZeroPad2d):
    """``nn.ZeroPad1d``, ``2d`` or ``3d``, as the first input requires; not public, because negative padding crops."""
