"""What the tests of several families of networks check in the same way."""

import timm
import torch
import torchvision
from torch import Tensor, nn

from lazytorch.models import get_model, load_reference_state_dict, reference_state_dict
from scripts import parity

CREATE = {"timm": timm.create_model, "torchvision": torchvision.models.get_model}


def assert_checkpointing_computes_the_same(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Equal outputs and gradients with and without gradient checkpointing; returns the gradients."""
    outputs, gradients = [], []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        output = model(x)
        output.square().sum().backward()
        outputs.append(output.detach())
        gradients.append([each.grad for each in model.parameters()])
        model.zero_grad()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert all(each is not None and each.isfinite().all() for each in gradients[0])
    return gradients[0]


def assert_weights_go_there_and_back(name: str, zoo: str) -> None:
    """The weights of another zoo's network, loaded and written again, are the same."""
    source = CREATE[zoo](name, num_classes=5)
    parity.randomize(source)
    model = get_model(name, num_classes=5)
    load_reference_state_dict(model, source.state_dict(), zoo)
    torch.testing.assert_close(reference_state_dict(model, zoo), dict(source.state_dict()), rtol=0, atol=0)
