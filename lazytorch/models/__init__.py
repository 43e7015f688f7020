"""Networks made of lazy layers, each equal to its reference."""

from lazytorch.models import resnets
from lazytorch.models.backbone import Backbone, StageInfo
from lazytorch.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from lazytorch.models.registry import get_model, list_models, references
from lazytorch.models.resnet import ResNet
from lazytorch.models.resnets import *
from lazytorch.models.weights import load_reference_state_dict, reference_state_dict

__all__ = [
    "Backbone",
    "MobileNetV2",
    "ResNet",
    "StageInfo",
    "get_model",
    "list_models",
    "load_reference_state_dict",
    "mobilenet_v2",
    "reference_state_dict",
    "references",
]
__all__ += resnets.__all__
