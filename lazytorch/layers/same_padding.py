"""Convolutions with TensorFlow's padding, which depends on the size of the input."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lazytorch._init.initialize import RESETS


class SamePadding(nn.Module):
    """Base of the convolutions, with their constructor and forward."""

    kernel_size: Any
    stride: Any
    dilation: Any
    padding: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f"{type(self).__name__}: padding_mode must be 'zeros', as it is TensorFlow's, got {padding_mode!r}."
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)  # pyright: ignore[reportCallIssue]
        spans = [spacing * (size - 1) for size, spacing in zip(self.kernel_size, self.dilation, strict=True)]
        if max(self.stride) == 1 and not any(span % 2 for span in spans):
            self.padding = tuple(span // 2 for span in spans)  # the same for every input size

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch.nn
        """Shape: ``(N, in_channels, *spatial)`` to ``(N, out_channels, *ceil(spatial / stride))``."""
        if max(self.padding) == 0 < max(self.kernel_size) - 1:
            windows = zip(input.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
            pads: list[int] = []
            for size, kernel, stride, dilation in reversed(list(windows)):
                missing = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
                pads += [missing // 2, missing - missing // 2]
            input = F.pad(input, pads)  # noqa: A001
        return super().forward(input)  # pyright: ignore[reportAttributeAccessIssue]


class SameConv1d(SamePadding, nn.Conv1d):
    """``nn.Conv1d`` with TensorFlow's padding ``"SAME"``; see ``SameConv2d``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import SameConv1d
        >>> SameConv1d(3, 8, kernel_size=4, stride=2)(torch.zeros(2, 3, 33)).shape
        torch.Size([2, 8, 17])
    """


class SameConv2d(SamePadding, nn.Conv2d):
    """``nn.Conv2d`` with TensorFlow's padding ``"SAME"``: zeros for an output size of ``ceil(size / stride)``.

    If the number of zeros is odd, one more is added at the end than at the start. So weights that were trained with
    TensorFlow compute the same features.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, in pixels; one number, or one for each dimension.
        stride: Stride of the kernel, in pixels; one number, or one for each spatial dimension.
        padding: Has no effect: the padding is computed from the size of the input.
        dilation: Spacing between the pixels of the kernel; one number, or one for each spatial dimension.
        groups: Number of groups of channels.
        bias: Whether a bias is added.
        padding_mode: Must be ``"zeros"``.

    Shape:
        - Input: ``(N, in_channels, H, W)``
        - Output: ``(N, out_channels, ceil(H / stride), ceil(W / stride))``

    Raises:
        ValueError: If ``padding_mode`` is not ``"zeros"``.

    Source:
        https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2

    Example:
        >>> import torch
        >>> from lazytorch.layers import LazyConvNormActivation, SameConv2d
        >>> SameConv2d(3, 8, kernel_size=3, stride=2)(torch.zeros(2, 3, 32, 33)).shape
        torch.Size([2, 8, 16, 17])
        >>> LazyConvNormActivation(8, stride=2, conv_layer=SameConv2d)(torch.zeros(2, 3, 32, 32, 32)).shape
        torch.Size([2, 8, 16, 16, 16])
    """


class SameConv3d(SamePadding, nn.Conv3d):
    """``nn.Conv3d`` with TensorFlow's padding ``"SAME"``; see ``SameConv2d``.

    Example:
        >>> import torch
        >>> from lazytorch.layers import SameConv3d
        >>> SameConv3d(3, 8, kernel_size=3, stride=2)(torch.zeros(2, 3, 8, 8, 9)).shape
        torch.Size([2, 8, 4, 4, 5])
    """


RESETS.update({layer: (layer.__init__, layer.reset_parameters) for layer in (SameConv1d, SameConv2d, SameConv3d)})
