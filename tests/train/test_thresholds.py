"""Thresholds do what they were chosen for, and no others on the grid do it better.

Temperatures make exits honest.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import DataError, SpecError
from presplit.policies import EXITS
from presplit.train import choose_thresholds, route, temperature

Case = tuple[np.ndarray, np.ndarray]
COSTS = (1.0, 3.0, 9.0)


@st.composite
def cases(draw: st.DrawFn, exits: int = 2) -> Case:
    """Logits ``(exits, n, 3)`` from few levels, so that scores tie, and labels.

    Later exits are better.
    """
    n, seed = draw(st.sampled_from([1, 2, 7, 40])), draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    logits = random.integers(0, draw(st.sampled_from([2, 5, 1000])), (exits, n, 3)).astype(
        np.float32
    )
    logits /= logits.max() + 1
    for number in range(exits):
        logits[number, np.arange(n), labels] += number / 2
    return 4 * logits, labels


def tried(case: Case, policy: str, exits: int) -> list[tuple[float, float, float]]:
    """Accuracy, mean cost and share of offloads of every combination of thresholds that differ."""
    logits, labels = case
    grids = [[*np.unique(EXITS[policy](each)).tolist(), 2.0] for each in logits[: exits - 1]]
    found = []
    for thresholds in itertools.product(*grids):
        routed = route(logits, labels, thresholds, policy=policy)
        found.append(
            (routed.accuracy, float(np.dot(routed.shares, COSTS[:exits])), routed.shares[-1])
        )
    return found


@settings(max_examples=30, deadline=None)
@given(case=cases(), policy=st.sampled_from([*EXITS]), goal=st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_for_one_exit_the_choice_is_the_best_there_is(case: Case, policy: str, goal: float) -> None:
    logits, labels = case
    every = tried(case, policy, 2)
    last = every[-1][0]
    cheapest = min(cost for right, cost, _ in every if right >= last - goal - 1e-9)
    found = choose_thresholds(logits, labels, max_drop=goal, exit_macs=COSTS[:2], policy=policy)
    assert found.macs == pytest.approx(cheapest) and found.accuracy >= last - goal - 1e-9
    budget = 1 + 2 * goal
    right = (
        max(right for right, cost, _ in every if cost <= budget + 1e-9)
        if min(c for _, c, _ in every) <= budget
        else 0
    )
    if right:
        found = choose_thresholds(logits, labels, macs=budget, exit_macs=COSTS[:2], policy=policy)
        assert found.accuracy == pytest.approx(right) and found.macs <= budget + 1e-6
    found = choose_thresholds(logits, labels, offload=goal, policy=policy)
    assert found.accuracy == pytest.approx(
        max(right for right, _, late in every if late <= goal + 1e-9)
    )
    assert found.shares[-1] <= goal + 1e-9


@settings(max_examples=10, deadline=None)
@given(case=cases(exits=3), goal=st.sampled_from([0.0, 0.1, 0.4]))
def test_for_several_exits_what_is_told_is_what_routing_gives(case: Case, goal: float) -> None:
    logits, labels = case
    found = choose_thresholds(logits, labels, max_drop=goal, exit_macs=COSTS)
    routed = route(logits, labels, found.thresholds)
    assert routed.accuracy == pytest.approx(found.accuracy) and routed.shares == pytest.approx(
        found.shares
    )
    assert found.macs == pytest.approx(float(np.dot(routed.shares, COSTS)))
    if len(labels) <= 40:  # so few scores that all of them are on the grid
        last = route(logits, labels, [2.0, 2.0]).accuracy
        best = min(
            cost for right, cost, _ in tried(case, "confidence", 3) if right >= last - goal - 1e-9
        )
        assert found.macs == pytest.approx(best)


def test_what_an_exit_costs_is_told_only_where_it_was_said() -> None:
    logits, labels = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32), np.array([0, 1])
    assert choose_thresholds(logits, labels, max_drop=0).macs is None
    assert choose_thresholds(logits, labels, max_drop=0, exit_macs=[1, 3]).macs == 2


def test_a_goal_that_nothing_reaches_is_refused_with_the_best() -> None:
    logits, labels = np.array([[[1, 0], [1, 0]], [[1, 0], [1, 0]]], np.float32), np.array([0, 1])
    with pytest.raises(
        SpecError, match="accuracy: no thresholds reach 0.9 on these samples, the best is 0.5"
    ):
        choose_thresholds(logits, labels, accuracy=0.9)
    with pytest.raises(
        SpecError, match="macs: no thresholds reach 3 on these samples, the best is 5"
    ):
        choose_thresholds(logits, labels, macs=3, exit_macs=[5, 9])
    with pytest.raises(SpecError, match="macs is a budget: give exit_macs"):
        choose_thresholds(logits, labels, macs=3)
    with pytest.raises(SpecError, match="one of accuracy, max_drop, macs, offload, got 2 of them"):
        choose_thresholds(logits, labels, macs=3, accuracy=0.5)
    with pytest.raises(SpecError, match="one of accuracy, max_drop, macs, offload, got 0 of them"):
        choose_thresholds(logits, labels)
    with pytest.raises(SpecError, match="exit_macs: expected one for each of 2 exits, got 1"):
        choose_thresholds(logits, labels, macs=3, exit_macs=[5])
    for name, value in (
        ("max_drop", 1.5),
        ("offload", -0.1),
        ("accuracy", 50),
        ("accuracy", float("nan")),
    ):
        with pytest.raises(SpecError, match=f"{name} must be in 0..1, got"):
            choose_thresholds(logits, labels, **{name: value})
    with pytest.raises(SpecError, match="macs must be a positive number, got inf"):
        choose_thresholds(logits, labels, macs=float("inf"), exit_macs=[5, 9])
    for odd in (np.full_like(logits, np.nan), logits[:, :0]):
        with pytest.raises(DataError, match="finite logits of at least one sample"):
            choose_thresholds(odd, labels[: odd.shape[1]], max_drop=0)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_of_logits_is_found_again(true: float) -> None:
    """Labels drawn from the softmax of logits; the logits are then multiplied by ``true``."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 5))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < random.random((20_000, 1))).sum(1)
    assert temperature((true * logits).astype(np.float32), labels) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("policy", EXITS)
def test_every_policy_is_surer_of_what_stands_out_more(policy: str) -> None:
    logits = np.array(
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [80.0, 0.0, -80.0]], np.float32
    )
    scores = EXITS[policy](logits)
    assert (
        scores.dtype == np.float32
        and (np.diff(scores) > 0).all()
        and scores[-1] == 1
        and scores[0] >= 0
    )
    np.testing.assert_allclose(EXITS[policy](logits + 1000), scores, atol=1e-4)
