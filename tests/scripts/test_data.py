"""What scripts/train.py reads from data, and the batches that it makes of them."""

import pickle
import random
import re
import struct
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import default_collate

from scripts import train
from scripts.training import samples as samples_module
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.loading import EvenBatches
from scripts.training.reading import read_image
from scripts.training.samples import Samples
from tests.scripts import arrays
from tests.scripts.counted import counted
from tests.scripts.runs import options_of


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
    data = load(options_of("--data", f"folder:{flowers}"))
    assert data.classes == ["rose", "tulip"]
    assert data.channels == 3
    assert data.image_size == 32
    assert list(data.train.labels) == [0, 0, 0, 1, 1, 1]
    assert list(data.val.labels) == [0, 1]
    images = Samples(data.train, data, options_of(), training=True)
    assert [images[0, index][0].shape for index in range(6)] == [(3, 32, 32)] * 6


def test_grey_folder_has_one_channel(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "grey.png", "L", (400, 300))
    data = load(options_of("--data", f"folder:{tmp_path}"))
    assert (data.channels, data.image_size) == (1, 224)
    save(tmp_path / "train/a/late colour.png", "RGB")
    data = load(options_of("--data", f"folder:{tmp_path}"))
    with pytest.raises(RunError, match=r"late colour\.png is in colour, but the first images of all classes are grey"):
        Samples(data.train, data, options_of(), training=True)[0, 1]


def test_hidden_files_and_folders_are_left_out_and_links_followed(flowers, tmp_path):
    rose = flowers / "train/rose"
    for name in ("._0.png", "deeper/._1.png", ".ipynb_checkpoints/0.png", "deeper/.Trash/deep/0.png"):
        save(rose / name)
    save(flowers / "train/.ipynb_checkpoints/0.png")
    save(tmp_path / "elsewhere/deep/4.png")
    (rose / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (rose / "deeper/round").symlink_to(rose, target_is_directory=True)  # into itself
    (flowers / "val/tulip").rename(tmp_path / "tulips of the test")
    (flowers / "val/tulip").symlink_to(tmp_path / "tulips of the test", target_is_directory=True)
    data = load(options_of("--data", f"folder:{flowers}"))
    names = [data.train.name(index) for index in range(len(data.train.labels)) if data.train.labels[index] == 0]
    assert names == [str(rose / name) for name in ("0.png", "2.tiff", "deeper/1.JPG", "link/deep/4.png")]
    assert len(data.val.labels) == 2
    assert data.classes == ["rose", "tulip"]


def test_a_link_to_a_missing_file_is_named(flowers):
    (flowers / "train/tulip/9.png").symlink_to(flowers / "nowhere.png")
    data = load(options_of("--data", f"folder:{flowers}"))
    with pytest.raises(RunError, match=r"tulip/9\.png cannot be read as an image \(FileNotFoundError"):
        data.train.read(list(data.train.labels).index(1) + 2)


def tiff(path: Path, bits: int, pixels: list[int]) -> None:
    """Write an uncompressed grey TIFF file of any depth, of two columns, as microscopes and cameras do."""
    rows = [pixels[start : start + 2] for start in range(0, len(pixels), 2)]
    if bits == 12:  # packed, the highest bits first
        strip = b"".join((one << 12 | other).to_bytes(3, "big") for one, other in rows)
    else:
        strip = b"".join(pixel.to_bytes(bits // 8, "little") for pixel in pixels)
    tags = {256: 2, 257: len(rows), 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: len(rows), 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags.items())
    folder = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + folder)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_whole_numbers_are_divided_by_the_largest_of_their_depth(tmp_path, bits):
    top = 2**bits - 1
    tiff(tmp_path / "deep.tif", bits, [0, 1, 2 ** (bits - 1), top])
    image = read_image(tmp_path / "deep.tif")
    torch.testing.assert_close(torch.Tensor(image), torch.tensor([[[0, 1 / top], [2 ** (bits - 1) / top, 1]]]))
    if bits == 16:
        Image.fromarray(numpy.array([[0, 257], [2**15, top]], dtype=numpy.uint16)).save(tmp_path / "deep.png")
        image = read_image(tmp_path / "deep.png")
        torch.testing.assert_close(torch.Tensor(image), torch.tensor([[[0, 1 / 255], [2**15 / top, 1]]]))


def test_floating_point_pixels_are_from_0_to_1(tmp_path):
    path = tmp_path / "float.tif"
    pixels = numpy.array([[0, 0.25], [0.5, 1]], dtype=numpy.float32)
    Image.fromarray(pixels).save(path)
    torch.testing.assert_close(torch.Tensor(read_image(path)), torch.from_numpy(pixels)[None])
    for wrong, found in ((pixels * 1000 - 5, "got -5 to 995"), (pixels * float("nan"), "got nan to nan")):
        Image.fromarray(wrong).save(path)
        with pytest.raises(RunError, match=rf"float\.tif .* floating-point pixels must be from 0 to 1, {found}"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation_of_exif_is_applied(tmp_path, suffix):
    """A photograph that a camera took upright, and stored lying, with 6: turn it clockwise to see it."""
    pixels = numpy.zeros((16, 32, 3), dtype=numpy.uint8)
    pixels[:, 16:] = 255  # bright on the right, which is then below
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}").float()
    assert image.shape == (3, 32, 16)
    assert image[:, :12].mean() < 20
    assert image[:, 20:].mean() > 235


def test_damaged_exif_costs_no_image(tmp_path):
    Image.new("RGB", (8, 4), (9, 9, 9)).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert read_image(tmp_path / "a.png").shape == (3, 4, 8)


@pytest.mark.parametrize("kind", ["digits", "synthetic", "folder", "torchvision", "held out"])
def test_every_data_set_can_be_sent_to_another_process(flowers, kind, monkeypatch):
    """As macOS, Windows and Python 3.14 do with those that load images."""
    monkeypatch.setattr(torchvision.datasets.FakeData.__init__, "__defaults__", (50, (1, 28, 28), 5, None, None, 0))
    monkeypatch.setattr(torchvision.datasets, "SVHN", Splits)
    names = {"folder": f"folder:{flowers}", "torchvision": "torchvision:SVHN", "held out": "torchvision:FakeData"}
    given = options_of("--data", names.get(kind, kind), "--randaugment", "1", "--flip", "0.5", "--erasing", "0.5")
    data = load(given)
    for source in (data.train, data.val):
        images = Samples(source, data, given, training=source is data.train)
        sent = pickle.loads(pickle.dumps(images))
        torch.testing.assert_close(sent[2, 1], images[2, 1], rtol=0, atol=0)
        assert sent.source.name(1) == source.name(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "val/rose/0.png").unlink(),
            "every class must have validation samples, got none for rose",
        ),
        (lambda root: (root / "train/daisy").mkdir(), "must have the same classes, got daisy only in train"),
        (lambda root: (root / "val").rename(root / "test"), "must contain a folder val"),
        (
            lambda root: [path.unlink() for path in root.rglob("*.*")],
            "every split must have samples, got no training samples",
        ),
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
    data = load(options_of("--data", "torchvision:FakeData"))
    assert (data.channels, data.image_size, len(data.classes)) == (1, 32, 5)
    assert (len(data.train.labels), len(data.val.labels)) == (40, 10)
    for name, message in (
        ("CIFAR10", "Give --download"),
        ("CIFR10", "has no set of that name. Did you mean torchvision:CIFAR10?"),
        ("utils", "has no set"),
    ):
        with pytest.raises(RunError, match=re.escape(message)):
            load(options_of("--data", f"torchvision:{name}", "--data-root", str(tmp_path)))


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
    data = load(options_of("--data", "torchvision:SVHN"))
    assert (len(data.train.labels), len(data.val.labels)) == (6, 4)
    assert (data.classes, data.channels, data.image_size) == (["a", "b"], 3, 36)
    assert data.train.read(5)[0].unique().tolist() == [5]


def test_digits_are_split_by_class_and_seed():
    data, again, other = (load(options_of("--seed", seed)) for seed in ("0", "0", "1"))
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


STILL = ["--shift", "0", "--rotate", "0", "--zoom", "0", "--intensity", "0"]


@pytest.mark.parametrize(
    "kind", ["digits", "augmented", "folder", "lengths", "images", "volumes", "resampled", "labels"]
)
def test_a_batch_contains_its_samples(flowers, tmp_path, kind):
    save(flowers / "train/rose/1.png", size=(30, 50))  # the others have 40 x 32 pixels
    paths = {dims: tmp_path / f"{dims}.npz" for dims in (1, 2, 3)}
    for path, shape in zip(paths.values(), ((2, 40), (5, 24, 20), (1, 24, 20, 16)), strict=True):
        arrays.save(path, arrays.named(shape))
    images = ["--data", f"arrays:{paths[2]}", "--spatial-dims", "2", "--channels", "first", *STILL]
    arguments = {
        "augmented": [],
        "folder": ["--data", f"folder:{flowers}", *STILL],
        "lengths": ["--data", f"arrays:{paths[1]}", "--image-size", "64"],
        "images": images,
        "resampled": [*images, "--image-size", "30x16"],
        "volumes": ["--data", f"arrays:{paths[3]}", "--image-size", "32x16x20", *STILL],
    }
    given = options_of(*arguments.get(kind, STILL))
    data = counted(multi_label=True) if kind == "labels" else load(given)
    for training, source in ((True, data.train), (False, data.val)):
        separate = Samples(source, data, given, training=training)
        count = min(len(separate), 5)
        keys = [(3, (11 * index) % len(separate)) for index in range(count)]
        samples, labels, indices = separate.__getitems__(keys)
        assert indices.tolist() == [index for _, index in keys]
        expected = default_collate([separate[key] for key in keys])
        torch.testing.assert_close((samples, labels, indices), tuple(expected), rtol=0, atol=0)
        assert samples.is_contiguous()


def test_few_large_samples_are_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(samples_module, "AT_ONCE", 3 * 3 * 16 * 16 * 4)  # three images
    data, given, sizes = counted(), options_of(*STILL), []
    images = Samples(data.val, data, given, training=False)
    prepare = images.prepare
    images.prepare = lambda batch: sizes.append(len(batch)) or prepare(batch)
    batch = images.__getitems__([(0, index) for index in range(8)])[0]
    assert sizes == [3, 3, 2]
    torch.testing.assert_close(batch, torch.stack([images[0, index][0] for index in range(8)]), rtol=0, atol=0)


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    given = options_of("--erasing", "1", "--randaugment", "2", "--crop", "0.5", "--flip", "0.5", "--data", "synthetic")
    data = load(given)
    images = Samples(data.train, data, given, training=True)
    first = images[3, 7][0]
    torch.manual_seed(99)
    random.seed(99)
    torch.testing.assert_close(Samples(data.train, data, given, training=True)[3, 7][0], first, rtol=0, atol=0)
    assert not torch.equal(images[4, 7][0], first)
    other = options_of("--erasing", "1", "--randaugment", "2", "--crop", "0.5", "--data", "synthetic", "--seed", "1")
    assert not torch.equal(Samples(data.train, data, other, training=True)[3, 7][0], first)
    plain = Samples(data.val, data, given, training=False)
    torch.testing.assert_close(plain[0, 5][0], plain[1, 5][0], rtol=0, atol=0)


def test_pixels_are_normalized():
    data = load(options_of())
    image = Samples(data.val, data, options_of(), training=False)[0, 0][0]
    raw = torch.nn.functional.interpolate(data.val.read(0)[None], (32, 32), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(image, (raw - 0.449) / 0.226)
