"""RepVGG and MobileOne: convolutions with parallel branches in training, plain ones in inference.

Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again", tables 2 and 3, https://arxiv.org/abs/2101.03697;
D2se is from the authors' code. Vasu et al. 2023, "MobileOne: An Improved One Millisecond Mobile Backbone", section 3.3,
https://arxiv.org/abs/2206.04040.

Each network equals timm's of the same name, with one departure: if dilation replaces strides, the kernels of MobileOne
are dilated; those of timm's are not.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Unpack

from torch import nn

from lazytorch._init.initialize import Fill, InitFunction, Normal, known_code
from lazytorch.arguments import ValueRules
from lazytorch.layers import LazyMultiBranchConv, SqueezeExcitation
from lazytorch.layers.checks import flag, positive_whole, several, whole
from lazytorch.models._weights.names import Rules
from lazytorch.models.compose import Network, NetworkOptions, Row, family
from lazytorch.models.initial_weights import fan_out_normal, small_normal
from lazytorch.models.registry import rows_of
from lazytorch.models.resnet import sixteenth
from lazytorch.models.tables import same_length

# fmt: off
__all__ = [
    "RepVGG",
    "mobileone_s0", "mobileone_s1", "mobileone_s2", "mobileone_s3", "mobileone_s4",
    "repvgg_a0", "repvgg_a1", "repvgg_a2", "repvgg_b0", "repvgg_b1", "repvgg_b1g4", "repvgg_b2", "repvgg_b2g4",
    "repvgg_b3", "repvgg_b3g4", "repvgg_d2se",
]
# fmt: on


def names(convolution: str, pointwise: str) -> Rules:
    """The names in timm. The last name of ``conv`` is that of the convolution that replaces the branches."""
    rules = """
        {ours}.conv.identity               {theirs}.identity
        {ours}.conv.pointwise.(conv|norm)  {theirs}.{pointwise}.(conv|bn)
        {ours}.conv.*.(conv|norm)          {theirs}.{convolution}.(conv|bn)
        {ours}.conv                        {theirs}.reparam_conv
        {ours}.se.(reduce|expand)          {theirs}.attn.(fc1|fc2)
    """
    blocks = {"stem": "stem", "stages.S.B": "stages.{S}.{B}"}.items()
    branches = {"convolution": convolution, "pointwise": pointwise}
    texts = [rules.format(ours=ours, theirs=theirs, **branches) for ours, theirs in blocks]
    return Rules("\n".join(["head.classifier head.fc", *texts]))


OF_REPVGG, OF_MOBILEONE = names("conv_kxk", "conv_1x1"), names("conv_kxk.*", "conv_scale")


@family
class RepVGG(Network):
    """A sequence of 3x3 convolutions with parallel branches.

    The first input determines the input channels and the number of spatial dimensions (signals, images or volumes).
    ``optimize_for_inference`` replaces the branches of a trained network by single convolutions. Its weights, and those
    of timm's ``reparameterize_model``, fit the same network with ``reparameterized=True``.

    Args:
        depths: Number of blocks of each stage, the first of which has a stride of 2.
        widths: Channels of each stage. The stem has as many as the first stage, but at most 64.
        separable: Whether each 3x3 convolution is replaced by a depthwise and a 1x1 convolution, each with branches, as
            in MobileOne.
        groups: Number of groups of every second 3x3 convolution of a stage, if they are not ``separable``.
        branches: Number of parallel convolutions with the same kernel size in each block; the stem has one.
        se_layer: The attention of blocks; see ``MultiBranchConv``. None for no attention.
        se_blocks: For each stage, the number of its last blocks that have the attention. By default all blocks and the
            stem have it.
        reparameterized: Whether to construct single convolutions instead of branches.
        options: The options of every network; see ``NetworkOptions``.

    Source:
        Ding et al. 2021, section 3.4, https://arxiv.org/abs/2101.03697; separable, Vasu et al. 2023, section 3.3,
        https://arxiv.org/abs/2206.04040.

    Example:
        >>> import lazytorch, torch
        >>> from lazytorch.models import RepVGG, optimize_for_inference
        >>> model = lazytorch.materialize(RepVGG(10, depths=(1, 2), widths=(16, 32)), (1, 3, 32, 32))
        >>> weights = optimize_for_inference(model).state_dict()
        >>> plain = RepVGG(10, depths=(1, 2), widths=(16, 32), reparameterized=True, weights=weights)
        >>> x = torch.randn(2, 3, 32, 32)
        >>> torch.allclose(plain.eval()(x), model.eval()(x), atol=1e-4)
        True
    """

    rules: ClassVar[ValueRules] = {
        **same_length("depths", "widths"),
        **same_length("depths", "se_blocks"),
        "depths": several(positive_whole, "(2, 4, 14, 1)"),
        "widths": several(positive_whole, "(64, 128, 256, 512)"),
        "branches": positive_whole,
        "se_blocks": several(whole, "(0, 0, 5, 1)"),
        **dict.fromkeys(("separable", "reparameterized"), flag),
    }
    remedy: ClassVar[str] = (
        "Re-parameterized weights need reparameterized=True, weights with branches reparameterized=False."
    )

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        depths: Sequence[int] = (4, 6, 16, 1),
        widths: Sequence[int] = (64, 128, 256, 512),
        separable: bool = False,
        groups: int = 1,
        branches: int = 1,
        se_layer: Callable[..., nn.Module] | None = None,
        se_blocks: Sequence[int] | None = None,
        reparameterized: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> None:
        make = partial(LazyMultiBranchConv, reparameterized=reparameterized)
        stem = partial(make, min(64, widths[0]), stride=2, se_layer=se_layer if se_blocks is None else None)
        se_blocks = depths if se_blocks is None else se_blocks
        width, residual, stages = min(64, widths[0]), not reparameterized, []
        for depth, out_channels, last in zip(depths, widths, se_blocks, strict=True):
            rows: list[Row] = []
            for index in range(depth):
                block = partial(make, branches=branches, se_layer=se_layer if index >= depth - last else None)
                stride = 2 if index == 0 else 1
                if separable:
                    rows.append(Row(partial(block, groups=width), width, 1, stride, residual))
                    rows.append(Row(partial(block, kernel_size=1), out_channels, 1, 1, residual))
                else:
                    block = partial(block, groups=groups if index % 2 else 1)
                    rows.append(Row(block, out_channels, 1, stride, residual))
                width = out_channels
            stages.append(rows)
        super().__init__(
            num_classes,
            stem=stem,
            stem_reduction=2,
            stages=stages,
            initialize=InitFunction(initial_values, small_norms=not separable),
            names={"timm": OF_MOBILEONE if separable else OF_REPVGG},
            **options,
        )


@known_code
def initial_values(module: nn.Module, *, small_norms: bool) -> dict[str, Fill]:
    """He normal, fan-out of each group, for convolutions; with ``small_norms``, norms start around 0.1, as in timm."""
    if small_norms and isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and module.affine:
        return {"weight": Normal(0.1, mean=0.1), "bias": Normal(0.1)}
    return fan_out_normal(module, per_group=True, linear=small_normal)


@rows_of(RepVGG)
def row(name: str, depths: Sequence[int], factors: Sequence[float], **config: Any) -> Any:
    """The columns are the number of blocks of each stage, and the factors by which the widths are multiplied."""
    widths = [int(base * factor) for base, factor in zip((64, 128, 256, 512), factors, strict=True)]
    return ["timm"], {"depths": depths, "widths": widths, **config}


A, B, D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)
B1, B2, B3 = (2, 2, 2, 4), (2.5, 2.5, 2.5, 5), (3, 3, 3, 5)
ONE = partial(row, depths=(2, 8, 10, 1), separable=True)
SE = partial(SqueezeExcitation, squeeze_channels=sixteenth)

repvgg_a0 = row("repvgg_a0", A, (0.75, 0.75, 0.75, 2.5))
repvgg_a1 = row("repvgg_a1", A, (1, 1, 1, 2.5))
repvgg_a2 = row("repvgg_a2", A, (1.5, 1.5, 1.5, 2.75))
repvgg_b0 = row("repvgg_b0", B, (1, 1, 1, 2.5))
repvgg_b1 = row("repvgg_b1", B, B1)
repvgg_b1g4 = row("repvgg_b1g4", B, B1, groups=4)
repvgg_b2 = row("repvgg_b2", B, B2)
repvgg_b2g4 = row("repvgg_b2g4", B, B2, groups=4)
repvgg_b3 = row("repvgg_b3", B, B3)
repvgg_b3g4 = row("repvgg_b3g4", B, B3, groups=4)
repvgg_d2se = row("repvgg_d2se", D, B2, se_layer=SqueezeExcitation)

mobileone_s0 = ONE("mobileone_s0", factors=(0.75, 1, 1, 2), branches=4)
mobileone_s1 = ONE("mobileone_s1", factors=(1.5, 1.5, 2, 2.5))
mobileone_s2 = ONE("mobileone_s2", factors=(1.5, 2, 2.5, 4))
mobileone_s3 = ONE("mobileone_s3", factors=(2, 2.5, 3, 4))
mobileone_s4 = ONE("mobileone_s4", factors=(3, 3.5, 3.5, 4), se_layer=SE, se_blocks=(0, 0, 5, 1))
