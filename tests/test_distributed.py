"""DistributedDataParallel on two gloo processes."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lazytorch import materialize
from lazytorch.models import get_model

SHAPE = (2, 5, 32, 32)


def train_in_parallel(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(materialize(get_model("resnet10t", num_classes=3), SHAPE))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model(torch.randn(SHAPE)).square().sum().backward()
    optimizer.step()
    for parameter in model.parameters():
        others = [torch.empty_like(parameter) for _ in range(2)]
        dist.all_gather(others, parameter.detach())
        assert torch.equal(*others)
    (folder / f"done{rank}").touch()
    dist.destroy_process_group()


def test_every_process_has_the_same_parameters_after_a_step(tmp_path):
    mp.spawn(train_in_parallel, (tmp_path,), nprocs=2)
    assert {path.name for path in tmp_path.glob("done*")} == {"done0", "done1"}
