"""Several plans at once: the front, and the table by which an edge follows its link."""

from __future__ import annotations

import pytest
from msgspec import structs

from presplit import plan
from presplit.bundle import Bundle
from presplit.core.costs import Device
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.plan.envelope import table_of, turns
from presplit.plan.explain import told_table
from presplit.plan.limits import Limits
from presplit.plan.pareto import MOST_PLANS, front_of, levels
from presplit.plan.synthetic import synthetic

PI, GPU = Device("pi", 1e9, 1e9, 5.0), Device("gpu", 1e12, 24e9, 450.0)
SLOW = Link("slow", 1e6, 1e6, 0.02)
AROUND = {"device": PI, "link": SLOW, "server": GPU}


def test_a_table_goes_from_the_edge_to_the_server_as_the_rate_rises(bundle: Bundle) -> None:
    found = plan.table(bundle, **AROUND, confidence=None)
    steps = turns(found, SLOW)
    assert [rate for rate, _ in steps] == sorted(rate for rate, _ in steps)
    first, last = found.rows[steps[0][1]].plan, found.rows[steps[-1][1]].plan
    assert (first.split, last.split, last.codec) == (3, 1, "int8")
    assert [row.plan.split for row in found.rows] == [3, 1, 0]  # the last for a slow device
    for (rate, row), (_, before) in zip(steps[1:], steps, strict=False):
        below, above = (structs.replace(found.usual, up_bps=rate * x) for x in (0.999, 1.001))
        assert (found.best(below), found.best(above)) == (before, row)
    text = told_table(found, steps)
    assert "from 10 kbit/s up: all on the edge, early >= 0." in text
    assert all(row.accuracy >= 0.95 - 0.005 - 1e-9 for row in found.rows)


def test_rows_of_a_cautious_table_lose_nothing_that_is_not_believed(bundle: Bundle) -> None:
    found = plan.table(bundle, **AROUND)
    assert {(row.plan.codec, *row.plan.thresholds) for row in found.rows} == {("float32",)}
    roomy = plan.table(bundle, **AROUND, max_drop=0.3)
    assert any(row.plan.thresholds for row in roomy.rows)
    with pytest.raises(PlanError, match="no plan has an accuracy of 99"):
        plan.table(bundle, **AROUND, min_accuracy=0.99, confidence=None)


def test_a_row_says_what_an_own_answer_takes_meanwhile_where_it_is_as_welcome() -> None:
    found = synthetic(boundaries=5, exits=0, codecs=3, samples=60, draws=4)
    last = found.net.last
    rows = table_of(found, Limits(confidence=None)).rows
    alone = {row.plan.form for row in rows if row.plan.split == last}
    assert alone and any(row.asked for row in rows)
    for row in rows:
        parts = found.edge.forms[row.plan.form]
        rest_s = parts.stretch_s(row.plan.split, last).mean_s
        races = row.plan.split < last and row.plan.form in alone
        assert row.meanwhile_s == (pytest.approx(rest_s) if races else None)


def test_where_an_early_exit_holds_the_answer_none_is_as_welcome_as_the_reply(
    bundle: Bundle,
) -> None:
    rows = plan.table(bundle, **AROUND, confidence=None).rows
    assert any(row.asked for row in rows)
    assert {row.meanwhile_s for row in rows} == {None}


def test_the_front_has_the_fastest_and_the_most_accurate_plan(bundle: Bundle) -> None:
    found = plan.front(bundle, **AROUND, deadline_s=1.0)
    expected = [each.expected for each in found if each.expected]
    every = [each.expected for each in plan.candidates(bundle, **AROUND) if each.expected]
    assert expected[0].mean_s == min(each.mean_s for each in every)
    assert max(each.accuracy for each in expected) == max(each.accuracy for each in every)
    assert [each.mean_s for each in expected] == sorted(each.mean_s for each in expected)
    assert {each.deadline_s for each in found} == {1.0}


@pytest.mark.long
def test_the_front_of_a_large_net_is_thinned_and_keeps_its_ends() -> None:
    found = synthetic(boundaries=8, exits=4, codecs=6, samples=60, draws=4)
    thinned = levels(found)
    assert thinned is not None and thinned < 9
    assert levels(synthetic(boundaries=3, exits=1, codecs=2, samples=60)) is None
    front = front_of(found)
    assert 2 < len(front) < MOST_PLANS
    best = max(each.expected.accuracy for each in front if each.expected)
    assert best >= found.accuracy


def test_a_loaded_server_sends_more_to_the_edge(bundle: Bundle) -> None:
    near = {**AROUND, "link": Link("near", 1e8, 1e8, 0.001), "confidence": None}
    assert plan.search(bundle, **near).split == 0
    queue = plan.wait(load_per_s=19, service_s=0.05)
    busy = plan.search(bundle, **near, queue=queue)
    assert busy.split > 0 and busy.thresholds
