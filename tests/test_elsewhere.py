"""Our models in other libraries: torchvision, timm, Lightning, safetensors, the Hub, torchinfo, TensorBoard."""

import json
import re
from collections import OrderedDict

import lightning
import pytest
import safetensors.torch
import timm.optim
import timm.scheduler
import timm.utils
import torch
import torchinfo
from huggingface_hub import PyTorchModelHubMixin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from lazytorch import UninitializedModuleError, is_lazy, materialize, summary
from lazytorch.models import get_model
from scripts.parity import randomize


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
    before = {name: parameter.clone() for name, parameter in pyramid.body.named_parameters()}
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)] * 2, [target] * 2)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(parameter.grad is not None for parameter in pyramid.body.parameters())
    moved = [name for name, new in pyramid.body.named_parameters() if not torch.equal(before[name], new)]
    for part in ("stem", *(f"stages.{index}" for index in range(len(pyramid.body.stages)))):
        assert any(name.startswith(f"{part}.") for name in moved)
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
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == 2 + sum(len(stage) for stage in model.stages)  # beside the blocks: the stem, and the head
    rates = []
    for epoch in range(3):
        before = [(name, each.clone()) for name, each in model.named_parameters()]
        averages = [each.clone() for each in average.module.parameters()]
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        optimizer.step()
        (rate,) = {round(group["lr"] / group["lr_scale"], 9) for group in optimizer.param_groups}
        rates.append(rate)
        scheduler.step(epoch + 1)
        average.update(model)
        moved = [name for name, old in before if not torch.equal(old, model.get_parameter(name))]
        assert len(moved) > 0.9 * len(before)  # not what is behind a ReLU6 that is shut
        for old, new, parameter in zip(averages, average.module.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(new, (old + parameter) / 2)
    assert rates[0] < 1e-4
    assert rates[1] > rates[2] > 0


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
    assert (tmp_path / "model.safetensors").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"name": "resnet10t", "num_classes": 3, "shape": [1, 4, 64, 64]}


def test_a_lazy_model_loads_what_safetensors_saved(tmp_path):
    file, x = tmp_path / "model.safetensors", torch.randn(2, 5, 64, 64)
    source = materialize(get_model("mobilenetv3_small_050", num_classes=3), (2, 5, 64, 64)).eval()
    randomize(source)
    safetensors.torch.save_file(source.state_dict(), file)
    lazy = get_model("mobilenetv3_small_050", num_classes=3).eval()
    lazy.load_state_dict(safetensors.torch.load_file(file))
    assert not is_lazy(lazy)
    torch.testing.assert_close(lazy(x), source(x), rtol=0, atol=0)
    by_file = get_model("mobilenetv3_small_050", weights=file).eval()
    torch.testing.assert_close(by_file(x), source(x))
    torch.testing.assert_close(by_file.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_safetensors_saves_and_loads_whole_models(tmp_path):
    file, x = tmp_path / "model.safetensors", torch.randn(2, 5, 64, 64)
    source, loaded = (get_model("resnet10t", num_classes=3).eval() for _ in range(2))
    for refused in (safetensors.torch.save_model, safetensors.torch.load_model):
        with pytest.raises(UninitializedModuleError, match=r"Call lazytorch\.materialize.* before state_dict\(\)"):
            refused(loaded, file)
        safetensors.torch.save_model(materialize(source, (2, 5, 64, 64)), file)
    randomize(source)
    safetensors.torch.save_model(source, file)
    assert safetensors.torch.load_model(materialize(loaded, (2, 5, 64, 64)), file) == (set(), [])
    torch.testing.assert_close(loaded(x), source(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "given",
    [{"input_size": (2, 5, 64, 64)}, {"input_data": torch.zeros(2, 5, 64, 64)}, {}],
    ids=["size", "data", "none"],
)
def test_torchinfo_counts_what_we_count_and_refuses_a_lazy_model(given):
    lazy = get_model("resnet10t", num_classes=3)
    ours = summary(lazy, (2, 5, 64, 64))
    with pytest.raises(RuntimeError) as error:
        torchinfo.summary(lazy, verbose=0, **given)
    assert "Call lazytorch.materialize(model" in str(error.value.__cause__ or error.value)
    assert is_lazy(lazy)
    lazy.freeze_stages(2)
    theirs = torchinfo.summary(materialize(lazy, (2, 5, 64, 64)), verbose=0, **given)
    assert theirs.total_params == ours.parameters
    assert theirs.trainable_params == summary(lazy, (2, 5, 64, 64)).trainable_parameters < ours.parameters
    if given:
        layers = [each for each in theirs.summary_list if each.class_name in ("Conv2d", "Linear")]
        biases = 2 * 3  # which torchinfo counts as multiply-adds, as it does the weights and biases of norms
        assert sum(layer.macs for layer in layers) - biases == ours.macs
        shapes = {layer.name: layer.output_shapes[0] for layer in ours.layers if layer.output_shapes}
        assert [shapes[name] for name, each in lazy.named_modules() if isinstance(each, nn.Conv2d)] == [
            tuple(each.output_size) for each in layers[:-1]
        ]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # TensorBoard's writer traces with it
def test_tensorboards_graph(tmp_path):
    model, x = get_model("mobilenetv3_small_050", num_classes=3).eval(), torch.randn(2, 5, 64, 64)
    with SummaryWriter(tmp_path) as writer:
        with pytest.raises(UninitializedModuleError, match=r"Lazy.* has no submodules yet: .*before walking them"):
            writer.add_graph(model, x)
        assert is_lazy(model)
        writer.add_graph(materialize(model, (2, 5, 64, 64)), x)
    graph = EventAccumulator(str(tmp_path)).Reload().Graph()
    shown = [re.findall(r"\[(\w+)\]", node.name) for node in graph.node if node.op == "aten::_convolution"]
    there = [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d)]
    assert sorted(map(".".join, shown)) == sorted(there)
