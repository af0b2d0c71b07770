"""Times add as independent draws do; mixtures have the quantiles of what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presplit.core.errors import SpecError
from presplit.core.times import Times, chance_within, mixed_quantile, total

DRAWS = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(DRAWS, st.floats(0, 10))
def test_a_constant_shifts_every_draw(draws: list[float], seconds: float) -> None:
    shifted = Times.of(draws) + Times.of(seconds)
    np.testing.assert_allclose(shifted.array, np.array(draws) + seconds)


@given(DRAWS, DRAWS)
def test_the_mean_of_a_sum_is_the_sum_of_the_means_where_both_have_equally_many(
    one: list[float], other: list[float]
) -> None:
    size = min(len(one), len(other))
    parts = [Times.of(one[:size]), Times.of(other[:size])]
    assert total(parts).mean_s == pytest.approx(sum(part.mean_s for part in parts))


@pytest.mark.parametrize(("few", "many"), [(50, 64), (7, 64), (64, 2048), (63, 64), (9, 1000)])
def test_a_sum_is_not_biased_where_the_numbers_of_draws_do_not_divide(few: int, many: int) -> None:
    """Quantiles of an exponential time, low ones first, also where a sum has mixed them."""

    def quantiles(count: int) -> Times:
        return Times.of(-np.log1p(-(np.arange(count) + 0.5) / count))

    one, other = quantiles(few), quantiles(many)
    mixed = one + Times.of(one.draws_s[::-1])
    for left, right in ((one, other), (other, one), (mixed, other)):
        both = left + right
        assert both.mean_s == pytest.approx(left.mean_s + right.mean_s, rel=0.02)
    every = np.add.outer(one.array, other.array)
    assert (one + other).quantile(0.5) == pytest.approx(np.median(every), rel=0.12)


def test_a_sum_takes_its_parts_as_independent() -> None:
    step = Times.of(np.arange(1000.0))
    both = total([step, step, step])
    assert both.array.std() == pytest.approx(3**0.5 * step.array.std(), rel=0.1)
    assert total([step, step, step]) == both


@given(DRAWS, st.floats(0, 1))
def test_a_quantile_is_reached_by_its_share(draws: list[float], q: float) -> None:
    times = Times.of(draws)
    assert times.within(times.quantile(q)) >= q - 1e-12


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_mixture_has_the_rank_among_the_samples(counts: list[int], q: float) -> None:
    counts[0] += 1
    seconds = np.random.default_rng(len(counts)).random(len(counts))
    shares = np.array([counts]) / sum(counts)
    (found,) = mixed_quantile([Times.of(each) for each in seconds], shares, q)
    samples = np.sort(np.repeat(seconds, counts))
    assert found == samples[int(np.ceil(q * sum(counts) - 1e-9)) - 1]


@pytest.mark.parametrize("draws", [[], [-1.0], [float("nan")], [float("inf")]])
def test_what_is_no_time_is_refused(draws: list[float]) -> None:
    with pytest.raises(SpecError, match=r"Times\.draws_s"):
        Times.of(draws)


def test_a_chance_of_one_in_thousands_is_told_where_a_sum_keeps_fewer_draws() -> None:
    rare = Times((0.0,) * 63 + (1.0,))
    assert chance_within([rare, rare], 1.5) == 1 - 1 / 64**2
    assert chance_within([rare, rare, Times.of(0.25)], 1.0) == (63 / 64) ** 2
