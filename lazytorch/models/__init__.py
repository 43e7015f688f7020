"""Networks of lazy layers. Networks with names compute the same as those of torchvision and timm.

Example:
    >>> import torch, lazytorch
    >>> model = lazytorch.models.resnet18(num_classes=10)
    >>> model(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 10])
"""

from lazytorch.models import (
    byobnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    fbnet_v3,
    hardcorenas,
    mixnet,
    mnasnet,
    mobilenet,
    mobilenet_edgetpu,
    mobilenet_v3,
    mobilenet_v4,
    regnets,
    repvgg,
    resnet_variants,
    resnets,
    resnets_v2,
    rexnet,
    shufflenet_v2,
    squeezenet,
    vgg,
)
from lazytorch.models._weights.fitting import inflate_state_dict, reduce_state_dict
from lazytorch.models._weights.loading import load_reference_state_dict, reference_state_dict
from lazytorch.models._weights.names import Rules
from lazytorch.models.backbone import Backbone
from lazytorch.models.byobnet import *
from lazytorch.models.compose import Network, NetworkOptions, Row
from lazytorch.models.convnext import *
from lazytorch.models.densenet import *
from lazytorch.models.deployment import optimize_for_inference
from lazytorch.models.efficientnet import *
from lazytorch.models.efficientnet_v2 import *
from lazytorch.models.fbnet_v3 import *
from lazytorch.models.feature_info import StageInfo
from lazytorch.models.features import Features
from lazytorch.models.hardcorenas import *
from lazytorch.models.mixnet import *
from lazytorch.models.mnasnet import *
from lazytorch.models.mobile import MobileNet, Stage
from lazytorch.models.mobilenet import *
from lazytorch.models.mobilenet_edgetpu import *
from lazytorch.models.mobilenet_v3 import *
from lazytorch.models.mobilenet_v4 import *
from lazytorch.models.registry import get_model, list_models, references
from lazytorch.models.regnet import RegNet
from lazytorch.models.regnets import *
from lazytorch.models.repvgg import *
from lazytorch.models.resnet import ResNet
from lazytorch.models.resnet_variants import *
from lazytorch.models.resnets import *
from lazytorch.models.resnets_v2 import *
from lazytorch.models.rexnet import *
from lazytorch.models.shufflenet_v2 import *
from lazytorch.models.squeezenet import *
from lazytorch.models.vgg import *

# fmt: off
__all__ = [
    "Backbone", "Features", "MobileNet", "Network", "NetworkOptions", "RegNet", "ResNet", "Row", "Rules", "Stage",
    "StageInfo", "get_model", "inflate_state_dict", "list_models", "load_reference_state_dict",
    "optimize_for_inference", "reduce_state_dict", "reference_state_dict", "references",
]
# fmt: on
__all__ += byobnet.__all__
__all__ += densenet.__all__
__all__ += convnext.__all__
__all__ += efficientnet.__all__
__all__ += efficientnet_v2.__all__
__all__ += fbnet_v3.__all__
__all__ += hardcorenas.__all__
__all__ += mixnet.__all__
__all__ += mnasnet.__all__
__all__ += mobilenet.__all__
__all__ += mobilenet_edgetpu.__all__
__all__ += mobilenet_v3.__all__
__all__ += mobilenet_v4.__all__
__all__ += regnets.__all__
__all__ += resnet_variants.__all__
__all__ += repvgg.__all__
__all__ += resnets.__all__
__all__ += rexnet.__all__
__all__ += shufflenet_v2.__all__
__all__ += squeezenet.__all__
__all__ += resnets_v2.__all__
__all__ += vgg.__all__


def __dir__() -> list[str]:
    return __all__
