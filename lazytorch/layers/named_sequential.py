"""NamedSequential: nn.Sequential with named modules."""

from collections import OrderedDict
from typing import Any

from torch import nn


class NamedSequential(nn.Sequential):
    """An ``nn.Sequential`` whose modules have names.

    A slice is a ``NamedSequential`` of the same modules. ``del`` does not change the names of other modules.

    Args:
        modules: The modules by name, in order.

    Raises:
        TypeError: If a part is not a module.

    Example:
        >>> from torch import nn
        >>> from lazytorch import NamedSequential
        >>> head = NamedSequential(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Linear(8, 2))
        >>> head.pool
        AdaptiveAvgPool2d(output_size=1)
        >>> head[:2]
        NamedSequential(
          (pool): AdaptiveAvgPool2d(output_size=1)
          (flatten): Flatten(start_dim=1, end_dim=-1)
        )
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__(OrderedDict(modules))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return NamedSequential(**dict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def insert(self, index: int, module: nn.Module) -> "NamedSequential":
        """Raise an error, because nn.Sequential would use the index as the name of the module."""
        raise TypeError(
            f"{type(self).__name__}.insert: a part needs a name, got none. Build a NamedSequential of the parts."
        )

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)[index]
        for name in [names] if isinstance(names, str) else names:
            delattr(self, name)
