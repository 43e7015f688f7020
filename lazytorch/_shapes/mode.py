"""ShapeMode: run a forward on shapes, without arithmetic.

The rules of ``rules.py`` compute the output shapes of the operators in convolutional networks, many times faster than
PyTorch does. PyTorch's FakeTensorMode computes all others; it is created at the first call of such an operator.
"""

import contextlib
import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lazytorch import _torch
from lazytorch._init.initialize import initialize_postponed, thread_local
from lazytorch._shapes.rules import RULES
from lazytorch._shapes.shape_tensor import META, REAL, ShapeTensor, shape_tensor
from lazytorch.errors import ShapeInferenceError

# Functions that need no values.
METADATA = {
    *(Tensor.dim, Tensor.element_size, Tensor.is_complex, Tensor.is_contiguous, Tensor.is_floating_point),
    *(Tensor.ndimension, Tensor.nelement, Tensor.numel, Tensor.size, Tensor.stride, Tensor.__len__),
    torch.device,
}
# Methods that change the shape of a tensor in place.
RESHAPES = {Tensor.resize_, Tensor.squeeze_, Tensor.t_, Tensor.transpose_, Tensor.unsqueeze_}
# Methods that return values of a tensor.
READS = {Tensor.__bool__, Tensor.__float__, Tensor.__index__, Tensor.__int__, Tensor.item, Tensor.tolist}
# Functions that create tensors from Python values.
DATA = {torch.tensor, torch.as_tensor}
# Norms and their training flag. In training they raise an error for a single value per channel, but the output shape
# does not depend on the flag.
IN_TRAINING = {F.batch_norm: "training", F.instance_norm: "use_input_stats"}

_local = threading.local()


class ShapeMode(TorchFunctionMode):
    """Computes output shapes of operators on ``ShapeTensor``, and changes no tensor of the model.

    Args:
        owner: The call that runs the forward, for messages.
        count_macs: Whether to also count the multiply-accumulates (MACs) of operators without a rule.

    Attributes:
        device: The device of the model; if the model is a copy on the meta device, that of the original.
        macs: MACs of all operators that were called.
        protected: The ids of the model's tensors.
        counted: By the id of a counter tensor, the number that the forward added; the tensor is not changed.
    """

    def __init__(self, owner: str, count_macs: bool = False) -> None:
        super().__init__()
        self.owner = owner
        self.count_macs = count_macs
        self.device = torch.device("cpu")
        self.macs = 0
        self.counted: dict[int, float] = {}
        self.protected: set[int] = set()
        self.fake_mode: Any = None
        self.fakes: dict[int, tuple[Tensor, Any]] = {}  # tensors and their fake tensors, by id

    def __enter__(self) -> "ShapeMode":
        self.outer, _local.mode = current_mode(), self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        _local.mode = self.outer
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if current_mode() is not self or func in METADATA or func in DATA:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__set__" or func in RESHAPES:
            return args[0] if id(args[0]) in self.protected else func(*args, **kwargs)
        if name == "__get__":  # access to an attribute
            result = func(*args, **kwargs)
            is_view = isinstance(result, Tensor) and type(args[0]) is ShapeTensor
            return shape_tensor(result, args[0].device) if is_view else result
        rule = RULES.get(func)
        if rule is not None and not (torch.is_grad_enabled() or is_autocast()):  # these need more than shapes
            with contextlib.suppress(TypeError):  # wrong arguments, or arguments that the rule does not have
                result = rule(self, *args, **kwargs)
                if result is not None:
                    return result
        if func in READS and type(args[0]) in REAL and not args[0].is_meta:
            initialize_postponed()
            return func(*args, **kwargs)
        return self.compute(func, args, kwargs)

    def compute(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call ``func`` in PyTorch's fake mode."""
        if func in IN_TRAINING:
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            if given.get("running_mean") is None:
                return torch.empty_like(given["input"])
            args, kwargs = (), given | {IN_TRAINING[func]: False}
        if _torch.fake_tensor is None:
            return func(*args, **kwargs)
        if self.fake_mode is None:
            self.fake_mode = _torch.fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
        originals: dict[int, Tensor] = {}

        def fake(tensor: Tensor) -> Tensor:
            is_shape = type(tensor) is ShapeTensor
            if not is_shape and type(tensor) not in REAL:
                return tensor
            if id(tensor) not in self.fakes:
                device, plain = tensor.device if is_shape else self.device, tensor.detach().as_subclass(Tensor)
                if plain.is_meta:
                    made = _torch.fake_tensor.FakeTensor(self.fake_mode, plain, device)
                else:
                    made = self.fake_mode.from_tensor(tensor)
                self.fakes[id(tensor)] = tensor, made
            made = self.fakes[id(tensor)][1]
            originals[id(made)] = tensor
            return made

        args, kwargs = map_tensors(fake, args), map_tensors(fake, kwargs)
        try:
            with self.fake_mode, self.counting():
                result = func(*args, **kwargs)
        except (
            _torch.fake_tensor.DataDependentOutputException,
            _torch.fake_tensor.DynamicOutputShapeException,
        ) as error:
            raise ShapeInferenceError(
                f"{self.owner}: the forward must not depend on the values in tensors, as only their shapes are known, "
                f"got {error.func}. Call the model on a real batch instead."
            ) from error
        # An in-place operator must return the original tensor, so that ``self.count += 1`` keeps the buffer.
        return map_tensors(lambda each: originals.get(id(each), each), result)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the MACs of operators in this block, if ``count_macs``."""
        if not self.count_macs:
            yield
            return
        from torch.utils.flop_counter import FlopCounterMode  # imports triton, which `import torch` does not

        with FlopCounterMode(display=False) as counter:
            yield
        self.macs += counter.get_total_flops() // 2

    def like(self, tensor: Tensor, shape: Sequence[int]) -> ShapeTensor:
        """A contiguous tensor of that shape, of the dtype and on the device of ``tensor``."""
        return shape_tensor(torch.empty(shape, dtype=tensor.dtype, device=META), tensor.device)

    def of(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> ShapeTensor:
        """A contiguous tensor of that shape."""
        return shape_tensor(torch.empty(shape, dtype=dtype, device=META), device)


def is_autocast() -> bool:
    return any(map(torch.is_autocast_enabled, ("cpu", "cuda", "xpu")))


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to every tensor in its tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    kind: Any = type(value)
    if isinstance(value, (tuple, list)):
        mapped = [map_tensors(function, each) for each in value]
        return kind(*mapped) if hasattr(kind, "_fields") else kind(mapped)
    if isinstance(value, dict):
        mapped = {} if kind is dict else copy.copy(value)
        mapped.update({key: map_tensors(function, each) for key, each in value.items()})
        return mapped
    return value


def current_mode() -> ShapeMode | None:
    """The mode of this thread."""
    return getattr(_local, "mode", None)


def without_shapes() -> AbstractContextManager[None]:
    """Disable this thread's mode in this block, so that new tensors are real."""
    return thread_local(_local, "mode", None)
