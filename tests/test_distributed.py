"""DistributedDataParallel and FSDP2 on two gloo processes."""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from lazytorch import materialize
from lazytorch.layers import BlurPool
from lazytorch.models import get_model

SHAPE = (2, 5, 32, 32)
WHOLE = StateDictOptions(full_state_dict=True)


def join(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)


def leave(rank, folder, result):
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


def run_twice(function, folder):
    """What ``function`` gave to ``leave`` in each of two processes."""
    mp.spawn(function, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def train_in_parallel(rank, folder):
    join(rank, folder)
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(materialize(get_model("resnet10t", num_classes=3), SHAPE))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model(torch.randn(SHAPE)).square().sum().backward()
    optimizer.step()
    leave(rank, folder, dict(model.named_parameters()))


def test_every_process_has_the_same_parameters_after_a_step(tmp_path):
    first, second = run_twice(train_in_parallel, tmp_path)
    assert len(first) > 30
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def sharded(name, **options):
    """On the meta device, stage by stage, then given room for its share."""
    with torch.device("meta"):
        model = materialize(get_model(name, num_classes=3, **options), SHAPE)
    for stage in model.stages:
        fully_shard(stage)
    fully_shard(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(77)
    return model


def answer(model, x):
    torch.manual_seed(8)  # for dropout
    return model(x)


def scale_of_gradients():
    """The gradients of a sharded module over their mean: torch 2.8 returns the sum where gloo communicates."""
    module = nn.Linear(1, 1, bias=False)
    fully_shard(module)
    module(torch.ones(1, 1)).sum().backward()
    (parameter,) = module.parameters()
    return parameter.grad.full_tensor().item()


def train_sharded(rank, folder):
    warnings.simplefilter("error")
    join(rank, folder)
    trained, scale = {}, scale_of_gradients()
    for name, options in {"resnet10t": {"zero_init": True, "anti_aliasing": BlurPool}, "lcnet_050": {}}.items():
        model = sharded(name, **options)
        torch.manual_seed(rank)  # alike by what the first process draws, not by what it is seeded with
        model.init_weights()
        whole = materialize(get_model(name, num_classes=3, **options), SHAPE)
        torch.manual_seed(0)
        whole.init_weights()
        # Drawn whole and shared out: what a process without others would have drawn.
        torch.testing.assert_close(get_model_state_dict(model, options=WHOLE), whole.state_dict(), rtol=0, atol=0)
        assert all(parameter.to_local().numel() < parameter.numel() for parameter in model.parameters())

        torch.manual_seed(7)
        batches = torch.randn(2, *SHAPE)
        output = answer(model, batches[rank])
        output.square().sum().backward()
        for index, batch in enumerate(batches):  # the gradient is the mean of both processes'
            expected = answer(whole, batch)
            (expected.square().sum() / 2 * scale).backward()
            if index == rank:
                torch.testing.assert_close(output, expected)
        for each in (model, whole):
            torch.optim.SGD(each.parameters(), lr=1e-2).step()
        trained[name] = {key: parameter.full_tensor() for key, parameter in model.named_parameters()}
        torch.testing.assert_close(trained[name], dict(whole.named_parameters()))

        # As from a file that the first process alone has read; running statistics as well.
        model = sharded(name, **options)
        model.init_weights()  # for constants that no state_dict holds
        state = whole.state_dict() if rank == 0 else {}
        set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
        torch.testing.assert_close(answer(model.eval(), batches[0]), answer(whole.eval(), batches[0]))
    leave(rank, folder, trained)


@pytest.mark.slow
def test_built_on_meta_then_sharded_then_initialised_or_loaded(tmp_path):
    """The processes compare all with a model that is not sharded; here, what they trained with each other's."""
    first, second = run_twice(train_sharded, tmp_path)
    assert first.keys() == {"resnet10t", "lcnet_050"}
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def train_checkpointed(rank, folder):
    join(rank, folder)
    scale = scale_of_gradients()
    torch.manual_seed(0)
    whole = materialize(get_model("resnet18", num_classes=3), SHAPE).eval()
    model = sharded("resnet18", gradient_checkpointing=True).eval()
    model.init_weights()
    set_model_state_dict(model, whole.state_dict(), options=WHOLE)
    x = torch.randn(SHAPE)
    for each, factor in ((model, 1), (whole, scale)):
        (each(x).square().sum() * factor).backward()
    gradients = {key: parameter.grad.full_tensor() for key, parameter in model.named_parameters()}
    torch.testing.assert_close(gradients, {key: each.grad for key, each in whole.named_parameters()})
    register_fsdp_forward_method(model, "forward_intermediates")
    torch.testing.assert_close(model.forward_intermediates(x), whole.forward_intermediates(x))
    leave(rank, folder, gradients)


@pytest.mark.slow
def test_sharded_stages_with_gradient_checkpointing(tmp_path):
    first, second = run_twice(train_checkpointed, tmp_path)
    assert len(first) > 60
    torch.testing.assert_close(first, second, rtol=0, atol=0)
