"""What a native codec is given comes from a stranger: it is refused, and costs little."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from presplit.codecs import CODECS
from presplit.core import errors
from presplit.core.encoding import Native, Seen, most_bytes
from presplit.core.errors import InputError, MissingLibrary
from presplit.core.types import Boundary

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SHAPE = (3, 16, 12)
IMAGE = (np.random.default_rng(0).integers(0, 256, (1, *SHAPE)) / 255).astype(np.float32)
WHOLE = np.rint(100 * IMAGE)
NATIVE = [
    name
    for name, codec in CODECS.items()
    if isinstance(codec.calibrate(Seen.of(WHOLE if "integers" in name else IMAGE), SHAPE), Native)
]
MOST_TAKEN_BYTES = 4 * 2**20
"""What refusing a payload for 576 values may allocate; bombs ask for 10 times as much."""


def payload(name: str) -> bytes:
    codec, values = CODECS[name], WHOLE if "integers" in name else IMAGE
    codes = codec.encode(values, codec.calibrate(Seen.of(values), SHAPE))
    return codes.tobytes()


def decode(name: str, data: bytes) -> np.ndarray:
    codec, values = CODECS[name], WHOLE if "integers" in name else IMAGE
    codes = np.frombuffer(data, np.uint8)[None]
    return codec.decode(codes, codec.calibrate(Seen.of(values), SHAPE), SHAPE)


def test_the_natives_are_those_that_no_operator_decodes() -> None:
    assert {"bfloat16", "topk-10", "png", "jpeg-50", "int4+zstd", "integers+lz4"} <= {*NATIVE}
    assert "int4" not in NATIVE


@pytest.mark.parametrize("name", NATIVE)
def test_a_payload_that_was_cut_or_grew_is_refused(name: str) -> None:
    whole = payload(name)
    assert decode(name, whole).shape == (1, *SHAPE)
    # All pixels of a PNG are before its last 20 bytes, which nobody needs.
    for kept in (0, 1, 7, len(whole) // 2, len(whole) - 30):
        with pytest.raises(InputError, match="payload: "):
            decode(name, whole[:kept])
    if not name.startswith(("png", "jpeg")):
        with pytest.raises(InputError, match="payload: "):
            decode(name, whole + b"\0")


@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=40)
@given(place=st.floats(0, 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_gives_finite_values(
    name: str, place: float, flip: int
) -> None:
    damaged = bytearray(payload(name))
    damaged[int(place * (len(damaged) - 1))] ^= flip
    try:
        back = decode(name, bytes(damaged))
    except InputError:
        return
    assert back.shape == (1, *SHAPE) and back.dtype == np.float32 and np.isfinite(back).all()


@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=20)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(InputError, match="payload: "):
        decode(name, data)


@pytest.mark.parametrize("name", NATIVE)
def test_what_is_no_single_row_of_bytes_is_refused(name: str) -> None:
    codec, values = CODECS[name], WHOLE if "integers" in name else IMAGE
    encoding = codec.calibrate(Seen.of(values), SHAPE)
    with pytest.raises(InputError, match="one sample at a time"):
        codec.encode(np.concatenate([values, values]), encoding)
    for codes in (np.zeros((2, 9), np.uint8), np.zeros(9, np.uint8), np.zeros((1, 9), np.int8)):
        with pytest.raises(InputError, match="one sample as uint8"):
            codec.decode(codes, encoding, SHAPE)


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of such a size without pixels, with other chunks before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(height * (3 * width + 1)) if height < 100 else b""))
    chunks = b"".join(chunk(kind, data) for kind, data in extra)
    return b"\x89PNG\r\n\x1a\n" + head + chunks + pixels + chunk(b"IEND", b"")


def jpeg(size: tuple[int, int], mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "JPEG", quality=50)
    return file.getvalue()


ZEROS = bytes(10**8)
BOMBS = {
    "a frame of another length": ("int8+zstd", zstd.compress(ZEROS)),
    "a frame that does not say its length": (
        "int8+zstd",
        zstd.compress(ZEROS, options={zstd.CompressionParameter.content_size_flag: 0}),
    ),
    "a long block": ("int8+lz4", lz4.block.compress(ZEROS[: 10**7], store_size=False)),
    "a large PNG": ("png", png(16_000, 16_000)),
    "text that grows": ("png", png(12, 16, (b"zTXt", b"k\0\0" + zlib.compress(ZEROS)))),
    "a large JPEG": ("jpeg-50", jpeg((4000, 4000))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_payload_that_asks_for_much_is_refused_before_it_gets_it(kind: str) -> None:
    name, data = BOMBS[kind]
    decode(name, payload(name))  # what is loaded the first time
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="payload: "):
            decode(name, data)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Pillow unpacks up to 1 MiB of a text, and copies it, before it gives up.
    assert taken < MOST_TAKEN_BYTES


def test_a_jpeg_that_repeats_its_scans_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray((IMAGE[0].transpose(1, 2, 0) * 255).astype(np.uint8)).save(
        file, "JPEG", quality=50, progressive=True
    )
    with pytest.raises(InputError, match="expected 1 scan of a JPEG, got"):
        decode("jpeg-50", file.getvalue())


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg-50", "JPEG")])
def test_a_picture_of_another_size_or_other_channels_is_refused(name: str, kind: str) -> None:
    for image in (Image.new("L", (12, 16)), Image.new("RGB", (16, 12))):
        image.save(file := io.BytesIO(), kind)
        with pytest.raises(InputError, match="as width, height and mode, got"):
            decode(name, file.getvalue())
    other = "jpeg-50" if name == "png" else "png"
    with pytest.raises(InputError, match="payload: "):
        decode(name, payload(other))


def test_numbers_that_are_not_finite_are_refused() -> None:
    damaged = np.frombuffer(payload("bfloat16"), "<u2").copy()
    damaged[5] = 0x7FC0
    with pytest.raises(InputError, match="finite"):
        decode("bfloat16", damaged.tobytes())


def test_a_codec_whose_library_is_missing_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    for name, library in (("int8+zstd", "zstd"), ("int8+lz4", "lz4"), ("png", "PIL")):
        with pytest.raises(MissingLibrary, match=f"{library}.*pip install .*\\[edge\\]"):
            CODECS[name].calibrate(Seen.of(IMAGE), SHAPE)


def test_the_longest_payload_has_room_for_noise() -> None:
    for name in NATIVE:
        assert len(payload(name)) <= most_bytes(Boundary("here", SHAPE))
