"""Shortcuts of residual blocks for which the shortcut cannot be the identity."""

from collections.abc import Callable

from torch import nn

from lazytorch.layers.checks import Sizes, each, largest
from lazytorch.layers.conv_norm_activation import ConvNormActivation
from lazytorch.layers.named_sequential import NamedSequential
from lazytorch.layers.pointwise import PointwiseConv
from lazytorch.layers.rank import of_rank


def projection(
    in_channels: int,
    out_channels: int,
    stride: Sizes = 1,
    *,
    kernel_size: Sizes = 1,
    dilation: Sizes = 1,
    input_dilation: Sizes = 1,
    norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    conv_layer: Callable[..., nn.Module] = nn.Conv2d,
    spatial_dims: int = 2,
) -> nn.Module:
    """A convolution with the block's stride, and a norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        kernel_size: Size of the kernel if the block has a stride or a dilation, in pixels; otherwise it is 1.
        dilation: The dilation of the block.
        input_dilation: The dilation of the previous block.
        norm_layer: Called with the channels; None for no norm.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Source:
        He et al. 2015, equation 2, https://arxiv.org/abs/1512.03385; a larger kernel, SENet-154 of Hu et al. 2018,
        https://arxiv.org/abs/1709.01507.

    Example:
        >>> import torch
        >>> from lazytorch.layers import projection
        >>> projection(16, 32, stride=2)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """
    changes = largest(stride) > 1 or largest(dilation) > 1
    return ConvNormActivation(
        in_channels,
        out_channels,
        kernel_size if changes else 1,
        stride,
        dilation=input_dilation if changes and largest(kernel_size) > 1 else 1,
        norm_layer=norm_layer,
        activation=None,
        conv_layer=conv_layer,
        spatial_dims=spatial_dims,
    )


def pooled_projection(
    in_channels: int,
    out_channels: int,
    stride: Sizes = 1,
    *,
    dilation: Sizes = 1,
    input_dilation: Sizes = 1,
    norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    conv_layer: Callable[..., nn.Module] = nn.Conv2d,
    spatial_dims: int = 2,
) -> nn.Module:
    """An average pooling of 2 pixels along each dimension with the block's stride, then a 1x1 convolution and a norm.

    Unlike a 1x1 convolution with a stride, it skips no pixels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the pooling, in pixels; if it is 1 and the block does not dilate, there is no pooling.
        dilation: The dilation of the block; if it is more than 1, the pooling has a stride of 1 and zeros at the end of
            each dimension.
        input_dilation: Has no effect; blocks pass it to every shortcut.
        norm_layer: Called with the channels; None for no norm.
        conv_layer: Called like ``nn.Conv2d``; a class of torch.nn is replaced by its version for ``spatial_dims``.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.

    Shape:
        - Input: ``(N, in_channels, *spatial)``
        - Output: ``(N, out_channels, *ceil(spatial / stride))``

    Source:
        He et al. 2018, figure 2c (ResNet-D), https://arxiv.org/abs/1812.01187.

    Example:
        >>> import torch
        >>> from lazytorch.layers import pooled_projection
        >>> pooled_projection(16, 32, stride=2)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """
    parts: dict[str, nn.Module] = {}
    pool = of_rank(nn.AvgPool2d, spatial_dims)
    if isinstance(stride, int) and isinstance(dilation, int):
        side: Sizes = 2
        pads = (0, int(dilation > 1)) * spatial_dims
    else:  # pixels are averaged along the dimensions in which the block reduces or dilates
        strides, dilations = (each(value) * (spatial_dims // len(each(value))) for value in (stride, dilation))
        side = tuple(1 + (max(pair) > 1) for pair in zip(strides, dilations, strict=True))
        pads = tuple(pad for spacing in reversed(dilations) for pad in (0, int(spacing > 1)))
    if largest(dilation) > 1:
        parts["pad"] = of_rank(nn.ZeroPad2d, spatial_dims)(pads)
        parts["pool"] = pool(side, stride)
    elif largest(stride) > 1:
        parts["pool"] = pool(side, stride, ceil_mode=True, count_include_pad=False)
    parts["project"] = PointwiseConv(
        in_channels,
        out_channels,
        norm_layer=norm_layer,
        activation=None,
        conv_layer=conv_layer,
        spatial_dims=spatial_dims,
    )
    return NamedSequential(**parts)
