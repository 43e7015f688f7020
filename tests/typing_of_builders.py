"""What the type checker, and so an editor, knows of the models' functions; it is read, not run: ``make types``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

from lazytorch import materialize
from lazytorch.models import (
    Backbone,
    Features,
    MobileNet,
    ResNet,
    efficientnet_b0,
    get_model,
    mobilenet_v2,
    mobilenetv4_conv_small,
    resnet50d,
)


def known_of_builders() -> None:
    assert_type(resnet50d(10, output_stride=8, weights="timm"), ResNet)
    assert_type(mobilenet_v2(num_classes=10, dropout=0.1), MobileNet)
    assert_type(efficientnet_b0(), MobileNet)
    assert_type(get_model("resnet18"), Backbone)
    assert_type(get_model("resnet18", features_only=True, out_indices=(1, 2)), Features)
    assert_type(materialize(mobilenetv4_conv_small(), (1, 3, 64, 64)), MobileNet)
    resnet50d(num_clases=10)  # pyright: ignore[reportCallIssue]
    mobilenet_v2(10, 3)  # pyright: ignore[reportCallIssue]
    efficientnet_b0(dropout="high")  # pyright: ignore[reportArgumentType]
