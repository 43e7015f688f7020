"""shapes_only: run a forward without arithmetic, by the shapes of what its operators would return.

The operators that convolutional networks are made of are answered by the shape arithmetic of ``shape_rules``, which is
many times faster than PyTorch's meta kernels; these answer everything else, and every case that is at all unusual.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from lazytorch.shape_rules import RULES

__all__ = ["Shapes", "shapes_only", "with_arithmetic"]


class Shapes(TorchFunctionMode):
    """Answers operators on fake tensors.

    Attributes:
        macs: Multiply-adds of all that was called, if they are counted.
        counted: By the identity of a buffer that counts, how much was added to it, though it stays as it is.
    """

    def __init__(self, fake_mode: FakeTensorMode) -> None:
        super().__init__()
        self.fake_mode = fake_mode
        self.macs = 0
        self.counted: dict[int, float] = {}
        self.templates: dict[torch.device, FakeTensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_grad_enabled() or torch._C._is_any_autocast_enabled():  # the forward asks for more than shapes
            return self.fall_back(func, args, kwargs)
        rule = RULES.get(func)
        try:
            answer = None if rule is None else rule(self, *args, **kwargs)
        except TypeError:  # arguments that the rule does not know, and PyTorch perhaps neither
            answer = None
        return self.fall_back(func, args, kwargs) if answer is None else answer

    def fall_back(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What PyTorch's meta kernel answers."""
        flag = {F.batch_norm: "training", F.instance_norm: "use_input_stats"}.get(func)
        if flag is None:
            return func(*args, **kwargs)
        # Without statistics it does not refuse a single example of 1 x 1 pixels in training; the shape is the same.
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        if given.get("running_mean") is None:
            return torch.empty_like(given["input"])
        return func(**given | {flag: False})

    def like(self, tensor: FakeTensor, shape: Sequence[int]) -> FakeTensor:
        """A fake tensor of that shape, contiguous, of the dtype and on the device of ``tensor``."""
        return self.fake(shape, tensor.dtype, tensor.fake_device)

    def fake(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> FakeTensor:
        with no_dispatch(), torch._C.DisableTorchFunction():
            made = torch.empty(shape, dtype=dtype, device="meta")
            if device not in self.templates:
                self.templates[device] = FakeTensor(self.fake_mode, made, device)
            # What the constructor does, but for its checks, which cost more than all the arithmetic here.
            fake: Any = Tensor._make_subclass(
                FakeTensor, made, False, dispatch_device=True, device_for_backend_keys=device
            )
            torch._C._set_throw_on_mutable_data_ptr(fake)
            vars(fake).update(vars(self.templates[device]))
            return fake


class EverythingFake(TorchDispatchMode):
    """Hands parameters and buffers to operators as fakes, so that one that writes in place changes nothing."""

    def __init__(self, fake_mode: FakeTensorMode, shapes: Shapes, count_macs: bool) -> None:
        super().__init__()
        self.fake_mode = fake_mode
        self.shapes = shapes
        self.count_macs = count_macs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        real: dict[int, Tensor] = {}

        def fake(tensor: Tensor) -> Tensor:
            if isinstance(tensor, FakeTensor):
                return tensor
            made = self.fake_mode.from_tensor(tensor)
            real[id(made)] = tensor
            return made

        faked_args, faked_kwargs = tree_map_only(Tensor, fake, (args, kwargs or {}))
        result = func(*faked_args, **faked_kwargs)
        if self.count_macs:
            from torch.utils.flop_counter import flop_registry  # brings triton, which `import torch` alone does not

            count = flop_registry.get(func._overloadpacket)
            if count is not None:
                self.shapes.macs += count(*faked_args, **faked_kwargs, out_val=result) // 2
        # What an operator returns of what it was given must be that: ``self.count += 1`` keeps its buffer.
        return tree_map_only(Tensor, lambda out: real.get(id(out), out), result)


@contextlib.contextmanager
def shapes_only(fake_mode: FakeTensorMode, count_macs: bool = False) -> Iterator[Shapes]:
    """Have operators on fake tensors tell the shapes of what they return, and nothing else happen."""
    shapes = Shapes(fake_mode)
    with torch.no_grad(), fake_mode, EverythingFake(fake_mode, shapes, count_macs), shapes:
        yield shapes


@contextlib.contextmanager
def with_arithmetic() -> Iterator[None]:
    """Take back ``shapes_only`` as far as it is a function mode: what is built in its midst is real."""
    stack = _get_current_function_mode_stack()
    if not any(isinstance(mode, Shapes) for mode in stack):
        yield
        return
    for _ in stack:
        _pop_mode()
    others = [mode for mode in stack if not isinstance(mode, Shapes)]
    for mode in others:
        _push_mode(mode)
    try:
        yield
    finally:
        for _ in others:
            _pop_mode()
        for mode in stack:
            _push_mode(mode)
