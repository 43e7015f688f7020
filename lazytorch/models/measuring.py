"""Output sizes of the parts of a network, computed from the shape of a large image."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from lazytorch._init.initialize import known_code
from lazytorch.layers.checks import Sizes, largest
from lazytorch.models.building import examples_for
from lazytorch.summary import output_shapes

__all__ = ["has_stride", "is_dilated", "is_plain", "reduction_of", "shapes_of"]

SIDE = 3840  # pixels: divisible by strides of 2, 3 and 5, and so large that padding does not change a ratio


def shapes_of(modules: Sequence[nn.Module], built_from: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    """The shapes of an input and of the outputs of modules that are called in sequence.

    Args:
        modules: The modules; they may be lazy.
        built_from: The shape of an input that they accept, if it is known. Larger shapes are tried first, because a
            large input has the exact ratio of every stride.
    """
    parts = Parts(modules)
    examples = examples_for(parts, SIDE)
    refused: Exception | None = None
    for example in examples if built_from is None else [*examples, built_from]:
        try:
            return [example, *output_shapes(parts, example)]
        except Exception as error:
            refused = refused or error
    assert refused is not None
    refused.add_note("while the stem and stages ran on the shape of an image")
    if isinstance(refused, AttributeError):  # in a property, Python would call __getattr__ and hide this error
        raise RuntimeError(str(refused)) from refused
    raise refused


@known_code
class Parts(nn.Module):
    """Calls modules in sequence, and returns the output of each."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for part in self.parts:
            outputs.append(part(outputs[-1]))
        return outputs[1:]


def is_dilated(stage: nn.Module | None) -> bool:
    """Whether dilation replaced the stride of a stage."""
    return getattr(stage, "dilated", False)


def has_stride(part: nn.Module | None) -> bool:
    """Whether a layer in ``part`` has a stride, or had one that dilation replaced."""
    strides = [vars(each).get("stride", 1) for each in ([] if part is None else part.modules())]
    return is_dilated(part) or any(largest(each) > 1 for each in strides if isinstance(each, (int, tuple)))


def is_plain(value: object) -> bool:
    """Whether an attribute may be a stride, a padding or a similar number."""
    return type(value) in (int, float, tuple)


def reduction_of(before: Sequence[int], after: Sequence[int]) -> Sizes:
    """The ratios of input sizes to output sizes; one number if all are equal."""
    ratios = [max(1, round(size / reduced)) for size, reduced in zip(before, after, strict=True)]
    return tuple(ratios) if len({*ratios}) > 1 else ratios[0]
