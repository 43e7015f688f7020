"""Parallel convolutions that are summed in training, and that can be merged into one convolution for inference."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from lazytorch._init.initialize import known_code
from lazytorch.layers.bases import LazyConvInChannelModule
from lazytorch.layers.checks import Sizes, divides, flag, largest, odd, positive_whole
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.rank import of_rank
from lazytorch.layers.rules import checked
from lazytorch.layers.stochastic_depth import StochasticDepth
from lazytorch.layers.twins import eager_twin
from lazytorch.signature import create_lazy_signature, without_first


@known_code
class Branches(nn.ModuleDict):
    """The branches of a ``MultiBranchConv``. Stochastic depth drops all branches except ``identity``."""

    def convolutions(self) -> list[nn.Module]:
        return [each for name, each in self.items() if name not in ("drop_path", "identity")]

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        # First, as timm does, so that gradients are rounded in the same way.
        identity = self["identity"](x) if "identity" in self else None
        first, *others = self.convolutions()
        total = first(x)
        for each in others:
            total = total + each(x)
        if "drop_path" in self:
            total = self["drop_path"](total)
        return total if identity is None else total + identity


@checked({("out_channels", "groups"): divides}, kernel_size=odd, branches=positive_whole, reparameterized=flag)
class MultiBranchConv(NamedSequential):
    """The sum of parallel convolutions and the input, each followed by a norm; then an attention, then an activation.

    The branches are ``branches`` convolutions of ``kernel_size``; a 1x1 convolution, if ``kernel_size`` is larger; and
    the input, if it has the shape of the output. ``lazytorch.models.optimize_for_inference`` replaces them by one
    convolution that computes the same output in evaluation mode.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernels, in pixels; one number, or one for each spatial dimension.
        stride: Stride of the kernels, in pixels; one number, or one for each spatial dimension.
        groups: Number of groups of channels.
        dilation: Spacing between the pixels of the kernels.
        activation: Called without arguments; None for no activation.
        branches: Number of convolutions of ``kernel_size``.
        input_dilation: The dilation of the previous block, used by the kernels; if it is not ``dilation``, the input is
            not a branch. By default ``dilation``.
        se_layer: Called with the channels and ``spatial_dims``; returns the attention after the sum; None for no
            attention.
        drop_path_rate: Probability that training drops the convolutions, for each example, if the input is a branch.
        reparameterized: Whether to construct a single convolution with a bias instead of the branches.
        norm_layer: Called with the channels, for every branch; None for no norms.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Raises:
        ValueError: If a number is not positive, ``kernel_size`` is even, or ``groups`` does not divide the channels.

    Source:
        Ding et al. 2021, figure 4, https://arxiv.org/abs/2101.03697; several convolutions of ``kernel_size``, Vasu et
        al. 2023, section 3.3, https://arxiv.org/abs/2206.04040.

    Example:
        >>> import torch
        >>> from lazytorch.layers import MultiBranchConv
        >>> layer = MultiBranchConv(8, 8, branches=2)
        >>> [name for name, _ in layer.conv.named_children()]
        ['pointwise', '0', '1', 'identity']
        >>> layer(torch.zeros(2, 8, 32, 32)).shape
        torch.Size([2, 8, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes = 3,
        stride: Sizes = 1,
        groups: int = 1,
        dilation: Sizes = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        *,
        branches: int = 1,
        input_dilation: Sizes | None = None,
        se_layer: Callable[..., nn.Module] | None = None,
        drop_path_rate: float = 0.0,
        reparameterized: bool = False,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        spatial_dims: int = 2,
    ) -> None:
        input_dilation = dilation if input_dilation is None else input_dilation
        place = {"stride": stride, "groups": groups, "dilation": input_dilation}
        kind = {"activation": None, "conv_layer": conv_layer, "spatial_dims": spatial_dims}
        conv = partial(ConvNormActivation, in_channels, out_channels, **place, **kind)
        layers: dict[str, nn.Module] = {}
        if not reparameterized:
            if largest(kernel_size) > 1:
                layers["pointwise"] = conv(1, norm_layer=norm_layer)
            layers |= {str(index): conv(kernel_size, norm_layer=norm_layer) for index in range(branches)}
            if in_channels == out_channels and largest(stride) == 1 and input_dilation == dilation:
                if drop_path_rate != 0:
                    layers["drop_path"] = StochasticDepth(drop_path_rate)
                norm = nn.Identity if norm_layer is None else of_rank(norm_layer, spatial_dims)
                layers["identity"] = norm(out_channels)
        parts: dict[str, Any] = {
            "conv": conv(kernel_size, norm_layer=None).conv if reparameterized else Branches(layers)
        }
        if se_layer is not None:
            parts["se"] = eager_twin(se_layer)(out_channels, spatial_dims=spatial_dims)
        if activation is not None:
            parts["activation"] = activation()
        super().__init__(**parts)


@create_lazy_signature(exclude=["in_channels"], optional=["spatial_dims"])
class LazyMultiBranchConv(LazyConvInChannelModule, MultiBranchConv):
    """A ``MultiBranchConv`` that infers its input channels and number of spatial dimensions from its first input.

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyMultiBranchConv
        >>> LazyMultiBranchConv(8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    @without_first(MultiBranchConv.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
