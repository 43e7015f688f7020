"""The peers of lazytorch: torchvision, timm, PyTorch's own lazy modules, and a single initialization of all weights."""

from collections.abc import Callable

import timm
import torch
import torchvision
from torch import nn

__all__ = ["NN_LAZY", "autograd_nodes", "draw_once", "timm_model", "torchvision_model"]


def torchvision_model(name: str) -> nn.Module:
    return torchvision.models.get_model(name)


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name)


def draw_once(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Allocate tensors of these shapes and initialize the weights among them once: no constructor can be faster."""
    tensors = [torch.empty(shape) for shape in shapes]
    for tensor in tensors:
        if tensor.dim() > 1:
            tensor.normal_()
    return tensors


def conv(
    channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = None
) -> list[nn.Module]:
    padding = kernel // 2
    layers: list[nn.Module] = [
        nn.LazyConv2d(channels, kernel, stride, padding, groups=groups, bias=False),
        nn.LazyBatchNorm2d(),
    ]
    return layers if activation is None else [*layers, activation(inplace=True)]  # pyright: ignore[reportCallIssue]


class Residual(nn.Module):
    """The sum of layers and a shortcut."""

    def __init__(self, layers: list[nn.Module], shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layers(x) + self.shortcut(x))


def lazy_resnet50() -> nn.Module:
    """ResNet-50 of torch.nn's lazy modules: He et al. 2015, table 1, https://arxiv.org/abs/1512.03385."""
    layers = [*conv(64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    for stage, repeats in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for index in range(repeats):
            stride = 2 if stage > 0 and index == 0 else 1
            branch = [
                *conv(width, 1, activation=nn.ReLU),
                *conv(width, 3, stride, activation=nn.ReLU),
                *conv(4 * width, 1),
            ]
            shortcut = nn.Sequential(*conv(4 * width, 1, stride)) if index == 0 else nn.Identity()
            layers.append(Residual(branch, shortcut, nn.ReLU(inplace=True)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(1000))


def lazy_mobilenet_v2() -> nn.Module:
    """MobileNetV2 of torch.nn's lazy modules: Sandler et al. 2018, table 2, https://arxiv.org/abs/1801.04381.

    They cannot infer the groups of a depthwise convolution, so its channels are computed here.
    """
    layers, channels = conv(32, 3, 2, activation=nn.ReLU6), 32
    for expansion, width, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(repeats):
            hidden = expansion * channels
            branch = [
                *(conv(hidden, 1, activation=nn.ReLU6) if expansion > 1 else []),
                *conv(hidden, 3, stride if index == 0 else 1, groups=hidden, activation=nn.ReLU6),
                *conv(width, 1),
            ]
            layers += [nn.Sequential(*branch)] if index == 0 else [Residual(branch, nn.Identity(), nn.Identity())]
            channels = width
    layers += conv(1280, 1, activation=nn.ReLU6)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(1000))


NN_LAZY: dict[str, Callable[[], nn.Module]] = {"mobilenet_v2": lazy_mobilenet_v2, "resnet50": lazy_resnet50}


def autograd_nodes(output: torch.Tensor) -> int:
    """The number of nodes in the autograd graph of ``output``."""
    seen, left = set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [after for after, _ in node.next_functions]
    return len(seen)
