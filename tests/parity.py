"""Compare a model with its reference in everything that a user can see of it."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def randomize(module: nn.Module) -> None:
    """Randomise every parameter and buffer: at initial statistics an error of eps or momentum is invisible."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            if value.dim() > 1:
                nn.init.normal_(value, std=value[0].numel() ** -0.5)
            else:  # of norms: wide enough that activations which differ only far from zero do differ
                nn.init.uniform_(value, *((-2, 2) if name.endswith(("bias", "mean")) else (0.5, 4)))


def carry_over(reference: nn.Module, model: nn.Module) -> None:
    """Give ``model`` the state of ``reference``, which must have the same tensors in the same order."""
    ours, theirs = model.state_dict(), reference.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def multiply_adds(module: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def step(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients of one pass."""
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    output = module(x)
    F.cross_entropy(output, torch.arange(len(x)) % output.size(1)).backward()
    gradients = {f"gradient {i}": each.grad for i, each in enumerate(module.parameters())}
    module.zero_grad()
    return {"output": output.detach(), "input gradient": x.grad, **gradients}


def assert_equal(model: nn.Module, reference: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise if ``model`` differs from ``reference``, both built, for inputs of ``shape``."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    randomize(reference)
    carry_over(reference, model)
    assert sum(each.numel() for each in model.parameters()) == sum(each.numel() for each in reference.parameters())
    assert multiply_adds(model.eval(), x) == multiply_adds(reference.eval(), x)
    # The same operators in the same order: any difference is one of meaning, not of rounding.
    torch.testing.assert_close(step(model.eval(), x), step(reference.eval(), x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(step(model.train(), x), step(reference.train(), x), rtol=1e-5, atol=1e-6)
    buffers = [list(each.buffers()) for each in (model, reference)]
    torch.testing.assert_close(*buffers, rtol=1e-5, atol=1e-6)
