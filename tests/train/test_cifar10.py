"""CIFAR-10 is read from the original files and from JPEGs, or refused with the file's name."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from presplit.core.errors import DataError, MissingLibrary
from presplit.train.data import Dataset, cifar10, load
from presplit.train.data.cifar10 import LABELS, RECORD, read_archive, read_jpegs, read_records

NOWHERE = ("http://127.0.0.1:9/",)
"""Port 9 is the discard service: nothing listens there, so the connection is refused at once."""
RECORDS = np.random.default_rng(0).integers(0, 256, (6, RECORD), dtype=np.uint8)
RECORDS[:, 0] = [3, 1, 4, 1, 5, 9]
NAMES = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


def packed(names: list[str]) -> bytes:
    """An archive in which each of ``names`` holds one record."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, record in zip(names, RECORDS, strict=False):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = RECORD
            archive.addfile(member, io.BytesIO(record.tobytes()))
    return buffer.getvalue()


def check_cifar10(found: Dataset) -> None:
    np.testing.assert_array_equal(
        found.train.x, RECORDS[:5, 1:].reshape(5, 3, 32, 32) / np.float32(255)
    )
    assert found.train.y.tolist() == [3, 1, 4, 1, 5] and found.test.y.tolist() == [9]
    assert found.labels == LABELS


def test_cifar10_is_read_from_its_archive() -> None:
    check_cifar10(read_archive(packed(NAMES)))


def jpegs(path: Path, *names: str, size: int = 32) -> Path:
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", (size, size), (10 * number, 0, 0)).save(buffer, "JPEG", quality=100)
            archive.writestr(name, buffer.getvalue())
    return path


def test_cifar10_as_jpeg_files_is_taken_only_with_its_checksum(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = jpegs(
        places / "data" / "cifar10-jpeg.zip",
        *(f"train/{label}/0000.jpg" for label in LABELS),
        *(f"test/{label}/0000.jpg" for label in LABELS),
    )
    with pytest.raises(DataError, match=r"data/cifar10-jpeg.zip: SHA-256 of the contents is "):
        cifar10()
    digest = hashlib.sha256(zipped.read_bytes()).hexdigest()
    monkeypatch.setattr(sys.modules["presplit.train.data.cifar10"], "JPEGS_SHA256", digest)
    found = cifar10()
    assert found.train.y.tolist() == found.test.y.tolist() == list(range(10))
    assert (found.name, found.labels) == ("cifar10", LABELS)
    assert found.train.x.shape == (10, 3, 32, 32)
    assert found.train.x[1, 0].mean() * 255 == pytest.approx(10, abs=2)


TWO = [f"{part}/{label}/0.jpg" for part in ("train", "test") for label in ("bird", "cat")]


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (
            TWO[:2],
            32,
            "odd.zip: expected train/ and test/, or folders of .*, got 'train'",
        ),
        (TWO, 32, "odd.zip: expected images of 32 x 32 of the .*, got 32 x 32 of bird, cat"),
        (TWO, 16, "odd.zip: expected images of 32 x 32 of the .*, got 16 x 16 of bird, cat"),
    ],
)
def test_a_zip_of_other_images_is_refused(
    names: list[str], size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_jpegs(jpegs(tmp_path / "odd.zip", *names, size=size).read_bytes(), "odd.zip")


def test_damaged_cifar10_files_are_refused() -> None:
    with pytest.raises(DataError, match="data_batch_5.bin is missing"):
        read_archive(packed(NAMES[:4]))
    with pytest.raises(DataError, match="not a readable archive"):
        read_archive(packed(NAMES)[:500])
    with pytest.raises(DataError, match=f"records are {RECORD} bytes each, the file has 3072"):
        read_records(bytes(3072))
    with pytest.raises(DataError, match=r"labels are 0..9, the file has 10"):
        read_records(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match="damaged.zip: not a readable zip file"):
        read_jpegs(b"PK\x03\x04junk", "damaged.zip")


def test_cifar10_that_is_nowhere_is_refused_with_the_cure(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["presplit.train.data.cifar10"], "MIRRORS", NOWHERE)
    cure = (
        r"put cifar-10-binary.tar.gz into .*, "
        r"or set PRESPLIT_DATA to the folder that holds cifar-10-binary.tar.gz$"
    )
    with pytest.raises(DataError, match=rf"cifar-10-binary.tar.gz is neither in .* {cure}"):
        cifar10()


def test_the_archive_of_cifar10_is_taken_only_with_its_checksum(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = packed(NAMES)
    (places / "data" / "cifar-10-binary.tar.gz").write_bytes(raw)
    with pytest.raises(
        DataError,
        match=r"data/cifar-10-binary.tar.gz: SHA-256 of the contents is .*delete it and try",
    ):
        cifar10()
    monkeypatch.setattr(
        sys.modules["presplit.train.data.cifar10"], "SHA256", hashlib.sha256(raw).hexdigest()
    )
    check_cifar10(cifar10())
    check_cifar10(load("cifar10"))


def test_jpeg_files_without_pillow_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jpegs(tmp_path / "few.zip", *TWO)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(
        MissingLibrary,
        match=r"reading images needs PIL.Image: .*pip install .*\[edge\]",
    ):
        read_jpegs(path.read_bytes(), "few.zip")
