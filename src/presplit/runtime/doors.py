"""What callers may pass as numbers, checked at every door of the runtime."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any

from presplit.core.errors import SpecError


def most_threads() -> int:
    """The most threads of one engine: four for each processor here, 64 at least."""
    return max(64, 4 * (os.cpu_count() or 1))


def check_threads(threads: Any) -> None:
    """Raise `SpecError` unless ``threads`` is a whole number in 1..`most_threads`.

    >>> check_threads(1)
    >>> check_threads(0.5)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: threads must be a whole number from 1 on, got 0.5
    """
    check_count("threads", threads)
    if threads > most_threads():
        raise SpecError(f"threads must be in 1..{most_threads()} on this machine, got {threads}")


def check_count(key: str, count: Any) -> None:
    """Raise `SpecError` naming ``key`` unless ``count`` is a whole number from 1 on."""
    whole = not isinstance(count, bool) and isinstance(count, numbers.Integral)
    if not whole or count < 1:
        raise SpecError(f"{key} must be a whole number from 1 on, got {count!r}")


def check_keep_bytes(keep_bytes: Any) -> None:
    """Raise `SpecError` unless ``keep_bytes`` is None or a finite number above 0."""
    if keep_bytes is not None:
        check_positive("keep_bytes", keep_bytes)


def check_positive(key: str, value: Any) -> None:
    """Raise `SpecError` naming ``key`` unless ``value`` is a finite number above 0.

    >>> check_positive("seconds", 0)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: seconds must be a finite number above 0, got 0
    """
    number = not isinstance(value, bool) and isinstance(value, numbers.Real)
    if not number or not 0 < float(value) < math.inf:
        raise SpecError(f"{key} must be a finite number above 0, got {value!r}")
