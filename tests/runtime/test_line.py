"""Rate and round trip of a link are found from times alone, also after a step of either."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presplit.runtime.line import Line

STEP_S = 0.1
JITTER_S = 0.001


def followed(
    line: Line, *, up_bps: float, rtt_s: float, sizes: Callable[[int], int], start: int = 0
) -> None:
    """Tell ``line`` of 50 requests, one each tenth of a second, over such a link."""
    random = np.random.default_rng(start)
    for number in range(start, start + 50):
        nbytes = sizes(number)
        took_s = rtt_s + 8 * nbytes / up_bps + JITTER_S * random.random()
        line.took(nbytes, took_s, now=number * STEP_S)


def two_sizes(number: int) -> int:
    return 8000 if number % 5 == 0 else 1000


def one_size(number: int) -> int:
    return 4000


rates = st.floats(1e5, 5e7)


def off(before: tuple[float, float], after: tuple[float, float]) -> float:
    """By what share the worse of two sizes is expected wrongly, 5 s after a step of the link."""
    line = Line(1e7, 0.02, now=0.0)
    followed(line, up_bps=before[0], rtt_s=before[1], sizes=two_sizes)
    followed(line, up_bps=after[0], rtt_s=after[1], sizes=two_sizes, start=50)
    right = [(after[1] + 8 * nbytes / after[0], line.expected_s(nbytes)) for nbytes in (1000, 8000)]
    return max((abs(found - right_s) - 2 * JITTER_S) / right_s for right_s, found in right)


def test_both_parts_are_found_from_two_sizes_after_a_step_of_either_or_both() -> None:
    random = np.random.default_rng(0)
    steps = []
    for number in range(300):
        before, after = 10 ** random.uniform((5, -2.7), (7.7, -0.5), (2, 2))
        if number % 3:  # one of the two stays as it was
            after[number % 3 - 1] = before[number % 3 - 1]
        steps.append(off(tuple(before), tuple(after)))
    assert np.mean(np.array(steps) < 0.1) > 0.97
    assert max(steps) < 0.5


@given(before=rates, after=rates)
def test_of_one_size_a_change_is_taken_as_one_of_the_rate(before: float, after: float) -> None:
    line = Line(before, 0.02, now=0.0)
    followed(line, up_bps=before, rtt_s=0.02, sizes=one_size)
    rtt_s = line.rtt_s
    followed(line, up_bps=after, rtt_s=0.02, sizes=one_size, start=50)
    assert line.expected_s(4000) == pytest.approx(0.02 + 32_000 / after, rel=0.1, abs=0.002)
    if after < before / 3 and after < 1e6:
        assert line.up_bps == pytest.approx(after, rel=0.25)
        assert line.rtt_s == pytest.approx(rtt_s, rel=0.3)


def test_one_stall_changes_nothing_and_two_in_a_row_are_a_step() -> None:
    line = Line(1e7, 0.02, now=0.0)
    followed(line, up_bps=1e7, rtt_s=0.02, sizes=one_size)
    before_s = line.expected_s(4000)
    line.took(4000, 0.5, now=5.0)
    assert line.expected_s(4000) == before_s
    line.took(4000, before_s, now=5.1)
    line.took(4000, 0.5, now=5.2)
    assert line.expected_s(4000) == pytest.approx(before_s, rel=0.1)
    line.took(4000, 0.5, now=5.3)
    assert line.expected_s(4000) == pytest.approx(0.5, rel=0.1)


def test_a_faster_transfer_is_believed_at_once() -> None:
    line = Line(1e5, 0.02, now=0.0)
    followed(line, up_bps=1e5, rtt_s=0.02, sizes=one_size)
    line.took(4000, 0.03, now=5.0)
    assert line.expected_s(4000) < 0.07


def test_each_failure_makes_it_worse_and_the_first_reply_makes_it_good_again() -> None:
    line = Line(1e7, 0.02, now=0.0)
    followed(line, up_bps=1e7, rtt_s=0.02, sizes=one_size)
    sound_s = [line.expected_s(4000)]
    for _ in range(4):
        line.failed(4000, 0.1)
        sound_s.append(line.expected_s(4000))
    assert sound_s[1] >= 0.19999  # rounding
    assert all(b >= 2 * a for a, b in zip(sound_s, sound_s[1:], strict=False))
    for _ in range(20):
        line.failed(4000, 10.0)
    assert line.expected_s(4000) <= 60.001
    line.took(4000, 0.024, now=6.0)
    assert line.expected_s(4000) == pytest.approx(0.024, rel=0.1)


def test_one_that_was_given_up_is_slow_at_once_and_what_comes_next_counts_as_ever() -> None:
    line = Line(1e7, 0.02, now=0.0)
    followed(line, up_bps=1e7, rtt_s=0.02, sizes=one_size)
    line.outlasted(4000, 0.01, now=5.0)  # before it could be there: nothing is learned
    assert line.expected_s(4000) == pytest.approx(0.0232, abs=0.002)
    line.outlasted(4000, 0.4, now=5.1)
    assert 0.4 < line.expected_s(4000) < 0.6
    for number in range(3):
        line.took(4000, 0.3, now=5.2 + number / 10)
    assert line.expected_s(4000) == pytest.approx(0.3, rel=0.1)


@given(
    seen=st.lists(st.tuples(st.floats(1, 1e6), st.floats(1e-6, 100), st.booleans()), max_size=30)
)
def test_nothing_that_is_seen_makes_it_senseless(seen: list[tuple[float, float, bool]]) -> None:
    line = Line(1e6, 0.0, now=0.0)
    for number, (nbytes, seconds, failed) in enumerate(seen):
        if failed:
            line.failed(nbytes, seconds)
        else:
            line.took(nbytes, seconds, now=number * STEP_S)
        assert 0 < line.up_bps < np.inf and 0 < line.rtt_s < np.inf and line.sound_bps > 0
