"""Data of one's own is read as written, learnt from, or refused by name.

It comes as folders of images and as tables.
"""

from __future__ import annotations

import csv
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from presplit.core.errors import DataError, SpecError
from presplit.core.spec import spec_from
from presplit.train import evaluate, export, runs
from presplit.train.data import Dataset, Folder, Samples, by_class, digits, load, table
from presplit.train.layers.standardise import standardised

LEAST_ACCURACY = 0.8
"""What 8 epochs on the digits surely exceed (they reach more than 0.9).

A net that did not learn has 0.1.
"""


def spread(
    folder: Path, pixels: np.ndarray, labels: Sequence[str], *, part: str, ending: str = ".png"
) -> None:
    """Save uint8 ``(n, height, width[, 3])`` as image files of ``folder/part/LABEL/``."""
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (folder / part / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / part / label / f"{number:04d}{ending}")


def small(folder: Path, *, ending: str = ".png", side: int = 6) -> Path:
    """Two colour images each of cats and dogs, one to train and one to test with."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
    spread(folder, pixels[:2], ["cat", "dog"], part="train", ending=ending)
    spread(folder, pixels[2:], ["cat", "dog"], part="test", ending=ending)
    return folder


def written(path: Path, *rows: Sequence[object]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def images(folder: Path, *, size: int | None = None, grey: bool = False) -> Dataset:
    given = {"size": size, "grey": grey or None}
    return by_class(Folder(folder), **{key: value for key, value in given.items() if value})


def as_bytes(samples: Samples) -> np.ndarray:
    """Digits as uint8 ``(n, 8, 8)``."""
    return np.rint(samples.x[:, 0] * 255).astype(np.uint8)


# Folders of images.


@pytest.mark.parametrize("ending", [".png", ".bmp", ".PNG"])
def test_the_images_of_a_folder_are_read_as_they_were_written(ending: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 7, 3), np.uint8)
    spread(tmp_path / "own", pixels[:3], ["b", "a", "b"], part="train", ending=ending)
    spread(tmp_path / "own", pixels[3:], ["a", "b"], part="test", ending=ending)
    data = load(str(tmp_path / "own"))
    assert (data.name, data.labels) == ("own", ("a", "b"))
    assert data.train.y.tolist() == [0, 1, 1] and data.test.y.tolist() == [0, 1]
    expected = pixels.transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(data.train.x, expected[[1, 0, 2]])
    np.testing.assert_array_equal(data.test.x, expected[3:])


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".webp"])
def test_lossy_images_are_read_nearly_as_they_were_written(ending: str, tmp_path: Path) -> None:
    flat = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (50, 200, 60, 210)])
    spread(tmp_path, flat[:2], ["a", "b"], part="train", ending=ending)
    spread(tmp_path, flat[2:], ["a", "b"], part="test", ending=ending)
    found = images(tmp_path)
    for samples, values in ((found.train, flat[:2]), (found.test, flat[2:])):
        np.testing.assert_allclose(samples.x * 255, values.transpose(0, 3, 1, 2), atol=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_eight_bits_gives_the_channels_that_are_asked_for(
    mode: str, tmp_path: Path
) -> None:
    small(tmp_path)
    for file in tmp_path.rglob("*.png"):
        with Image.open(file) as image:
            changed = image.convert(mode)
        kind = "JPEG" if mode == "CMYK" else "PNG"
        changed.save(file, kind, **({"transparency": b"\x00\x80"} if mode == "P" else {}))
    assert images(tmp_path).train.x.shape == (2, 3, 6, 6)
    assert images(tmp_path, grey=True).train.x.shape == (2, 1, 6, 6)


@settings(max_examples=12)
@given(width=st.integers(1, 40), height=st.integers(1, 40), size=st.integers(1, 20))
def test_an_image_is_scaled_to_its_shorter_side_and_cut_in_the_middle(
    width: int, height: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A ramp from left to right has its middle value in the middle, and mirrors with its mirror."""
    folder = tmp_path_factory.mktemp("fit")
    row = np.linspace(0, 255, width)
    ramp = np.broadcast_to(np.rint(row), (height, width)).astype(np.uint8)
    for part in ("train", "test"):
        spread(folder, np.stack([ramp, ramp[:, ::-1]]), ["a", "b"], part=part)
    x = images(folder, size=size, grey=True).train.x
    assert x.shape == (2, 1, size, size)
    np.testing.assert_allclose(x[0], x[1, :, :, ::-1], atol=2 / 255)
    if width > 1:
        assert abs(float(x[0].mean()) - 0.5) < 2 / 255
    if width > 2 * height:
        assert x[0].min() > 0, "the sides are cut away"


def test_a_size_that_images_have_already_changes_nothing(tmp_path: Path) -> None:
    small(tmp_path)
    np.testing.assert_array_equal(images(tmp_path, size=6).train.x, images(tmp_path).train.x)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    small(tmp_path)
    file = tmp_path / "train" / "cat" / "0000.png"
    before = images(tmp_path).train.x[0]
    with Image.open(file) as image:
        image.load()
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    image.save(file, exif=exif)
    np.testing.assert_array_equal(images(tmp_path).train.x[0], before[:, ::-1, ::-1])


def test_a_net_learns_from_a_folder_of_digits_and_is_exported(tmp_path: Path) -> None:
    own = digits()
    few = (("train", own.train.take(slice(0, 600))), ("test", own.test.take(slice(0, 100))))
    for part, samples in few:
        spread(
            tmp_path / "digits", as_bytes(samples), [own.labels[k] for k in samples.y], part=part
        )
    spec = spec_from(
        {
            "data": {"name": str(tmp_path / "digits"), "grey": True, "size": 8},
            "model": {"width": 8},
            "sparsity": {"density": 0.5},
            "training": {"epochs": 8},
        }
    )
    assert runs.train(spec, tmp_path / "run")["accuracy"]["final"] > LEAST_ACCURACY
    run = runs.read_run(tmp_path / "run")
    assert run.data.labels == own.labels
    bundle = export(run.model, run.held_out, tmp_path / "b.bundle", labels=run.data.labels)
    assert bundle.manifest.net.boundaries[0].shape == (1, 8, 8)


def remove(*places: str) -> Callable[[Path], None]:
    return lambda folder: [shutil.rmtree(folder / place) for place in places] and None


def add(place: str, raw: bytes = b"text") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(raw)

    return change


def unsplit(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / "train" / name).rename(folder / name)
    remove("train", "test")(folder)


LAYOUT = (
    "expected CLASS/NAME, or train/CLASS/NAME and test/CLASS/NAME, "
    "the names ending in .png .jpg .jpeg .bmp .webp for images or .wav for sounds"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("."), "own: no such file or folder"),
        (remove("test"), "own: expected train/ and test/, or .* of classes alone, got 'train'$"),
        (remove("train", "test"), f"own: it is empty; {LAYOUT}"),
        (
            lambda folder: (folder / "test").rename(folder / "val"),
            "own: expected train/ and test/, or folders of classes alone, got 'train', 'val'",
        ),
        (
            add("README.md"),
            "own/README.md: expected a folder .* move it into one, or away; --skip-bad",
        ),
        (add("more/0.png"), "own: expected train/ and test/ alone, got 'more' beside them"),
        (
            add("train/list.txt"),
            "own/train/list.txt: expected a folder with the files of one class, got a file",
        ),
        (
            add("test/cat/notes.txt"),
            r"own/test/cat/notes.txt: expected an image or a sound, its name ending in .png",
        ),
        (add("test/cat/more/0.png"), "own/test/cat/more: expected an image or a sound"),
        (
            lambda folder: (folder / "train" / "cat" / "0000.png").unlink(),
            "own/train/cat: expected at least one file",
        ),
        (
            add("train/eel/0.png"),
            "own/train/eel: the same classes are expected in both parts, test/ has no eel/",
        ),
        (
            remove("train/dog"),
            "own/test/dog: the same classes are expected in both parts, train/ has no dog/",
        ),
        (
            remove("train/dog", "test/dog"),
            "own: folders of at least two classes are expected, got 'cat' alone",
        ),
        (add("train/dog/0.png"), "own/train/dog/0.png: not a readable image"),
        (add("train/dog/0.png", b""), "own/train/dog/0.png: not a readable image"),
    ],
)
def test_a_folder_of_another_layout_is_refused_by_name(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    change(small(tmp_path / "own"))
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / "own"))


def test_photos_that_lie_beside_classes_or_without_any_are_told_with_the_cure(
    tmp_path: Path,
) -> None:
    folder = small(tmp_path / "own")
    unsplit(folder)
    for name in ("cat", "dog"):
        shutil.copy(next((folder / name).iterdir()), folder / name / "more.png")
    add("IMG 1.png", b"")(folder)
    with pytest.raises(DataError, match="own/IMG 1.png: expected a folder .*skip_bad. leaves it"):
        load(str(folder))
    assert len(load(str(folder), skip_bad=True).left_out) == 1
    for name in ("cat", "dog"):
        shutil.rmtree(folder / name)
    with pytest.raises(DataError, match="own: 1 images .* make one subfolder for each class"):
        load(str(folder))
    with pytest.raises(DataError, match="IMG 1.png: one file is no data set; name a folder"):
        load(str(folder / "IMG 1.png"))


def test_classes_alone_are_parted_and_every_fifth_file_is_to_test_with(tmp_path: Path) -> None:
    folder = small(tmp_path / "own")
    unsplit(folder)
    for name in ("cat", "dog"):
        (file,) = (folder / name).iterdir()
        for number in range(10, 16):
            shutil.copy(file, folder / name / f"{number:04d}.png")
    data = load(str(folder))
    assert np.bincount(data.train.y).tolist() == [5, 5], "of seven without the first and the sixth"
    assert np.bincount(data.test.y).tolist() == [2, 2] and data.labels == ("cat", "dog")
    for file in list((folder / "dog").iterdir())[1:]:
        file.unlink()
    with pytest.raises(DataError, match="class dog has no other file; at least two are expected"):
        load(str(folder))


def test_what_file_managers_leave_behind_is_passed_over(tmp_path: Path) -> None:
    before = images(small(tmp_path)).train.x
    for place in (".DS_Store", "train/Thumbs.db", "test/cat/desktop.ini", "train/cat/._0.png"):
        add(place)(tmp_path)
    add("__MACOSX/train/cat/._0.png")(tmp_path)
    np.testing.assert_array_equal(images(tmp_path).train.x, before)


def test_a_class_whose_name_is_not_utf_8_is_refused_on_reading(tmp_path: Path) -> None:
    small(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "dog").rename(tmp_path / part / os.fsdecode(b"d\xf6g"))
    with pytest.raises(DataError, match=r"t[a-z]*: the name of a class is not UTF-8, b'd.xf6g'"):
        images(tmp_path)


def test_a_photograph_whose_exif_block_is_damaged_is_read_for_its_pixels(tmp_path: Path) -> None:
    file = small(tmp_path, ending=".jpg") / "train" / "cat" / "0000.jpg"
    with Image.open(file) as image:
        image.load()
    exif = Image.Exif()
    exif[0x010F] = "maker " * 20
    image.save(file, exif=exif, quality=100)
    before, raw = images(tmp_path).train.x, file.read_bytes()
    start, end = raw.index(b"Exif") + 6, raw.index(b"maker")
    for at in range(start, end):
        for value in (0, 0x7F, 0xFF):
            file.write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
            found = images(tmp_path).train.x
            assert found.shape == before.shape and np.array_equal(found[1], before[1])
    damaged = bytearray(raw)
    damaged[start + 10 + 8 : start + 10 + 12] = b"\xff\xff\xff\x7f"  # its text lies behind its end
    file.write_bytes(damaged)
    np.testing.assert_array_equal(images(tmp_path).train.x, before)


@pytest.mark.parametrize("turn", range(2, 9))
def test_every_way_to_hold_a_camera_is_turned_as_pillow_does(turn: int, tmp_path: Path) -> None:
    file = small(tmp_path) / "train" / "cat" / "0000.png"
    with Image.open(file) as image:
        image.load()
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(file, exif=exif)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    np.testing.assert_array_equal(images(tmp_path).train.x[0] * 255, expected)


def test_images_of_several_sizes_are_refused_with_the_cure(tmp_path: Path) -> None:
    small(tmp_path)
    Image.new("RGB", (6, 5)).save(tmp_path / "test" / "dog" / "9.png")
    message = (
        "test/dog/9.png: expected 6 x 6 pixels as .*train/cat/0000.png has, "
        "got 6 x 5; data.size brings"
    )
    with pytest.raises(DataError, match=message):
        images(tmp_path)
    assert images(tmp_path, size=4).test.x.shape == (3, 3, 4, 4)


def test_images_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    small(tmp_path)
    Image.fromarray(np.full((6, 6), 999, np.uint16)).save(tmp_path / "train" / "cat" / "deep.png")
    with pytest.raises(
        DataError, match="train/cat/deep.png: expected at most 8 bits a channel, got .*I;16"
    ):
        images(tmp_path)


def test_images_that_need_too_much_memory_are_refused_with_what_they_need(tmp_path: Path) -> None:
    small(tmp_path)
    with pytest.raises(
        DataError, match="4 images of 20000 x 20000 need 17.9 GiB of memory, at most 8 are expected"
    ):
        images(tmp_path, size=20000)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".webp"])
def test_every_damaged_byte_of_an_image_is_read_or_refused_with_its_name(
    ending: str, tmp_path: Path
) -> None:
    file = small(tmp_path, ending=ending, side=3) / "train" / "cat" / f"0000{ending}"
    with Image.open(file) as image:
        image.load()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, **({} if ending == ".bmp" else {"exif": exif}))
    raw = file.read_bytes()
    cut = [raw[:at] for at in range(0, len(raw), 29)]
    flipped = [
        raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]
        for at in range(0, len(raw), 7)
        for mask in (0x55, 0x80)
    ]
    for damaged in cut + flipped:
        file.write_bytes(damaged)
        try:
            images(tmp_path, size=3)
        except DataError as error:
            assert f"train/cat/0000{ending}: " in str(error) and "\n" not in str(error)


def test_a_bomb_is_refused_and_not_unpacked(tmp_path: Path) -> None:
    file = small(tmp_path, ending=".bmp") / "train" / "cat" / "0000.bmp"
    raw = file.read_bytes()
    file.write_bytes(raw[:18] + struct.pack("<ii", 50_000, 50_000) + raw[26:])
    with pytest.raises(
        DataError, match="train/cat/0000.bmp: not a readable image .*decompression bomb"
    ):
        images(tmp_path)


# Tables.

HEADER = ("a", "b", "kind")


@settings(max_examples=20)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.integers(-(2**20), 2**20),
            st.sampled_from(["x", "a, b", 'say "y"', "é"]),
            st.booleans(),
        ),
        min_size=8,
        max_size=20,
    )
)
def test_a_table_gives_back_the_rows_that_were_written(
    rows: list[tuple[float, int, str, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = (
        [(0, 0, kind, False) for kind in ("x", "a, b", 'say "y"', "é")] + rows + [(0, 0, "x", True)]
    )
    cells = [(a, "test" if is_test else "train", kind, b) for a, b, kind, is_test in rows]
    data = table(
        written(tmp_path_factory.mktemp("t") / "own.csv", ("a", "split", "label", "b"), *cells)
    )
    assert (data.name, data.labels) == ("own", ("a, b", 'say "y"', "x", "é"))
    for part, wanted in ((data.train, False), (data.test, True)):
        kept = [(a, b, kind) for a, b, kind, is_test in rows if is_test == wanted]
        np.testing.assert_array_equal(part.x, np.array([(a, b) for a, b, _ in kept], np.float32))
        assert [data.labels[k] for k in part.y] == [kind for *_, kind in kept]


def test_without_a_split_every_fifth_row_is_a_test_row_and_the_last_column_is_the_label(
    tmp_path: Path,
) -> None:
    data = load(
        str(written(tmp_path / "own.CSV", HEADER, *((k, -k, (10, 9)[k % 2]) for k in range(12))))
    )
    assert data.test.x[:, 0].tolist() == [0, 5, 10]
    assert data.labels == ("9", "10"), "whole numbers are in the order of numbers"
    assert data.train.x[0].tolist() == [1, -1] and data.train.y[:2].tolist() == [0, 1]


def test_a_byte_order_mark_and_blanks_around_cells_are_no_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(b"\xef\xbb\xbflabel, a\r\n" + b"x, 1\r\n y , 2\r\n" * 4)
    data = table(tmp_path / "own.csv")
    assert data.labels == ("x", "y") and set(data.train.x[:, 0]) == {1, 2}


def test_a_net_learns_from_a_table_of_digits_and_standardises_by_itself(tmp_path: Path) -> None:
    """The columns are of very different size; the bundle takes them as they are."""
    own = digits()
    scale = 10.0 ** (np.arange(64) % 5)
    rows = [
        (*(own_x.reshape(64) * scale + 100).tolist(), part, label)
        for part, samples in (("train", own.train), ("test", own.test))
        for own_x, label in zip(samples.x, samples.y, strict=True)
    ]
    file = written(
        tmp_path / "digits.csv", [*(f"p{k}" for k in range(64)), "split", "label"], *rows
    )
    spec = spec_from(
        {
            "data": {"name": str(file), "standardise": True},
            "model": {"kind": "mlp", "layers": [64, 48, 10]},
            "sparsity": {"density": 0.5},
            "exits": {"after": ["fc1"]},
            "training": {"epochs": 8},
        }
    )
    assert runs.train(spec, tmp_path / "run")["accuracy"]["final"] > LEAST_ACCURACY
    run = runs.read_run(tmp_path / "run")
    assert run.data.test.x.max() > 1000, "what is read is what was written"
    before = evaluate(run.model, run.data.test)
    bundle = export(
        run.model, run.held_out, tmp_path / "b.bundle", labels=run.data.labels
    )  # compares ONNX with torch
    assert bundle.manifest.net.boundaries[0].shape == (64,)
    np.testing.assert_array_equal(evaluate(run.model, run.data.test), before)


@settings(max_examples=20)
@given(
    scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), constant=st.floats(-1e6, 1e6, width=32)
)
def test_standardised_features_have_mean_zero_and_deviation_one(
    scale: float, shift: float, constant: float
) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)) * scale + shift * scale
    x[:, 2] = constant
    x = x.astype(np.float32)
    found = standardised(torch.nn.Sequential(), x)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        found.mean(0), 0, atol=1e-4
    )  # float32 of values up to 100 deviations from 0
    np.testing.assert_allclose(found[:, :2].std(0), 1, atol=1e-4)
    assert not found[:, 2].any(), "what is constant stays constant"


GOOD = [(k, -k, "xy"[k % 2]) for k in range(8)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "line 1: expected a header .*, got ''"),
        (
            [("a;b;label",), *GOOD],
            "line 1: expected a header .* separated by commas, got 'a;b;label'",
        ),
        ([("split", "label")], "line 1: expected a header .* got 'split,label'"),
        (GOOD, "line 1: expected a header with a different name for each column, got '0'"),
        (
            [("a", "a", "label"), *GOOD],
            "line 1: expected a header with a different name for each column, got 'a'",
        ),
        (
            [("a", "", "label"), *GOOD],
            "line 1: expected a header with a different name for each column, got ''",
        ),
        ([HEADER, *GOOD, (1, 2)], "line 10: expected 3 cells as the header has, got 2"),
        ([HEADER, *GOOD, ()], "line 10: expected 3 cells as the header has, got 0"),
        ([HEADER, *GOOD, (1, "", "x")], "line 10, column 'b': expected a finite number, got ''"),
        (
            [HEADER, *GOOD, ("red", 1, "x")],
            "line 10, column 'a': expected a finite number, got 'red'",
        ),
        (
            [HEADER, *GOOD, (1, "nan", "x")],
            "line 10, column 'b': expected a finite number, got 'nan'",
        ),
        (
            [HEADER, *GOOD, (1, "1e39", "x")],
            "line 10, column 'b': expected a finite number, got '1e39'",
        ),
        (
            [HEADER, *GOOD, (1, "1_0", "x")],
            "line 10, column 'b': expected a finite number, got '1_0'",
        ),
        (
            [HEADER, *GOOD, (1, 2, " ")],
            "line 10, column 'kind': expected a label, got an empty cell",
        ),
        (
            [HEADER, (1, 2, 3), (4, 5, 0.5)],
            "line 3, column 'kind': expected whole numbers or text .*, got '0.5'",
        ),
        (
            [HEADER, *((k, k, "x") for k in range(8))],
            "column 'kind': expected at least two classes, got 1",
        ),
        ([HEADER, (1, 2, "z"), *GOOD], "column 'kind': 'z' is in test rows and in no training row"),
        ([HEADER], "expected rows to train and to test with, got 0 and 0"),
        ([HEADER, (1, 2, "x")], "expected rows to train and to test with, got 0 and 1"),
        (
            [("a", "label", "split"), (1, "x", "train"), (2, "y", "valid")],
            "line 3, column 'split': expected train or",
        ),
        (
            [("a", "label", "split"), (1, "x", "train"), (2, "y", "train")],
            "expected rows to .*, got 2 and 0",
        ),
    ],
)
def test_a_table_that_is_not_as_expected_is_refused_with_line_and_column(
    rows: list[tuple], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"own.csv: {message}"):
        load(str(written(tmp_path / "own.csv", *rows)))


@pytest.mark.parametrize(
    "raw", [b"a,label\n\xff,x\n", b'a,label\n"1,x\n', b"a,label\n1," + b"x" * 200_000]
)
def test_what_is_no_table_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(raw)
    with pytest.raises(DataError, match="own.csv: not a readable .csv file"):
        table(tmp_path / "own.csv")
    with pytest.raises(DataError, match=r"none.csv: not a readable .csv file .*No such file"):
        table(tmp_path / "none.csv")


# Keys that belong to one kind of data.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"size": 8},
            "data.size: only a folder or a zip of images has it, and data.name is 'digits'",
        ),
        (
            {"grey": True},
            "data.grey: only a folder or a zip of images has it, and data.name is 'digits'",
        ),
        (
            {"name": "own.csv", "grey": True},
            "data.grey: only a folder or a zip of images has it, and data.name is 'own.csv'",
        ),
        (
            {"standardise": True},
            r"data.standardise: only rows of numbers have it, digits has .* \(1, 8, 8\)",
        ),
        (
            {"name": "cats"},
            "no data set named 'cats'.*, or the path of an .npz file, a .csv file, or a folder or",
        ),
    ],
)
def test_a_key_of_another_kind_of_data_is_refused(data: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        runs.build(spec_from({"data": data}))
