"""Data sets: read exactly, split without loss, and refused in one sentence that names the file."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from presplit.core.errors import DataError, SpecError
from presplit.train.data import Dataset, Samples, digits, hold_out, load, mnist, npz
from presplit.train.data.files import obtain
from presplit.train.data.mnist import SHA256, read_idx

NOWHERE = ("http://127.0.0.1:9/",)
"""Port 9 is the discard service: nothing listens there, so the connection is refused at once."""

images = arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=5))


def idx(array: np.ndarray) -> bytes:
    """``array`` as an IDX file of unsigned bytes."""
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@settings(max_examples=50)
@given(array=images)
def test_an_idx_file_gives_back_its_array(array: np.ndarray) -> None:
    found = read_idx(idx(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.uint8


@settings(max_examples=50)
@given(array=images, data=st.data())
def test_an_idx_file_of_another_length_is_refused(array: np.ndarray, data: st.DataObject) -> None:
    raw = idx(array)
    kept = data.draw(st.integers(0, len(raw) - 1))
    for wrong in (raw[:kept], raw + b"\0"):
        with pytest.raises(DataError, match="not an IDX file|the IDX header says"):
            read_idx(wrong)


@pytest.mark.parametrize(
    "start", [b"", b"\0\0\x08", b"\0\0\x08\0", b"\0\0\x0d\x01\0\0\0\0", b"\x1f\x8b\x08\0"]
)
def test_what_is_no_idx_file_of_bytes_is_refused(start: bytes) -> None:
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes"):
        read_idx(start)


@settings(max_examples=50)
@given(n=st.integers(2, 200), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_holding_out_divides_the_samples_without_loss(n: int, share: float, seed: int) -> None:
    samples = Samples(np.arange(n)[:, None], np.arange(n))
    if not 0 < round(share * n) < n:
        with pytest.raises(DataError, match="leaves nothing to train or to hold out"):
            hold_out(samples, share, seed=seed)
        return
    train, held = hold_out(samples, share, seed=seed)
    assert len(held) == round(share * n)
    assert sorted([*train.y, *held.y]) == list(range(n))
    for part in (train, held):
        np.testing.assert_array_equal(part.x[:, 0], part.y)
    again = hold_out(samples, share, seed=seed)
    np.testing.assert_array_equal(again[1].y, held.y)


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 99),
)
def test_of_every_class_the_same_share_is_held_out_and_none_leaves_training(
    counts: list[int], share: float, seed: int
) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if not 0 < round(share * len(y)) <= len(y) - len(counts):
        return
    train, held = hold_out(Samples(np.zeros((len(y), 1)), y), share, seed=seed)
    assert set(train.y) == set(range(len(counts)))
    for label, count in enumerate(counts):
        assert abs((held.y == label).sum() - share * count) <= 2


def test_another_seed_holds_out_other_samples() -> None:
    samples = Samples(np.zeros((100, 1)), np.arange(100))
    assert (hold_out(samples, 0.5, seed=1)[1].y != hold_out(samples, 0.5, seed=2)[1].y).any()


def test_the_digits_are_what_their_description_says() -> None:
    data = digits()
    assert (data.train.x.shape, data.test.x.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert (data.train.x.dtype, data.train.y.dtype) == (np.float32, np.int64)
    assert data.train.x.min() == 0.0 and data.train.x.max() == 1.0
    assert data.labels == tuple("0123456789") and set(data.train.y) == set(data.test.y) == set(
        range(10)
    )
    train = {image.tobytes() for image in data.train.x}
    assert not any(image.tobytes() in train for image in data.test.x), (
        "no test image was trained on"
    )


@settings(max_examples=20)
@given(features=st.integers(1, 100))
def test_padding_keeps_the_values_and_adds_zeros(features: int) -> None:
    part = Samples(np.random.default_rng(0).random((3, 1, 5, 5)), np.zeros(3))
    data = Dataset("any", part, part, ("0", "1"))
    if features < 25:
        with pytest.raises(
            DataError, match=f"a sample has 25 values, which is more than pad_to = {features}"
        ):
            data.padded(features)
        return
    found = data.padded(features).test.x
    assert found.shape == (3, features)
    np.testing.assert_array_equal(found[:, :25], part.x.reshape(3, -1))
    assert not found[:, 25:].any()


@pytest.mark.parametrize(
    ("x", "y"),
    [(np.zeros((2, 1)), np.zeros(3)), (np.zeros((0, 1)), np.zeros(0)), (np.zeros(2), np.zeros(2))],
)
def test_samples_that_do_not_fit_together_are_refused(x: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"x must be \(n, ...\) and y \(n,\) with n >= 1"):
        Samples(x, y)


def test_samples_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        digits().train.x[0] = 1


# An .npz file of one's own.

OWN = {
    "x_train": np.arange(36, dtype=np.uint8).reshape(4, 1, 3, 3),
    "y_train": np.array([0, 1, 2, 1]),
    "x_test": np.zeros((2, 1, 3, 3), np.uint8),
    "y_test": np.array([2, 0], np.uint8),
}


def saved(path: Path, **changes: np.ndarray) -> Path:
    np.savez_compressed(path, **{**OWN, **changes})
    return path


def test_an_npz_file_is_read_with_bytes_scaled(tmp_path: Path) -> None:
    data = load(str(saved(tmp_path / "own.npz", labels=np.array(["cat", "dog", "eel"]))))
    assert (data.name, data.labels) == ("own", ("cat", "dog", "eel"))
    np.testing.assert_array_equal(data.train.x, (OWN["x_train"] / 255).astype(np.float32))
    np.testing.assert_array_equal(data.test.y, [2, 0])


def test_an_npz_file_of_floats_is_taken_as_it_is(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 7))
    data = npz(saved(tmp_path / "own.npz", x_train=x, x_test=x[:2]))
    np.testing.assert_array_equal(data.train.x, x.astype(np.float32))
    assert data.labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((3, 1, 3, 3))}, r"x must be \(n, ...\) and y \(n,\)"),
        (
            {"x_test": np.zeros((2, 1, 4, 4))},
            r"training samples are \(1, 3, 3\), test samples \(1, 4, 4\)",
        ),
        ({"x_train": np.full((4, 1, 3, 3), np.nan)}, "x_train holds values that are not finite"),
        ({"x_train": np.full((4, 1, 3, 3), 1e300)}, "x_train holds values that are not finite"),
        ({"x_train": np.array(["a"] * 4)}, "x_train must hold numbers and y_train integers"),
        ({"y_train": np.array([0.0, 1, 2, 1])}, "x_train must hold numbers and y_train integers"),
        ({"y_train": np.array([0, -1, 2, 1])}, r"y must hold whole numbers from 0 on, got -1..2"),
        ({"labels": np.array(["cat"])}, r"labels must be in 0..0, got 0..2"),
        ({"labels": np.array("cat")}, "labels must be a list of names"),
        (
            {"y_train": np.zeros(4, int), "y_test": np.zeros(2, int)},
            "at least two classes are needed, got 1",
        ),
        ({"y_train": np.array([0, 1, 2**40, 1])}, "labels must be in"),
        (
            {"x_val": np.zeros((1, 1, 3, 3))},
            "arrays x_train, .* and perhaps labels are expected, x_val would not be",
        ),
        (
            {"x_test": np.zeros((2, 1, 3, 3))},
            "only uint8 is scaled to 0..1: x_train is uint8, x_test float64",
        ),
        ({"y_train": np.array([0, 1, 1, 1])}, "class 2 is in y_test and not in y_train"),
    ],
)
def test_an_npz_file_that_does_not_fit_together_is_refused(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"own.npz: {message}"):
        npz(saved(tmp_path / "own.npz", **changes))


@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_an_npz_file_without_an_array_is_refused(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **{key: array for key, array in OWN.items() if key != name})
    with pytest.raises(
        DataError,
        match=f"own.npz: arrays x_train, y_train, x_test, y_test are expected, {name} miss",
    ):
        npz(tmp_path / "own.npz")


def _npy() -> bytes:
    held = io.BytesIO()
    np.save(held, np.zeros(3))
    return held.getvalue()


@pytest.mark.parametrize("raw", [b"", b"junk", b"PK\x03\x04junk", _npy()])
def test_what_is_no_npz_file_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(raw)
    with pytest.raises(DataError, match="own.npz: not a readable .npz file"):
        npz(tmp_path / "own.npz")


def test_an_npz_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="own.npz: not a readable .npz file .*No such file"):
        load(str(tmp_path / "own.npz"))


def test_every_damaged_byte_of_an_npz_file_is_read_or_refused(tmp_path: Path) -> None:
    """Never another exception, whatever zip, zlib and numpy make of it."""
    raw = saved(tmp_path / "own.npz").read_bytes()
    for at in range(0, len(raw), 3):
        (tmp_path / "bad.npz").write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        try:
            npz(tmp_path / "bad.npz")
        except DataError as error:
            assert "bad.npz" in str(error)


def test_an_npz_file_cannot_run_code(tmp_path: Path) -> None:
    message = "own.npz: an array holds Python objects, .* store numbers, and names as text"
    with pytest.raises(DataError, match=message):
        npz(saved(tmp_path / "own.npz", labels=np.array(["cat", "dog", "eel"], object)))


def test_the_names_of_classes_are_text_numbers_or_bytes_of_text(tmp_path: Path) -> None:
    for names, expected in (
        (np.array([name.encode() for name in ("cat", "köter", "eel")]), ("cat", "köter", "eel")),
        (np.array([7, 8, 9]), ("7", "8", "9")),
    ):
        assert npz(saved(tmp_path / "own.npz", labels=names)).labels == expected
    for names, message in (
        (np.array([b"cat", b"d\xffg", b"eel"]), r"names are UTF-8 text, got .*d.xffg"),
        (np.array(["cat", "\udc80", "eel"]), "names are UTF-8 text, got '.+udc80'"),
        (np.array([0.5, 1.5, 2.5]), "names are text or whole numbers, got .*0.5"),
    ):
        with pytest.raises(DataError, match=f"own.npz: labels: {message}"):
            npz(saved(tmp_path / "own.npz", labels=names))


def test_an_unknown_data_set_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        SpecError, match="no data set named 'mnits' .nearest: mnist.; there are: digits, mnist"
    ):
        load("mnits")


# Files that are searched, and fetched.

CONTENTS = b"some contents" * 100
DIGEST = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture
def mirror(places: Path) -> Iterator[str]:
    """A real HTTP server of the file ``thing.gz``, right under ``/good/`` and damaged elsewhere."""
    packed = gzip.compress(CONTENTS, mtime=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/good/thing.gz": packed, "/other/thing.gz": gzip.compress(b"other")}.get(
                self.path, packed
            )
            self.send_response(404 if self.path.startswith("/none/") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:20] if self.path.startswith("/short/") else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "raw"), [("thing", CONTENTS), ("thing.gz", gzip.compress(CONTENTS, mtime=0))]
)
def test_a_file_that_is_there_is_read_plain_or_packed(name: str, raw: bytes, places: Path) -> None:
    (places / "data" / "any" / name).write_bytes(raw)
    assert obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE) == CONTENTS


def test_a_file_that_is_nowhere_is_refused_with_every_place_and_the_cure(places: Path) -> None:
    expected = (
        f"thing is neither in {places}/data/any, {places}/cache/presplit/any nor could it be "
        "fetched "
        ".*127.0.0.1:9/thing.gz: .*refused.*; put "
        f"thing.gz into {places}/data/any, or set PRESPLIT_DATA to the folder that holds any/"
    )
    with pytest.raises(DataError, match=expected) as caught:
        obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE)
    assert "\n" not in str(caught.value)


def test_a_file_is_fetched_once_and_kept(places: Path, mirror: str) -> None:
    mirrors = (*NOWHERE, f"{mirror}none/", f"{mirror}short/", f"{mirror}good/")
    assert obtain("any", "thing", sha256=DIGEST, mirrors=mirrors) == CONTENTS
    assert [path.name for path in (places / "cache" / "presplit" / "any").iterdir()] == ["thing.gz"]
    assert obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE) == CONTENTS


def test_a_fetched_file_with_other_contents_is_refused_and_not_kept(
    places: Path, mirror: str
) -> None:
    with pytest.raises(DataError, match="other/thing.gz: SHA-256 of the contents is .*, expected"):
        obtain("any", "thing", sha256=DIGEST, mirrors=[f"{mirror}other/"])
    assert not (places / "cache").exists()


def test_a_cache_that_cannot_be_written_does_not_lose_what_was_fetched(
    places: Path, mirror: str
) -> None:
    (places / "cache").write_bytes(b"not a folder")
    assert obtain("any", "thing", sha256=DIGEST, mirrors=[f"{mirror}good/"]) == CONTENTS


def test_a_user_without_a_home_is_told_where_a_file_may_lie(
    places: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user has no entry in the list of users."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", dict[int, object]().__getitem__)
    with pytest.raises(DataError, match="thing is neither in .*data/any nor could it be fetched"):
        obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE)
    assert obtain("any", "thing", sha256=DIGEST, mirrors=[f"{mirror}good/"]) == CONTENTS


def test_a_folder_that_cannot_be_looked_into_holds_no_file(
    monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    monkeypatch.setenv(
        "PRESPLIT_DATA", "/proc/1/root" + "/x" * 300
    )  # too long a name, for root too
    with pytest.raises(DataError, match="thing is neither in "):
        obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE)


def test_every_damaged_byte_of_a_packed_file_is_refused_with_its_name(places: Path) -> None:
    path, raw = places / "data" / "any" / "thing.gz", gzip.compress(CONTENTS, mtime=0)
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        try:
            assert obtain("any", "thing", sha256=DIGEST, mirrors=NOWHERE) == CONTENTS, (
                "only the time or name changed"
            )
        except DataError as error:
            assert str(path) in str(error)


def test_a_damaged_mnist_file_is_refused_with_its_name(places: Path) -> None:
    (places / "data" / "mnist").mkdir()
    name = next(iter(SHA256))
    (places / "data" / "mnist" / name).write_bytes(idx(np.zeros((2, 3, 3), np.uint8)))
    with pytest.raises(
        DataError, match=f"data/mnist/{name}: SHA-256 of the contents is .*delete it and try again"
    ):
        mnist()


def test_eight_bit_images_are_scaled_and_labels_are_whole() -> None:
    assert Samples(np.array([[0, 51, 255]], np.uint8), np.array([1.0])).x.tolist() == [
        [0.0, pytest.approx(0.2), 1.0]
    ]
    with pytest.raises(DataError, match="y must hold whole numbers from 0 on, got 1.5"):
        Samples(np.zeros((1, 2)), np.array([1.5]))
    with pytest.raises(DataError, match="x holds values that are not finite"):
        Samples(np.array([[np.nan]]), np.array([0]))
