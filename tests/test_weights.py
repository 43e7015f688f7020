"""Weights go to and from torchvision and timm, and come from files, whole or not at all."""

import pickle
from functools import partial

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

import lazytorch
from lazytorch import ShapeInferenceError, UninitializedModuleError, is_lazy, materialize
from lazytorch.layers import LazyBasicBlock, LazyConvNormActivation
from lazytorch.models import (
    Backbone,
    Network,
    ResNet,
    Row,
    get_model,
    load_reference_state_dict,
    mobilenet_v2,
    reference_state_dict,
    resnet10t,
    resnet18,
)
from scripts.parity import randomize
from tests.catalogue import first_fast

SHAPE = (1, 3, 64, 64)
# What torchvision, timm and we call one network.
NETWORKS = [
    ("resnet18", "resnet18"),
    ("resnext50_32x4d", "resnext50_32x4d"),
    ("mobilenet_v2", "mobilenetv2_100"),
    ("mobilenet_v3_small", "mobilenetv3_small_100"),
    ("mobilenet_v3_large", "mobilenetv3_large_100"),
    ("mnasnet0_5", "mnasnet_050"),
    ("efficientnet_b0", "efficientnet_b0"),
    ("efficientnet_v2_s", "efficientnetv2_s"),
]


def of_torchvision(name="resnet18", **options):
    network = torchvision.models.get_model(name, weights=None, **options)
    randomize(network)
    return network.eval()


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize(("name", "in_timm"), NETWORKS)
def test_there_and_back_through_both_zoos(name, in_timm):
    state = of_torchvision(name, num_classes=5).state_dict()
    model = get_model(name, num_classes=5)
    load_reference_state_dict(model, state, "torchvision")
    theirs = timm.create_model(in_timm, num_classes=5)
    theirs.load_state_dict(reference_state_dict(model, "timm"))
    back = get_model(name, num_classes=5)
    load_reference_state_dict(back, theirs.state_dict(), "timm")
    assert same(reference_state_dict(back, "torchvision"), state)
    of_timm = get_model(in_timm, num_classes=5)  # the constants of BatchNorm may differ: each name follows its own zoo
    load_reference_state_dict(of_timm, state, "torchvision")
    assert same(reference_state_dict(of_timm, "timm"), theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(of_timm.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("order", [sorted, lambda keys: sorted(keys, reverse=True)], ids=["sorted", "reversed"])
def test_the_order_of_entries_does_not_matter(order):
    state = of_torchvision().state_dict()
    model = resnet18()
    load_reference_state_dict(model, {key: state[key] for key in order(state)}, "torchvision")
    assert same(reference_state_dict(model, "torchvision"), state)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 7, 64), (1, 2, 32, 32, 32)], ids=["2d", "1d", "3d"])
@pytest.mark.parametrize("make", [resnet10t, mobilenet_v2])
def test_a_model_never_called_takes_channels_and_rank_from_the_stem(make, shape):
    source = materialize(make(num_classes=4), shape)
    model = make(num_classes=4).double()
    load_reference_state_dict(model, reference_state_dict(source, "timm"), "timm")
    assert not is_lazy(model)
    x = torch.randn(shape)
    torch.testing.assert_close(model.eval()(x.double()).float(), source.eval()(x))


def test_what_is_loaded_is_a_copy():
    theirs = of_torchvision()
    model = resnet18()
    load_reference_state_dict(model, theirs.state_dict(), "torchvision")
    with torch.no_grad():
        model.get_classifier().bias.zero_()
    assert theirs.fc.bias.any()


@pytest.mark.parametrize("built", [False, True], ids=["lazy", "built"])
def test_what_does_not_fit_is_listed_and_changes_nothing(built):
    model = resnet18(num_classes=10)
    if built:
        materialize(model, SHAPE)
        before = {key: value.clone() for key, value in model.state_dict().items()}
    state = of_torchvision().state_dict()
    del state["layer4.1.bn2.weight"], state["bn1.bias"]
    state |= {"z": torch.zeros(1), "aux.weight": torch.zeros(1)}
    message = (
        r"entries missing: bn1\.bias, layer4\.1\.bn2\.weight; unexpected: aux\.weight, z; of another shape: "
        r"fc\.bias is \(1000,\), must be \(10,\), fc\.weight is \(1000, 512\), must be \(10, 512\)\. Nothing was"
    )
    with pytest.raises(RuntimeError, match=message):
        load_reference_state_dict(model, state, "torchvision")
    if built:
        assert same(model.state_dict(), before)
        return
    assert all(is_lazy(part) for part in (model.stem, model.stages[0][0], model.get_classifier()))
    with pytest.raises(UninitializedModuleError):
        model.state_dict()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 10)


def test_a_built_model_keeps_its_channels():
    model = materialize(resnet18(), (1, 1, 64, 64))
    with pytest.raises(RuntimeError, match=r"conv1\.weight is \(64, 3, 7, 7\), must be \(64, 1, 7, 7\)"):
        load_reference_state_dict(model, of_torchvision().state_dict(), "torchvision")


def test_an_unknown_source_is_named():
    with pytest.raises(ValueError, match=r"'torchvision' or 'timm'\), got 'keras'"):
        load_reference_state_dict(resnet18(), {}, "keras")
    plain = Backbone(stem=nn.Identity(), stages=[], num_classes=2)
    with pytest.raises(ValueError, match="there is none"):
        reference_state_dict(plain, "timm")


def test_state_without_counters_of_batches_is_taken_as_pytorch_takes_it():
    state = {key: value for key, value in of_torchvision().state_dict().items() if "num_batches" not in key}
    model = resnet18()
    load_reference_state_dict(model, state, "torchvision")
    assert int(model.stem.norm.num_batches_tracked) == 0


@pytest.fixture(params=["own", "torchvision", "timm"])
def layout(request):
    return request.param


def written(folder, state, suffix):
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    elif suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_files_of_every_layout(tmp_path, layout, suffix):
    trained = materialize(mobilenet_v2(num_classes=6), SHAPE)
    randomize(trained)
    state = trained.state_dict() if layout == "own" else reference_state_dict(trained, layout)
    model = get_model("mobilenet_v2", weights=written(tmp_path, state, suffix))
    assert model.num_classes == 6
    assert same(model.state_dict(), trained.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x), trained.eval()(x), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrapped",
    first_fast(
        ["module.", "_orig_mod.module.", "student.0.", "_orig_mod.", "model.", "net.", "module.backbone."],
        3,
    ),
)
@pytest.mark.parametrize("layout", [None, "torchvision", "timm"])
@pytest.mark.parametrize("name", ["resnet18", "mnasnet0_5"])
def test_names_of_modules_around_the_model_are_left_out(tmp_path, name, layout, wrapped):
    trained = materialize(get_model(name, num_classes=3), SHAPE)
    state = trained.state_dict() if layout is None else reference_state_dict(trained, layout)
    path = written(tmp_path, {wrapped + key: value for key, value in state.items()}, ".pt")
    assert same(get_model(name, weights=path).state_dict(), trained.state_dict())


@pytest.mark.parametrize("name", ["mobilenet_v2", "regnet_y_400mf"])
def test_weights_without_a_classifier_keep_their_names(tmp_path, name):
    """All of torchvision's entries then begin alike, or nearly."""
    trained = materialize(get_model(name, num_classes=0), SHAPE)
    path = written(tmp_path, reference_state_dict(trained, "torchvision"), ".pt")
    assert same(get_model(name, weights=path).state_dict(), trained.state_dict())


@pytest.mark.parametrize(
    "containers",
    [
        ["state_dict"],
        ["model"],
        ["model_ema"],
        ["state_dict_ema"],
        ["model_state_dict"],
        ["model", "state_dict"],
        ["state_dict", "model"],
    ],
)
def test_containers_of_checkpoints_are_opened(tmp_path, containers):
    state = trained = of_torchvision().state_dict()
    for name in containers:
        state = {"epoch": 3, name: state}
    torch.save(state, tmp_path / "checkpoint.pt")
    model = resnet18(weights=tmp_path / "checkpoint.pt")
    assert same(reference_state_dict(model, "torchvision"), trained)


def test_averaged_weights_are_taken_from_averaged_model_and_before_others(tmp_path):
    model, other = (materialize(resnet10t(num_classes=3), SHAPE) for _ in range(2))
    averaged = torch.optim.swa_utils.AveragedModel(model).state_dict()
    torch.save({"state_dict_ema": averaged, "state_dict": other.state_dict()}, tmp_path / "checkpoint.pth")
    assert same(resnet10t(weights=tmp_path / "checkpoint.pth").state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet1_0", "resnet18", "regnet_y_400mf"])
def test_versions_that_torchvision_reads_are_in_the_state(name):
    model = materialize(get_model(name, num_classes=4), SHAPE).eval()
    theirs = of_torchvision(name, num_classes=4)
    state = reference_state_dict(model, "torchvision")
    assert str(theirs.load_state_dict(state)) == "<All keys matched successfully>"
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(x), model(x))


def test_copies_of_a_model_with_weights_have_them(tmp_path):
    theirs = of_torchvision()
    model = resnet18(weights=str(written(tmp_path, theirs.state_dict(), ".pt"))).eval()
    x = torch.randn(1, 1, 64, 64)
    copied = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(copied(x), model(x), rtol=0, atol=0)


def test_other_classes_keep_the_backbone_with_a_warning(tmp_path):
    theirs = of_torchvision()
    path = written(tmp_path, theirs.state_dict(), ".safetensors")
    with pytest.warns(
        UserWarning, match="have 1000 classes but num_classes=10: .* the classifier is randomly initialized"
    ) as said:
        model = resnet18(num_classes=10, weights=path)
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="the classifier is randomly initialized") as said:
        get_model("resnet18", num_classes=10, weights=path)
    assert said[0].filename == __file__
    materialize(model, SHAPE)
    assert model.get_classifier().out_features == 10
    assert model.get_classifier().weight.std() > 0
    ours, state = reference_state_dict(model, "torchvision"), theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.items() if not key.startswith("fc."))
    features = resnet18(num_classes=0, weights=path).eval()
    x = torch.randn(2, 3, 64, 64)
    theirs.fc = nn.Identity()
    torch.testing.assert_close(features(x), theirs(x))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("how", ["call", "materialize"])
def test_stem_is_adapted_to_other_channels_as_timm_does(tmp_path, channels, how):
    path = written(tmp_path, of_torchvision("resnet18").state_dict(), ".pth")
    theirs = timm.create_model(
        "resnet18", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, in_chans=channels
    )
    model = resnet18(weights=path).eval()
    assert is_lazy(model)
    x = torch.randn(2, channels, 64, 64)
    if how == "materialize":
        materialize(model, tuple(x.shape))
    torch.testing.assert_close(model(x), theirs.eval()(x))
    assert same(reference_state_dict(model, "timm"), theirs.state_dict())


def test_equal_channels_give_what_they_gave(tmp_path):
    """Sum over one channel, mean over more: an image whose channels are equal gives the same as before."""
    theirs = of_torchvision()
    path = written(tmp_path, theirs.state_dict(), ".pt")
    x = torch.randn(2, 1, 64, 64)
    for channels in (1, 6):
        model = resnet18(weights=path).eval()
        torch.testing.assert_close(
            model(x.expand(-1, channels, -1, -1)), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
        )


def test_weights_of_another_rank_are_refused_at_the_first_call(tmp_path):
    model = resnet18(weights=written(tmp_path, of_torchvision().state_dict(), ".pt"))
    with pytest.raises(
        ShapeInferenceError, match="as many spatial dimensions as the weights that were loaded, 2, got 3"
    ):
        model(torch.zeros(1, 3, 32, 32, 32))
    assert is_lazy(model)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_what_cannot_be_loaded_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"weights: file not found: 'nowhere\.pt'\."):
        resnet18(weights="nowhere.pt")
    trace = tmp_path / "trace"
    torch.save({"fc.bias": Trap(str(trace))}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt: a file of weights must contain only tensors"):
        resnet18(weights=tmp_path / "trap.pt")
    assert not trace.exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"weights must be tensors by name, got a list"):
        resnet18(weights=tmp_path / "list.pt")
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"\x00broken")
        with pytest.raises(ValueError, match=rf"{name}: a file of weights must contain only tensors"):
            resnet18(weights=tmp_path / name)
    with pytest.raises(RuntimeError, match=r"weights '.*weights\.pt': every entry must fit the model, .* missing: "):
        resnet10t(weights=written(tmp_path, of_torchvision().state_dict(), ".pt"))
    with pytest.raises(ValueError, match="resnet10t: torchvision has no model of that name"):
        resnet10t(weights="torchvision")
    with pytest.raises(ValueError, match="for a model with a name, 'torchvision' or 'timm'"):
        ResNet(depths=(1, 1, 1, 1), block=LazyBasicBlock, expansion=1, weights="timm")


def in_torchvisions_cache(folder, monkeypatch):
    """A network of torchvision's with random weights, and the enum of weights for which its cache has them."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    theirs = of_torchvision()
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(theirs.state_dict(), cache / published.url.rsplit("/", 1)[1])
    return theirs, published


@pytest.mark.parametrize("weights", ["torchvision", "torchvision:IMAGENET1K_V1"])
def test_published_by_torchvision_through_its_own_cache(tmp_path, monkeypatch, weights):
    theirs, _ = in_torchvisions_cache(tmp_path, monkeypatch)
    model = get_model("resnet18", weights=weights)
    assert same(reference_state_dict(model, "torchvision"), theirs.state_dict())
    with pytest.raises(ValueError, match="torchvision has no weights 'V9' for resnet18; it has IMAGENET1K_V1"):
        get_model("resnet18", weights="torchvision:V9")


@pytest.mark.parametrize("weights", ["timm", "timm:a1_in1k"])
def test_published_by_timm_through_its_own_cache(tmp_path, monkeypatch, weights):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    theirs = of_torchvision()
    repository = tmp_path / "models--timm--resnet18.a1_in1k"
    (repository / "snapshots" / "revision").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("revision")
    safetensors.torch.save_file(theirs.state_dict(), repository / "snapshots" / "revision" / "model.safetensors")
    model = get_model("resnet18", weights=weights)
    assert same(reference_state_dict(model, "timm"), theirs.state_dict())
    with pytest.raises(ValueError, match=r"timm has no weights 'x9' for resnet18; it has .*a1_in1k"):
        get_model("resnet18", weights="timm:x9")
    with pytest.raises(ValueError, match="timm has no weights for resnet200; it has none"):
        get_model("resnet200", weights="timm")


@pytest.mark.parametrize("where", ["constructed", "called", "both"])
def test_inference_mode_leaves_it_trainable(tmp_path, where):
    path, x = written(tmp_path, of_torchvision().state_dict(), ".safetensors"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode(where != "called"):
        model = resnet18(weights=path)
        if where == "both":
            model(x)
    with torch.inference_mode(where == "called"):
        model(x)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_partly_built_model_takes_what_fits_it():
    state = of_torchvision().state_dict()
    model = resnet18()
    model.stem(torch.randn(1, 1, 64, 64))
    with pytest.raises(RuntimeError, match=r"conv1\.weight is \(64, 3, 7, 7\), must be \(64, 1, 7, 7\)"):
        load_reference_state_dict(model, state, "torchvision")
    model = resnet18()
    model.stem(torch.randn(1, 3, 64, 64))
    load_reference_state_dict(model, state, "torchvision")
    assert same(reference_state_dict(model, "torchvision"), state)


def test_a_changed_model_is_told_what_it_lacks():
    model = resnet18()
    model.stem = nn.Identity()
    with pytest.raises(RuntimeError, match=r"unexpected: .*conv1\.weight"):
        load_reference_state_dict(model, of_torchvision().state_dict(), "torchvision")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(1)}, "got 0: a Tensor"),
        ({"fc.bias": 3}, "got 'fc.bias': a int"),
        ({"fc.bias": torch.zeros(1000, device="meta")}, "got fc.bias, which is meta"),
        ({"fc.bias": torch.zeros(1000).to_sparse()}, "got fc.bias, which is torch.sparse_coo"),
        ({"fc.bias": torch.zeros(1000, dtype=torch.complex64)}, "got fc.bias, which is torch.complex64"),
    ],
)
def test_odd_entries_are_named(tmp_path, change, message):
    state = of_torchvision().state_dict() | change
    model = resnet18()
    with pytest.raises(ValueError, match=message):
        load_reference_state_dict(model, state, "torchvision")
    assert is_lazy(model.stem)
    if not any(isinstance(value, int) for value in change.values()):
        torch.save(state, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match=r"odd\.pt"):
            resnet18(weights=tmp_path / "odd.pt")


def test_wrong_arguments_are_named():
    state = of_torchvision().state_dict()
    with pytest.raises(TypeError, match=r"must be a lazytorch\.models\.Backbone, got a ResNet"):
        load_reference_state_dict(of_torchvision(), state, "torchvision")
    with pytest.raises(TypeError, match=r"got a OptimizedModule\. Pass model\._orig_mod"):
        load_reference_state_dict(torch.compile(resnet18()), state, "torchvision")
    with pytest.raises(ValueError, match="weights must be tensors by name, got a NoneType"):
        load_reference_state_dict(resnet18(), None, "torchvision")
    with pytest.raises(RuntimeError, match="got one on the meta device"):
        load_reference_state_dict(resnet18().to("meta"), state, "torchvision")


def test_ambient_device_does_not_matter():
    state = {key: value for key, value in of_torchvision().state_dict().items() if "num_batches" not in key}
    model = resnet18()
    with torch.device("meta"):
        load_reference_state_dict(model, state, "torchvision")
    assert not any(value.is_meta for value in model.state_dict().values())


def test_loading_leaves_no_trace():
    model = resnet18()
    load_reference_state_dict(model, of_torchvision().state_dict(), "torchvision")
    by_hand = lazytorch.materialize(resnet18(), SHAPE)
    for ours, theirs in zip(model.modules(), by_hand.modules(), strict=True):
        assert type(ours) is type(theirs)
        assert vars(ours).keys() == vars(theirs).keys()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_load_that_fails_when_all_fits_leaves_the_model_lazy(error):
    model, state = resnet18(num_classes=4), of_torchvision(num_classes=4).state_dict()
    before = pickle.dumps(model)

    def fail(*_):
        raise error("mine")

    handle = model.register_load_state_dict_pre_hook(fail)
    with pytest.raises(error, match="mine"):
        load_reference_state_dict(model, state, "torchvision")
    handle.remove()
    assert is_lazy(model)
    assert pickle.dumps(model) == before
    load_reference_state_dict(model, state, "torchvision")
    assert same(reference_state_dict(model, "torchvision"), state)


def test_a_method_of_torch_that_was_wrapped_changes_nothing(monkeypatch):
    """Other packages wrap ``nn.Module.load_state_dict``; whether a load is strict is an argument."""
    load = nn.Module.load_state_dict
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, *args, **options: load(self, *args, **options))
    part = {"stem.conv.weight": torch.ones(64, 3, 7, 7)}
    lenient, strict = resnet18(num_classes=4), resnet18(num_classes=4)
    result = lenient.load_state_dict(part, strict=False)
    assert not is_lazy(lenient)
    assert result == materialize(resnet18(num_classes=4), SHAPE).load_state_dict(part, strict=False)
    assert (materialize(lenient, SHAPE).stem.conv.weight == 1).all()
    with pytest.raises(RuntimeError, match="Missing key"):
        strict.load_state_dict(part)
    assert is_lazy(strict)


def test_an_enum_of_torchvisions_weights(tmp_path, monkeypatch):
    theirs, published = in_torchvisions_cache(tmp_path, monkeypatch)
    for weights in (published, torchvision.models.ResNet18_Weights.DEFAULT):
        model = get_model("resnet18", weights=weights)
        assert same(reference_state_dict(model, "torchvision"), theirs.state_dict())
    with pytest.raises(RuntimeError, match=r"weights 'ResNet18_Weights.IMAGENET1K_V1': every entry must fit the model"):
        get_model("resnet34", weights=published)
    own = partial(
        Network,
        stem=partial(LazyConvNormActivation, 8),
        stem_reduction=1,
        stages=[[Row(partial(LazyBasicBlock, 8), 8)]],
    )
    with pytest.raises(
        ValueError, match=r"source must be a zoo with such a model \(there is none\), got 'torchvision'"
    ):
        own(weights=published)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}])
@pytest.mark.parametrize("own", [True, False], ids=["own names", "torchvision's"])
def test_a_state_dict_in_memory(wrap, own):
    theirs = of_torchvision()
    state = theirs.state_dict()
    if own:
        source = resnet18()
        load_reference_state_dict(source, state, "torchvision")
        state = source.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    with pytest.warns(UserWarning, match=r"have 1000 classes but num_classes=7"):
        model = resnet18(num_classes=7, weights=wrap(state))
    x = torch.randn(2, 3, 64, 64)
    model.eval()(x).sum().backward()
    torch.testing.assert_close(reference_state_dict(model, "torchvision")["conv1.weight"], theirs.conv1.weight.data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(state, before)
    gray = resnet18(weights=wrap(state)).eval()
    gray(torch.zeros(1, 1, 64, 64))
    torch.testing.assert_close(gray.stem.conv.weight, theirs.conv1.weight.data.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"weights \(also below .*\): weights must be tensors by name"):
        resnet18(weights={"stem.conv.weight": 3})


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_file_that_names_its_model_says_so_where_it_does_not_fit(tmp_path, kind):
    state = of_torchvision().state_dict()
    if kind == "pt":
        torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "weights.pt")
    else:
        safetensors.torch.save_file(state, tmp_path / "weights.safetensors", {"lazytorch": '{"model": "resnet18"}'})
    resnet18(weights=tmp_path / f"weights.{kind}")
    with pytest.raises(RuntimeError, match="every entry must fit the model") as error:
        get_model("resnet34", weights=tmp_path / f"weights.{kind}")
    assert "the file has the weights of 'resnet18'" in error.value.__notes__


def test_long_lists_of_entries_show_five_and_a_count(tmp_path):
    torch.save(of_torchvision().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(RuntimeError, match=r"missing: (\S+, ){4}\S+ and \d+ more\. Nothing was changed"):
        get_model("resnet34", weights=tmp_path / "weights.pt")


@pytest.mark.parametrize("wrong", [3, True, b"weights.pt", object(), nn.Identity()])
def test_other_weights_are_an_error(wrong):
    with pytest.raises(ValueError, match=r"weights must be a file that ends in .*, a state dict, one of torchvision's"):
        resnet18(weights=wrong)


class Hub(nn.Module, huggingface_hub.PyTorchModelHubMixin):
    def __init__(self):
        super().__init__()
        self.conv = LazyConvNormActivation(8)

    def forward(self, x):
        return self.conv(x)


def test_loaders_that_need_the_state_of_a_lazy_model_name_the_one_that_works(tmp_path):
    x, built = torch.randn(2, 3, 8, 8), Hub()
    expected = built(x)
    built.save_pretrained(tmp_path)
    message = "To load weights, call load_state_dict, which needs no input"
    with pytest.raises(UninitializedModuleError, match=message):
        Hub.from_pretrained(tmp_path)
    lazy = Hub()
    with pytest.raises(UninitializedModuleError, match=message):
        safetensors.torch.load_model(lazy, tmp_path / "model.safetensors")
    with pytest.raises(UninitializedModuleError, match=message):
        safetensors.torch.load_model(resnet18(), tmp_path / "model.safetensors")
    lazy.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(lazy(x), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    ],
)
def test_averaged_weights_below_other_names(wrap):
    source = materialize(resnet10t(num_classes=3), SHAPE)
    randomize(source)
    averaged = torch.optim.swa_utils.AveragedModel(source).state_dict()
    model = resnet10t(num_classes=3, weights=wrap(averaged))
    assert same(model.state_dict(), source.state_dict())


@pytest.mark.parametrize("name", ["mobilenetv2_035", "resnet10t"])
@pytest.mark.parametrize("prefix", ["features", "classifier", "stem", "model"])
def test_a_wrapper_whose_attribute_has_a_name_of_another_zoo(name, prefix):
    source = materialize(get_model(name, num_classes=3), SHAPE)
    randomize(source)
    model = get_model(
        name, num_classes=3, weights={f"{prefix}.{key}": each for key, each in source.state_dict().items()}
    )
    assert same(model.state_dict(), source.state_dict())
