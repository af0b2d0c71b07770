"""Bad files of a data set are told together, or left out and counted."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from presplit.core.errors import DataError, SpecError
from presplit.train.data import load

BAD = {
    "train/cat/empty.png": (b"", "not a readable image"),
    "train/cat/notes.txt": (b"text", "expected an image or a sound"),
    "train/dog/cut.jpg": (None, "not a readable image"),
    "test/dog/sound.wav": (b"RIFF", "expected images only, as .* is one"),
    "test/cat/folder/x.png": (b"", "expected an image or a sound"),
}


def photos(folder: Path) -> Path:
    """Four good images, and a bad one of each kind; `None` is a good one cut off."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            pixels = random.integers(0, 256, (12, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / name / "good.jpg")
    whole = (folder / "train/cat/good.jpg").read_bytes()
    for place, (raw, _) in BAD.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(whole[: len(whole) // 2] if raw is None else raw)
    for litter in ("Thumbs.db", "train/.DS_Store", "train/cat/._good.jpg", "test/dog/@eaDir"):
        (folder / litter).write_bytes(b"litter")
    return folder


def test_all_bad_files_are_told_at_once_or_left_out(tmp_path: Path) -> None:
    folder = photos(tmp_path / "own")
    with pytest.raises(DataError, match="own: 5 of its 9 files .*--skip-bad") as told:
        load(str(folder), size=8)
    lines = str(told.value).splitlines()
    assert len(lines) == 1 + len(BAD) and "litter" not in str(told.value)
    data = load(str(folder), size=8, skip_bad=True)
    assert (len(data.train), len(data.test), len(data.left_out)) == (2, 2, 5)
    assert data.train.y.tolist() == data.test.y.tolist() == [0, 1]
    for place, (_, problem) in BAD.items():
        file = "/".join(place.split("/")[:3])
        assert [line for line in data.left_out if re.search(f"own/{file}: .*{problem}", line)]
    Image.new("RGB", (5, 5)).save(folder / "train" / "dog" / "small.png")
    with pytest.raises(DataError, match="own: 6 of its 10 files"):  # a size of its own is told too
        load(str(folder))
    assert len(load(str(folder), skip_bad=True).train) == 2


def test_a_class_of_bad_files_alone_is_refused(tmp_path: Path) -> None:
    folder = photos(tmp_path / "own")
    (folder / "test/dog/good.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="expected a sample of class dog, none of its 1 files"):
        load(str(folder), size=8, skip_bad=True)
    with pytest.raises(SpecError, match="data.skip_bad: only a folder or a zip of images or sound"):
        load("digits", skip_bad=True)


def test_bad_sounds_are_told_and_left_out_too(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("no", "yes"):
            (tmp_path / part / name).mkdir(parents=True)
            with wave.open(str(tmp_path / part / name / "1.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(2000)
                file.writeframes(np.arange(40, dtype="<i2").tobytes())
    (tmp_path / "train/no/2.wav").write_bytes(b"RIFF")
    raw = bytearray((tmp_path / "train/no/1.wav").read_bytes())
    raw[24:26] = (4000).to_bytes(2, "little")  # another rate
    (tmp_path / "test/yes/3.wav").write_bytes(raw)
    with pytest.raises(DataError, match="2 of its 6 files"):
        load(str(tmp_path))
    data = load(str(tmp_path), skip_bad=True)
    assert (len(data.train), len(data.test), len(data.left_out)) == (2, 2, 2)
    assert "expected 2000 Hz as" in data.left_out[1]
