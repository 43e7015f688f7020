"""Deployment: make a trained model faster without another runtime."""

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lazytorch.errors import UninitializedModuleError
from lazytorch.layers import ConvNormActivation, SameConv1d, SameConv2d, SameConv3d
from lazytorch.layers.multi_branch_conv import Branches
from lazytorch.materialize import is_lazy

__all__ = ["optimize_for_inference"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, SameConv1d, SameConv2d, SameConv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
M = TypeVar("M", bound=nn.Module)
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def optimize_for_inference(model: M) -> M:
    """A copy of ``model`` for evaluation, with BatchNorm folded into convolutions, in channels-last memory format.

    The branches of every ``MultiBranchConv`` become one convolution. The outputs are the same, except for rounding. The
    copy cannot be trained, because it has no norms. Inputs may be of any memory format.

    Args:
        model: A built model. Every ``ConvNormActivation`` of a plain convolution and a BatchNorm with running
            statistics is folded. One with hooks, parametrizations or other parts is not changed.

    Raises:
        UninitializedModuleError: If the model is lazy.

    Example:
        >>> import torch, lazytorch
        >>> from lazytorch.models import optimize_for_inference, resnet18
        >>> model = lazytorch.materialize(resnet18(), (1, 3, 64, 64))
        >>> optimize_for_inference(model).stem
        ConvNormActivation(
          (conv): Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3))
          (activation): ReLU(inplace=True)
        )
    """
    if is_lazy(model):
        raise UninitializedModuleError(
            f"{type(model).__name__} has no weights to fold yet: they are built from its first input. "
            "Call lazytorch.materialize(model, (1, 3, 224, 224)) before optimize_for_inference."
        )
    # Pruning and weight_norm set computed tensors as attributes, which deepcopy cannot copy.
    attributes = [value for each in model.modules() for value in vars(each).values() if isinstance(value, torch.Tensor)]
    folded = copy.deepcopy(model, {id(each): each.detach().clone() for each in attributes if not each.is_leaf}).eval()
    for layer in list(folded.modules()):
        if isinstance(layer, ConvNormActivation) and can_be_folded(layer):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)  # pyright: ignore[reportArgumentType]
            del layer.norm
    for layer in list(folded.modules()):
        for name, part in layer.named_children():
            if type(part) is Branches and (conv := sum_of_branches(part)) is not None:
                setattr(layer, name, conv)
    for each in (*folded.parameters(), *folded.buffers()):
        if each.dim() in LAST:
            each.data = each.data.contiguous(memory_format=LAST[each.dim()])
    return folded


def can_be_folded(layer: ConvNormActivation) -> bool:
    """Whether only a plain convolution and a norm are between the input and the activation."""
    parts = list(layer._modules.items())
    if [name for name, _ in parts[:2]] != ["conv", "norm"] or type(layer).forward is not ConvNormActivation.forward:
        return False
    (_, conv), (_, norm) = parts[:2]
    # Subclasses, such as parametrized layers, may compute more.
    if type(conv) not in CONVOLUTIONS or type(norm) not in NORMS:
        return False
    hooked = any(each._forward_hooks or each._forward_pre_hooks for each in (conv, norm))
    return not hooked and norm.running_mean is not None


def sum_of_branches(branches: Branches) -> nn.Module | None:
    """The convolution that computes the sum of ``branches``, whose norms are folded; None if there is none.

    Source:
        Ding et al. 2021, section 3.3, https://arxiv.org/abs/2101.03697: the identity branch is a 1x1 convolution with
        the identity matrix, and a 1x1 kernel is added to the center of a larger one.
    """
    identity: Any = branches._modules.get("identity")
    layers = branches.convolutions()
    if any(each._forward_hooks or each._forward_pre_hooks for each in branches.modules()) or not all(
        type(each) is ConvNormActivation and list(each._modules) == ["conv"] and type(each.conv) in CONVOLUTIONS
        for each in layers
    ):
        return None
    convs: list[Any] = [each.conv for each in layers]
    total = copy.deepcopy(convs.pop())  # the last has the full kernel size; a 1x1 convolution comes first
    for each in (total, *convs):
        centered = tuple(space * (size - 1) // 2 for size, space in zip(each.kernel_size, each.dilation, strict=True))
        kinds = {(conv.stride, conv.dilation, conv.groups, conv.padding_mode) for conv in (each, total)}
        wider = any(own > size for own, size in zip(each.kernel_size, total.kernel_size, strict=True))
        if len(kinds) > 1 or wider or each.padding != centered or each.bias is None:
            return None
    if identity is not None:
        conv = copy.deepcopy(total)
        nn.init.dirac_(conv.weight, conv.groups)
        nn.init.zeros_(conv.bias)
        if type(identity) in NORMS and identity.running_mean is not None:
            conv = fuse_conv_bn_eval(conv, identity)
        elif type(identity) is not nn.Identity:
            return None
        convs.append(conv)
    with torch.no_grad():
        for each in convs:
            sizes = zip(total.kernel_size, each.kernel_size, strict=True)
            total.weight[(..., *(slice((size - own) // 2, (size + own) // 2) for size, own in sizes))] += each.weight
            total.bias += each.bias
    return total
