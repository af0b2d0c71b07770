"""Laws over the whole shelf of codecs: being listed means being tested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from presplit.codecs import CODECS
from presplit.core.encoding import Encoding, Seen
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
    """A range, and values inside it."""
    low, high = draw(ranges)
    unit = draw(arrays(np.float64, array_shapes(max_dims=3, max_side=5), elements=st.floats(0, 1)))
    return low, high, np.clip(low + unit * (high - low), low, high).astype(np.float32)


def fitted(name: str, case: tuple[float, float, Floats]) -> tuple[Codec, Encoding, Floats]:
    """A codec calibrated for a range, and values of it that it can carry."""
    low, high, values = case
    codec = CODECS[name]
    encoding = codec.calibrate(Seen(low, high))
    if encoding is not None:
        return codec, encoding, values
    values = np.rint(np.clip(values, -100, 100))  # a codec for whole numbers
    encoding = codec.calibrate(Seen.of(values) if values.size else Seen(0, 100, whole=True))
    assert encoding is not None
    return codec, encoding, values


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=30)
@given(case=calibrated())
def test_a_round_trip_stays_within_the_stated_error(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, encoding, values = fitted(name, case)
    back = codec.decode(codec.encode(values, encoding), encoding)
    assert back.dtype == np.float32 and back.shape == values.shape
    # The difference is taken in float64: the law speaks of the codec, not of a float32 subtraction.
    assert (np.abs(back.astype(np.float64) - values) <= codec.error(values, encoding)).all()


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=30)
@given(case=calibrated())
def test_codes_have_the_dtype_and_the_bytes_that_the_encoding_says(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, encoding, values = fitted(name, case)
    codes = codec.encode(values, encoding)
    assert codes.dtype == np.dtype(encoding.dtype)
    assert codes.shape == values.shape
    assert codes.nbytes == encoding.nbytes(Boundary("here", values.shape))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=30)
@given(case=calibrated())
def test_encoding_what_was_decoded_changes_nothing_more(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, encoding, values = fitted(name, case)
    codes = codec.encode(values, encoding)
    np.testing.assert_array_equal(codec.encode(codec.decode(codes, encoding), encoding), codes)


LOSSY = ("float32", "float16", "int8")
"""Codecs that take any number; `integers` takes whole ones alone."""


@pytest.mark.parametrize("name", LOSSY)
@given(limits=ranges)
def test_zero_stays_exactly_zero(name: str, limits: list[float]) -> None:
    codec, zero = CODECS[name], np.zeros(3, np.float32)
    encoding = codec.calibrate(Seen(*limits))
    np.testing.assert_array_equal(codec.decode(codec.encode(zero, encoding), encoding), zero)


@pytest.mark.parametrize("name", LOSSY)
def test_values_beyond_the_range_saturate_and_stay_finite(name: str) -> None:
    codec = CODECS[name]
    encoding = codec.calibrate(Seen(-1, 1))
    back = codec.decode(codec.encode(np.array([-1e30, 1e30], np.float32), encoding), encoding)
    assert np.isfinite(back).all() and back[0] < -0.9 and back[1] > 0.9


def test_a_range_of_subnormal_width_is_encoded_too() -> None:
    int8 = CODECS["int8"]
    encoding = int8.calibrate(Seen(0.0, 1e-40))
    codes = int8.encode(np.zeros(1, np.float32), encoding)
    assert np.isfinite(int8.decode(codes, encoding)).all()


def test_an_eight_bit_image_travels_as_int8_without_loss() -> None:
    pixels = (np.arange(256) / 255).astype(np.float32)
    int8 = CODECS["int8"]
    encoding = int8.calibrate(Seen(0, 1))
    codes = int8.encode(pixels, encoding)
    assert len(np.unique(codes)) == 256
    # One unit of float32 at 1.
    np.testing.assert_allclose(int8.decode(codes, encoding), pixels, atol=1e-7)


def test_token_ids_travel_as_integers_without_loss() -> None:
    ids, integers = np.array([0, 1, 8190, 8191], np.float32), CODECS["integers"]
    encoding = integers.calibrate(Seen.of(ids))
    codes = integers.encode(ids, encoding)
    assert codes.dtype == np.int16
    np.testing.assert_array_equal(integers.decode(codes, encoding), ids)


@pytest.mark.parametrize("values", [[0.5], [-1e6], [70_000.0]])
def test_what_is_no_whole_number_in_range_is_not_carried_as_one(values: list[float]) -> None:
    integers = CODECS["integers"]
    encoding = integers.calibrate(Seen(0, 8191, whole=True))
    assert integers.encode(np.array(values, np.float32), encoding) is None


def test_integers_are_not_offered_for_what_was_not_whole_or_was_not_seen() -> None:
    integers = CODECS["integers"]
    assert integers.calibrate(Seen(0, 9)) is None
    assert integers.calibrate(Seen(0, 1e5, whole=True)) is None
    assert integers.calibrate(None) is None
