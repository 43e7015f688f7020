"""Convert weights for other inputs: from images to volumes or signals, and to other input channels."""

from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor, nn

from lazytorch.errors import ShapeInferenceError

__all__ = ["fit_input_channels", "inflate_state_dict", "reduce_state_dict"]


def inflate_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a 2-D network to those of the same network for volumes.

    Every kernel is repeated along a new first spatial axis, as often as it has pixels along its last axis, and divided
    by this number. For a volume of equal slices, the output is that of the 2-D network for one slice: exactly where no
    kernel covers padding along the new axis, and approximately at the ends.

    Args:
        state_dict: The weights of the 2-D network, with any names.

    Source:
        Carreira & Zisserman 2017, section 3.2.1, https://arxiv.org/abs/1705.07750.

    Example:
        >>> import torch, torchvision
        >>> from lazytorch.models import inflate_state_dict, load_reference_state_dict, resnet18
        >>> weights = torchvision.models.resnet18().state_dict()
        >>> model = resnet18()
        >>> load_reference_state_dict(model, inflate_state_dict(weights), "torchvision")
        >>> model(torch.zeros(2, 3, 32, 32, 32)).shape
        torch.Size([2, 1000])
    """
    return {
        key: value.unsqueeze(2).repeat(1, 1, value.size(-1), 1, 1) / value.size(-1) if value.dim() == 4 else value
        for key, value in state_dict.items()
    }


def reduce_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a 2-D network to those of the same network for signals.

    Every kernel is summed along its height. For a signal, the output is that of the 2-D network for an image whose rows
    all equal the signal: exactly where no kernel covers padding along the height, and approximately at the ends.

    Args:
        state_dict: The weights of the 2-D network, with any names.

    Example:
        >>> import torch, torchvision
        >>> from lazytorch.models import load_reference_state_dict, reduce_state_dict, resnet18
        >>> weights = torchvision.models.resnet18().state_dict()
        >>> model = resnet18()
        >>> load_reference_state_dict(model, reduce_state_dict(weights), "torchvision")
        >>> model(torch.zeros(2, 3, 500)).shape
        torch.Size([2, 1000])
    """
    return {key: value.sum(dim=2) if value.dim() == 4 else value for key, value in state_dict.items()}


def fit_input_channels(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state``, with the weights of convolutions converted to the input channels of ``module``.

    For one channel they are summed; for other numbers they are repeated and scaled, as in timm. If all channels of an
    input are equal, the output does not change if their number is one or a multiple of that of the weights.
    """
    own = dict(module.named_parameters())  # only their shapes are used; they may not be initialized yet
    result = dict(state)
    for key, value in state.items():
        if key in own and value.dim() > 2:
            if value.dim() != own[key].dim():
                raise ShapeInferenceError(
                    f"{type(module).__name__}: the input must have as many spatial dimensions as the weights that were "
                    f"loaded, {value.dim() - 2}, got {own[key].dim() - 2}."
                )
            given, wanted = value.size(1), own[key].size(1)
            if wanted == 1 != given:
                result[key] = value.float().sum(dim=1, keepdim=True).to(value.dtype)
            elif wanted != given:
                repeated = torch.cat([value.float()] * ceil(wanted / given), dim=1)[:, :wanted]
                result[key] = (repeated * (given / wanted)).to(value.dtype)
    return result
