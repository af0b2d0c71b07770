"""What comes faster than it is taken is dropped, the oldest first, and counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from presplit.runtime.feeding.newest import Newest


def test_the_oldest_are_dropped_and_counted() -> None:
    all_given, taken = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        assert taken.wait(10)
        yield from range(1, 10)
        all_given.set()

    waiting = Newest(source(), 3)
    found = iter(waiting)
    assert next(found) == 0
    taken.set()
    assert all_given.wait(10)
    assert [*found] == [7, 8, 9]
    assert waiting.dropped == 6


def test_what_the_source_raises_is_raised_after_what_waits() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    found = iter(Newest(source(), 2))
    assert next(found) == 1
    with pytest.raises(OSError, match="unplugged"):
        next(found)


def test_a_source_without_end_is_left_when_it_is_closed() -> None:
    read = list[int]()

    def source() -> Iterator[int]:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    waiting = Newest(source(), 2)
    next(iter(waiting))
    waiting.close()
    for thread in threading.enumerate():
        if thread.name == "newest":
            thread.join(10)
            assert not thread.is_alive()
