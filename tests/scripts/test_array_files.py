"""Folders of files that are arrays: .npy, and TIFF of several pages or bands."""

import re
import sys
from pathlib import Path

import numpy
import pytest
import tifffile
import torch
from PIL import Image

from scripts.training.command_line import parse
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.samples import Samples
from scripts.training.sources import Data
from tests.scripts.arrays import samples


def options(root: Path, *arguments: str):
    return parse("", ["--data", f"folder:{root}", *arguments])[0]


def load_from(root: Path, *arguments: str) -> Data:
    return load(options(root, *arguments))


def folder(root: Path, write, shapes=((6, 20),) * 3, dtype=numpy.float32) -> list[numpy.ndarray]:
    """Two classes, with an array of each of ``shapes`` for training and one for validation; those for training."""
    written = []
    for split in ("train", "val"):
        for label, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True)
            for index, shape in enumerate(shapes if split == "train" else shapes[:1]):
                array = samples(2, shape, seed=index)[0][label].astype(dtype)
                write(root / split / name / f"{index}", array)
                written += [array] * (split == "train")
    return written


def npy(path: Path, array: numpy.ndarray) -> None:
    numpy.save(path.with_suffix(".npy"), array)


def tiff(**keywords):
    return lambda path, array: tifffile.imwrite(path.with_suffix(".tif"), array, **keywords)


@pytest.mark.parametrize(
    ("shape", "arguments", "channels_axis"),
    [((40,), [], None), ((2, 40), [], 0), ((40, 6), ["--channels", "last"], -1), ((9, 9, 9), [], None)],
)
def test_npy_files_are_read_as_arrays_are(tmp_path, shape, arguments, channels_axis):
    written = folder(tmp_path, npy, [shape] * 3)
    data = load_from(tmp_path, *arguments)
    expected = [each[None] if channels_axis is None else numpy.moveaxis(each, channels_axis, 0) for each in written]
    for index, each in enumerate(expected):
        torch.testing.assert_close(data.train.read(index), torch.from_numpy(each.copy()), rtol=0, atol=0)
    assert (data.channels, data.image_size) == (expected[0].shape[0], expected[0].shape[1:])
    assert data.classes == ["a", "b"]
    assert data.train.labels == [0, 0, 0, 1, 1, 1]
    assert data.mean == pytest.approx(
        numpy.stack(expected).astype(float).mean(axis=(0, *range(2, expected[0].ndim + 1)))
    )
    assert data.train.name(1) == str(tmp_path / "train/a/1.npy")


@pytest.mark.parametrize(
    ("write", "shape", "arguments", "expected"),
    [
        (tiff(photometric="minisblack"), (6, 20, 24), [], (1, 6, 20, 24)),  # pages are slices
        (tiff(photometric="minisblack"), (6, 20, 24), ["--spatial-dims", "2"], (6, 20, 24)),  # or bands
        (tiff(photometric="minisblack", planarconfig="separate"), (12, 20, 24), [], (12, 20, 24)),
        (tiff(photometric="minisblack", planarconfig="contig"), (20, 24, 5), [], (5, 20, 24)),
        (tiff(photometric="rgb", planarconfig="contig", extrasamples=["unspecified"]), (20, 24, 4), [], (4, 20, 24)),
        (tiff(imagej=True, metadata={"axes": "ZCYX"}), (6, 2, 20, 24), ["--spatial-dims", "3"], None),
        (tiff(photometric="minisblack"), (20, 24), ["--spatial-dims", "2"], (1, 20, 24)),  # numbers beyond 0 to 1
    ],
)
def test_tiff_files_of_pages_and_bands_are_arrays(tmp_path, write, shape, arguments, expected):
    written = folder(tmp_path, write, [shape] * 2)
    if expected is None:
        with pytest.raises(
            RunError, match=r"0\.tif must have its channels in the first or last axis, .* the axes ZCYX"
        ):
            load_from(tmp_path, *arguments)
        return
    data = load_from(tmp_path, *arguments)
    sample = data.train.read(0)
    assert sample.shape == expected
    array = written[0]
    wanted = numpy.moveaxis(array, -1, 0) if shape[-1] == expected[0] else array.reshape(expected)
    torch.testing.assert_close(sample, torch.from_numpy(wanted.copy()), rtol=0, atol=0)
    assert (data.channels, data.image_size) == (expected[0], expected[1:])


@pytest.mark.parametrize("extra", [False, True])
def test_photographs_in_tiff_files_stay_photographs(tmp_path, extra):
    """Also with a thumbnail as a second page, or with transparency."""

    def write(path: Path, array: numpy.ndarray) -> None:
        with tifffile.TiffWriter(path.with_suffix(".tif")) as file:
            file.write(array, photometric="rgb", **({"extrasamples": ["unassalpha"]} if extra else {}))
            if not extra:
                file.write(array[::4, ::4].copy(), photometric="rgb", subfiletype=1)

    written = folder(tmp_path, write, [(40, 48, 4 if extra else 3)], numpy.uint8)
    data = load_from(tmp_path)
    assert (data.channels, data.image_size) == (3, 40)
    torch.testing.assert_close(
        torch.Tensor(data.train.read(0).float()), torch.from_numpy(written[0][..., :3]).permute(2, 0, 1).float()
    )


def test_a_late_file_of_several_pages_is_named(tmp_path):
    folder(tmp_path, tiff(photometric="minisblack"), [(20, 24)] * 2, numpy.uint8)
    path = tmp_path / "train/a/1.tif"
    tifffile.imwrite(path, numpy.zeros((5, 20, 24), numpy.uint8), photometric="minisblack")
    data = load_from(tmp_path)
    with pytest.raises(
        RunError, match=rf"^{re.escape(str(path))} cannot be read as an image \(ValueError: it has 5 pages"
    ):
        data.train.read(1)


def test_files_that_do_not_fit_are_named(tmp_path):
    folder(tmp_path / "mixed", npy)
    Image.new("L", (20, 20)).save(tmp_path / "mixed/val/b/photo.png")
    with pytest.raises(
        RunError, match=r"must contain either images, or arrays .*, got .*val/b/photo\.png among arrays"
    ):
        load_from(tmp_path / "mixed", "--spatial-dims", "1")
    folder(tmp_path / "channels", npy, ((6, 24),) * 3)
    numpy.save(tmp_path / "channels/train/b/1.npy", numpy.ones((5, 24)))
    with pytest.raises(RunError, match=r"b/1\.npy must have the channels .* of .*a/0\.npy, .* 6 channels, got .* 5 ch"):
        load_from(tmp_path / "channels", "--channels", "first")
    numpy.save(tmp_path / "channels/train/b/1.npy", numpy.ones((20,)))
    with pytest.raises(RunError, match=r"All \.npy files must have axes of the same meaning, got --spatial-dims 1"):
        load_from(tmp_path / "channels", "--spatial-dims", "1")
    numpy.save(tmp_path / "channels/train/b/1.npy", numpy.full((6, 24), numpy.nan))
    with pytest.raises(RunError, match=r"b/1\.npy must have finite numbers, got nan in channel 0"):
        load_from(tmp_path / "channels", "--channels", "first")
    numpy.save(tmp_path / "channels/train/b/1.npy", numpy.ones((40, 6)))
    with pytest.raises(RunError, match=r"All \.npy files must have axes of the same meaning, got --spatial-dims 1"):
        load_from(tmp_path / "channels", "--spatial-dims", "1")
    with pytest.raises(RunError, match=r"a/0\.npy: the axes of samples must have one meaning"):
        load_from(tmp_path / "channels")
    folder(tmp_path / "axes", npy)
    numpy.save(tmp_path / "axes/train/b/1.npy", numpy.ones(20))
    with pytest.raises(
        RunError, match=r"must have as many axes as other \.npy files of the folder, 1, got the shape \(6, "
    ):
        load_from(tmp_path / "axes", "--spatial-dims", "1")
    folder(tmp_path / "damaged", npy, [(2, 40)])
    path = tmp_path / "damaged/val/a/0.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))} must have \d+ bytes for its shape \(2, 40\), got "):
        load_from(tmp_path / "damaged")


def test_a_file_that_changes_after_it_was_listed_is_named(tmp_path):
    folder(tmp_path, npy, [(2, 40)])
    data = load_from(tmp_path)
    path = tmp_path / "train/b/0.npy"
    numpy.save(path, numpy.ones((2, 41)))
    with pytest.raises(
        RunError, match=rf"^{re.escape(str(path))} must keep its shape \(2, 40\) during a run, got \(2, 41\)"
    ):
        data.train.read(1)
    path.write_bytes(b"")
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))} cannot be read as an array \(EOFError"):
        data.train.read(1)


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    folder(tmp_path, tiff(photometric="minisblack"), [(6, 20, 24)])
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        RunError, match=r"0\.tif: TIFF files of several pages or bands need tifffile\. pip install 'lazytorch\["
    ):
        load_from(tmp_path)


def test_varying_lengths_are_cropped_or_padded_to_the_median(tmp_path):
    written = folder(tmp_path, npy, [(2, 40), (2, 37), (2, 60)])
    given = options(tmp_path, "--channels", "first")
    data = load(given)
    assert data.image_size == (40,)
    images = Samples(data.train, data, given, training=False)
    standardized = [
        (torch.from_numpy(each) - torch.tensor(data.mean)[:, None]) / torch.tensor(data.deviation)[:, None]
        for each in written
    ]
    zeros = torch.zeros(2, 2)
    for index, expected in (
        (0, standardized[0]),
        (1, torch.cat([zeros[:, :1], standardized[1], zeros], dim=1)),  # of an odd number, more at the end
        (2, standardized[2][:, 10:50]),
    ):
        torch.testing.assert_close(images[0, index][0], expected.float(), rtol=1e-4, atol=1e-5)
    assert load_from(tmp_path, "--channels", "first", "--image-size", "none").image_size == (40,)
    given = options(tmp_path, "--channels", "first", "--image-size", "20")
    data = load(given)
    images = Samples(data.train, data, given, training=False)
    torch.testing.assert_close(
        images[0, 2][0], standardized[2].float().unflatten(1, (20, 3)).mean(dim=2), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        images[0, 0][0], standardized[0].float().unflatten(1, (20, 2)).mean(dim=2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "wanted", "mode"),
    [
        ((60,), "20", "area"),
        ((12, 18), "6x9", "area"),
        ((8, 8, 12), "4", "area"),
        ((20,), "33", "linear"),
        ((8, 8), "11", "bilinear"),
        ((5, 6, 7), "8x9x10", "trilinear"),
    ],
)
def test_resampling_is_by_area_where_it_shrinks_and_linear_where_it_grows(tmp_path, size, wanted, mode):
    folder(tmp_path, npy, [size])
    given = options(tmp_path, "--channels", "none", "--image-size", wanted)
    data = load(given)
    raw = (data.train.read(0) - data.mean[0]) / data.deviation[0]
    expected = torch.nn.functional.interpolate(raw[None], data.image_size, mode=mode)[0]
    sample = Samples(data.val, data, given, training=False)[0, 0][0]
    assert sample.shape == (1, *data.image_size)
    sample = Samples(data.train, data, given, training=False)[0, 0][0]
    torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-5)


def test_one_dimension_may_shrink_while_another_grows(tmp_path):
    def write(path: Path, array: numpy.ndarray) -> None:
        npy(path, numpy.outer(numpy.arange(12), numpy.ones(10)) + (path.parent.name == "b"))

    folder(tmp_path, write, [(12, 10)])
    given = options(tmp_path, "--channels", "none", "--image-size", "4x30")
    data = load(given)
    sample = Samples(data.train, data, given, training=False)[0, 0][0]
    assert sample.shape == (1, 4, 30)
    restored = sample * data.deviation[0] + data.mean[0]
    torch.testing.assert_close(restored[0], torch.tensor([1.0, 4, 7, 10])[:, None].expand(4, 30))
    with pytest.raises(
        RunError, match=r"--image-size: must be one number, or one for each of the 2 spatial dimensions"
    ):
        load_from(tmp_path, "--channels", "none", "--image-size", "4x4x4")


def test_photographs_have_one_size(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (20, 20), 9).save(tmp_path / split / name / "0.png")
    with pytest.raises(RunError, match=r"--image-size: must be one number for the photographs in folder:.*, got none"):
        load_from(tmp_path, "--image-size", "none")
    with pytest.raises(RunError, match=r"must contain either images, or arrays .*, got .*0\.png among arrays"):
        load_from(tmp_path, "--spatial-dims", "2")
