"""Samples as users have them, brought to what a net takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.core.types import Floats


def as_input(samples: npt.NDArray[Any], *, whole: bool) -> Floats:
    """``samples`` ``(n, *shape)`` of any number type as float32.

    Bytes are scaled to 0..1, as training does, unless the net's input is ``whole``: numbers such as
    ids, or bytes that the net scales itself, which stay as they are. Other whole numbers are taken
    by such a net alone. Raises `InputError` for what is none of these.

    >>> as_input(np.array([[0, 255]], np.uint8), whole=False).tolist()
    [[0.0, 1.0]]
    >>> as_input(np.array([[0, 255]]), whole=True).tolist()
    [[0.0, 255.0]]
    """
    kind = samples.dtype.kind
    if kind == "f" or (kind in "iu" and whole):
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return samples.astype(np.float32) / np.float32(255)
    raise InputError(
        f"samples: expected float32, or uint8 which is scaled to 0..1, got {samples.dtype}"
    )
