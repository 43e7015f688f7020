"""Data of scripts/train.py that are arrays: how they are read, and what is refused."""

import pickle
import re
from pathlib import Path

import numpy
import pytest
import torch

from scripts import train
from scripts.training import channel_statistics
from scripts.training.command_line import parse
from scripts.training.data import load
from scripts.training.errors import RunError
from scripts.training.samples import Samples
from scripts.training.sources import Data
from tests.scripts.arrays import named, samples, save


def options(path: Path, *arguments: str):
    return parse("", ["--data", f"arrays:{path}", *arguments])[0]


def load_from(path: Path, *arguments: str) -> Data:
    return load(options(path, *arguments))


def values(data: Data) -> torch.Tensor:
    """All training samples as they were saved."""
    return torch.stack([data.train.read(index) for index in range(len(data.train.labels))])


@pytest.mark.parametrize(
    ("shape", "arguments", "axis"),
    [
        ((40,), "", None),
        ((28, 28), "", None),  # as MedMNIST has grey images
        ((28, 28, 3), "", -1),
        ((3, 28, 28), "", 1),
        ((12, 12, 12), "", None),
        ((1, 8, 8, 8), "", 1),
        ((16, 16, 16, 2), "", -1),
        ((40, 3), "", -1),
        ((6, 40), "--spatial-dims 1", 1),
        ((40, 6), "--spatial-dims 1", -1),
        ((40, 30), "--spatial-dims 2", None),
        ((40, 30), "--channels none", None),
        ((40, 30), "--channels first", 1),
        ((12, 20, 24), "--spatial-dims 3", None),
        ((12, 20, 24), "--channels first", 1),
        ((12, 20, 24), "--channels last", -1),
        ((12, 50, 60), "--spatial-dims 2", 1),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ""])
def test_axes_are_read_by_their_lengths_or_the_options(tmp_path, shape, arguments, axis, suffix):
    arrays = named(shape, 4, 2)
    data = load_from(save(tmp_path / f"set{suffix}", arrays), *arguments.split())
    expected = arrays["train_images"]
    expected = expected[:, None] if axis is None else numpy.moveaxis(expected, axis, 1)
    torch.testing.assert_close(values(data), torch.from_numpy(expected.copy()), rtol=0, atol=0)
    assert (data.channels, data.image_size, data.spatial_dims) == (
        expected.shape[1],
        expected.shape[2:],
        expected.ndim - 2,
    )


@pytest.mark.parametrize(
    ("shape", "arguments", "readings"),
    [
        (
            (6, 40),
            "",
            "images of 6 x 40 (--spatial-dims 2 --channels none) or signals of length 40 with 6 channels (--spatial-"
            "dims 1 --channels first) or signals of length 6 with 40 channels (--spatial-dims 1 --channels last)",
        ),
        (
            (12, 64, 60),
            "",
            "volumes of 12 x 64 x 60 (--spatial-dims 3 --channels none) or images of 64 x 60 with 12 channels",
        ),
        ((62, 144), "--spatial-dims 1", "with 62 channels (--spatial-dims 1 --channels first) or signals of length 62"),
        ((8, 8, 8, 8), "", "volumes of 8 x 8 x 8 with 8 channels (--spatial-dims 3 --channels first) or volumes of"),
    ],
)
def test_ambiguous_axes_are_refused_with_every_reading(tmp_path, shape, arguments, readings):
    path = save(tmp_path / "set.npz", named(shape, 4, 2))
    with pytest.raises(RunError, match=re.escape(readings)) as caught:
        load_from(path, *arguments.split())
    assert str(caught.value).startswith(
        f"{path}: train_images: the axes of samples must have one meaning, got the shape"
    )
    assert str(caught.value).endswith("Give the options of one of these.")


@pytest.mark.parametrize(
    ("shape", "arguments", "given"),
    [
        ((2, 2, 2, 2, 2), "", "(2, 2, 2, 2, 2). Give"),
        ((28, 28), "--spatial-dims 3", "(28, 28) with --spatial-dims 3. Give"),
        ((40,), "--channels first", "(40,) with --channels first. Give"),
    ],
)
def test_axes_that_no_model_takes_are_refused(tmp_path, shape, arguments, given):
    path = save(tmp_path / "set.npz", named(shape, 4, 2))
    with pytest.raises(RunError, match=rf"must have 1 to 3 spatial dimensions, .*, got the shape {re.escape(given)}"):
        load_from(path, *arguments.split())


def test_names_of_arrays_are_those_of_medmnist_and_keras(tmp_path):
    (x, y), (u, v) = samples(8, (6, 40)), samples(4, (6, 40))
    named_as = [
        ("train_signals", "train_labels", "valid_signals", "valid_labels"),
        ("X_train", "y_train", "X_val", "y_val"),
    ]
    for index, names in enumerate(named_as):
        arrays = dict(zip(names, (x, y, u, v), strict=True)) | {"subject": numpy.arange(3)}
        data = load_from(save(tmp_path / f"{index}.npz", arrays), *(["--spatial-dims", "1"] if index else []))
        assert (data.channels, data.image_size, data.spatial_dims) == (6, (40,), 1)  # signals, by their name or option
        assert (len(data.train.labels), len(data.val.labels), data.test) == (8, 4, None)
    with pytest.raises(RunError, match=r"must have train_images and train_labels, or x_train and y_train, got a, b\."):
        load_from(save(tmp_path / "other.npz", {"a": x, "b": y}))
    with pytest.raises(RunError, match=r"must have test_labels for test_images, got test_images, train_im"):
        load_from(save(tmp_path / "half", {"train_images": x, "train_labels": y, "test_images": u}))
    with pytest.raises(RunError, match=r"one array of train samples, got train_images, x_train\."):
        load_from(save(tmp_path / "both", named((8,), x_train=x, y_train=y)))
    with pytest.raises(RunError, match=r"must be a \.npz file or a folder of \.npy files, got no such file"):
        load_from(tmp_path / "nowhere.npz")


LABELS = numpy.arange(12) % 3


@pytest.mark.parametrize(
    "labels", [LABELS.astype(numpy.uint8), LABELS[:, None], LABELS.astype(float), numpy.eye(3, dtype=int)[LABELS]]
)
def test_labels_are_integers_one_column_or_one_hot(tmp_path, labels):
    x = samples(12, (20,))[0]
    data = load_from(save(tmp_path / "a.npz", {"x_train": x, "y_train": labels, "x_val": x, "y_val": labels}))
    assert data.train.labels == LABELS.tolist()
    assert data.classes == ["0", "1", "2"]
    assert not data.multi_label


def test_rows_of_several_classes_are_multi_label_data(tmp_path):
    x = samples(12, (20,))[0]
    labels = numpy.eye(3)[LABELS]
    several = labels.copy()
    several[0] = [1, 1, 0]
    several[1] = 0
    given = options(save(tmp_path / "a.npz", {"x_train": x, "y_train": labels, "x_val": x, "y_val": several}))
    data = load(given)
    assert data.multi_label
    for source, expected in ((data.train, labels), (data.val, several)):
        assert source.labels.dtype == numpy.float32
        numpy.testing.assert_array_equal(source.labels, expected)
    batch = torch.utils.data.default_collate([Samples(data.val, data, given, training=False)[0, i] for i in range(4)])
    torch.testing.assert_close(batch[1], torch.tensor(several[:4], dtype=torch.float32))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:11], "a.npz: y_val must have one label for each sample of {path}: x_val, 12, got 11."),
        (LABELS + 1, "a.npz: y_val: labels must be from 0 to 2, the highest of {path}: y_train, got 1 to 3."),
        (LABELS - 1, "a.npz: y_val: labels must be from 0 to 2, the highest of {path}: y_train, got -1 to 1."),
        (LABELS * 0, "every class must have validation samples, got none for 1, 2."),
        (LABELS + 0.5, "a.npz: y_val: labels must be whole numbers, got float64 such as 0.5."),
        (numpy.array(["a"] * 12), "a.npz: y_val: labels must be whole numbers, got <U1 such as a. numpy.unique("),
        (
            numpy.eye(3)[LABELS],
            "labels: all splits must have rows of the same shape, got () in {path}: y_train, (3,) in",
        ),
        (
            LABELS[:, None, None],
            "a.npz: y_val: labels must be integers (samples,) or (samples, 1), or 0 and 1 (samples",
        ),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, labels, message):
    x = samples(12, (20,))[0]
    path = save(tmp_path / "a.npz", {"x_train": x, "y_train": LABELS, "x_val": x, "y_val": labels})
    with pytest.raises(RunError, match=re.escape(message.format(path=path))):
        load_from(path)


def test_columns_of_labels_are_0_and_1(tmp_path):
    x = samples(12, (20,))[0]
    with pytest.raises(RunError, match=r"y_train: labels with a column for each class must be 0 or 1, got 0 to 2\."):
        load_from(save(tmp_path / "a.npz", {"x_train": x, "y_train": 2 * numpy.eye(3, dtype=int)[LABELS]}))


def test_a_stratified_fifth_is_held_out_and_a_test_split_is_kept(tmp_path):
    x, y = samples(50, (20,), classes=5)
    t, u = samples(10, (20,), classes=5, seed=1)
    arrays = {"x_train": x, "y_train": y, "x_test": t, "y_test": u}
    for path in (save(tmp_path / "a.npz", arrays), save(tmp_path / "a", arrays)):
        data, other = (load_from(path, "--seed", seed) for seed in ("0", "1"))
        assert numpy.bincount(data.val.labels).tolist() == [2] * 5
        assert numpy.bincount(data.train.labels).tolist() == [8] * 5
        both = torch.cat([values(data), torch.stack([data.val.read(index) for index in range(10)])])
        assert len(both.flatten(1).unique(dim=0)) == 50
        assert not torch.equal(values(data), values(other))
        assert data.test is not None
        assert data.test.labels == u.tolist()
        torch.testing.assert_close(data.test.read(3)[0], torch.from_numpy(t[3]))
        expected = values(data)
        assert data.mean == pytest.approx([expected.mean().item()], rel=1e-5)  # of the training split alone
    y[y == 4] = 3
    y[0] = 4
    with pytest.raises(RunError, match=r"every class must have two samples or more, .*: got class 4 with 1\."):
        load_from(save(tmp_path / "b.npz", {"x_train": x, "y_train": y}))


def test_multi_label_data_are_stratified_by_combinations(tmp_path):
    rows = numpy.array([[1, 0, 0]] * 20 + [[1, 1, 0]] * 20 + [[0, 0, 1]] * 8 + [[1, 1, 1], [0, 1, 1]])
    data = load_from(save(tmp_path / "a.npz", {"x_train": samples(50, (20,))[0], "y_train": rows}))
    counts = [int((data.val.labels == each).all(axis=1).sum()) for each in ([1, 0, 0], [1, 1, 0])]
    assert counts == [4, 4]
    assert len(data.val.labels) == 10
    assert len(data.train.labels) == 40
    path = save(tmp_path / "b.npz", {"x_train": samples(49, (20,))[0], "y_train": rows[:49]})  # one alone is rare
    assert len(load_from(path).val.labels) == 10


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("number", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("suffix", [".npz", ""])
def test_a_number_that_is_not_finite_is_named(tmp_path, split, number, suffix):
    x, y = samples(6, (3, 40))
    arrays = named((3, 40), 8, 4, test_images=x, test_labels=y)
    arrays[f"{split}_images"][3, 2, 7] = number
    path = save(tmp_path / f"set{suffix}", arrays)
    where = f"{path}/{split}_images.npy 3" if path.is_dir() else f"{path}: {split}_images 3"
    with pytest.raises(RunError, match=rf"^{re.escape(where)} must have finite numbers, got {number} in channel 2 "):
        load_from(path)


def test_large_finite_numbers_are_finite(tmp_path):
    x, y = samples(8, (40,))
    x = x.astype(numpy.float64)
    x[:4] = 1.5e308
    with pytest.raises(RunError, match="must have channels whose mean and deviation are finite, got channel 0"):
        load_from(save(tmp_path / "a.npz", {"x_train": x, "y_train": y, "x_val": x, "y_val": y}))


def test_a_constant_channel_is_named(tmp_path):
    arrays = named((3, 40), 8, 4)
    arrays["train_images"][:, 1] = 0.1
    path = save(tmp_path / "set.npz", arrays)
    with pytest.raises(
        RunError, match=r"must have channels that vary, got channel 1 \(counted from 0\) with the value 0\.1"
    ):
        load_from(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"val_images": numpy.ones((8, 3, 41), numpy.float32)},
            "same shape as {}train_images{}, (3, 40), got (3, 41).",
        ),
        (
            {"val_images": numpy.ones((8, 3, 40), numpy.int16)},
            "same kind of numbers as {}train_images{}, floating-poin",
        ),
        (
            {"val_images": numpy.ones((8, 3, 40), complex)},
            "must contain integers or floating-point numbers, got complex",
        ),
        (
            {"val_images": numpy.ones((0, 3, 40), numpy.float32), "val_labels": LABELS[:0]},
            "must have samples, got the sh",
        ),
    ],
)
def test_splits_that_differ_are_refused_before_training(tmp_path, change, message, capsys):
    for path in (
        save(tmp_path / "set.npz", named((3, 40), **change)),
        save(tmp_path / "set", named((3, 40), **change)),
    ):
        before, after = (f"{path}/", ".npy") if path.is_dir() else (f"{path}: ", "")
        with pytest.raises(SystemExit):
            train.main(["--data", f"arrays:{path}", "--output", str(tmp_path / "run"), "--device", "cpu"])
        error = capsys.readouterr().err.strip()
        assert f"{before}val_images{after} must" in error
        assert message.format(before, after) in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_damaged_files_are_named(tmp_path):
    path = save(tmp_path / "set.npz", named((3, 40)))
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:1000], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(
            RunError, match=rf"^{re.escape(str(path))} must be a \.npz file, got one that cannot be read"
        ):
            load_from(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 4] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        RunError, match=r"set\.npz must be a \.npz file, got one that cannot be read \(BadZipFile: Bad CRC"
    ):
        load_from(path)
    folder = save(tmp_path / "set", named((3, 40)))
    path = folder / "val_images.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"0"):
        path.write_bytes(content)
        with pytest.raises(
            RunError, match=rf"val_images\.npy must have {len(whole)} bytes for its shape \(8, 3, 40\), got "
        ):
            load_from(folder)
    path.write_bytes(whole[:20])
    with pytest.raises(RunError, match=r"val_images\.npy must be a \.npy file, got one that cannot be read"):
        load_from(folder)


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_python_objects_are_not_executed(tmp_path, suffix):
    objects = numpy.array([Path(tmp_path / "executed").touch], dtype=object)
    path = save(tmp_path / f"set{suffix}", named((3, 40), val_images=objects))
    with pytest.raises(RunError, match="could execute code"):
        load_from(path)


@pytest.mark.parametrize("block", [1, 3000, 10**9])
def test_statistics_are_those_of_the_training_split(tmp_path, block, monkeypatch):
    monkeypatch.setattr(channel_statistics, "BLOCK_BYTES", block)
    arrays = named((40, 3), 30, 4)
    arrays["train_images"][:, :, 1] += 1e4
    arrays["val_images"] += 1e6
    for path in (save(tmp_path / "a.npz", arrays), save(tmp_path / "a", arrays)):
        data = load_from(path)
        expected = arrays["train_images"].astype(numpy.float64)
        assert data.mean == pytest.approx(expected.mean(axis=(0, 1)), rel=1e-12)
        assert data.deviation == pytest.approx(expected.std(axis=(0, 1)), rel=1e-10)
        images = Samples(data.train, data, options(path), training=False)
        every = torch.stack([images[0, index][0] for index in range(30)])
        torch.testing.assert_close(every.mean(dim=(0, 2)), torch.zeros(3), rtol=0, atol=2e-4)
        torch.testing.assert_close(every.std(dim=(0, 2)), torch.ones(3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "int64", ">i4", "float16", "float64", ">f4"])
def test_types_of_numbers_change_no_sample(tmp_path, dtype):
    """Their values are standardized; a common offset or factor has no effect, up to what the type can contain."""
    x = numpy.arange(8 * 40).reshape(8, 40) % 2
    arrays = {"x_train": x.astype(dtype), "y_train": numpy.arange(8) % 2, "x_val": x.astype(dtype)}
    arrays["y_val"] = arrays["y_train"]
    if numpy.dtype(dtype).itemsize == 8:
        arrays["x_train"] += 10**12  # such as microseconds: float32 would have no digit left
    given = options(save(tmp_path / "a.npz", arrays))
    data = load(given)
    sample = Samples(data.train, data, given, training=False)[0, 3][0]
    assert sample.dtype == torch.float32
    torch.testing.assert_close(sample, torch.tensor(2 * x[3:4] - 1.0, dtype=torch.float32), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_arrays_can_be_sent_to_another_process(tmp_path, suffix):
    path = save(tmp_path / f"set{suffix}", {key: value for key, value in named((3, 40)).items() if "train" in key})
    data = load_from(path)
    again = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(values(again), values(data), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "digits", "--spatial-dims", "1"],
            "--spatial-dims: is an option of arrays:PATH and folder:PATH, not ",
        ),
        (
            ["--data", "synthetic", "--channels", "last"],
            "--channels: is an option of arrays:PATH and folder:PATH, not ",
        ),
        (["--data", "digits", "--image-size", "none"], "--image-size: must be one number for digits, got none"),
        (
            ["--image-size", "0"],
            "--image-size: must be a whole number of at least 1, one for each dimension such as 64x",
        ),
        (["--image-size", "8x8x8x8"], "or none, got 8x8x8x8"),
        (["--image-size", "large"], "or none, got large"),
        (["--spatial-dims", "4"], "--spatial-dims: must be one of 1, 2, 3, got 4"),
        (["--channels", "fist"], "--channels: must be one of first, last, none, got fist. Did you mean first?"),
    ],
)
def test_wrong_values_of_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse("", arguments)
    assert message in capsys.readouterr().err


def test_channels_last_is_for_images(tmp_path):
    path = save(tmp_path / "set.npz", named((12, 12, 12), 4, 2))
    with pytest.raises(RunError, match=r"--channels-last: needs 2 spatial dimensions, got 3\. Leave it out\."):
        load_from(path, "--channels-last")
    assert load_from(path, "--channels-last", "--channels", "first").spatial_dims == 2


def test_a_path_without_its_kind_is_suggested(tmp_path, capsys):
    for path in (save(tmp_path / "set.npz", named((3, 40))), save(tmp_path / "set", named((3, 40)))):
        with pytest.raises(SystemExit):
            parse("", ["--data", str(path)])
        assert f"Did you mean arrays:{path}?" in capsys.readouterr().err
        assert parse("", ["--data", f"arrays:{path}"])[0].output == Path("runs/set")
