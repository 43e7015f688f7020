"""Our models in other libraries: torchvision, timm, Lightning, the Hub."""

from collections import OrderedDict

import lightning
import pytest
import timm.optim
import timm.scheduler
import timm.utils
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from lazytorch import UninitializedModuleError, materialize
from lazytorch.models import get_model


class Pyramid(nn.Module):
    """A feature pyramid over one of our models, as torchvision's detectors take it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.out_channels = 32
        self.body = get_model(name, features_only=True, out_indices=(1, 2, 3, 4))
        self.pyramid = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels)

    def forward(self, x):
        return self.pyramid(OrderedDict((str(index), each) for index, each in enumerate(self.body(x))))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_one_training_step_of_a_detector(name):
    torch.manual_seed(0)
    pyramid = materialize(Pyramid(name), (1, 3, 64, 64))
    detector = FasterRCNN(
        pyramid,
        num_classes=3,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=3, sampling_ratio=2),
    )
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in pyramid.body.parameters()]
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)] * 2, [target] * 2)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert any(not torch.equal(old, new) for old, new in zip(before, pyramid.body.parameters(), strict=True))
    assert {"boxes", "labels", "scores"} == detector.eval()([torch.rand(3, 64, 64)])[0].keys()


def test_a_segmentation_head():
    body = get_model("resnet10t", features_only=True, out_indices=(-1,), output_stride=8)
    head = FCNHead(body.feature_info.channels()[-1], 4)
    masks = F.interpolate(head(body(torch.rand(2, 5, 64, 64))[-1]), size=(64, 64))
    F.cross_entropy(masks, torch.zeros(2, 64, 64, dtype=torch.long)).backward()
    assert masks.shape == (2, 4, 64, 64)
    assert all(parameter.grad is not None for parameter in body.parameters())


def test_timms_optimizer_scheduler_and_average():
    model = materialize(get_model("mobilenetv2_035", num_classes=3), (2, 1, 32, 32))
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.7)
    scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=4, warmup_epochs=1)
    average = timm.utils.ModelEmaV3(model, decay=0.5)
    before = [parameter.clone() for parameter in average.module.parameters()]
    for epoch in range(2):
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        optimizer.step()
        scheduler.step(epoch + 1)
        average.update(model)
    assert any(not torch.equal(old, new) for old, new in zip(before, average.module.parameters(), strict=True))


class Classifier(lightning.LightningModule):
    """Builds its model in ``configure_model``, or not."""

    def __init__(self, build: bool) -> None:
        super().__init__()
        self.build = build
        self.model = get_model("resnet10t", num_classes=3)

    def configure_model(self):
        if self.build:
            materialize(self.model, (2, 1, 32, 32))

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers
@pytest.mark.parametrize("build", [True, False])
def test_lightning(build, tmp_path):
    data = DataLoader(TensorDataset(torch.randn(4, 1, 32, 32), torch.arange(4) % 3), batch_size=2)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    if build:
        trainer.fit(Classifier(build), data)
        assert trainer.global_step == 2
    else:
        with pytest.raises(UninitializedModuleError, match=r"Call lazytorch\.materialize.* before making an optimizer"):
            trainer.fit(Classifier(build), data)


class OnTheHub(nn.Module, PyTorchModelHubMixin):
    """What the Hub's mixin keeps is what rebuilds the model."""

    def __init__(self, name: str, num_classes: int, shape: list[int]) -> None:
        super().__init__()
        self.model = materialize(get_model(name, num_classes=num_classes), tuple(shape))

    def forward(self, x):
        return self.model(x)


def test_saved_and_loaded_by_the_hubs_mixin(tmp_path):
    model = OnTheHub("resnet10t", num_classes=3, shape=[1, 4, 64, 64]).eval()
    model.save_pretrained(tmp_path)
    loaded = OnTheHub.from_pretrained(tmp_path).eval()
    x = torch.randn(2, 4, 64, 64)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    assert {"config.json", "model.safetensors"} <= {each.name for each in tmp_path.iterdir()}
