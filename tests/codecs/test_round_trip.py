"""Laws over the whole shelf of codecs: being listed means being tested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from presplit.codecs import CODECS
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


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=calibrated())
def test_a_round_trip_stays_within_the_stated_error(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, (low, high, values) = CODECS[name], case
    encoding = codec.calibrate(low, high)
    back = codec.decode(codec.encode(values, encoding), encoding)
    assert back.dtype == np.float32 and back.shape == values.shape
    # The difference is taken in float64: the law speaks of the codec, not of a float32 subtraction.
    assert (np.abs(back.astype(np.float64) - values) <= codec.error(values, encoding)).all()


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(case=calibrated())
def test_codes_have_the_dtype_and_the_bytes_that_the_encoding_says(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, (low, high, values) = CODECS[name], case
    encoding = codec.calibrate(low, high)
    codes = codec.encode(values, encoding)
    assert encoding.codec == name
    assert codes.dtype == np.dtype(encoding.dtype)
    assert codes.shape == values.shape
    assert codes.nbytes == encoding.nbytes(Boundary("here", values.shape))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(case=calibrated())
def test_encoding_what_was_decoded_changes_nothing_more(
    name: str, case: tuple[float, float, Floats]
) -> None:
    codec, (low, high, values) = CODECS[name], case
    encoding = codec.calibrate(low, high)
    codes = codec.encode(values, encoding)
    np.testing.assert_array_equal(codec.encode(codec.decode(codes, encoding), encoding), codes)


@pytest.mark.parametrize("name", CODECS)
@given(limits=ranges)
def test_zero_stays_exactly_zero(name: str, limits: list[float]) -> None:
    encoding = CODECS[name].calibrate(*limits)
    zero = np.zeros(3, np.float32)
    np.testing.assert_array_equal(
        CODECS[name].decode(CODECS[name].encode(zero, encoding), encoding), zero
    )


@pytest.mark.parametrize("name", CODECS)
def test_values_beyond_the_range_saturate_and_stay_finite(name: str) -> None:
    encoding = CODECS[name].calibrate(-1, 1)
    back = CODECS[name].decode(
        CODECS[name].encode(np.array([-1e30, 1e30], np.float32), encoding), encoding
    )
    assert np.isfinite(back).all() and back[0] < -0.9 and back[1] > 0.9


def test_a_range_of_subnormal_width_is_encoded_too() -> None:
    encoding = CODECS["int8"].calibrate(0.0, 1e-40)
    assert np.isfinite(
        CODECS["int8"].decode(CODECS["int8"].encode(np.zeros(1, np.float32), encoding), encoding)
    ).all()


def test_an_eight_bit_image_travels_as_int8_without_loss() -> None:
    pixels = (np.arange(256) / 255).astype(np.float32)
    int8 = CODECS["int8"]
    encoding = int8.calibrate(0, 1)
    codes = int8.encode(pixels, encoding)
    assert len(np.unique(codes)) == 256
    np.testing.assert_allclose(
        int8.decode(codes, encoding), pixels, atol=1e-7
    )  # one unit of float32 at 1
