"""A split policy never leaves its table, and takes the best row where nothing speaks against it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from presplit.core.plans import Conditions, Plan, PlanTable, Row
from presplit.core.types import Answer
from presplit.policies import SPLITS
from presplit.policies.table import WORTH, Best

FAR_S = 1e9

seconds = st.floats(0, 1)
rows = st.builds(
    Row,
    st.builds(Plan, st.integers(0, 9)),
    edge_s=seconds,
    asked=st.sampled_from([0.0, 0.3, 1.0]),
    up_bytes=st.floats(0, 1e5),
    tail_s=seconds,
    accuracy=st.just(0.9),
    meanwhile_s=st.none() | seconds,
    ask_s=seconds,
)
tables = st.lists(rows, min_size=1, max_size=32).map(lambda found: PlanTable(tuple(found)))
moments = st.builds(
    Conditions,
    up_bps=st.floats(1e3, 1e9),
    rtt_s=st.floats(0, 5),
    server_factor=st.floats(0.1, 10),
    device_factor=st.floats(0.1, 10),
)


def asked_s(row: Row, now: Conditions) -> float:
    """What a sample takes for which the server is asked, if it ever is."""
    if not row.asked:
        return now.device_factor * row.edge_s
    way_s = now.rtt_s + 8 * row.up_bytes / now.up_bps + now.server_factor * row.tail_s + row.ask_s
    return now.device_factor * row.edge_s + way_s


@given(table=tables, now=moments)
def test_without_patience_the_choice_is_the_tables_best(table: PlanTable, now: Conditions) -> None:
    waiting = [structs.replace(row, meanwhile_s=None) for row in table.rows]
    table = PlanTable(tuple(waiting))
    chosen = Best(table, patience=0.0).choose(now, within_s=FAR_S)
    least = table.rows[table.best(now)].mean_s(now)
    assert table.rows[chosen].mean_s(now) == pytest.approx(least, rel=1e-9)


@given(table=tables, now=moments, spread=st.floats(1, 3))
def test_the_choice_is_the_best_where_the_first_of_reply_and_own_answer_counts(
    table: PlanTable, now: Conditions, spread: float
) -> None:
    """But for what asking in vain costs: a few hundredths of the edge's own time."""

    def mean_s(row: Row) -> float:
        head_s = now.device_factor * row.edge_s
        way_s = row.mean_s(now) - head_s
        if row.meanwhile_s is None:
            return head_s + way_s * (1 / spread + 1 + spread) / 3
        own_s = row.asked * now.device_factor * row.meanwhile_s
        return head_s + sum(min(way_s * each, own_s) for each in (1 / spread, 1, spread)) / 3

    chosen = Best(table, patience=0.0, spread=spread).choose(now, within_s=FAR_S)
    in_vain_s = WORTH * max(
        now.device_factor * (r.edge_s + (r.meanwhile_s or 0)) for r in table.rows
    )
    least_s = min(mean_s(row) for row in table.rows)
    if all(row.meanwhile_s is not None for row in table.rows) or spread == 1:
        assert mean_s(table.rows[chosen]) <= least_s + in_vain_s + 1e-9


@pytest.mark.parametrize(("tail_s", "row"), [(0.5, 1), (1.2, 1), (4.0, 0)])
def test_a_request_that_may_be_in_vain_is_made_unless_it_is_hardly_ever_quick(
    tail_s: float, row: int
) -> None:
    alone, away = alone_and_server(tail_s).rows
    table = PlanTable((alone, structs.replace(away, meanwhile_s=1.0)))
    assert Best(table, patience=0.0).choose(Conditions(1e6, 0.0), within_s=FAR_S) == row
    plain = PlanTable((alone, away))
    assert Best(plain, patience=0.0).choose(Conditions(1e6, 0.0), within_s=FAR_S) == (tail_s < 1)


@given(table=tables, now=moments, within_s=st.floats(1e-3, 5))
def test_a_row_that_meets_the_deadline_goes_before_a_faster_one(
    table: PlanTable, now: Conditions, within_s: float
) -> None:
    for _ in range(2):
        chosen = table.rows[Best(table, patience=0.3).choose(now, within_s=within_s)]
        fit = [row for row in table.rows if asked_s(row, now) < 0.999 * within_s]
        if fit:
            assert asked_s(chosen, now) <= 1.001 * within_s


@given(
    table=tables,
    seen=st.lists(moments, min_size=1, max_size=20),
    name=st.sampled_from(list(SPLITS)),
)
def test_no_policy_on_the_shelf_ever_leaves_the_table(
    table: PlanTable, seen: list[Conditions], name: str
) -> None:
    policy = SPLITS[name](table)
    answer = Answer(0, np.zeros(2, np.float32), "early", "edge", "confident", 0.1, 0, False, 1, 0)
    for now in seen:
        row = policy.choose(now, within_s=0.1)
        assert 0 <= row < len(table.rows)
        policy.learn(row, answer)


def alone_and_server(tail_s: float) -> PlanTable:
    """One row takes a second here, the other ``tail_s`` there."""
    alone = Row(Plan(3), edge_s=1.0, asked=0, up_bytes=0, tail_s=0, accuracy=0.9)
    away = Row(Plan(0), edge_s=0.0, asked=1, up_bytes=0, tail_s=tail_s, accuracy=0.9)
    return PlanTable((alone, away), usual=Conditions(1e6, 10.0))


@pytest.mark.parametrize(("tail_s", "answers"), [(0.6, 1), (0.9, 2), (0.95, 4)])
def test_a_row_is_left_when_what_another_would_have_saved_adds_up(
    tail_s: float, answers: int
) -> None:
    policy, now = Best(alone_and_server(tail_s)), Conditions(1e6, 0.0)
    chosen = [policy.choose(now, within_s=FAR_S) for _ in range(20)]
    assert chosen.index(1) + 1 == pytest.approx(answers, abs=1)
    assert chosen == sorted(chosen)


def test_a_row_that_is_better_now_and_then_is_not_taken() -> None:
    policy = Best(alone_and_server(0.9))
    near, far = Conditions(1e6, 0.0), Conditions(1e6, 0.2)
    assert {policy.choose(now, within_s=FAR_S) for now in [near, far] * 20} == {0}


def test_a_choice_among_32_rows_takes_less_than_20_microseconds() -> None:
    """The fastest of some hundreds, so that a busy machine does not count."""
    row = alone_and_server(0.5).rows[1]
    policy, now = Best(PlanTable((row,) * 32)), Conditions(1e6, 0.1)
    took = []
    for _ in range(500):
        began = time.perf_counter()
        policy.choose(now, within_s=1.0)
        took.append(time.perf_counter() - began)
    assert min(took) < 20e-6
