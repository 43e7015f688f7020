"""Inflation: 2-D weights for 3-D networks."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["inflate_state_dict"]


def inflate_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network of volumes, from those of the same network of images.

    Every kernel is repeated along the new axis, the first of the three, as often as it has pixels along a side, and
    divided by that. So a volume that is constant along that axis is answered as the image that its slices are: exactly
    where no zeros that pad the volume are seen along the axis, and nearly so at its ends.

    Args:
        state_dict: The weights of the 2-D network, by whatever names.

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
