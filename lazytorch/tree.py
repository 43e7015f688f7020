"""All modules of a model."""

from torch import nn

__all__ = ["modules_of"]


def modules_of(module: nn.Module) -> list[nn.Module]:
    """``module.modules()`` many times faster, in another order."""
    found, left = {module: None}, [module]
    while left:
        for part in left.pop()._modules.values():
            if part is not None and part not in found:
                found[part] = None
                left.append(part)
    return list(found)
