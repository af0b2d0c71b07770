"""Rounds go on until medians are known, and no longer than they may; all by a made-up clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from presplit.runtime.measuring.rounds import LEAST_ROUNDS, PRECISION, Timed, timed


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds()

        return run


def test_steady_parts_are_stable_after_the_least_rounds() -> None:
    clock = Clock()
    found = timed([clock.work(lambda: 0.001), clock.work(lambda: 0.02)], limit_s=60, clock=clock)
    assert found.seconds.shape == (2, LEAST_ROUNDS)
    assert (found.median_s(0), found.median_s(1)) == pytest.approx((0.001, 0.02))
    assert found.precision < 1e-6


def test_shaky_parts_go_on_until_their_medians_are_known() -> None:
    clock, random = Clock(), np.random.default_rng(0)
    shaky = clock.work(lambda: float(random.lognormal(-5, 0.3)))
    found = timed([shaky], limit_s=600, clock=clock)
    assert found.seconds.shape[1] > 4 * LEAST_ROUNDS
    assert found.precision <= PRECISION
    # The interval is honest: the true median lies in it, give or take its own error.
    assert found.median_s(0) == pytest.approx(np.exp(-5), rel=2 * PRECISION)


def test_a_part_that_is_small_beside_the_others_need_not_be_known_as_well() -> None:
    random = np.random.default_rng(0)
    small = random.lognormal(0, 0.5, 400)
    assert Timed(np.array([small])).precision > PRECISION
    assert Timed(np.array([small, np.full(400, 200.0)])).precision < PRECISION


def test_the_limit_ends_it_and_the_precision_tells_so() -> None:
    clock, random = Clock(), np.random.default_rng(0)
    wild = clock.work(lambda: float(random.choice([0.1, 1.0])))
    found = timed([wild], limit_s=20, clock=clock)
    assert clock.now < 25
    assert found.precision > PRECISION


def test_one_round_is_finished_however_slow_it_is() -> None:
    clock = Clock()
    found = timed([clock.work(lambda: 100.0)] * 3, limit_s=1, clock=clock)
    assert found.seconds.tolist() == [[100.0]] * 3


def test_no_part_always_runs_behind_the_same_one() -> None:
    ran: list[int] = []
    clock = Clock()

    def part(number: int) -> Callable[[], None]:
        def run() -> None:
            ran.append(number)
            clock.now += 0.01

        return run

    timed([part(number) for number in range(4)], limit_s=60, clock=clock)
    before = {ran[place - 1] for place, number in enumerate(ran) if place > 40 and number == 0}
    assert before >= {1, 2, 3}


def test_quantiles_that_are_kept_keep_median_and_p99() -> None:
    seconds = np.random.default_rng(0).lognormal(-7, 0.5, 5_000)
    times = Timed(seconds[np.newaxis]).times(0)
    assert len(times.draws_s) == 64
    assert times.quantile(0.5) == pytest.approx(np.quantile(seconds, 0.5), rel=0.02)
    assert times.quantile(0.99) == pytest.approx(np.quantile(seconds, 0.99), rel=0.05)


def test_after_a_rest_a_part_follows_others_of_its_kind() -> None:
    # What runs for the first time in a row takes longer, as with weights that are not at hand.
    clock, last = Clock(), [""]

    def part(name: str):
        def seconds() -> float:
            cold, last[0] = last[0] != name, name
            return 0.2 if cold else 0.1

        return clock.work(seconds)

    found = timed([part("one"), part("other")], limit_s=3, pause_s=1e-6, clock=clock)
    assert found.seconds.max() < 0.15
