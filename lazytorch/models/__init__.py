"""Networks made of lazy layers, each equal to its reference."""

from lazytorch.models.backbone import Backbone, StageInfo
from lazytorch.models.mobilenet_v2 import mobilenet_v2

__all__ = ["Backbone", "StageInfo", "mobilenet_v2"]
