"""Laws over the whole shelf of codecs: being listed means being tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from presplit.codecs import CODECS, FINER, USUAL
from presplit.core.encoding import Encoding, Native, Seen, most_bytes
from presplit.core.protocols import Codec
from presplit.core.types import Boundary, Floats

NARROWEST = 1e-30
"""Laws hold from this width of a range on, and at width 0.

What is narrower has its own test below.
"""

ends = st.floats(-1e4, 1e4)
ranges = (
    st.tuples(ends, ends)
    .map(sorted)
    .filter(lambda r: r[0] == r[1] == 0 or max(0, *r) - min(0, *r) >= NARROWEST)
)


@st.composite
def calibrated(draw: st.DrawFn) -> tuple[float, float, Floats]:
    """A range, and one sample inside it."""
    low, high = draw(ranges)
    shape = draw(array_shapes(max_dims=3, max_side=5))
    unit = draw(arrays(np.float64, (1, *shape), elements=st.floats(0, 1)))
    return low, high, np.clip(low + unit * (high - low), low, high).astype(np.float32)


@dataclass
class Fitted:
    """A codec calibrated for a range, and one sample of it that it can carry."""

    codec: Codec
    encoding: Encoding
    values: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def back(self) -> Floats:
        codes = self.codec.encode(self.values, self.encoding)
        assert codes is not None
        return self.codec.decode(codes, self.encoding, self.shape)


def fitted(name: str, case: tuple[float, float, Floats]) -> Fitted:
    low, high, values = case
    codec = CODECS[name]
    if codec.name.startswith(("png", "jpeg")):
        values = np.resize(values, (1, 3, 9, 8))
    elif "channel" in name and values.ndim < 3:
        values = values[..., None]
    channels = ((low, high),) * values.shape[1] if values.ndim > 2 else ()
    encoding = codec.calibrate(Seen(low, high, channels=channels), values.shape[1:])
    if encoding is not None:
        return Fitted(codec, encoding, values)
    values = np.rint(np.clip(values, -100, 100))  # a codec for whole numbers
    encoding = codec.calibrate(Seen.of(values), values.shape[1:])
    assert encoding is not None
    return Fitted(codec, encoding, values)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=20)
@given(case=calibrated())
def test_a_round_trip_stays_within_the_stated_error(
    name: str, case: tuple[float, float, Floats]
) -> None:
    found = fitted(name, case)
    back = found.back()
    assert back.dtype == np.float32 and back.shape == found.values.shape
    assert np.isfinite(back).all()
    # The difference is taken in float64: the law speaks of the codec, not of a float32 subtraction.
    difference = np.abs(back.astype(np.float64) - found.values)
    # PNG adds the low end of its range, which rounds once more.
    rounding = 1e-6 * np.abs(found.values).max() if name == "png" else 0.0
    assert (difference <= found.codec.error(found.values, found.encoding) + rounding).all()


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=20)
@given(case=calibrated())
def test_codes_have_the_dtype_and_the_bytes_that_the_encoding_says(
    name: str, case: tuple[float, float, Floats]
) -> None:
    found = fitted(name, case)
    here, encoding = Boundary("here", found.shape), found.encoding
    codes = found.codec.encode(found.values, encoding)
    assert codes.dtype == np.dtype(encoding.dtype)
    assert len(codes) == 1
    is_native = found.codec.decoder(encoding, found.shape) is None
    assert is_native == isinstance(encoding, Native)
    if isinstance(encoding, Native):
        assert codes.ndim == 2 and 1 <= codes.nbytes <= most_bytes(here)
        assert encoding.nbytes(here) in (None, codes.nbytes)
    else:
        assert codes.shape[1:] == encoding.shape(here)
        assert codes.nbytes == encoding.nbytes(here)


@pytest.mark.parametrize("name", [name for name in CODECS if not name.startswith("jpeg")])
@settings(max_examples=20)
@given(case=calibrated())
def test_encoding_what_was_decoded_changes_nothing_more(
    name: str, case: tuple[float, float, Floats]
) -> None:
    found = fitted(name, case)
    back = found.back()
    again = Fitted(found.codec, found.encoding, back).back()
    np.testing.assert_array_equal(again, back)


PORTABLE = ("float32", "float16", "int8", "int8-channel", "int4", "int4-channel", "int2")


@pytest.mark.parametrize("name", PORTABLE)
@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 2, 2), (1, 1), (2, 3)])
def test_many_samples_are_encoded_as_each_of_them_alone(name: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    codec = CODECS[name]
    encoding = codec.calibrate(Seen.of(values), shape)
    codes = codec.encode(values, encoding)
    each = [codec.encode(values[k : k + 1], encoding) for k in range(4)]
    np.testing.assert_array_equal(codes, np.concatenate(each))
    alone = [codec.decode(one, encoding, shape) for one in each]
    np.testing.assert_array_equal(codec.decode(codes, encoding, shape), np.concatenate(alone))


LOSSY = [name for name in CODECS if not name.startswith(("png", "jpeg", "integers"))]
"""Codecs that take any number; `integers` takes whole ones alone, and a picture has no 0."""


@pytest.mark.parametrize("name", LOSSY)
@settings(max_examples=15)
@given(limits=ranges)
def test_zero_stays_exactly_zero(name: str, limits: list[float]) -> None:
    low, high = limits
    found = fitted(name, (low, high, np.zeros((1, 3), np.float32)))
    np.testing.assert_array_equal(found.back(), found.values)


@pytest.mark.parametrize("name", [name for name in CODECS if not name.startswith("integers")])
def test_values_beyond_the_range_saturate_and_stay_finite(name: str) -> None:
    beyond = np.resize(np.array([-1e30, 1e30, 1e39, -1e39], np.float64), (1, 3, 8, 8))
    with np.errstate(over="ignore"):
        values = np.clip(beyond, -3e38, 3e38).astype(np.float32)
    codec = CODECS[name]
    inside = Seen(-1, 1, channels=((-1.0, 1.0),) * 3)
    encoding = codec.calibrate(inside, (3, 8, 8))
    back = codec.decode(codec.encode(values, encoding), encoding, (3, 8, 8))
    assert np.isfinite(back).all()
    if not name.startswith(("topk", "jpeg")):  # these are free to lose single values
        assert (back[values < 0] < -0.6).all() and (back[values > 0] > 0.6).all()


def test_a_range_of_subnormal_width_is_encoded_too() -> None:
    int8 = CODECS["int8"]
    encoding = int8.calibrate(Seen(0.0, 1e-40), (1,))
    codes = int8.encode(np.zeros((1, 1), np.float32), encoding)
    assert np.isfinite(int8.decode(codes, encoding, (1,))).all()


def test_an_eight_bit_image_travels_as_int8_without_loss() -> None:
    pixels = (np.arange(256) / 255).astype(np.float32)[None]
    int8 = CODECS["int8"]
    encoding = int8.calibrate(Seen(0, 1), (256,))
    codes = int8.encode(pixels, encoding)
    assert len(np.unique(codes)) == 256
    # One unit of float32 at 1.
    np.testing.assert_allclose(int8.decode(codes, encoding, (256,)), pixels, atol=1e-7)


def test_channels_of_different_size_keep_their_own_steps() -> None:
    values = np.random.default_rng(0).random((1, 2, 6, 6)).astype(np.float32)
    values[0, 1] *= 1000
    seen = Seen.of(values)
    lost = {}
    for name in ("int4", "int4-channel"):
        encoding = CODECS[name].calibrate(seen, (2, 6, 6))
        codes = CODECS[name].encode(values, encoding)
        back = CODECS[name].decode(codes, encoding, (2, 6, 6))
        lost[name] = float(np.abs(back - values)[0, 0].max())
    assert lost["int4-channel"] <= 1 / 30 + 1e-6 < 0.5 < lost["int4"]


@pytest.mark.parametrize("name", ["int4", "int4-channel", "int2"])
def test_rare_values_do_not_make_few_steps_coarse(name: str) -> None:
    """The ends are those that lose least on what was seen; 8 bits hold all of it."""
    values = np.random.default_rng(0).exponential(size=(4, 2, 16, 16)).astype(np.float32)
    seen, shape = Seen.of(values), values.shape[1:]
    codec, whole = CODECS[name], Seen(seen.low, seen.high, channels=seen.channels)
    lost = []
    for known in (seen, whole):
        encoding = codec.calibrate(known, shape)
        back = codec.decode(codec.encode(values, encoding), encoding, shape)
        assert (np.abs(back - values) <= codec.error(values, encoding)).all()
        lost.append(np.square(back - values).mean())
    assert lost[0] < 0.8 * lost[1]
    int8 = CODECS["int8"]
    assert int8.calibrate(seen, shape) == int8.calibrate(whole, shape)


def test_a_row_of_numbers_has_no_channels() -> None:
    values = np.ones((2, 5), np.float32)
    assert CODECS["int8-channel"].calibrate(Seen.of(values), (5,)) is None


def test_token_ids_travel_as_integers_without_loss() -> None:
    ids, integers = np.array([[0, 1, 8190, 8191]], np.float32), CODECS["integers"]
    encoding = integers.calibrate(Seen.of(ids), (4,))
    codes = integers.encode(ids, encoding)
    assert codes.dtype == np.int16
    np.testing.assert_array_equal(integers.decode(codes, encoding, (4,)), ids)


@pytest.mark.parametrize("values", [[0.5], [-1e6], [70_000.0]])
@pytest.mark.parametrize("name", ["integers", "integers+zstd"])
def test_what_is_no_whole_number_in_range_is_not_carried_as_one(
    values: list[float], name: str
) -> None:
    integers = CODECS[name]
    encoding = integers.calibrate(Seen(0, 8191, whole=True), (1,))
    assert integers.encode(np.array([values], np.float32), encoding) is None


def test_integers_are_not_offered_for_what_was_not_whole_or_was_not_seen() -> None:
    integers = CODECS["integers"]
    assert integers.calibrate(Seen(0, 9), (1,)) is None
    assert integers.calibrate(Seen(0, 1e5, whole=True), (1,)) is None
    assert integers.calibrate(None, (1,)) is None


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("bytes scaled to 0..1", np.arange(256) / 255),
        ("bytes as they are", np.arange(256)),
        ("normalised by mean and deviation", (np.arange(256) / 255 - 0.45) / 0.225),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_bytes_loses_nothing_by_png(
    name: str, pixels: np.ndarray, channels: int
) -> None:
    image = np.resize(np.random.default_rng(0).permutation(pixels), (1, channels, 16, 16))
    image = image.astype(np.float32)
    png = CODECS["png"]
    encoding = png.calibrate(Seen.of(image), image.shape[1:])
    back = png.decode(png.encode(image, encoding), encoding, image.shape[1:])
    # What is normalised is rounded once on its way to bytes and once back.
    np.testing.assert_allclose(back, image, atol=1e-6)
    if name.startswith("bytes"):
        np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 7, 9), (3, 64), (192,)])
def test_what_is_no_image_is_sent_as_no_picture(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    assert CODECS["png"].calibrate(Seen.of(values), shape) is None


def test_a_photograph_is_smaller_by_jpeg_the_lower_its_quality() -> None:
    rows = np.linspace(0, 6, 64)
    image = np.stack([np.sin(np.add.outer(rows, k * rows)) for k in (1, 2, 3)])
    image = ((image + 1) / 2).astype(np.float32)[None]
    seen, sizes = Seen.of(image), []
    for name in ("png", "jpeg-90", "jpeg-75", "jpeg-50"):
        encoding = CODECS[name].calibrate(seen, (3, 64, 64))
        codes = CODECS[name].encode(image, encoding)
        sizes.append(codes.nbytes)
        back = CODECS[name].decode(codes, encoding, (3, 64, 64))
        assert np.abs(back - image).mean() < 0.03
    assert sizes == sorted(sizes, reverse=True)


def test_topk_sends_no_zeros_and_at_most_its_share() -> None:
    values = np.random.default_rng(0).normal(size=(1, 1000)).astype(np.float32)
    topk = CODECS["topk-10"]
    encoding = topk.calibrate(Seen.of(values), (1000,))
    assert topk.encode(values, encoding).nbytes == 125 + 100
    back = topk.decode(topk.encode(values, encoding), encoding, (1000,))
    assert np.abs(values[back == 0]).max() <= np.abs(values[back != 0]).min()
    values[0, 20:] = 0
    assert topk.encode(values, encoding).nbytes <= 125 + 20


def test_every_name_of_a_list_stands_on_the_shelf() -> None:
    assert {*USUAL, *FINER, *FINER.values()} <= {*CODECS}
