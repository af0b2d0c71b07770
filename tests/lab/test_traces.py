"""Traces have the statistics that they state, and are played over real processes as they are."""

from __future__ import annotations

import statistics
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlanTable, Row
from presplit.lab.play import theatre
from presplit.lab.traces import LEAST_BPS, MOST_BPS, TRACES, Moment, Trace

HOUR_S = 3600.0


@pytest.mark.parametrize("name", list(TRACES))
def test_a_trace_is_the_same_for_its_seed_and_another_for_another(name: str) -> None:
    make = TRACES[name]
    trace = make(60, seed=3)
    assert trace == make(60, seed=3) and trace != make(60, seed=4)
    assert trace.moments == make(120, seed=3).moments[: len(trace.moments)]
    starts = [moment.at_s for moment in trace.moments]
    steps = np.diff(starts)
    assert starts[0] == 0 and 0.099 < steps.min() <= steps.max() < 1.001
    assert all(LEAST_BPS <= moment.link.up_bps <= MOST_BPS for moment in trace.moments)
    assert trace.at(30.01).at_s <= 30.01 < trace.at(30.01).at_s + steps.max()


def test_rates_and_outages_are_as_often_as_they_say() -> None:
    drive, wifi, gone = [make(HOUR_S, seed=0).moments for make in TRACES.values()]
    rates = [moment.link.up_bps for moment in drive]
    assert statistics.median(rates) == pytest.approx(5.6e6, rel=0.2)
    assert np.std(np.log(rates)) == pytest.approx(1.1, rel=0.25)
    busy = statistics.fmean(moment.link.rtt_s > 0.015 for moment in wifi)
    assert busy == pytest.approx(2 / 5, rel=0.15)
    assert statistics.fmean(moment.outage for moment in gone) == pytest.approx(1 / 6, rel=0.15)
    away = next(moment for moment in gone if moment.outage).conditions
    assert away == Conditions(up_bps=1.0, rtt_s=60.0)


def row(plan: Plan, *, edge_s: float, asked: float) -> Row:
    return Row(plan, edge_s, asked, 155 * asked, 0.0, accuracy=0.9)


def test_a_trace_is_played_and_an_oracle_follows_it(tmp_path: Path) -> None:
    """The link is near, then far: the row that asks is the best, then the one that does not."""
    small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))
    bundle: Bundle = small["small_bundle"](tmp_path / "small.bundle", seed=1)
    near = Link("near", up_bps=1e7, down_bps=1e7, rtt_s=0.001)
    far = Link("far", up_bps=1e7, down_bps=1e7, rtt_s=0.2)
    trace = Trace("step", (Moment(0.0, near), Moment(0.3, far)))
    rows = (row(Plan(1), edge_s=0.0, asked=1.0), row(Plan(3), edge_s=0.05, asked=0.0))
    images = np.zeros((2, 16), np.float32)
    with theatre(bundle, near) as stage:
        told = stage.play(
            PlanTable(rows), trace, images, rate=50, seconds=0.8, split_policy="oracle"
        )
        fixed = stage.play(Plan(1), trace, images, rate=50, seconds=0.8, deadline_s=2.0)
    assert all(one.answer.row == int(one.t_s >= 0.3) for one in told if abs(one.t_s - 0.3) > 0.05)
    assert {one.answer.why for one in told} == {"server", "planned"}
    assert all(one.believed is not None for one in told)
    before = [one.answer.elapsed_s for one in fixed if one.t_s < 0.2]
    after = [one.answer.elapsed_s for one in fixed if one.t_s > 0.35]
    assert {one.answer.row for one in fixed} == {None}
    assert min(before) < 0.15 and min(after) > 0.19
