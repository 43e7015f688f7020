"""What needs parameters is refused before the build, with the remedy."""

import copy

import pytest
import timm.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel

from lazytorch import LazyModule, UninitializedModuleError, is_lazy, materialize
from tests.modules import LazyBlock, every_depth, image

REFUSED = {
    "numel": lambda model: sum(each.numel() for each in model.parameters()),
    "shape": lambda model: [each.shape for each in model.parameters()],
    "size": lambda model: [each.size() for each in model.parameters()],
    "ndim": lambda model: [each.ndim for each in model.parameters()],
    "nbytes": lambda model: sum(each.nbytes for each in model.parameters()),
    "nelement": lambda model: sum(each.nelement() for each in model.parameters()),
    "data": lambda model: [each.data for each in model.parameters()],
    "values through data": lambda model: [each.data.normal_() for each in model.parameters()],
    "average by hand": lambda model: [each.data.mul_(0.9).add_(each.data, alpha=0.1) for each in model.parameters()],
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "AdamW": lambda model: torch.optim.AdamW([{"params": model.parameters()}]),
    "LBFGS": lambda model: torch.optim.LBFGS(model.parameters()),
    "arithmetic": lambda model: [each * 2 for each in model.parameters()],
    "norm": lambda model: [each.norm() for each in model.parameters()],
    "copy_": lambda model: [each.detach().copy_(each) for each in model.parameters()],
    "parameters_to_vector": lambda model: nn.utils.parameters_to_vector(model.parameters()),
    "vector_to_parameters": lambda model: nn.utils.vector_to_parameters(torch.zeros(10**6), model.parameters()),
    "convert_sync_batchnorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "named_children": lambda model: [list(each.named_children()) for each in model.modules()],
    "children": lambda model: [list(each.children()) for each in model.modules()],
    "replacement of parts": lambda model: replace(model, nn.ReLU, nn.SiLU),
    "state_dict": lambda model: model.state_dict(),
    "share_memory_": lambda model: [each.share_memory_() for each in model.parameters()],
}


def replace(module, old, new):
    """Replace submodules recursively, as many a recipe for changing activations does."""
    for name, child in module.named_children():
        setattr(module, name, new()) if isinstance(child, old) else replace(child, old, new)


@every_depth
@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_refused_with_the_remedy(make, use):
    model = make()
    remedy = r"Lazy\w+ has no \w+ yet: .* Call lazytorch\.materialize\(model, \(1, 3, 224, 224\)\) before .+\."
    with pytest.raises(UninitializedModuleError, match=remedy):
        use(model)
    assert is_lazy(model)
    materialize(model, (2, 3, 16, 16))
    use(model)


def first_lazy(model):
    return next(each for each in model.modules() if isinstance(each, LazyModule))


@every_depth
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        lambda module: nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity()),
    ],
    ids=["weight_norm", "spectral_norm", "new weight_norm", "new spectral_norm", "orthogonal", "parametrize"],
)
def test_norms_of_a_weight_are_refused(make, norm):
    model = make()
    refused = r"Lazy\w+ has no .* yet: .* Call lazytorch\.materialize|'Lazy\w+\(.*\)' .* parameter.* name 'weight'"
    with pytest.raises((UninitializedModuleError, ValueError), match=refused):
        norm(first_lazy(model))
    assert is_lazy(model)
    model(image())


@every_depth
def test_clip_grad_norm_counts_every_gradient(make):
    model = make()
    assert nn.utils.clip_grad_norm_(model.parameters(), 1.0) == 0
    model(image()).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    total = torch.stack([each.grad.norm() for each in model.parameters()]).norm()
    assert total <= 1.0 + 1e-5


@every_depth
@pytest.mark.parametrize("average", [AveragedModel, timm.utils.ModelEmaV2, timm.utils.ModelEmaV3])
def test_average_of_a_lazy_model(make, average):
    """An average is a lazy copy, which cannot be updated before it is built; once built, it starts equal."""
    model = make()
    averaged = average(model)
    update = averaged.update_parameters if average is AveragedModel else averaged.update
    assert is_lazy(averaged)
    materialize(model, (2, 3, 16, 16))
    with pytest.raises((UninitializedModuleError, RuntimeError, ValueError)):
        update(model)
    assert is_lazy(averaged)
    materialize(averaged.module, (2, 3, 16, 16))
    torch.testing.assert_close(dict(averaged.module.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)
    update(model)
    torch.testing.assert_close(dict(averaged.module.named_parameters()), dict(model.named_parameters()))


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@every_depth
@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, fully_shard], ids=["DDP", "fully_shard"])
@pytest.mark.filterwarnings("ignore")
def test_distributed_wrappers_refuse(make, wrap, one_process):
    model = make()
    with pytest.raises((UninitializedModuleError, RuntimeError), match=r"ninitialized|materialize"):
        wrap(model)
    assert is_lazy(model)


@pytest.mark.filterwarnings("ignore")
def test_ddp_after_the_build(one_process):
    model = nn.parallel.DistributedDataParallel(materialize(nn.Sequential(LazyBlock(4)), (2, 3, 16, 16)))
    model(image()).sum().backward()
    assert all(each.grad is not None for each in model.parameters())


def test_optimizer_made_after_the_build_sees_every_parameter():
    model = nn.Sequential(LazyBlock(4), LazyBlock(5))
    model(image())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters())) == 10
    before = copy.deepcopy(model.state_dict())
    model(image()).sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in model.named_parameters() if value.grad.any())


def test_functional_call_with_the_placeholder_is_refused():
    model = nn.Sequential(LazyBlock(4))
    with pytest.raises(UninitializedModuleError, match=r"before replacing them, as functional_call does\."):
        torch.func.functional_call(model, dict(model.named_parameters()), image())
    assert is_lazy(model)
    model(image())
    assert {type(each) for each in model.parameters()} == {nn.Parameter}


@every_depth
def test_parts_of_a_lazy_module_are_not_found_by_path(make):
    model = nn.Sequential(make())
    path = next(name for name, each in model.named_modules() if isinstance(each, LazyModule))
    for get in (model.get_submodule, model.get_parameter, model.get_buffer):
        with pytest.raises(AttributeError, match=r"Lazy\w+.* has no attribute .conv"):
            get(f"{path}.conv.weight")


@every_depth
def test_walks_that_look_at_every_module_continue(make):
    model = make()
    lazy = [each for each in model.modules() if isinstance(each, LazyModule)]
    assert lazy
    assert [name for name, each in model.named_modules() if each in lazy]
    assert all(type(each).__name__ in repr(model) for each in lazy)
    assert model.train() is model.eval() is model.to(torch.float32) is model.apply(lambda _: None) is model
    assert is_lazy(model)


CONVERSIONS = {
    "double": (lambda model: model.double(), ("cpu", torch.float64)),
    "half": (lambda model: model.half(), ("cpu", torch.float16)),
    "meta": (lambda model: model.to("meta"), ("meta", torch.float32)),
    "meta and double": (lambda model: model.to("meta").double(), ("meta", torch.float64)),
    "there and back": (lambda model: model.half().float(), ("cpu", torch.float32)),
    "to_empty": (lambda model: model.to("meta").to_empty(device="cpu"), ("cpu", torch.float32)),
}


@every_depth
@pytest.mark.parametrize(("convert", "expected"), CONVERSIONS.values(), ids=CONVERSIONS)
def test_device_and_dtype_follow_conversions(make, convert, expected):
    """``next(model.parameters()).device`` places a batch."""
    model = convert(make())
    assert {(each.device.type, each.dtype) for each in model.parameters()} == {expected}
    assert is_lazy(model)
    materialize(model, (2, 3, 16, 16))
    assert {(each.device.type, each.dtype) for each in model.parameters()} == {expected}


def test_shallow_copy_is_refused():
    lazy = LazyBlock(4)
    with pytest.raises(UninitializedModuleError, match=r"before copy\.copy"):
        copy.copy(lazy)
    lazy(image())
    assert copy.copy(lazy).conv is lazy.conv
