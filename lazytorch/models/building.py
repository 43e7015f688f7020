"""Build a lazy network before weights are loaded into it."""

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from lazytorch._init.initialize import Initialization, initialize, postponing
from lazytorch._lazy.scopes import all_or_nothing
from lazytorch._shapes.mode import ShapeMode
from lazytorch.materialize import is_lazy, run_on_shapes, survey
from lazytorch.models.first_call import lock_of

__all__ = ["NoStemWeightError", "built_for_weights", "examples_for"]

EXAMPLE = (1, 3, 64, 64)  # every network of the zoo accepts an input of this shape
EXAMPLES = (EXAMPLE, (1, 3, 64, 64, 64), (1, 3, 64))


class NoStemWeightError(Exception):
    """The weights have no entry for the first convolution of the stem."""


class OtherInputError(Exception):
    """The weights are for an input with another number of channels or spatial dimensions."""


@contextlib.contextmanager
def built_for_weights(
    model: nn.Module,
    entry: Callable[[str], Tensor | None],
    is_covered: Callable[[str], bool],
    *,
    needs_stem: bool = False,
) -> Iterator[None]:
    """Build ``model``, if it is lazy, for weights that are loaded in this block. If the block fails, it stays lazy.

    The shape of the first convolution's weight determines the input channels and the number of spatial dimensions.

    Args:
        model: A network with a ``stem``.
        entry: Called with the name of a parameter; returns its value in the weights, or None if they do not contain it.
        is_covered: Called with the name of a parameter; returns whether the load replaces it. Other parameters are
            initialized.
        needs_stem: Whether to raise ``NoStemWeightError`` if the weights have no entry for the stem.
    """
    if not is_lazy(model):
        yield
        return
    with lock_of(model), all_or_nothing():
        postponed: list[Initialization] = []
        with postponing(postponed):
            if not is_lazy(model.get_submodule("stem")):
                build(model, example_for(stem_weight(model)[1]))
            else:
                build_lazy_stem(model, entry, needs_stem, postponed)
        covered = {id(each) for name, each in model.named_parameters(remove_duplicate=False) if is_covered(name)}
        initialize(postponed, except_for=covered)
        yield


def build_lazy_stem(
    model: nn.Module, entry: Callable[[str], Tensor | None], needs_stem: bool, postponed: list[Initialization]
) -> None:
    """Build ``model`` for images, and build it again if the weights are for another input.

    The name of the stem's weight is known only after the build. If the model does not accept images, because some of
    its options have one number for each dimension, it is built for volumes or signals.
    """
    refused: ValueError | None = None
    for example in EXAMPLES:
        wanted = example
        try:
            with all_or_nothing():
                build(model, example)
                weight = entry(stem_weight(model)[0])
                if needs_stem and weight is None:
                    raise NoStemWeightError
                wanted = example if weight is None else example_for(weight)
                if wanted != example:
                    raise OtherInputError
        except OtherInputError:
            postponed.clear()
            build(model, wanted)
        except ValueError as error:
            postponed.clear()
            refused = refused or error
            continue
        return
    assert refused is not None
    raise refused


def build(model: nn.Module, example: tuple[int, ...]) -> None:
    run_on_shapes(model, survey(model), (example,), {}, ShapeMode(type(model).__name__))


def stem_weight(model: nn.Module) -> tuple[str, Tensor | None]:
    """The name and value of the first convolution's weight."""
    weights = ((name, each) for name, each in model.get_submodule("stem").named_parameters("stem") if each.dim() > 2)
    return next(weights, ("", None))


def example_for(weight: Tensor | None) -> tuple[int, ...]:
    """The shape of an input for a network whose first convolution has the given weight."""
    if weight is None or not 3 <= weight.dim() <= 5 or weight.size(1) == 0:
        return EXAMPLE
    return (1, weight.size(1), *EXAMPLE[2:3] * (weight.dim() - 2))


def examples_for(module: nn.Module, side: int) -> list[tuple[int, ...]]:
    """Shapes of inputs to try with ``module``; the first has the channels of its first convolution, if that is built.

    Args:
        module: The module.
        side: Pixels along each spatial dimension.
    """
    shapes = [(*example[:2], *(side,) * (len(example) - 2)) for example in EXAMPLES]
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((each for each in module.modules() if isinstance(each, kinds) and not is_lazy(each)), None)
    return shapes if first is None else [(1, first.in_channels, *(side,) * len(first.kernel_size)), *shapes]
