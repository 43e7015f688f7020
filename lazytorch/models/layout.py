"""Strides and dilations of the blocks of a network."""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

from lazytorch.layers.checks import Sizes, each

__all__ = ["Place", "places"]


class Place(NamedTuple):
    """The stride and dilation of a block.

    Attributes:
        stride: The block's stride, in pixels.
        dilation: Spacing between the pixels of its kernels.
        input_dilation: The dilation of the previous block.
    """

    stride: Sizes
    dilation: Sizes
    input_dilation: Sizes


def places(
    strides: Sequence[Sizes], repeats: Sequence[int], *, stem_reduction: Sizes, output_stride: int
) -> list[list[Place]]:
    """Strides and dilations of the blocks of each stage.

    A stride that would exceed ``output_stride`` is replaced by dilation of the kernels that follow, which then read the
    same input pixels (Yu et al. 2017, https://arxiv.org/abs/1705.09914).

    Args:
        strides: The stride of the first block of each stage, in pixels; one number, or one for each dimension.
        repeats: The number of blocks of each stage.
        stem_reduction: Ratio of the input size to the size of the stem's output; one number, or one for each dimension.
        output_stride: The largest reduction: 8, 16 or 32.

    Raises:
        ValueError: If the strides are for different numbers of dimensions.
    """
    lengths = {len(value) for value in (stem_reduction, *strides) if isinstance(value, Sequence)}
    if len(lengths) > 1:
        raise ValueError(f"Backbone: strides must be for one number of dimensions, got {[stem_reduction, *strides]}.")
    if not lengths:
        return along_one_dimension(strides, repeats, stem_reduction, output_stride)
    (dims,) = lengths
    columns = [each(value) * (1 if isinstance(value, Sequence) else dims) for value in (stem_reduction, *strides)]
    along = [
        along_one_dimension(column[1:], repeats, column[0], output_stride) for column in zip(*columns, strict=True)
    ]
    return [
        [Place(*zip(*block, strict=True)) for block in zip(*stage, strict=True)] for stage in zip(*along, strict=True)
    ]


def along_one_dimension(
    strides: Sequence[Any], repeats: Sequence[int], stem_reduction: Any, output_stride: int
) -> list[list[Place]]:
    """The result of ``places`` for strides of one number each."""
    wanted = list(accumulate(strides, mul, initial=stem_reduction))
    stages = []
    for index, count in enumerate(repeats):
        before, after = (max(1, reduction // output_stride) for reduction in wanted[index : index + 2])
        stride = min(wanted[index + 1], output_stride) // min(wanted[index], output_stride)
        stages.append([Place(stride, after, before), *[Place(1, after, after)] * (count - 1)])
    return stages
