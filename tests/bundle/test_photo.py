"""A photograph becomes the same on the edge as in training, whatever made it."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from presplit.bundle.photo import pixels, prepared, prepared_frame
from presplit.core.errors import InputError, SpecError
from presplit.core.preparation import IMAGENET, Preparation, preparation
from presplit.train.data import Folder, by_class

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")


def photo(width: int, height: int, mode: str, turn: int = 1, seed: int = 0) -> bytes:
    """The bytes of a file with smooth content, held in the way that ``turn`` says."""
    rows = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(rows).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG", exif=exif)
    return file.getvalue()


def by_hand(raw: bytes, size: int, grey: bool) -> np.ndarray:
    """What training has always done to an image, in Pillow's own words."""
    with Image.open(io.BytesIO(raw)) as opened:
        upright = ImageOps.exif_transpose(opened)
        plain = upright.convert("RGBA") if upright.mode == "P" else upright
        plain = plain.convert("L" if grey else "RGB")
    fitted = np.asarray(ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR), np.float32)
    return (fitted[None] if grey else fitted.transpose(2, 0, 1)) / 255


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.integers(1, 24),
    mode=st.sampled_from(MODES),
    turn=st.integers(1, 8),
    grey=st.booleans(),
)
def test_the_edge_gives_the_very_numbers_that_training_saw(
    width: int,
    height: int,
    size: int,
    mode: str,
    turn: int,
    grey: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("own")
    raws = {
        f"{part}/{name}": photo(width, height, mode, turn, seed)
        for seed, part in enumerate(("train", "test"))
        for name in ("a", "b")
    }
    for place, raw in raws.items():
        (folder / place).mkdir(parents=True)
        (folder / place / "1.png").write_bytes(raw)
    data = by_class(Folder(folder), size=size, **({"grey": True} if grey else {}))
    stored = msgspec.json.decode(msgspec.json.encode(data.preparation), type=Preparation)
    for part, samples in (("train", data.train), ("test", data.test)):
        for sample, name in zip(samples.x, "ab", strict=True):
            raw = raws[f"{part}/{name}"]
            np.testing.assert_array_equal(prepared(raw, stored), sample)
            np.testing.assert_allclose(sample, by_hand(raw, size, grey), atol=1 / 255)


def test_each_step_is_done_as_it_is_said() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 80)[None, :, None], (40, 80, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    raw = file.getvalue()
    crop = prepared(raw, Preparation(20, 20, how="crop", shorter=20))
    fit = prepared(raw, Preparation(20, 20))
    np.testing.assert_allclose(crop, fit, atol=2 / 255)
    whole = prepared(raw, Preparation(20, 20, how="stretch"))
    assert whole[0, 0, 0] < 0.05 and whole[0, 0, -1] > 0.95 and fit[0, 0, 0] > 0.2
    exact = prepared(raw, Preparation(40, 80, how="exact"))
    np.testing.assert_array_equal(exact, ramp.transpose(2, 0, 1) / np.float32(255))
    shifted = prepared(raw, Preparation(40, 80, how="exact", **IMAGENET))
    mean, deviation = (np.float32(IMAGENET[key])[:, None, None] for key in ("mean", "deviation"))
    np.testing.assert_allclose(shifted, (exact - mean) / deviation, rtol=1e-5, atol=1e-6)
    bytes_ = prepared(raw, Preparation(40, 80, how="exact", divide=1, channels_last=True, bgr=True))
    np.testing.assert_array_equal(bytes_, ramp[..., ::-1])
    row = prepared(raw, Preparation(2, 2, grey=True, flat=6))
    assert row.shape == (6,) and not row[4:].any() and row[:4].any()
    np.testing.assert_array_equal(prepared_frame(ramp, Preparation(20, 20)), fit)


def test_a_large_photo_is_decoded_small_and_looks_the_same() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    large = Image.fromarray(rows).resize((1700, 1300), Image.Resampling.BICUBIC)
    jpeg, png = io.BytesIO(), io.BytesIO()
    large.save(jpeg, "JPEG", quality=95)
    large.save(png, "PNG", compress_level=1)
    for how in (Preparation(48, 48), Preparation(40, 48, how="crop", shorter=64)):
        near, true = (prepared(file.getvalue(), how) for file in (jpeg, png))
        away = 255 * np.abs(near - true)
        assert near.shape == true.shape and away.mean() < 2 and away.max() < 10, (
            away.mean(),
            away.max(),
        )
    exact = Preparation(1300, 1700, how="exact")
    assert pixels(jpeg.getvalue(), exact).shape == (1300, 1700, 3)


def test_what_cannot_be_prepared_is_refused_with_its_reason(tmp_path: Path) -> None:
    raw, how = photo(9, 7, "RGB"), Preparation(8, 8)
    deep = io.BytesIO()
    Image.fromarray(np.full((6, 6), 999, np.uint16)).save(deep, "PNG")
    for given_, how_, part in (
        (b"", how, "not a readable image"),
        (b"GIF89a", how, "not a readable image"),
        (raw[: len(raw) // 2], how, "not a readable image"),
        (deep.getvalue(), how, "expected at most 8 bits a channel, got Pillow's mode 'I;16'"),
        (raw, Preparation(8, 8, how="exact"), "expected 8 x 8 pixels, .* got 9 x 7"),
    ):
        with pytest.raises(InputError, match=part):
            prepared(given_, how_)
    assert pixels(raw, Preparation(8, 8, how="exact")).shape == (7, 9, 3)
    for words, shape, part in (
        (["how=fill"], (3, 8, 8), "--prepare how: invalid enum value"),
        (["mean=1,2"], (3, 8, 8), "mean: expected 3 values, one a channel, got 2"),
        (["shorter=9"], (3, 8, 8), "how = crop needs it"),
        (["grey=true"], (3, 8, 8), r"takes samples of shape \(3, 8, 8\), and images .*\(1, 8, 8\)"),
        (["plain"], (5,), "--prepare: .*height"),
        (["plain"], (2, 8, 8), "channels, or a row of values, got"),
    ):
        with pytest.raises(SpecError, match=part):
            preparation(words, shape)
    assert preparation(["plain"], (8, 8, 1)) == Preparation(8, 8, grey=True, channels_last=True)
