"""The bases of the convolutional layers, which infer channels and the number of spatial dimensions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Protocol

from torch import nn

from lazytorch._init.initialize import skip_init
from lazytorch._lazy.inputs import require_input
from lazytorch.errors import ShapeInferenceError
from lazytorch.layers.checks import positive
from lazytorch.lazify import first_tensor
from lazytorch.lazy_module import LazyModule, describe, target_class

P = ParamSpec("P")

if TYPE_CHECKING:

    class Expanding(Protocol[P]):
        """Type of a constructor with ``expansion_ratio`` in place of the channels."""

        def __call__(self, expansion_ratio: float, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> "Expanding[P]": ...

    class Reducing(Protocol[P]):
        """Type of a constructor with ``reduction_ratio`` in place of the channels."""

        def __call__(self, reduction_ratio: float, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> "Reducing[P]": ...


class LazyConvInChannelModule(LazyModule):
    """Base of lazy layers that infer the input channels, and the number of spatial dimensions, from (N, C, *spatial).

    The target is the other base class of the lazy class. The first parameter of its constructor is the number of input
    channels; another one is ``spatial_dims``.
    """

    spatial_dims: ClassVar[int | None] = None

    def get_initialized_module(
        self, inputs: tuple[Any, ...], module_args: tuple[Any, ...], module_kwargs: dict[str, Any]
    ) -> nn.Module:
        tensor, shown = first_tensor(self, inputs), describe(inputs)
        given_dims = module_kwargs.pop("spatial_dims", None)
        require_input(type(self).__name__, tensor.shape, self.spatial_dims or given_dims)
        if tensor.size(1) == 0:
            raise ShapeInferenceError(
                f"{type(self).__name__}: the input must have at least one channel, got 0 (input {shown})."
            )
        leading = self.leading_arguments(tensor.size(1), module_kwargs, shown)
        return self.build(tensor.dim() - 2, *leading, *module_args, **module_kwargs)

    def build(self, spatial_dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        """Construct the target for ``spatial_dims`` dimensions."""
        target = target_class(type(self))
        if target is None:
            raise TypeError(f"{type(self).__name__} must inherit the module class that it builds, or override build.")
        if self.spatial_dims is None:
            kwargs["spatial_dims"] = spatial_dims
        return skip_init(target)(*args, **kwargs)

    def leading_arguments(self, in_channels: int, module_kwargs: dict[str, Any], shown: str) -> tuple[Any, ...]:
        """The target's first arguments. Entries of ``module_kwargs`` that only they depend on are removed."""
        return (in_channels,)


class LazyConvExpansionModule(LazyConvInChannelModule):
    """Base of lazy layers with ``expansion_ratio`` times as many output channels as input channels.

    Args:
        expansion_ratio: Ratio of output channels to input channels.
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


def with_expansion_ratio(
    init: Callable[Concatenate[Any, Any, Any, P], None], /
) -> "Callable[[Callable[..., None]], Expanding[P]]":
    """As ``without_first``, with ``expansion_ratio`` in place of the input and output channels."""
    constructor: Any = LazyConvExpansionModule.__init__
    return lambda declared: constructor


class LazyConvReductionModule(LazyConvInChannelModule):
    """Base of lazy layers with ``reduction_ratio`` times fewer output channels than input channels.

    Args:
        reduction_ratio: Ratio of input channels to output channels.
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


def with_reduction_ratio(
    init: Callable[Concatenate[Any, Any, Any, P], None], /
) -> "Callable[[Callable[..., None]], Reducing[P]]":
    """As ``without_first``, with ``reduction_ratio`` in place of the input and output channels."""
    constructor: Any = LazyConvReductionModule.__init__
    return lambda declared: constructor


class LazyConv2dInChannelModule(LazyConvInChannelModule):
    """``LazyConvInChannelModule`` for 2-D inputs (N, C, H, W) only; the target needs no ``spatial_dims``.

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
    """``LazyConvExpansionModule`` for 2-D inputs (N, C, H, W) only; the target needs no ``spatial_dims``.

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
    """``LazyConvReductionModule`` for 2-D inputs (N, C, H, W) only; the target needs no ``spatial_dims``.

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
