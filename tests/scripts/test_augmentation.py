"""Augmentation of signals, images and volumes: the same options, and the same example for the same seed."""

import importlib.util
import pickle
import random
import signal
import sys
from functools import partial

import numpy
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from scripts.training import running
from scripts.training.augmentation import Augmentation, require
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.samples import Samples, seed_for
from scripts.training.sources import Data, InMemory
from tests.scripts import forks
from tests.scripts.arrays import SIZES, array_data
from tests.scripts.runs import assert_same, die_after_checkpoint, options_of

SHAPES = {1: (60,), 2: (40, 30), 3: (16, 20, 12)}
NONE = ("--shift", "0", "--intensity", "0")
CHANGES = [
    ("--shift", "0.2"),
    ("--rotate", "30"),
    ("--zoom", "0.3"),
    ("--crop", "0.5"),
    ("--flip", "0.5"),
    ("--intensity", "0.5"),
    ("--noise", "0.5"),
    ("--erasing", "1"),
]
EVERYTHING = [each for change in CHANGES for each in change]


def applicable(change: tuple[str, ...], spatial_dims: int) -> bool:
    return spatial_dims > 1 or change[0] != "--rotate"


EACH = [(dims, change) for dims in SHAPES for change in CHANGES if applicable(change, dims)]


@pytest.mark.parametrize("spatial_dims", SHAPES)
def test_what_is_random_depends_on_seed_epoch_and_index_alone(spatial_dims):
    arguments = EVERYTHING if spatial_dims > 1 else [each for each in EVERYTHING if each not in ("--rotate", "30")]
    data, given = array_data(spatial_dims, 5), options_of(*arguments)
    images = Samples(data.train, data, given, training=True)
    first = images[3, 2][0]
    for each in (torch.manual_seed, numpy.random.seed, random.seed):
        each(99)
    again = pickle.loads(pickle.dumps(images))  # as loading processes get it
    for index in (0, 1):
        assert not torch.equal(images[3, index][0], first)
    assert torch.equal(images[3, 2][0], first)
    assert torch.equal(again[3, 2][0], first)
    assert not torch.equal(images[4, 2][0], first)
    other = Samples(data.train, data, options_of(*arguments, "--seed", "1"), training=True)
    assert not torch.equal(other[3, 2][0], first)
    plain = Samples(data.val, data, given, training=False)
    assert torch.equal(plain[0, 2][0], data.val.read(2))


@pytest.mark.parametrize(("spatial_dims", "change"), EACH)
def test_every_change_keeps_shape_and_dtype_and_the_data(spatial_dims, change):
    """Of any number of channels."""
    for channels in (1, 3, 7):
        example = torch.randn(channels, *SHAPES[spatial_dims], generator=torch.Generator().manual_seed(1))
        before = example.clone()
        augment = Augmentation(options_of(*NONE, *change), spatial_dims)
        results = [augment(example, seed) for seed in range(6)]
        assert torch.equal(example, before)
        for result in results:
            assert (result.shape, result.dtype, type(result)) == (example.shape, example.dtype, torch.Tensor)
            assert result.isfinite().all()
            assert result.is_contiguous()
        assert any(not torch.equal(result, example) for result in results)
    assert torch.equal(Augmentation(options_of(*NONE), spatial_dims)(example, 0), example)


@pytest.mark.parametrize(
    ("axes", "flipped"),
    [
        (None, {1: [1], 2: [2], 3: [3]}),
        ("length", {1: [1]}),
        ("height", {2: [1], 3: [2]}),
        ("height,width", {2: [1, 2], 3: [2, 3]}),
        ("depth,width", {3: [1, 3]}),
    ],
)
def test_flips_are_along_the_axes_that_are_named(axes, flipped):
    for spatial_dims, dims in flipped.items():
        example = torch.randn(2, *SHAPES[spatial_dims])
        given = options_of(*NONE, "--flip", "1", *(() if axes is None else ("--flip-axes", axes)))
        assert torch.equal(Augmentation(given, spatial_dims)(example, 0), example.flip(dims))


@pytest.mark.parametrize("spatial_dims", SHAPES)
def test_shifts_are_whole_steps_up_to_the_fraction(spatial_dims):
    shape = SHAPES[spatial_dims]
    example = torch.zeros(2, *shape)
    centre = torch.tensor([size // 2 for size in shape])
    example[(slice(None), *centre)] = torch.tensor([1.0, 2.0])
    augment = Augmentation(options_of("--intensity", "0", "--shift", "0.1"), spatial_dims)
    moves = []
    for seed in range(40):
        result = augment(example, seed)
        places = result.nonzero()
        assert result[result != 0].tolist() == [1, 2]  # each channel as it was, and both moved alike
        assert torch.equal(places[0, 1:], places[1, 1:])
        moves.append(places[0, 1:] - centre)
    largest = torch.stack(moves).abs().amax(dim=0)
    assert largest.tolist() == [round(0.1 * size) for size in shape]


def test_volumes_rotate_within_their_slices():
    example = torch.arange(16.0).reshape(1, 16, 1, 1).expand(1, *SHAPES[3])
    augment = Augmentation(options_of(*NONE, "--rotate", "45"), 3)
    inner = slice(7, 13), slice(4, 8)
    torch.testing.assert_close(augment(example, 0)[:, :, *inner], example[:, :, *inner])
    ramp = torch.arange(20.0).reshape(1, 1, 20, 1).expand(1, *SHAPES[3])
    rotated = augment(ramp, 0)
    assert not torch.allclose(rotated[:, :, *inner], ramp[:, :, *inner])
    torch.testing.assert_close(rotated, rotated[:, :1].expand_as(rotated))


@pytest.mark.parametrize("spatial_dims", SHAPES)
def test_intensity_noise_and_erasing_have_their_amounts(spatial_dims):
    example = torch.ones(3, *SHAPES[spatial_dims])
    intensity = Augmentation(options_of("--shift", "0", "--intensity", "0.2"), spatial_dims)
    factors = torch.stack([intensity(example, seed).flatten().unique(sorted=True)[[0, -1]] for seed in range(60)])
    assert torch.equal(factors[:, 0], factors[:, 1])  # one factor for the whole example
    assert 0.8 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2
    noise = Augmentation(options_of(*NONE, "--noise", "0.3"), spatial_dims)
    values = torch.stack([noise(example, seed) - 1 for seed in range(40)])
    assert values.std().item() == pytest.approx(0.3, rel=0.05)
    erasing = Augmentation(options_of(*NONE, "--erasing", "0.5"), spatial_dims)
    erased = torch.tensor([(erasing(example, seed) == 0).float().mean().item() for seed in range(60)])
    assert 15 <= (erased > 0).sum() <= 45
    assert erased[erased > 0].min() > 0.005
    assert 0.15 < erased.max() < 0.4


def test_crops_keep_the_least_fraction():
    ramp = torch.arange(60.0).reshape(1, 60)
    crop = Augmentation(options_of(*NONE, "--crop", "0.5"), 1)
    kept = torch.tensor([(crop(ramp, seed).max() - crop(ramp, seed).min()).item() / 59 for seed in range(60)])
    assert 0.45 < kept.min() < 0.55
    assert 0.95 < kept.max() <= 1


@pytest.mark.parametrize("arguments", [(), ("--shift", "0.08", "--rotate", "10", "--zoom", "0.1", "--intensity", "0")])
def test_images_from_0_to_1_have_a_small_affine_transform_by_default(arguments):
    data = load(options_of())
    images = Samples(data.train, data, options_of(*arguments), training=True)
    reference = transforms.Compose(
        [
            transforms.Resize(32, antialias=True),
            transforms.CenterCrop(32),
            transforms.RandomAffine(
                (-10, 10), translate=(0.08, 0.08), scale=(0.9, 1.1), interpolation=InterpolationMode.BILINEAR
            ),
            transforms.Normalize([0.449], [0.226]),
        ]
    )
    for index in range(100):
        image = images[2, index][0]
        torch.manual_seed(seed_for(0, 2, index))
        assert torch.equal(image, reference(data.train.read(index)))
    with_crop = Samples(data.train, data, options_of("--crop", "0.5"), training=True)[2, 0][0]
    torch.manual_seed(seed_for(0, 2, 0))
    cropped = transforms.RandomResizedCrop(32, scale=(0.5, 1), antialias=True)(data.train.read(0))
    assert torch.equal(with_crop, transforms.Normalize([0.449], [0.226])(cropped))  # and nothing else


def test_arrays_are_shifted_and_scaled_by_default():
    for spatial_dims, shape in SHAPES.items():
        example = torch.randn(2, *shape)
        default, stated = (
            Augmentation(options_of(*each), spatial_dims) for each in ((), ("--shift", "0.05", "--intensity", "0.1"))
        )
        assert torch.equal(default(example, 3), stated(example, 3))
        assert not torch.equal(default(example, 3), example)


@pytest.mark.parametrize(
    "arguments", [(), ("--crop", "0.3"), ("--randaugment", "3"), ("--flip", "1"), ("--noise", "1", "--erasing", "1")]
)
def test_images_of_any_size_become_squares(arguments):
    for channels in (1, 3):
        examples = torch.rand(2, channels, 30, 50), torch.randint(0, 255, (2, channels, 20, 20), dtype=torch.uint8)
        for each in examples:
            source = InMemory(each, [0, 1], "image")
            data = Data(source, source, ["a", "b"], channels, 24, [0.5] * channels, [0.5] * channels)
            image = Samples(source, data, options_of(*arguments), training=True)[0, 1][0]
            assert (image.shape, image.dtype) == ((channels, 24, 24), torch.float32)


@pytest.mark.parametrize(
    ("spatial_dims", "arguments", "message"),
    [
        (1, ("--rotate", "5"), "--rotate must be 0 for signals, which have one axis, got 5. Leave it out."),
        (1, ("--flip-axes", "width"), "--flip-axes must be axes of signals: length, got width."),
        (2, ("--flip-axes", "width,depth"), "--flip-axes must be axes of images: height, width, got width,depth."),
        (3, ("--flip-axes", "length"), "--flip-axes must be axes of volumes: depth, height, width, got length."),
        (1, ("--cutmix", "1"), "signals, which have no rectangle to replace, got 1. Use --mixup."),
        (1, ("--randaugment", "2"), "with values from 0 to 1, got 2 for arrays of signals. Leave it out."),
        (2, ("--randaugment", "2"), "with values from 0 to 1, got 2 for arrays of images. Leave it out."),
    ],
)
def test_a_change_that_the_data_cannot_have_is_an_error(spatial_dims, arguments, message):
    with pytest.raises(RunError) as caught:
        require(options_of(*arguments), array_data(spatial_dims, 5))
    assert str(caught.value).endswith(message)
    other = {1: 3, 2: 3, 3: 2}[spatial_dims]
    if arguments[0] in ("--rotate", "--cutmix"):
        require(options_of(*arguments), array_data(other, 5))


def test_names_of_axes_are_checked_before_anything_is_read(capsys):
    for text, message in (
        ("dpth", "must be names of depth, height, width or length, with commas between them, got dpth. Did you "),
        ("width,width", "must name each axis once, got width,width"),
    ):
        with pytest.raises(SystemExit):
            options_of("--flip-axes", text)
        assert f"argument --flip-axes: {message}" in capsys.readouterr().err


def test_monai_is_needed_for_signals_and_volumes_alone(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "monai" else find(name))
    for name in [each for each in sys.modules if each == "monai" or each.startswith("monai.")]:
        monkeypatch.setitem(sys.modules, name, None)
    for spatial_dims, kind in ((1, "signals"), (3, "volumes")):
        data = array_data(spatial_dims, 5)
        with pytest.raises(RunError) as caught:
            require(options_of(), data)
        assert str(caught.value) == (
            f"Augmentation of {kind} needs MONAI, which is not installed. Install it with pip install "
            "'lazytorch[arrays]', or give --shift 0 --intensity 0 and no other augmentation."
        )
        require(options_of(*NONE), data)
        plain = Samples(data.train, data, options_of(*NONE), training=True)
        assert torch.equal(plain[0, 1][0], data.train.read(1))
    data = array_data(2, 5)
    require(options_of(*EVERYTHING), data)
    assert Samples(data.train, data, options_of(*EVERYTHING), training=True)[0, 1][0].shape == (5, *SIZES[2])


def in_memory(spatial_dims: int, killed_after: int | None = None) -> None:
    """Have the process train on arrays, and be killed after the checkpoint of a step."""
    running.load = lambda *_, **__: array_data(spatial_dims, count=12)
    if killed_after is not None:
        die_after_checkpoint(killed_after)


@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", SHAPES)
def test_killed_and_resumed_ends_bitwise_equal_with_every_change(tmp_path, spatial_dims):
    """Whether a loading process augments, as in the whole and the resumed run, or the run itself."""
    arguments = EVERYTHING if spatial_dims > 1 else [each for each in EVERYTHING if each not in ("--rotate", "30")]
    small = ["--model-option", "width=0.1", "final_channels=16", "--batch-size", "4", "--device", "cpu"]
    command = [*arguments, *small, "--mixup", "0.2", "--epochs", "2", "--checkpoint-steps", "1", "--output"]
    log = tmp_path / "log"
    assert forks.finish([*command, tmp_path / "whole", "--workers", "1"], log, partial(in_memory, spatial_dims)) == 0, (
        log.read_text()
    )
    killed = forks.finish([*command, tmp_path / "run"], log, partial(in_memory, spatial_dims, 4))
    assert killed == -signal.SIGKILL, log.read_text()
    again = [*command, tmp_path / "run", "--resume", "--workers", "1"]
    assert forks.finish(again, log, partial(in_memory, spatial_dims)) == 0, log.read_text()
    assert "going on from" in log.read_text()
    assert_same(tmp_path / "run", tmp_path / "whole")
