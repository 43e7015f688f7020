"""Where the blocks of a network stand: their steps, dilations and rates of stochastic depth."""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

__all__ = ["Place", "branch_rates", "places"]


def branch_rates(drop_path_rate: float, blocks: int, last: int) -> list[float]:
    """The stochastic depth of each block, in proportion to its place, up to ``drop_path_rate`` at the place ``last``.

    Raises:
        ValueError: If ``drop_path_rate`` is not from 0 to below 1.

    Source:
        Huang et al. 2016, section 3, https://arxiv.org/abs/1603.09382.
    """
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"Backbone: drop_path_rate must be from 0 to below 1, got {drop_path_rate!r}.")
    return [drop_path_rate * index / max(1, last) for index in range(blocks)]


class Place(NamedTuple):
    """Where a block stands in its network.

    Attributes:
        stride: The block's step, in pixels.
        dilation: Distance between the pixels that its kernels see.
        input_dilation: That of the block before.
    """

    stride: int
    dilation: int
    input_dilation: int


def places(
    strides: Sequence[int], repeats: Sequence[int], *, stem_reduction: int, output_stride: int
) -> tuple[list[list[Place]], list[int]]:
    """The places of the blocks in each stage, and what each stage has reduced the input by.

    A step that would reduce by more than ``output_stride`` is not taken: the kernels of what follows are dilated
    instead, and see the same input pixels (Yu et al. 2017, https://arxiv.org/abs/1705.09914).

    Args:
        strides: The step of the first block of each stage, in pixels.
        repeats: The blocks of each stage.
        stem_reduction: What the stem reduces by.
        output_stride: What the network is to reduce by, at most: 8, 16 or 32.

    Raises:
        ValueError: If ``output_stride`` is none of these.
    """
    if type(output_stride) is not int or output_stride not in (8, 16, 32):
        raise ValueError(f"Backbone: output_stride must be 8, 16 or 32, got {output_stride!r}.")
    if not repeats or not all(isinstance(count, int) and count > 0 for count in repeats):
        raise ValueError(f"Backbone: there must be stages, of at least one block each, got {list(repeats)}.")
    wanted = list(accumulate(strides, mul, initial=stem_reduction))
    stages = []
    for index, count in enumerate(repeats):
        before, after = (max(1, each // output_stride) for each in wanted[index : index + 2])
        stride = min(wanted[index + 1], output_stride) // min(wanted[index], output_stride)
        stages.append([Place(stride, after, before), *[Place(1, after, after)] * (count - 1)])
    return stages, [min(each, output_stride) for each in wanted[1:]]
