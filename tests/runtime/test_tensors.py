"""Tensors on the wire: what is sent is what is read, and nothing else is read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from presplit.core.errors import InputError
from presplit.runtime.hosted import Form
from presplit.runtime.wire.tensors import DATATYPES, Sent, datatype_of, read, send

arrays = st.sampled_from(sorted(DATATYPES.values())).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False} if "f" in dtype else None,
    )
)


def form_of(array: np.ndarray) -> Form:
    return Form("boundary", array.dtype.name, array.shape[1:], max_batch=8)


@settings(max_examples=30)
@given(array=arrays)
def test_what_is_sent_is_what_is_read(array: np.ndarray) -> None:
    found = read(send("boundary", array), form_of(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@settings(max_examples=30)
@given(array=arrays)
def test_strides_and_byte_order_do_not_matter(array: np.ndarray) -> None:
    swapped = array.astype(array.dtype.newbyteorder(">")) if array.dtype.itemsize > 1 else array
    turned = np.asfortranarray(array)
    expected = send("boundary", array)
    assert send("boundary", turned) == expected
    if array.dtype.itemsize == 1:
        assert send("boundary", swapped) == expected


@settings(max_examples=30)
@given(
    array=arrays,
    name=st.sampled_from(["boundary", "other", ""]),
    datatype=st.sampled_from([*DATATYPES, "FP64", "BYTES", ""]),
    shape=st.lists(st.integers(-1, 6) | st.just(2**62), max_size=5),
    size=st.integers(0, 200),
)
def test_nothing_else_is_read(
    array: np.ndarray, name: str, datatype: str, shape: list[int], size: int
) -> None:
    form = form_of(array)
    tensor = Sent(name, datatype, tuple(shape), bytes(size))
    legal = (
        name == "boundary"
        and datatype == datatype_of(form.dtype)
        and len(shape) == array.ndim
        and tuple(shape[1:]) == array.shape[1:]
        and 1 <= shape[0] <= 8
        and size == math.prod(shape) * array.dtype.itemsize
    )
    if legal:
        assert read(tensor, form).shape == tuple(shape)
    else:
        with pytest.raises(InputError):
            read(tensor, form)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(dtype: str, value: float) -> None:
    with pytest.raises(InputError, match="must be finite"):
        Form("boundary", dtype, (2,)).check(np.array([[0, value]], dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.uint16, np.complex64, np.bool_, object, "U3"])
def test_other_dtypes_do_not_travel(dtype: Any) -> None:
    with pytest.raises(InputError, match="dtype must be one of float32, float16, uint8, int8"):
        send("boundary", np.zeros((1, 2), dtype))


def test_a_tensor_that_was_read_cannot_be_written_to() -> None:
    array = read(send("boundary", np.zeros((1, 2), np.int8)), Form("boundary", "int8", (2,)))
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_forms_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Form("boundary", "float32", (2,)).name = "other"  # type: ignore[misc]
