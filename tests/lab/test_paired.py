"""Two nets on the same samples: the test, its interval, and that both say the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

from presplit.lab.paired import chance, difference_interval


def test_chance_is_that_of_a_fair_coin_however_many_tosses() -> None:
    # Of ten tosses at most one is another: 11 of 1024, on either side.
    assert chance(9, 1) == chance(1, 9) == pytest.approx(22 / 1024)
    assert chance(0, 0) == chance(3, 3) == 1.0
    # The normal approximation with its correction, of a million tosses: 2 sigma apart.
    assert chance(501_000, 499_000) == pytest.approx(math.erfc(1.999 / math.sqrt(2)), rel=1e-3)


def test_the_interval_holds_no_difference_just_where_the_test_tells_nothing_apart() -> None:
    for told in range(60):
        for gains in range(told + 1):
            low, high = difference_interval(gains, told - gains, 400)
            assert (low <= 0 <= high) == (chance(gains, told - gains) > 0.05), (gains, told)
            assert low <= (2 * gains - told) / 400 <= high


def test_nets_that_no_sample_tells_apart_may_still_differ() -> None:
    low, high = difference_interval(0, 0, 360)
    # Tango's: z^2 / (n + z^2)
    assert high == -low == pytest.approx(3.8415 / 363.8415, rel=1e-3)


def test_the_interval_has_the_true_difference_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    for samples, better, worse in [(100, 0.05, 0.02), (360, 0.01, 0.0), (1000, 0.03, 0.03)]:
        shares = [better, worse, 1 - better - worse]
        drawn = random.multinomial(samples, shares, size=2000)
        cases, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
        held = 0
        for (gains, losses), count in zip(cases.tolist(), counts.tolist(), strict=True):
            low, high = difference_interval(gains, losses, samples)
            held += count * (low <= better - worse <= high)
        assert held / 2000 >= 0.95, (samples, better, worse)
