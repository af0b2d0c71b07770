"""Sounds are read as they were written, brought to one rate and length, learnt from, or refused."""

from __future__ import annotations

import io
import json
import struct
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.bundle import read
from presplit.cli.main import main
from presplit.core.errors import DataError, SpecError
from presplit.core.sound import fitted, resampled, wav
from presplit.core.spec import spec_from
from presplit.train import export, runs
from presplit.train.data import load

RATE = 4000
STOPPED = 1e-3
"""What is left of a tone that the new rate cannot hold: 60 dB down."""


def tone(hz: float, samples: int = 400, *, rate: int = RATE) -> np.ndarray:
    """Half of full scale."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate)


def packed(
    values: np.ndarray,
    *,
    rate: int = RATE,
    bits: int = 16,
    kind: int = 1,
    size: int | None = None,
    extensible: bool = False,
    before: bytes = b"",
) -> bytes:
    """A .wav file of ``values``, ``(samples,)`` or ``(samples, channels)`` in -1..1."""
    values = values if values.ndim == 2 else values[:, None]
    if kind == 3:
        data = values.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = (values * 128 + 128).clip(0, 255).astype(np.uint8).tobytes()
    else:
        top = 2 ** (bits - 1)
        whole = np.rint(values * top).clip(-top, top - 1).astype("<i8")
        data = b"".join(int(v).to_bytes(bits // 8, "little", signed=True) for v in whole.flat)
    channels, step = values.shape[1], values.shape[1] * bits // 8
    code = 0xFFFE if extensible else kind
    form = struct.pack("<HHIIHH", code, channels, rate, rate * step, step, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, kind) + bytes(14)
    chunks = before + b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def spread(folder: Path, *, samples: int = 400, each: int = 1, rate: int = RATE) -> Path:
    """Low and high tones, ``each`` of them to train with and as many to test with."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, hz in (("high", 1200), ("low", 300)):
            (folder / part / label).mkdir(parents=True)
            for number in range(each):
                values = tone(hz + random.integers(100), samples, rate=rate)
                (folder / part / label / f"{number:03d}.wav").write_bytes(packed(values, rate=rate))
    return folder


def zipped(folder: Path, *, under: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, under + str(file.relative_to(folder)))
    return path


# One file.


@pytest.mark.parametrize(
    ("bits", "kind"), [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)], ids=str
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_form_of_samples_is_read_as_it_was_written(
    bits: int, kind: int, extensible: bool
) -> None:
    values = np.concatenate([tone(440, 50), [-1.0, 0.0, 0.5]])
    other = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # an odd chunk is padded
    raw = packed(values, bits=bits, kind=kind, extensible=extensible, before=other)
    found, rate = wav(raw)
    assert (rate, found.dtype, found.shape) == (RATE, np.float32, (53,))
    np.testing.assert_allclose(found, values, atol=2.0 ** (1 - min(bits, 24)))


def test_what_the_standard_library_writes_is_read_and_channels_are_mixed_down() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.array([[16384, 0], [-16384, -16384]], "<i2").tobytes())
    assert wav(buffer.getvalue())[0].tolist() == [0.25, -0.5]


def test_a_file_that_was_streamed_ends_where_it_ends() -> None:
    assert len(wav(packed(tone(440, 7), size=0xFFFFFFFF) + b"\1")[0]) == 7


GOOD = packed(tone(440, 8))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a .wav file: it begins with b''.*ffmpeg"),
        (b"fLaC" + bytes(50), "not a .wav file: it begins with b'fLaC'"),
        (GOOD[:30], r"it has no samples \(no chunk 'data'\)"),
        (GOOD[:-2], "expected 16 bytes of samples of 2, got 14"),
        (packed(tone(440, 8), size=15), "expected 15 bytes of samples of 2, got 16"),
        (packed(np.zeros(0)), "expected 0 bytes"),
        (GOOD.replace(b"fmt ", b"fmtt"), "it does not say its form"),
        (GOOD[:20] + b"\7" + GOOD[21:], "expected PCM of 8, .* got format 7 of 16 bits"),
        (GOOD[:22] + b"\0" + GOOD[23:], "0 channels of 16 bits"),
        (packed(np.array([0.0, np.nan]), bits=32, kind=3), "some that are not finite"),
        (packed(np.array([0.0, 1e300]), bits=64, kind=3), "some that are not finite"),
        (packed(np.array([0.0, -3.0]), bits=32, kind=3), "in -1..1, got 3; scale"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_reason(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        wav(raw)


def test_every_damaged_head_of_a_sound_is_read_or_refused() -> None:
    for at in range(48):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = GOOD[:at] + bytes([value]) + GOOD[at + 1 :]
            try:
                found, _ = wav(damaged)
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert np.abs(found).max() <= 1


# Rate and length.


@settings(max_examples=20)
@given(
    rates=st.lists(st.sampled_from([4000, 6000, 8000, 11025, 16000, 44100]), min_size=2, max_size=2)
)
def test_a_tone_of_another_rate_is_the_same_tone(rates: list[int]) -> None:
    rate, wanted = rates
    found = resampled(tone(700, rate // 4, rate=rate).astype(np.float32), rate, wanted)
    expected = tone(700, len(found), rate=wanted)
    assert len(found) == -(-(rate // 4) * wanted // rate)
    inner = slice(wanted // 50, -wanted // 50)  # at its ends the tone begins and stops
    np.testing.assert_allclose(found[inner], expected[inner], atol=2 * STOPPED)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    found = resampled(tone(3000, 4000, rate=8000).astype(np.float32), 8000, 4000)
    assert np.abs(found[100:-100]).max() < STOPPED


def test_the_middle_of_a_sound_is_kept_and_silence_stands_on_both_sides() -> None:
    sound = np.arange(1, 8, dtype=np.float32)
    assert fitted(sound, 3).tolist() == [3, 4, 5]
    assert fitted(sound, 10).tolist() == [0, *range(1, 8), 0, 0]
    np.testing.assert_array_equal(fitted(fitted(sound, 11), 7), sound)


# Many files.


def test_sounds_have_the_length_of_the_longest_to_train_with_unless_it_is_said(
    tmp_path: Path,
) -> None:
    folder = spread(tmp_path / "own")
    (folder / "train" / "low" / "long.wav").write_bytes(packed(tone(300, 500)))
    (folder / "test" / "low" / "longer.wav").write_bytes(packed(tone(300, 900)))
    found = load(str(folder))
    assert (found.name, found.labels, found.rate) == ("own", ("high", "low"), RATE)
    assert found.train.x.shape == (3, 1, 500) and found.test.x.shape == (3, 1, 500)
    assert found.train.y.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.train.x[2, 0], tone(300, 500), atol=1e-4)
    assert not found.train.x[:2, 0, :50].any(), "silence before a shorter one"
    assert load(str(folder), length_s=0.05).train.x.shape == (3, 1, 200)
    assert load(str(folder), rate=2000).train.x.shape == (3, 1, 250)


def test_a_zip_gives_what_its_folder_gives_with_or_without_a_folder_around_it(
    tmp_path: Path,
) -> None:
    folder = spread(tmp_path / "own")
    expected = load(str(folder))
    for under in ("", "own/"):
        path = zipped(folder, under=under)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__MACOSX/own/train/low/._000.wav", b"")
            archive.writestr(f"{under}train/.DS_Store", b"")
        found = load(str(path))
        assert (found.name, found.labels, found.rate) == ("own", expected.labels, RATE)
        np.testing.assert_array_equal(found.train.x, expected.train.x)
        np.testing.assert_array_equal(found.test.x, expected.test.x)


@pytest.mark.parametrize(
    ("place", "raw", "message"),
    [
        ("train/low/x.wav", b"junk", "own/train/low/x.wav: not a .wav file"),
        ("train/low/x.png", b"", "x.png: expected images only|000.wav: expected images only"),
        ("train/low/x.flac", b"", "x.flac: of sounds only .wav is read; ffmpeg"),
        (
            "test/low/x.wav",
            packed(tone(300), rate=8000),
            "own/test/low/x.wav: expected 4000 Hz as .*train/high/000.wav has, got 8000 Hz; "
            "data.rate brings",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    place: str, raw: bytes, message: str, tmp_path: Path
) -> None:
    folder = spread(tmp_path / "own")
    (folder / place).write_bytes(raw)
    with pytest.raises(
        DataError, match=message.replace("expected images", "expected (images|sounds)")
    ):
        load(str(folder))


def test_sounds_that_need_too_much_memory_are_refused_with_what_they_need(tmp_path: Path) -> None:
    folder = spread(tmp_path / "own")
    with pytest.raises(DataError, match=r"4 sounds of 691,200,000 samples, .* need 10.3 GiB"):
        load(str(folder), rate=192_000, length_s=3600)
    with pytest.raises(DataError, match="4 sounds of 0 samples"):
        load(str(folder), length_s=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 8}, "data.size: only images have it, and .*own holds sounds"),
        ({"grey": True}, "data.grey: only images have it, and .*own holds sounds"),
    ],
)
def test_a_key_of_images_is_refused_for_sounds(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        load(str(spread(tmp_path / "own")), **given)
    with pytest.raises(SpecError, match="data.rate: only a folder or a zip of sounds has it"):
        load("digits", rate=8000)


def test_a_net_learns_from_a_zip_of_sounds_and_its_bundle_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spread(tmp_path / "own", each=20)
    said = {
        "data": {"name": str(zipped(folder))},
        "model": {"width": 8},
        "sparsity": {"density": 0.5},
        "training": {"epochs": 6, "batch": 16, "augment": "later"},
    }
    assert runs.train(spec_from(said), tmp_path / "run")["accuracy"]["final"] == 1
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "b")]) == 0
    assert read(tmp_path / "b").net.boundaries[0].shape == (1, 400)
    other = tmp_path / "other.wav"
    other.write_bytes(packed(tone(350, 1200, rate=12_000), rate=12_000))
    for file in (folder / "test" / "low" / "000.wav", other):
        capsys.readouterr()
        assert main(["run", str(tmp_path / "b"), str(file)]) == 0
        assert json.loads(capsys.readouterr().out)["class"] == "low"
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(400, 2))
    export(plain, np.zeros((1, 1, 400), np.float32), tmp_path / "c")
    assert main(["run", str(tmp_path / "c"), str(other)]) == 2
    assert "does not say the rate of its sounds" in capsys.readouterr().err


# Zips.


def rezipped(path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        change(archive)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../train/low/x.wav", r"own.zip: \.\./train/low/x.wav: expected a name below"),
        ("/train/low/x.wav", "expected a name below the zip's own folder"),
        ("train\\low\\x.wav", "expected a name below the zip's own folder"),
        ("train/low/000.wav/x.wav", "train/low/000.wav is both a file and a folder"),
        ("train/low/deep/x.wav", "own.zip: train/low/deep: expected an image or a sound"),
        ("train/notes.wav", "own.zip: train/notes.wav: expected a folder with the files"),
        ("README.txt", "own.zip: README.txt: expected a folder with the files of one"),
    ],
)
def test_a_zip_with_an_odd_name_is_refused(name: str, message: str, tmp_path: Path) -> None:
    path = zipped(spread(tmp_path / "own"))
    with pytest.raises(DataError, match=message):
        load(str(rezipped(path, lambda archive: archive.writestr(name, GOOD))))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_a_zip_has_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(spread(tmp_path / "own"))
    with pytest.raises(DataError, match="train/low/000.wav: expected one file of that name"):
        load(str(rezipped(path, lambda archive: archive.writestr("train/low/000.wav", GOOD))))


def test_a_zip_that_would_unpack_to_too_much_is_refused_before(tmp_path: Path) -> None:
    path = zipped(spread(tmp_path / "own"))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\1\2")  # the last member's entry in the directory
    raw[at + 24 : at + 28] = struct.pack("<I", 2**30)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"own.zip: .*000.wav: .*268,435,456 bytes, got 1,073,741"):
        load(str(path))


def test_a_damaged_zip_is_refused_with_the_member_that_is_damaged(tmp_path: Path) -> None:
    path = zipped(spread(tmp_path / "own"))
    raw = path.read_bytes()
    at = raw.index(b"test/high/000.wav") + 60
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
    with pytest.raises(DataError, match="own.zip: test/high/000.wav: damaged in the zip file"):
        load(str(path))
    path.write_bytes(raw[:-30])
    with pytest.raises(DataError, match="own.zip: not a readable zip file"):
        load(str(path))
    with pytest.raises(DataError, match="none.zip: not a readable zip file"):
        load(str(tmp_path / "none.zip"))


@pytest.mark.parametrize("name", ["clothing", "fsdd"])
def test_an_archive_that_is_nowhere_or_other_is_refused_with_where_it_comes_from(
    name: str, places: Path
) -> None:
    with pytest.raises(DataError, match=f"{name}.*.zip is not in .*https://github.com/"):
        load(name)
    file = "fsdd.zip" if name == "fsdd" else "clothing-160.zip"
    (places / "data" / file).write_bytes(b"other")
    with pytest.raises(DataError, match=f"data/{file}: SHA-256 of the contents is "):
        load(name)
