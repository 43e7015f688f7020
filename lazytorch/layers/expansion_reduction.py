"""Lazy convolutions whose output channels are a multiple or a fraction of their input channels."""

from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lazytorch.layers.bases import (
    LazyConv2dExpansionModule,
    LazyConv2dReductionModule,
    LazyConvExpansionModule,
    LazyConvReductionModule,
    with_expansion_ratio,
    with_reduction_ratio,
)
from lazytorch.layers.checks import Sizes
from lazytorch.layers.depthwise_separable import DepthSepConv, DepthSepConv2d
from lazytorch.layers.pointwise import PointwiseConv, PointwiseConv2d
from lazytorch.layers.rank import of_rank
from lazytorch.signature import create_lazy_signature

INFERRED = ("in_channels", "out_channels")


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"], target=nn.Conv2d)
class LazyExpansionConv(LazyConvExpansionModule):
    """``nn.Conv1d``, ``2d`` or ``3d`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionConv
        >>> LazyExpansionConv(2, kernel_size=3)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 16, 30])
    """

    def build(self, spatial_dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        return of_rank(nn.Conv2d, spatial_dims)(*args, **kwargs)

    if TYPE_CHECKING:

        def __init__(
            self,
            expansion_ratio: float,
            kernel_size: Sizes,
            stride: Sizes = 1,
            padding: Sizes | str = 0,
            dilation: Sizes = 1,
            groups: int = 1,
            bias: bool = True,
            padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
            device: Any = None,
            dtype: Any = None,
            *,
            spatial_dims: int | None = None,
        ) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyExpansionConv2d(LazyConv2dExpansionModule, nn.Conv2d):
    """``nn.Conv2d`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionConv2d
        >>> LazyExpansionConv2d(2, kernel_size=3)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 16, 30, 30])
    """

    @with_expansion_ratio(nn.Conv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"])
class LazyExpansionPointwiseConv(LazyConvExpansionModule, PointwiseConv):
    """A ``PointwiseConv`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionPointwiseConv
        >>> LazyExpansionPointwiseConv(6)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 48, 32])
    """

    @with_expansion_ratio(PointwiseConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyExpansionPointwiseConv2d(LazyConv2dExpansionModule, PointwiseConv2d):
    """A ``PointwiseConv2d`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionPointwiseConv2d
        >>> LazyExpansionPointwiseConv2d(1.5)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 12, 32, 32])
    """

    @with_expansion_ratio(PointwiseConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"])
class LazyExpansionDepthSepConv(LazyConvExpansionModule, DepthSepConv):
    """A ``DepthSepConv`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionDepthSepConv
        >>> LazyExpansionDepthSepConv(2, stride=2)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 16, 16])
    """

    @with_expansion_ratio(DepthSepConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyExpansionDepthSepConv2d(LazyConv2dExpansionModule, DepthSepConv2d):
    """A ``DepthSepConv2d`` with ``expansion_ratio`` times the channels of its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyExpansionDepthSepConv2d
        >>> LazyExpansionDepthSepConv2d(2, stride=2)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 16, 16, 16])
    """

    @with_expansion_ratio(DepthSepConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"], target=nn.Conv2d)
class LazyReductionConv(LazyConvReductionModule):
    """``nn.Conv1d``, ``2d`` or ``3d`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionConv
        >>> LazyReductionConv(2, kernel_size=3)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 4, 30])
    """

    def build(self, spatial_dims: int, *args: Any, **kwargs: Any) -> nn.Module:
        return of_rank(nn.Conv2d, spatial_dims)(*args, **kwargs)

    if TYPE_CHECKING:

        def __init__(
            self,
            reduction_ratio: float,
            kernel_size: Sizes,
            stride: Sizes = 1,
            padding: Sizes | str = 0,
            dilation: Sizes = 1,
            groups: int = 1,
            bias: bool = True,
            padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
            device: Any = None,
            dtype: Any = None,
            *,
            spatial_dims: int | None = None,
        ) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyReductionConv2d(LazyConv2dReductionModule, nn.Conv2d):
    """``nn.Conv2d`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionConv2d
        >>> LazyReductionConv2d(2, kernel_size=3)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 30, 30])
    """

    @with_reduction_ratio(nn.Conv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"])
class LazyReductionPointwiseConv(LazyConvReductionModule, PointwiseConv):
    """A ``PointwiseConv`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionPointwiseConv
        >>> LazyReductionPointwiseConv(4)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 2, 32])
    """

    @with_reduction_ratio(PointwiseConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyReductionPointwiseConv2d(LazyConv2dReductionModule, PointwiseConv2d):
    """A ``PointwiseConv2d`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionPointwiseConv2d
        >>> LazyReductionPointwiseConv2d(4)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 2, 32, 32])
    """

    @with_reduction_ratio(PointwiseConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED, optional=["spatial_dims"])
class LazyReductionDepthSepConv(LazyConvReductionModule, DepthSepConv):
    """A ``DepthSepConv`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionDepthSepConv
        >>> LazyReductionDepthSepConv(2, stride=2)(torch.zeros(2, 8, 32)).shape
        torch.Size([2, 4, 16])
    """

    @with_reduction_ratio(DepthSepConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@create_lazy_signature(exclude=INFERRED)
class LazyReductionDepthSepConv2d(LazyConv2dReductionModule, DepthSepConv2d):
    """A ``DepthSepConv2d`` with ``reduction_ratio`` times fewer channels than its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyReductionDepthSepConv2d
        >>> LazyReductionDepthSepConv2d(2, stride=2)(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 4, 16, 16])
    """

    @with_reduction_ratio(DepthSepConv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
