"""Samples leave at the first exit that is sure; weighing agrees with following each."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from presplit.core.routing import grid, route, weigh

NEVER = float("inf")


@given(st.integers(0, 3), st.integers(1, 12), st.integers(0, 999))
def test_weighing_agrees_with_routing_each_combination(early: int, samples: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (early, samples)) / 4
    values = random.integers(0, 2, (early + 1, samples)).astype(float)
    grids = [grid(each, 3) for each in scores]
    found = weigh(scores, values, grids)
    places = [range(len(rising) + 1) for rising in grids]
    for place in itertools.product(*places):
        rules = [[*rising.tolist(), NEVER][k] for rising, k in zip(grids, place, strict=True)]
        leaves = route(scores, rules)
        np.testing.assert_allclose(found.right[place], values[leaves, np.arange(samples)].mean())
        for number in range(early + 1):
            np.testing.assert_allclose(found.shares[number][place], (leaves == number).mean())


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50), st.integers(1, 60))
def test_a_grid_is_made_of_scores_from_the_lowest_to_the_highest(scores: list, most: int) -> None:
    found = grid(np.array(scores, np.float32), most)
    assert len(found) <= most and set(found.tolist()) <= set(np.float32(scores).tolist())
    assert (np.diff(found) > 0).all()
    if most > 1:
        assert (found[0], found[-1]) == (min(np.float32(scores)), max(np.float32(scores)))
