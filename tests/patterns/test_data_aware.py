"""Data-aware patterns and the degrees under them.

Dead inputs get nothing, informative ones get more, and in-degrees are equal.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.patterns.data_aware import by_importance, importance, over
from presplit.patterns.degrees import rows_of_degrees, shares, whole_shares

positive = st.lists(st.floats(0.01, 100), min_size=1, max_size=20)


@settings(max_examples=30)
@given(weights=positive, data=st.data())
def test_shares_are_proportional_until_their_limit(
    weights: list[float], data: st.DataObject
) -> None:
    weight = np.array(weights)
    limits = np.array(
        data.draw(st.lists(st.floats(0.1, 10), min_size=len(weights), max_size=len(weights)))
    )
    total = data.draw(st.floats(0, 1)) * float(limits.sum())
    result = shares(total, weight, limits)
    assert result.sum() == pytest.approx(total, abs=1e-9) and (result <= limits * (1 + 1e-12)).all()
    free = result < limits * (1 - 1e-9)
    if free.any():
        scale = (result / weight)[free]
        assert np.ptp(scale) <= 1e-9 * scale.max() + 1e-12
        assert (limits <= scale.max() * weight * (1 + 1e-9) + 1e-12)[~free].all(), (
            "who stopped had to"
        )


@settings(max_examples=30)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.3, 1.0, 7.0]), min_size=1, max_size=20), data=st.data()
)
def test_whole_shares_sum_exactly(weights: list[float], data: st.DataObject) -> None:
    alive, limit = sum(weight > 0 for weight in weights), data.draw(st.integers(1, 9))
    total = data.draw(st.integers(0, alive * limit))
    result = whole_shares(total, np.array(weights), limit)
    assert result.sum() == total and result.min() >= 0 and result.max() <= limit
    assert not result[np.array(weights) == 0].any()


@settings(max_examples=30)
@given(
    rows=st.integers(1, 10),
    fan_in=st.integers(1, 8),
    n_in=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_have_the_degrees_that_were_asked_for(
    rows: int, fan_in: int, n_in: int, seed: int
) -> None:
    fan_in = min(fan_in, n_in)
    rng = np.random.default_rng(seed)
    degrees = whole_shares(rows * fan_in, rng.exponential(size=n_in) + 1e-3, rows)
    index = rows_of_degrees(degrees, rows, rng)
    assert index.shape == (rows, fan_in) and all(len(set(row.tolist())) == fan_in for row in index)
    np.testing.assert_array_equal(np.bincount(index.reshape(-1), minlength=n_in), degrees)


def test_an_input_is_as_likely_in_the_first_row_as_in_the_last() -> None:
    """Degrees 8, 4, 2, 2 of 8 rows: each row reads input 1 half of the time.

    Five standard deviations are 0.056.
    """
    draws = [
        rows_of_degrees(np.array([8, 4, 2, 2]), 8, np.random.default_rng(seed))
        for seed in range(2000)
    ]
    share = np.array([(index == 1).any(axis=1) for index in draws]).mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.056


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    tile=st.integers(1, 4),
    tiles=st.integers(1, 12),
    power=st.sampled_from([0, 0.5, 1]),
)
def test_dead_inputs_get_none_and_informative_ones_more(
    seed: int, tile: int, tiles: int, power: float
) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(60, 12)) * rng.choice([0.0, 1.0, 3.0], 12) + 1.0 * (
        np.arange(12) == 0
    )
    known = importance(inputs)
    if np.count_nonzero(known) < 3:
        return
    pattern = by_importance(known, tile * tiles, fan_in=3, power=power, tile=tile, seed=seed)
    assert pattern.is_regular and pattern.fan_in == 3 and pattern.tile == tile
    assert not pattern.fan_out[known == 0].any()
    order = np.argsort(known)
    assert (np.diff(pattern.fan_out[order]) >= -tile).all(), (
        "to within one, degrees rise with importance"
    )


def test_an_input_that_is_seldom_lit_is_dead() -> None:
    inputs = np.zeros((100, 3))
    inputs[0, 0], inputs[:3, 1], inputs[:, 2] = 9.0, 1.0, 5.0
    assert (importance(inputs) > 0).tolist() == [False, True, False]
    assert (importance(inputs, live_share=0.0) > 0).tolist() == [True, True, False]


def test_over_inputs_is_a_family_that_leaves_padding_alone() -> None:
    inputs = np.random.default_rng(0).normal(size=(40, 6, 6))
    family = over(inputs, tile=4)
    first, second = (family(40, 16, density=0.1, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.index, second.index)
    assert first.fan_in == 4 and first.tile == 4 and not first.fan_out[36:].any()


def test_what_the_data_cannot_give_is_refused() -> None:
    with pytest.raises(
        PatternError, match="no input varies and is not 0 in more than 2% of 3 samples"
    ):
        importance(np.ones((3, 4)))
    with pytest.raises(
        PatternError, match=r"inputs must be finite \(samples >= 2, n_in\), got \(4,\)"
    ):
        importance(np.ones(4))
    with pytest.raises(
        PatternError, match="fan_in must be in 1..2, the inputs that are alive, got 3"
    ):
        by_importance([0, 1, 1], 4, fan_in=3)
    with pytest.raises(PatternError, match="importance must be finite and at least 0"):
        by_importance([-1.0, 1], 4, fan_in=1)
    with pytest.raises(PatternError, match="the samples have 4 inputs, the layer only 3"):
        over(np.random.default_rng(0).normal(size=(9, 4)))(3, 4, density=1 / 3)
    with pytest.raises(
        PatternError, match="legal are fan_in / 5 with fan_in in 1..4; nearest: 0.8"
    ):
        over(np.random.default_rng(0).normal(size=(9, 4)))(5, 4, density=1.0)
