"""The planner agrees with brute force.

Every plan of the grid is followed sample by sample in plain Python.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.costs import Costs, Parts
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, Row
from presplit.core.times import Times, chance_within, total
from presplit.core.types import Boundary, Exit, Net
from presplit.plan.envelope import WITHIN, Box, table_of
from presplit.plan.evaluate import LEVELS
from presplit.plan.limits import Limits
from presplit.plan.pareto import front_of
from presplit.plan.scenario import Scenario
from presplit.plan.search import choose, plans

PAIRS = list(itertools.product(("float32", "int8"), repeat=2))
REPEATED = 6
"""Every time has 1, 2 or 3 draws: each is repeated so that all weigh alike."""
CLOSE = 1e-9
"""Relative: both sides add the same few float64 terms, in another order."""


@st.composite
def situations(draw: st.DrawFn) -> Scenario:
    """Nets of 1-4 segments, 0-2 early exits, 1-8 samples, costs from a microsecond to a second.

    Every time has one to three draws; a second form of edge and server is there or not.
    """
    last = draw(st.integers(1, 4))
    early = sorted(draw(st.sets(st.integers(0, last - 1), max_size=2)))
    samples = draw(st.integers(1, 8))
    exits = len(early) + 1

    def numbers(count: int, low: float, high: float) -> tuple[float, ...]:
        return tuple(draw(st.lists(st.floats(low, high), min_size=count, max_size=count)))

    def whole(count: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(0, 1000), min_size=count, max_size=count)))

    def times(count: int, low: float, high: float) -> list[Times]:
        return [Times.of(numbers(draw(st.integers(1, 3)), low, high)) for _ in range(count)]

    forms = draw(st.sampled_from([("float32",), ("float32", "int8")]))

    def costs() -> Costs:
        parts = {
            form: Parts.added(times(last, 1e-6, 1), [*times(exits - 1, 0, 0.1), Times.of(0)])
            for form in forms
        }
        return Costs("any", parts, "counted", "", power_w=numbers(1, 0, 10)[0])

    def evidence() -> tuple[np.ndarray, np.ndarray]:
        scores = np.array([numbers(samples, 0, 1) for _ in range(exits)], dtype=np.float32)
        flags = draw(st.lists(st.booleans(), min_size=exits * samples, max_size=exits * samples))
        return scores, np.array(flags).reshape(exits, samples)

    held = {form: evidence() for form in forms}
    sizes = whole(last + 1)
    mixed = {(split, "int8", *pair) for split in range(last) for pair in PAIRS if "int8" in pair}
    known = mixed if len(forms) == 2 else set()
    return Scenario(
        net=Net(
            tuple(Boundary(f"b{k}", (size + 1,)) for k, size in enumerate(sizes)),
            (*(Exit(f"exit{after}", after, 2) for after in early), Exit("final", last, 2)),
        ),
        edge=costs(),
        server=costs(),
        link=Link("any", *numbers(2, 1e3, 1e9), *numbers(1, 0, 0.1), power_w=numbers(1, 0, 5)[0]),
        memory_bytes=draw(st.floats(1, 20_000)),
        segment_macs=whole(last),
        segment_weights=whole(last),
        exit_macs=(*whole(exits - 1), 0),
        exit_weights=(*whole(exits - 1), 0),
        payload_bytes=tuple({"float32": 4 * size + 4, "int8": size + 1} for size in sizes),
        scores={form: each[0] for form, each in held.items()},
        hits={form: each[1] for form, each in held.items()},
        worth={
            key: np.array(numbers(samples, 0, 1))
            for key in sorted({(0, "int8", "float32", "float32"), *known})
        },
        exact=frozenset((split, "int8") for split in range(1, last)),
        queue=times(1, 0, 0.01)[0],
    )


def grid(scores: np.ndarray) -> list[float]:
    """The documented thresholds: the scores at 21 evenly spaced ranks, rounded up."""
    ordered = sorted(scores.tolist())
    return sorted(
        {ordered[math.ceil(level / (LEVELS - 1) * (len(ordered) - 1))] for level in range(LEVELS)}
    )


def all_plans(s: Scenario) -> list[Plan]:
    """Every split, form and codec, and for every exit on the edge "never" or a threshold of it.

    At the last split nothing travels. A way to travel is there if what it costs was measured, or
    if it costs nothing.
    """
    found = []
    for split, form in itertools.product(range(s.net.last + 1), s.scores):
        names = [e.name for e in s.net.exits[:-1] if e.after <= split]
        rules = [[None, *grid(s.scores[form][e])] for e in range(len(names))]
        ways = [("float32", form)]
        if split < s.net.last:
            ways = [
                (codec, server_form)
                for codec in s.payload_bytes[split]
                for server_form in s.server.forms
                if (split, codec, form, server_form) in s.worth
                or (form == server_form and (codec == "float32" or split > 0))
            ]
        for (codec, server_form), choice in itertools.product(ways, itertools.product(*rules)):
            thresholds = {name: t for name, t in zip(names, choice, strict=True) if t is not None}
            plan = Plan(split, thresholds, codec, form=form, server_form=server_form)
            found.append(plan)
    return found


@dataclass
class Way:
    """How one sample ends: draws of its time, as the formula of costs composes them, and the rest.

    Sums of means are exact whatever the composition, so they are kept beside.
    """

    steps: list[Times]
    joules: float
    macs: int
    hit: float
    up_bytes: float = 0
    edge: int = 1
    sending: tuple[Times, ...] = ()

    @property
    def mean_s(self) -> float:
        return sum(step.mean_s for step in (*self.steps, *self.sending))

    @property
    def draws(self) -> np.ndarray:
        here = total([step for step in self.steps if step != Times.of(0)])
        return (here + total(self.sending) if self.sending else here).array

    def within(self, seconds: float) -> float:
        here = [step for step in self.steps if step != Times.of(0)]
        return chance_within([*here, *self.sending, Times.of(0)], seconds)


def follow(s: Scenario, plan: Plan, sample: int) -> Way:
    """One sample's way through the net, a step at a time."""
    steps, macs, done = [s.edge.answer_s], 0, 0
    watts, edge, server = s.edge.power_w, s.edge.forms[plan.form], s.server.forms[plan.server_form]
    for e, exit_ in enumerate(s.net.exits[:-1]):
        if exit_.after > plan.split or exit_.name not in plan.thresholds:
            continue
        steps += [edge.stretch_s(done, exit_.after), edge.exit_s[e]]
        macs += sum(s.segment_macs[done : exit_.after]) + s.exit_macs[e]
        done = exit_.after
        if s.scores[plan.form][e, sample] >= plan.thresholds[exit_.name]:
            spent = watts * sum(step.mean_s for step in steps)
            return Way(steps, spent, macs, s.hits[plan.form][e, sample])
    if plan.split < s.net.last:
        idle = [e for e, x in enumerate(s.net.exits[:-1]) if 0 < x.after <= plan.split]
        if idle and s.net.exits[idle[-1]].name not in plan.thresholds:
            e = idle[-1]  # the deepest exit on the way is held though it may not answer
            steps += [edge.stretch_s(done, s.net.exits[e].after), edge.exit_s[e]]
            macs += sum(s.segment_macs[done : s.net.exits[e].after]) + s.exit_macs[e]
            done = s.net.exits[e].after
    steps.append(edge.stretch_s(done, plan.split))
    macs += sum(s.segment_macs[done : plan.split])
    joules = watts * sum(step.mean_s for step in steps)
    if plan.split == s.net.last:
        return Way(steps, joules, macs, s.hits[plan.form][-1, sample])
    payload = s.payload_bytes[plan.split][plan.codec]
    sending = (payload + WIRE_BYTES) * 8 / s.link.up_bps
    # By the link's own sum: draws are paired by their bits, and another order rounds otherwise.
    (travel,) = s.link.time(payload + WIRE_BYTES, REPLY_BYTES).draws_s
    assert travel == pytest.approx(sending + s.link.rtt_s + REPLY_BYTES * 8 / s.link.down_bps)
    way = (Times.of(0), Times.of(travel), s.queue, Times.of(0), server.tail_s[plan.split])
    worth = s.worth.get(
        (plan.split, plan.codec, plan.form, plan.server_form), s.hits[plan.form][-1]
    )
    joules += sending * s.link.power_w
    return Way(steps, joules, macs, worth[sample], payload, 0, way)


def brute_force(s: Scenario, plan: Plan) -> dict[str, Any]:
    """The plan's estimate as plain averages and ranks over the samples and their draws."""
    ways = [follow(s, plan, sample) for sample in range(s.samples)]

    def average(name: str) -> float:
        return sum(float(getattr(way, name)) for way in ways) / len(ways)

    draws = [each for way in ways for each in np.repeat(way.draws, REPEATED // len(way.draws))]
    assert len(draws) == REPEATED * len(ways)
    ordered = sorted(draws)
    return {
        "mean_s": average("mean_s"),
        "p50_s": ordered[math.ceil(0.5 * len(draws)) - 1],
        "p99_s": ordered[math.ceil(0.99 * len(draws)) - 1],
        "accuracy": average("hit"),
        "edge_share": average("edge"),
        "up_bytes": average("up_bytes"),
        "energy_j": average("joules"),
        "macs": average("macs"),
        "draws": ordered,
        "ways": ways,
    }


def in_time(numbers: dict[str, Any], seconds: float) -> float:
    return float(np.mean([way.within(seconds) for way in numbers["ways"]]))


def edges(numbers: dict[str, Any]) -> np.ndarray:
    """Every time that an answer can take, by all pairs of draws."""
    found = [np.zeros(1)]
    for way in numbers["ways"]:
        sums = np.zeros(1)
        for step in (*way.steps, *way.sending):
            sums = np.unique(np.add.outer(sums, step.array))
        found.append(sums)
    return np.concatenate(found[1:])


def key(plan: Plan) -> tuple[object, ...]:
    return (
        plan.split,
        plan.codec,
        plan.form,
        plan.server_form,
        tuple(sorted(plan.thresholds.items())),
    )


def head_bytes(s: Scenario, plan: Plan) -> int:
    """All that the edge loads: the head, its exits, and what only serves to hold an answer."""
    on_the_way = [e for e, exit_ in enumerate(s.net.exits[:-1]) if 0 < exit_.after <= plan.split]
    loaded = {e for e, exit_ in enumerate(s.net.exits) if exit_.name in plan.thresholds}
    reached = plan.split
    if plan.split < s.net.last:
        if on_the_way:
            loaded.add(on_the_way[-1])
        elif not loaded:
            following = min(e for e, exit_ in enumerate(s.net.exits) if exit_.after > plan.split)
            loaded.add(following)
            reached = s.net.exits[following].after
    width = 4 if plan.form == "float32" else 1
    return width * (sum(s.segment_weights[:reached]) + sum(s.exit_weights[e] for e in loaded))


def by(s: Scenario, plan: Plan, deadline_s: float) -> float:
    """When a plan's answers must be there: 5 ms before the deadline if it asks the server."""
    return deadline_s if plan.split == s.net.last else deadline_s - 0.005


@settings(max_examples=25, deadline=None, derandomize=True)
@given(situations())
def test_every_plan_is_evaluated_as_brute_force_evaluates_it(s: Scenario) -> None:
    evaluated = {key(plan): plan.expected for plan in plans(s, deadline_s=0.5)}
    everything = all_plans(s)
    assert sorted(map(str, evaluated)) == sorted(str(key(plan)) for plan in everything)
    for plan in everything:
        expected = evaluated[key(plan)]
        assert expected is not None
        numbers = brute_force(s, plan)
        numbers.pop("draws")
        near = np.abs(edges(numbers) - by(s, plan, 0.5)) < CLOSE
        kept = in_time(numbers, by(s, plan, 0.5))
        numbers.pop("ways")
        for name, value in numbers.items():
            got = getattr(expected, name)
            assert got == pytest.approx(value, rel=CLOSE, abs=1e-12), (plan, name)
        assert near.any() or expected.in_time == pytest.approx(kept)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    situations(),
    st.sampled_from([0.0, 0.005, 0.2, 1.0]),
    st.one_of(st.none(), st.floats(0.05, 1.2)),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    st.one_of(st.none(), st.floats(0.1, 1.0)),
)
def test_no_allowed_plan_is_better_than_the_chosen_one(
    s: Scenario, drop: float, share: float | None, reliability: float, energy: float | None
) -> None:
    tried = [(plan, brute_force(s, plan)) for plan in all_plans(s)]
    limits = Limits(max_drop=drop, confidence=None)
    if share is not None:
        slowest = max(numbers["p99_s"] for _, numbers in tried)
        limits = limits.merged(deadline_s=share * slowest + 1e-3, reliability=reliability)
        # What is in time only by rounding may fall on either side: not what this law is about.
        assume(all(np.abs(edges(n) - by(s, p, limits.deadline_s)).min() > CLOSE for p, n in tried))
    if energy is not None:
        most = max(numbers["energy_j"] for _, numbers in tried)
        limits = limits.merged(max_energy_j=energy * most * (1 + 1e-6))
    allowed = [(plan, numbers) for plan, numbers in tried if keeps(s, plan, numbers, limits)]
    if not allowed:
        with pytest.raises(PlanError, match="no plan "):
            choose(s, limits)
        return
    best = choose(s, limits)
    assert key(best) in {key(plan) for plan, _ in allowed}
    assert best.expected is not None
    assert (
        best.expected.mean_s
        <= min(numbers["mean_s"] for _, numbers in allowed) * (1 + CLOSE) + 1e-12
    )


def keeps(s: Scenario, plan: Plan, numbers: dict[str, Any], limits: Limits) -> bool:
    """Whether a plan with these numbers keeps to the limits."""
    assert limits.max_drop is not None
    enough = limits.reliability - CLOSE
    if limits.deadline_s is not None and in_time(numbers, by(s, plan, limits.deadline_s)) < enough:
        return False
    if limits.max_energy_j is not None and numbers["energy_j"] > limits.max_energy_j:
        return False
    right = numbers["accuracy"] >= s.accuracy - limits.max_drop - CLOSE
    return right and head_bytes(s, plan) <= s.memory_bytes


NUMBERS = ("mean_s", "p50_s", "p99_s", "accuracy", "energy_j", "up_bytes")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(situations())
def test_the_front_holds_a_plan_at_least_as_good_as_any_and_none_that_is_beaten(
    s: Scenario,
) -> None:
    def criteria(numbers: Mapping[str, float]) -> np.ndarray:
        return np.array([numbers[n] * (-1 if n == "accuracy" else 1) for n in NUMBERS])

    tried = [(p, brute_force(s, p)) for p in all_plans(s) if head_bytes(s, p) <= s.memory_bytes]
    front = front_of(s)
    assert bool(front) == bool(tried)
    if not tried:
        return
    # Numbers of the front are those of brute force, by the law above.
    numbers = {key(p): criteria(n) for p, n in tried}
    members = np.stack([numbers[key(p)] for p in front])
    slack = 1e-8 * np.abs(members) + 1e-12
    for plan, own in numbers.items():
        assert (members <= own + slack).all(axis=1).any(), plan
    for row in members:
        beaten = (members <= row).all(axis=1) & (members < row - 1e-8 * np.abs(row)).any(axis=1)
        assert not beaten.any()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(situations(), st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 2**32 - 1))
def test_under_any_conditions_the_table_holds_one_of_the_best_plans(
    s: Scenario, drop: float, seed: int
) -> None:
    allowed = [
        plan
        for plan in all_plans(s)
        if np.mean([follow(s, plan, n).hit for n in range(s.samples)]) >= s.accuracy - drop - CLOSE
        and head_bytes(s, plan) <= s.memory_bytes
    ]
    limits = Limits(max_drop=drop, confidence=None)
    if not allowed:
        with pytest.raises(PlanError, match="no plan "):
            table_of(s, limits)
        return
    found = table_of(s, limits)
    assert found.usual.up_bps == s.link.up_bps
    assert found.usual.rtt_s == pytest.approx(s.link.rtt_s + s.link.down_s(REPLY_BYTES))
    keys = {key(plan) for plan in allowed}
    assert all(key(row.plan) in keys for row in found.rows)
    box, random = Box.around(s.link), np.random.default_rng(seed)
    every = [by_hand(s, plan) for plan in allowed]

    def drawn(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    for _ in range(20):
        now = Conditions(
            up_bps=drawn(*box.up_bps),
            rtt_s=drawn(*box.rtt_s),
            server_factor=drawn(*box.server_factor),
            device_factor=drawn(*box.device_factor),
        )
        best = min(row.mean_s(now) for row in every)
        assert found.rows[found.best(now)].mean_s(now) <= best * (1 + WITHIN) + 1e-12


shaky = st.builds(
    Link,
    st.just("shaky"),
    up_bps=st.floats(1e4, 1e8),
    down_bps=st.floats(1e4, 1e8),
    rtt_s=st.floats(0, 0.1),
    jitter_s=st.floats(0, 0.1),
    loss=st.sampled_from([0.0, 0.02]),
    window_bytes=st.none() | st.just(1000),
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(situations(), shaky, st.floats(0, 0.01))
def test_the_table_expects_of_its_plans_what_the_search_does_whatever_the_link(
    s: Scenario, link: Link, ask_s: float
) -> None:
    """Also where requests are late or lost by chance, begin slowly, and take time to be made."""
    edge = msgspec.structs.replace(s.edge, ask_s=Times.of(ask_s))
    s = dataclasses.replace(s, link=link, edge=edge, memory_bytes=1e9)
    limits = Limits(max_drop=1.0, confidence=None)
    found = table_of(s, limits)
    for row in found.rows:
        assert row.plan.expected is not None
        assert row.mean_s(found.usual) == pytest.approx(row.plan.expected.mean_s, rel=1e-6)
        if row.asked:
            # What the server says that it took: nothing of making and reading messages.
            there = s.queue, s.server.decoding_s(row.plan.codec, row.plan.split)
            tail_s = s.server.forms[row.plan.server_form].tail_s[row.plan.split].mean_s
            assert row.tail_s == pytest.approx(tail_s + sum(step.mean_s for step in there))
    taken, best = found.rows[found.best(found.usual)].plan, choose(s, limits)
    assert taken.expected is not None
    assert best.expected is not None
    assert taken.expected.mean_s <= best.expected.mean_s * (1 + WITHIN) + 1e-12


def by_hand(s: Scenario, plan: Plan) -> Row:
    """A plan's parts, averaged over the samples."""
    ways = [follow(s, plan, sample) for sample in range(s.samples)]
    sent = [way for way in ways if way.sending]
    there = [way.sending[2].mean_s + way.sending[4].mean_s for way in sent]
    return Row(
        plan,
        edge_s=float(np.mean([sum(step.mean_s for step in way.steps) for way in ways])),
        asked=len(sent) / len(ways),
        up_bytes=sent[0].up_bytes + WIRE_BYTES if sent else 0,
        tail_s=there[0] if sent else 0,
        accuracy=0.5,
    )
