"""The planner of two splits agrees with brute force: every sample is followed in plain Python."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.costs import Costs, Parts
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.plans import Gateway, Plan
from presplit.core.times import Times
from presplit.plan.limits import Limits
from presplit.plan.scenario import Between, Scenario
from presplit.plan.search import choose, plans

shared = run_path(str(Path(__file__).with_name("test_planner.py")))
follow, grid, head_bytes = (shared[name] for name in ("follow", "grid", "head_bytes"))
CLOSE = 1e-9
MOST_PLANS = 600
"""Larger cases are left out: every plan is followed sample by sample."""


@st.composite
def tiers(draw: st.DrawFn) -> Scenario:
    """A situation with a gateway and its link, every time a constant."""
    s = draw(shared["situations"]())
    size = s.net.last + 1

    def constant(times: tuple[Times, ...]) -> tuple[Times, ...]:
        return tuple(Times.of(each.mean_s) for each in times)

    def steady(costs: Costs, factor: float = 1.0, **more: Any) -> Costs:
        forms = {}
        for form, parts in costs.forms.items():
            kept = Parts(*(constant(each) for each in (parts.head_s, parts.tail_s, parts.exit_s)))
            forms[form] = kept.scaled(factor)
        return Costs(costs.device, forms, "counted", "", power_w=costs.power_w, **more)

    codes = {"int8": tuple(Times.of(0.001 * k) for k in range(size))}
    gateway = steady(
        s.server,
        draw(st.floats(0.1, 10)),
        encode_s=codes,
        decode_s={"int8": tuple(Times.of(0.002) for _ in range(size))},
        ask_s=Times.of(draw(st.floats(0, 0.01))),
    )
    rates = st.floats(1e3, 1e9)
    uplink = Link("up", draw(rates), draw(rates), draw(st.floats(0, 0.1)), power_w=7.0)
    return dataclasses.replace(
        s,
        edge=steady(s.edge),
        server=steady(s.server),
        queue=Times.of(s.queue.mean_s),
        between=Between(gateway, uplink),
    )


def exact(s: Scenario, split: int, codec: str) -> bool:
    """What situations say: int8 loses something at the input alone."""
    return codec == "float32" or 0 < split < s.net.last


def known(s: Scenario, split: int, codec: str, form: str, other: str) -> bool:
    """Whether the worth of one cut was measured, or is that of the net itself."""
    return (split, codec, form, other) in s.worth or (form == other and exact(s, split, codec))


def all_pairs(s: Scenario, split: int, form: str) -> list[tuple[str, str, Gateway, Any]]:
    """Every first codec, gateway's form and second cut, with the cut whose worth counts."""
    found = []
    last, forms, codecs = s.net.last, list(s.server.forms), list(s.payload_bytes[split])
    for one, other, there in itertools.product(codecs, codecs, forms):
        # At one place the gateway passes on, or re-encodes what came as it was.
        if known(s, split, other, form, there) and (one == other or exact(s, split, one)):
            cut = (split, other, form, there)
            found.append((one, there, Gateway(split, {}, other, there), cut))
    for one, there, place in itertools.product(codecs, forms, range(split + 1, last + 1)):
        seconds = list(itertools.product(codecs, forms)) if place < last else [("float32", there)]
        for other, server in seconds:
            clean = there == form and exact(s, split, one)
            clean_too = server == there and exact(s, place, other)
            if not (known(s, split, one, form, there) and known(s, place, other, there, server)):
                continue
            if clean or clean_too:
                cut = (place, other, form, server) if clean else (split, one, form, there)
                found.append((one, there, Gateway(place, {}, other, server), cut))
    return found


def all_plans(s: Scenario) -> list[tuple[Plan, Any]]:
    """Every plan with the cut whose worth counts; exits of a gateway need a clean first cut."""
    found = []
    for split, form in itertools.product(range(s.net.last + 1), s.scores):
        pairs: list[Any] = [("float32", form, None, (split, "float32", form, form))]
        if split < s.net.last:
            pairs = all_pairs(s, split, form)
        for codec, there, gateway, cut in pairs:
            reached = split
            if gateway is not None and there == form and exact(s, split, codec):
                reached = gateway.split if gateway.split < s.net.last else split
            early = [e for e, exit_ in enumerate(s.net.exits[:-1]) if exit_.after <= reached]
            rules = [[None, *grid(s.scores[form][e])] for e in early]
            for choice in itertools.product(*rules):
                used = {e: t for e, t in zip(early, choice, strict=True) if t is not None}
                here = {s.net.exits[e].name: t for e, t in used.items() if is_here(s, e, split)}
                rest = {s.net.exits[e].name: t for e, t in used.items() if not is_here(s, e, split)}
                does = None
                if gateway is not None:
                    does = Gateway(gateway.split, rest, gateway.codec, gateway.server_form)
                plan = Plan(split, here, codec, form=form, server_form=there, gateway=does)
                found.append((plan, cut))
    return found


def is_here(s: Scenario, exit_: int, split: int) -> bool:
    return s.net.exits[exit_].after <= split


def gateway_part(s: Scenario, plan: Plan, sample: int) -> tuple[float, int | None]:
    """Seconds from the edge's cut on, and the gateway's exit that answers, if one does."""
    does, between = plan.gateway, s.between
    assert does is not None and between is not None
    seconds = travel(s, s.link, plan.split, plan.codec) + s.edge.ask_s.mean_s
    passes_on = (does.split, does.codec) == (plan.split, plan.codec)
    if not passes_on:
        seconds += between.gateway.decoding_s(plan.codec, plan.split).mean_s
        parts, done = between.gateway.forms[plan.server_form], plan.split
        on_the_way = [
            e for e, x in enumerate(s.net.exits[:-1]) if plan.split < x.after <= does.split
        ]
        for e in on_the_way:
            holds = e == on_the_way[-1] and does.split < s.net.last
            threshold = does.thresholds.get(s.net.exits[e].name)
            if threshold is None and not holds:
                continue
            seconds += parts.stretch_s(done, s.net.exits[e].after).mean_s + parts.exit_s[e].mean_s
            done = s.net.exits[e].after
            if threshold is not None and s.scores[plan.form][e, sample] >= threshold:
                return seconds, e
        seconds += parts.stretch_s(done, does.split).mean_s
    if does.split == s.net.last:
        return seconds, len(s.net.exits) - 1
    if not passes_on:
        seconds += between.gateway.encoding_s(does.codec, does.split).mean_s
    seconds += between.gateway.ask_s.mean_s + travel(s, between.uplink, does.split, does.codec)
    seconds += s.queue.mean_s + s.server.forms[does.server_form].tail_s[does.split].mean_s
    return seconds, None


def travel(s: Scenario, link: Link, split: int, codec: str) -> float:
    sent = s.payload_bytes[split][codec] + WIRE_BYTES
    return 8 * sent / link.up_bps + 8 * REPLY_BYTES / link.down_bps + link.rtt_s


def brute_force(s: Scenario, plan: Plan, cut: Any) -> dict[str, Any]:
    """The plan's estimate as plain averages and ranks over the samples."""
    rows = []
    for sample in range(s.samples):
        way = follow(s, of_the_edge(plan), sample)
        seconds = sum(step.mean_s for step in way.steps)
        worth, at_gateway = way.hit, 0
        if not way.edge:
            more, exit_ = gateway_part(s, plan, sample)
            seconds += more
            at_gateway = int(exit_ is not None)
            final = exit_ is None or exit_ == len(s.net.exits) - 1
            own = s.worth.get(cut, s.hits[plan.form][-1])
            worth = own[sample] if final else s.hits[plan.form][exit_, sample]
        rows.append((seconds, worth, way.edge, at_gateway, way.up_bytes, way.joules, way.macs))
    table = np.array(rows, np.float64)
    ordered = np.sort(table[:, 0])
    names = (
        "mean_s",
        "accuracy",
        "edge_share",
        "gateway_share",
        "up_bytes",
        "energy_j",
        "macs",
    )
    numbers: dict[str, Any] = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
    numbers["p50_s"] = ordered[int(np.ceil(0.5 * len(ordered))) - 1]
    numbers["p99_s"] = ordered[int(np.ceil(0.99 * len(ordered))) - 1]
    return numbers | {"seconds": ordered}


def of_the_edge(plan: Plan) -> Plan:
    """The edge's own part: what it spends does not depend on who is behind the link."""
    return Plan(
        plan.split, plan.thresholds, plan.codec, form=plan.form, server_form=plan.server_form
    )


def key(plan: Plan) -> str:
    does = plan.gateway
    gateway = does and (does.split, does.codec, does.server_form, sorted(does.thresholds.items()))
    edge = (plan.split, plan.codec, plan.form, plan.server_form, sorted(plan.thresholds.items()))
    return str((edge, gateway))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(tiers())
def test_every_plan_with_a_gateway_is_evaluated_as_brute_force_evaluates_it(s: Scenario) -> None:
    everything = all_plans(s)
    assume(len(everything) <= MOST_PLANS)
    evaluated = {key(plan): plan.expected for plan in plans(s)}
    assert sorted(evaluated) == sorted(key(plan) for plan, _ in everything)
    for plan, cut in everything[:: 1 + len(everything) // 150]:
        numbers = brute_force(s, plan, cut)
        numbers.pop("seconds")
        for name, value in numbers.items():
            got = getattr(evaluated[key(plan)], name)
            assert got == pytest.approx(value, rel=CLOSE, abs=1e-12), (plan, name)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    tiers(),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.one_of(st.none(), st.floats(0.05, 1.2)),
    st.sampled_from([0.5, 0.99]),
)
def test_no_allowed_plan_with_a_gateway_is_better_than_the_chosen_one(
    s: Scenario, drop: float, share: float | None, reliability: float
) -> None:
    everything = all_plans(s)
    assume(len(everything) <= MOST_PLANS)
    limits = Limits(max_drop=drop, confidence=None)
    tried = [(plan, brute_force(s, plan, cut)) for plan, cut in everything]
    if share is not None:
        slowest = max(numbers["p99_s"] for _, numbers in tried)
        limits = limits.merged(deadline_s=share * slowest + 1e-3, reliability=reliability)
    accuracy = s.hits["float32"][-1].mean()

    def keeps(plan: Plan, numbers: dict[str, Any]) -> bool:
        if head_bytes(s, plan) > s.memory_bytes or numbers["accuracy"] < accuracy - drop - CLOSE:
            return False
        if limits.deadline_s is None:
            return True
        latest = limits.deadline_s - (0.0 if plan.split == s.net.last else 0.005)
        assume(np.abs(numbers["seconds"] - latest).min() > CLOSE)
        return bool((numbers["seconds"] <= latest).mean() >= limits.reliability - CLOSE)

    allowed = [numbers["mean_s"] for plan, numbers in tried if keeps(plan, numbers)]
    if not allowed:
        with pytest.raises(PlanError, match="no plan "):
            choose(s, limits)
        return
    best = choose(s, limits)
    assert best.expected is not None
    assert best.expected.mean_s == pytest.approx(min(allowed), rel=CLOSE, abs=1e-12)
