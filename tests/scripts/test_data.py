"""What scripts/train.py reads from data, and the batches that it makes of them."""

import random
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scripts import train
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.images import Images, training_transform
from scripts.training.loading import EvenBatches
from scripts.training.options import parse
from scripts.training.reading import read_image


def options(*arguments: str):
    return parse("", list(arguments))[0]


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 32), **keywords) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=numpy.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **keywords)


@pytest.fixture
def flowers(tmp_path) -> Path:
    """Two classes of three images each for training and one for validation, of many formats and modes."""
    root = tmp_path / "flowers"
    kinds = [("0.png", "RGB"), ("deeper/1.JPG", "L"), ("2.tiff", "RGBA")]
    for split, count in (("train", 3), ("val", 1)):
        for flower in ("rose", "tulip"):
            for name, mode in kinds[:count]:
                save(root / split / flower / name, mode)
    return root


def test_folder_has_its_classes_channels_and_size(flowers):
    data = load(options("--data", f"folder:{flowers}"))
    assert data.classes == ["rose", "tulip"]
    assert data.channels == 3
    assert data.image_size == 32
    assert list(data.train.labels) == [0, 0, 0, 1, 1, 1]
    assert list(data.val.labels) == [0, 1]
    images = Images(data.train, data, options(), training=True)
    assert [images[0, index][0].shape for index in range(6)] == [(3, 32, 32)] * 6


def test_grey_folder_has_one_channel(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "grey.png", "L", (400, 300))
    data = load(options("--data", f"folder:{tmp_path}"))
    assert (data.channels, data.image_size) == (1, 224)
    save(tmp_path / "train/a/late colour.png", "RGB")
    data = load(options("--data", f"folder:{tmp_path}"))
    with pytest.raises(RunError, match=r"late colour\.png is in colour, but the first images of all classes are grey"):
        Images(data.train, data, options(), training=True)[0, 1]


def test_deep_grey_keeps_its_depth(tmp_path):
    pixels = numpy.array([[0, 257], [2**15, 2**16 - 1]], dtype=numpy.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png")
    torch.testing.assert_close(torch.Tensor(image), torch.tensor([[[0, 1 / 255], [2**15 / (2**16 - 1), 1]]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "val/rose/0.png").unlink(), "every class must have validation images, got none for rose"),
        (lambda root: (root / "train/daisy").mkdir(), "must have the same classes, got daisy only in train"),
        (lambda root: (root / "val").rename(root / "test"), "must hold a folder val"),
        (lambda root: [path.unlink() for path in root.rglob("*.*")], "there must be images, got no training images"),
        (
            lambda root: [(root / split / "tulip").rename(root / f"{split} tulip") for split in ("train", "val")],
            "there must be two classes or more, got rose",
        ),
    ],
)
def test_wrong_folders_are_errors_before_training(flowers, tmp_path, change, message, capsys):
    change(flowers)
    with pytest.raises(SystemExit):
        train.main(["--data", f"folder:{flowers}", "--output", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning")
@pytest.mark.parametrize(("content", "workers"), [(b"", "0"), (b"no image", "0"), (None, "0"), (None, "1")])
def test_a_corrupt_image_names_its_file(flowers, tmp_path, content, workers, capsys):
    path = flowers / "train/rose/2.tiff"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    arguments = [
        "--data",
        f"folder:{flowers}",
        "--output",
        str(tmp_path / "run"),
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit):
        train.main([*arguments, "--workers", workers, "--model-option", "width=0.1", "--epochs", "1"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"{path} cannot be read as an image (")
    assert error.endswith("Repair or remove it.")


def test_sets_of_torchvision(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.FakeData.__init__, "__defaults__", (50, (1, 28, 28), 5, None, None, 0))
    data = load(options("--data", "torchvision:FakeData"))
    assert (data.channels, data.image_size, len(data.classes)) == (1, 32, 5)
    assert (len(data.train.labels), len(data.val.labels)) == (40, 10)
    for name, message in (
        ("CIFAR10", "Give --download"),
        ("Cifar", "has no set of that name"),
        ("utils", "has no set"),
    ):
        with pytest.raises(RunError, match=message):
            load(options("--data", f"torchvision:{name}", "--data-root", str(tmp_path)))


class Splits(torch.utils.data.Dataset):
    """A set as torchvision's are, by the name of its split."""

    names = ("trainval", "test")

    def __init__(self, root, split="trainval", download=False):
        if split not in self.names:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.count = 6 if split == "trainval" else 4
        self.classes = ["a", "b"]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        return Image.new("RGB", (36, 36), (index, 0, 0)), index % 2


def test_the_splits_of_a_set_are_found_by_their_names(monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "SVHN", Splits)
    data = load(options("--data", "torchvision:SVHN"))
    assert (len(data.train.labels), len(data.val.labels)) == (6, 4)
    assert (data.classes, data.channels, data.image_size) == (["a", "b"], 3, 36)
    assert data.train.read(5)[0].unique().tolist() == [5]


def test_digits_are_split_by_class_and_seed():
    data, again, other = (load(options("--seed", seed)) for seed in ("0", "0", "1"))
    assert (len(data.train.labels), len(data.val.labels)) == (1437, 360)
    images, same, others = (
        torch.stack([each.val.read(index) for index in range(360)]) for each in (data, again, other)
    )
    assert torch.equal(images, same)
    assert not torch.equal(images, others)
    counts = numpy.bincount(data.val.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert (images.min(), images.max()) == (0, 1)
    everything = torch.stack([data.train.read(index) for index in range(1437)])
    assert len(torch.cat([images, everything]).flatten(1).unique(dim=0)) == 1797


@given(
    count=st.integers(4, 300),
    batch_size=st.integers(2, 40),
    processes=st.integers(1, 5),
    epoch=st.integers(0, 3),
    start=st.integers(0, 5),
)
def test_every_image_comes_once_an_epoch_over_all_processes(count, batch_size, processes, epoch, start):
    samplers = [EvenBatches(count, batch_size, rank, processes, 1, None) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_position(epoch)
    batches = [list(sampler) for sampler in samplers]
    seen = sorted(index for each in batches for batch in each for _, index in batch)
    assert seen == list(range(count))
    assert {epoch} == {key for each in batches for batch in each for key, _ in batch}
    assert {len(each) for each in batches} == {len(samplers[0])}
    sizes = [len(batch) for each in batches for batch in each]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    samplers[0].set_position(epoch, start)
    assert list(samplers[0]) == batches[0][start:]
    assert len(samplers[0]) == len(batches[0])
    samplers[0].set_epoch(epoch + 1)
    order = [index for batch in samplers[0] for _, index in batch]
    assert order != [index for batch in batches[0] for _, index in batch] or count < 12


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    given = options("--erasing", "1", "--randaugment", "2", "--crop", "0.5", "--flip", "0.5", "--data", "synthetic")
    data = load(given)
    images = Images(data.train, data, given, training=True)
    first = images[3, 7][0]
    torch.manual_seed(99)
    random.seed(99)
    torch.testing.assert_close(Images(data.train, data, given, training=True)[3, 7][0], first, rtol=0, atol=0)
    assert not torch.equal(images[4, 7][0], first)
    other = options("--erasing", "1", "--randaugment", "2", "--crop", "0.5", "--data", "synthetic", "--seed", "1")
    assert not torch.equal(Images(data.train, data, other, training=True)[3, 7][0], first)
    plain = Images(data.val, data, given, training=False)
    torch.testing.assert_close(plain[0, 5][0], plain[1, 5][0], rtol=0, atol=0)


def test_pixels_are_normalized():
    data = load(options())
    image = Images(data.val, data, options(), training=False)[0, 0][0]
    raw = torch.nn.functional.interpolate(data.val.read(0)[None], (32, 32), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(image, (raw - 0.449) / 0.226)


@pytest.mark.parametrize("arguments", [(), ("--crop", "0.3"), ("--randaugment", "3"), ("--flip", "1")])
def test_every_augmentation_keeps_the_shape_of_grey_and_colour(arguments):
    transform = training_transform(options(*arguments), 24)
    for channels in (1, 3):
        for image in (torch.rand(channels, 30, 50), torch.randint(0, 255, (channels, 20, 20), dtype=torch.uint8)):
            assert transform(image).shape == (channels, 24, 24)
            assert transform(image).dtype == image.dtype
