"""Whether an edge with a table follows the world: against fixed plans in hindsight, and an oracle.

Real processes, a shaped link and engines slowed by a stated factor (`presplit.lab.play`). The net
has weights that are not trained, because they change no time; its labels are what it says itself,
so its accuracy is how often a codec leaves an answer as it is. The table is the planner's, from
costs that are measured here.

What is told of a way is the mean and the median over the *moments* of a trace: of every image of
the camera, where one that finds the edge busy counts as the one that kept it busy. A mean over
answers flatters slow ways, which answer fewer images just when it takes long; it is told too.
"""

from __future__ import annotations

import functools
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from presplit.bundle import Bundle
from presplit.core.costs import Costs
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlanTable, Row
from presplit.core.types import Floats
from presplit.lab.play import Played, Theatre, theatre
from presplit.lab.slow_device import Slowed
from presplit.lab.traces import TRACES, Moment, Trace
from presplit.plan import Box, table
from presplit.profiles import device_from
from presplit.runtime.measuring.measure import measure
from presplit.train import export
from presplit.train.data import Samples
from presplit.train.zoo import small_cnn

SIDE, WIDTH, BOTTLENECK = 128, 64, 8
ALONE_S = 0.4
"""What the whole net takes on the edge: its engines are slowed by as much as that needs."""
RATE = 2.5
"""Images a second."""
DEADLINE_S = 2.0
LTE = Link("lte-drive", up_bps=5.6e6, down_bps=16.8e6, rtt_s=0.045)
BOX = Box((50e3, 50e6), (0.003, 0.3), server_factor=(1.0, 20.0), device_factor=(0.5, 8.0))
MAX_DROP = 0.01
SAMPLES = 96
AT_ONCE = 5
"""Plays that go on beside each other: they sleep most of the time."""
STEP_S = 10.0
WAIT_ANSWERS = 20
"""So many answers after a step an edge must be back."""
SETTLED = 10
"""For so many answers it must go on as it is then."""
NEAR = 1.05

Told = dict[str, Any]
Checks = list[dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """What all plays have in common."""

    bundle: Bundle
    table: PlanTable
    images: Sequence[Floats]
    factor: float


@dataclass(frozen=True)
class Seen:
    """What a play came to: seconds over moments and over answers, bytes a second."""

    mean_s: float
    p50_s: float
    answer_mean_s: float
    up_bps: float
    answers: int


def run(quick: bool) -> tuple[list[Told], Checks]:
    """Rows for each trace, seed and way, and for each step; about 25 minutes, ``quick`` 4."""
    with tempfile.TemporaryDirectory() as folder:
        stage = _stage(Path(folder), 10.0 if quick else 40.0)
        stepped, rows = _steps(stage, quick), list[Told]()
        seconds, seeds = (20.0, 1) if quick else (60.0, 3)
        for name in TRACES:
            for seed in range(seeds):
                rows += _contest(stage, TRACES[name](seconds, seed=seed), seed, seconds)
        levels = _levels(stage, 1 if quick else 3)
    return [*stepped, *rows, *levels], [*_judged(rows), *_stepped(stepped), *_near(levels)]


def _stage(folder: Path, seconds: float) -> Stage:
    """The net, what it costs here, and the planner's table for an edge that is slowed."""
    images = _images(SAMPLES)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = small_cnn(width=WIDTH, bottleneck=BOTTLENECK, channels=3, size=SIDE).eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(images))
        net[-1].bias -= logits.mean(0)  # or all images would be of one class
        labels = net(torch.from_numpy(images)).argmax(1).numpy()
    held = Samples(images, labels.astype(np.int64))
    codecs = ("float32", "int8", "int4")
    bundle = export(net, held, folder / "net.bundle", codecs=codecs)
    here = measure(bundle, seconds=seconds, sample=images[0])
    whole_s = here.forms["float32"].head_s[-1].quantile(0.5)
    factor = max(1.0, ALONE_S / whole_s)
    made = table(
        bundle,
        device=device_from("raspberry-pi-4"),
        link=LTE,
        server=device_from("raspberry-pi-4"),
        max_drop=MAX_DROP,
        confidence=None,
        edge_costs=_slowed(here, factor),
        server_costs=here,
        box=BOX,
    )
    return Stage(bundle, made, list(images[:16]), factor)


def _images(count: int) -> Floats:
    """Pictures of clouds in 8 bits: float32 ``(count, 3, SIDE, SIDE)``."""
    chance = np.random.default_rng(0)
    coarse = chance.random((count, 3, SIDE // 8, SIDE // 8))
    fine = coarse.repeat(8, axis=2).repeat(8, axis=3) + 0.1 * chance.random((count, 3, SIDE, SIDE))
    return (np.round(255 * fine / fine.max()) / 255).astype(np.float32)


def _slowed(costs: Costs, factor: float) -> Costs:
    """Costs where engines take ``factor`` times as long, and nothing else."""
    forms = {form: parts.scaled(factor) for form, parts in costs.forms.items()}
    return msgspec.structs.replace(costs, forms=forms)


# -- against fixed plans


def _ways(stage: Stage) -> dict[str, tuple[Plan | PlanTable, str]]:
    """Every way to play: what the edge goes by, and its policy."""
    last = stage.bundle.net.last
    plans = [row.plan for row in stage.table.rows]
    plans += [Plan(last), Plan(0, codec="int8")]
    fixed = {f"fixed {_named(stage, plan)}": (plan, "fixed") for plan in plans}
    return {**fixed, "dynamic": (stage.table, "table"), "oracle": (stage.table, "oracle")}


def _named(stage: Stage, plan: Plan) -> str:
    """A plan in a few words."""
    if plan.split == stage.bundle.net.last:
        return "all-edge"
    return f"split {plan.split} {plan.codec}"


def _contest(stage: Stage, trace: Trace, seed: int, seconds: float) -> list[Told]:
    """What each way comes to on one trace."""
    ways = _ways(stage)
    order = random.Random(seed).sample(list(ways), len(ways))

    def played(name: str) -> tuple[str, Seen]:
        by, policy = ways[name]
        found = seen(_play(stage, by, trace, seconds, policy), seconds)
        print(trace.name, seed, name, found, file=sys.stderr, flush=True)
        return name, found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(pool.map(played, order))
    return [
        {"part": "traces", "trace": trace.name, "seed": seed, "way": name}
        | {key: getattr(found[name], key) for key in Seen.__dataclass_fields__}
        for name in ways
    ]


def _play(
    stage: Stage, by: Plan | PlanTable, trace: Trace, seconds: float, policy: str
) -> list[Played]:
    """One play on a stage of its own."""
    with theatre(stage.bundle, trace.moments[0].link) as there:
        return there.play(
            by,
            trace,
            stage.images,
            rate=RATE,
            seconds=seconds,
            deadline_s=DEADLINE_S,
            split_policy=policy,
            load=Slowed(stage.factor),
        )


def seen(played: Sequence[Played], seconds: float) -> Seen:
    """What a play came to."""
    took_s = np.array([one.answer.elapsed_s for one in played])
    began_s = [one.t_s for one in played]
    weights = np.diff([*began_s, max(seconds, began_s[-1] + 1 / RATE)])
    order = np.argsort(took_s)
    reached = weights[order].cumsum() / weights.sum()
    sent = sum(one.answer.up_bytes for one in played)
    sent += played[-1].probed_bytes - played[0].probed_bytes
    return Seen(
        mean_s=float(weights @ took_s / weights.sum()),
        p50_s=float(took_s[order][np.searchsorted(reached, 0.5)]),
        answer_mean_s=float(took_s.mean()),
        up_bps=8 * sent / seconds,
        answers=len(played),
    )


def _judged(rows: Sequence[Told]) -> Checks:
    """Dynamic against the fixed way that was the best in hindsight, trace by trace."""
    found: Checks = []
    for trace in dict.fromkeys(row["trace"] for row in rows):
        mine = [row for row in rows if row["trace"] == trace]
        seeds = [
            {row["way"]: row for row in mine if row["seed"] == seed}
            for seed in dict.fromkeys(row["seed"] for row in mine)
        ]
        against = [(_best_fixed(ways), ways["dynamic"], ways["oracle"]) for ways in seeds]
        gains = [best["mean_s"] / own["mean_s"] for best, own, _ in against]
        least = 1.3 if trace == "lte-drive" else 1.0
        found.append(_check(f"{trace}: best fixed mean / dynamic's", gains, least, low=True))
        p50s = [own["p50_s"] / best["p50_s"] for best, own, _ in against]
        found.append(_check(f"{trace}: dynamic's p50 / best fixed's", p50s, 1.03))
        sent = [ways["dynamic"]["up_bps"] / _best_fixed(ways, 1.0)["up_bps"] for ways in seeds]
        name = f"{trace}: dynamic's bytes / those of the best fixed that sends any"
        found.append(_check(name, sent, 1.0))
        cheaper = [_cheaper(ways) for ways in seeds]
        name = f"{trace}: fastest fixed that sends less, its mean / dynamic's"
        found.append(_check(name, cheaper, 1.0, low=True))
        near = [own["mean_s"] / oracle["mean_s"] for _, own, oracle in against]
        found.append(_check(f"{trace}: dynamic's mean / oracle's", near, None))
        answers = [best["answer_mean_s"] / own["answer_mean_s"] for best, own, _ in against]
        found.append(_check(f"{trace}: the gain over answers alone", answers, None))
    return found


def _best_fixed(ways: Mapping[str, Told], least_bps: float = 0.0) -> Told:
    """The fixed way with the least mean time among those that send so much."""
    fixed = [row for name, row in ways.items() if name.startswith("fixed")]
    fixed = [row for row in fixed if row["up_bps"] >= least_bps]
    return min(fixed, key=lambda row: row["mean_s"])


def _cheaper(ways: Mapping[str, Told]) -> float:
    """How many times as long as dynamic the fixed ways with fewer bytes take, the fastest of them.

    At least 1: whoever wants fewer bytes pays in time, so dynamic is never beaten in both.
    """
    own = ways["dynamic"]
    less = [
        row["mean_s"] / own["mean_s"]
        for name, row in ways.items()
        if name.startswith("fixed") and row["up_bps"] < own["up_bps"]
    ]
    return min(less, default=1.0)


def _check(name: str, values: Sequence[float], limit: float | None, *, low: bool = False) -> Told:
    """The mean over seeds must keep ``limit``; the range is told in the name."""
    mean = statistics.fmean(values)
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    if limit is None:
        return {"name": name + spread, "value": mean, "target": "", "ok": True}
    ok = mean >= limit if low else mean <= limit
    target = f"{'>=' if low else '<='} {limit}"
    return {"name": name + spread, "value": mean, "target": target, "ok": ok}


# -- after a step of the device or of the server


class _Stepping(Sequence[Floats]):
    """Images, and something that happens as the one with the number ``at`` is taken."""

    def __init__(self, images: Sequence[Floats], at: int, step: Callable[[], None]) -> None:
        self._images, self._at, self._step = images, at, step
        self.taken = 0

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: Any) -> Any:
        if self.taken == self._at:
            self._step()
        self.taken += 1
        return self._images[number]


def _steps(stage: Stage, quick: bool) -> list[Told]:
    """How many answers it takes to be back, for each slow-down and seed."""
    works = [
        functools.partial(_step, stage, where, times, seed)
        for where, times in (("device", 2.0), ("device", 4.0), ("server", 20.0))
        for seed in range(1 if quick else 3)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda work: work(), works))


def _step(stage: Stage, where: str, times: float, seed: int) -> Told:
    """One slow-down, over a link at which it makes another row the best."""
    slow = {f"{where}_factor": times}
    link = _turning(stage.table, slow, seed)
    usual = Conditions(link.up_bps, link.rtt_s)
    after = msgspec.structs.replace(usual, **slow)
    before = 30
    with theatre(stage.bundle, link) as there:
        device = Slowed(stage.factor)
        images = _Stepping(stage.images, 10 + before, _slowing(there, device, where, times))
        played = there.play(
            stage.table,
            Trace("steady", (Moment(0.0, link),)),
            images,
            rate=1000.0,
            seconds=24.0 * max(1.0, times / 2 if where == "device" else 1.0),
            deadline_s=5.0,
            load=device,
        )
    rows = stage.table.rows
    best_s = min(takes(row, after) for row in rows)
    near = [takes(rows[one.answer.row or 0], after) <= NEAR * best_s for one in played[before:]]
    return {
        "part": "steps",
        "way": f"{where} x{times:g}",
        "seed": seed,
        "up_bps": link.up_bps,
        "answers": back(near),
        "changes": stage.table.best(after) != stage.table.best(usual),
    }


def takes(row: Row, now: Conditions) -> float:
    """What an answer by ``row`` takes: an edge that computes its own meanwhile waits no longer."""
    if row.meanwhile_s is None:
        return row.mean_s(now)
    head_s = now.device_factor * row.edge_s
    own_s = row.asked * now.device_factor * row.meanwhile_s
    return head_s + min(row.mean_s(now) - head_s, own_s)


def _slowing(there: Theatre, device: Slowed, where: str, times: float) -> Callable[[], None]:
    """What makes one of them slower."""
    if where == "server":
        return lambda: there.order_server(times)
    slower = device.factor * times

    def slow() -> None:
        device.factor = slower

    return slow


def _turning(table_: PlanTable, slow: Mapping[str, float], seed: int) -> Link:
    """A link over which it costs most not to take notice, among some drawn by chance."""
    chance, found = random.Random(seed), list[tuple[float, Link]]()
    for _ in range(20):
        up_bps, rtt_s = 10 ** chance.uniform(5.7, 7.5), 10 ** chance.uniform(-2, -1)
        now = Conditions(up_bps, rtt_s)
        after = msgspec.structs.replace(now, **slow)
        stays = takes(table_.rows[table_.best(now)], after)
        lost = stays / min(takes(row, after) for row in table_.rows)
        found.append((lost, Link("steady", up_bps=up_bps, down_bps=up_bps, rtt_s=rtt_s)))
    return max(found, key=lambda one: one[0])[1]


def back(near: Sequence[bool]) -> int:
    """After how many answers an edge is near the best row, for most of `SETTLED` to come."""
    for start in range(len(near)):
        coming = near[start : start + SETTLED]
        if near[start] and sum(coming) >= 0.8 * SETTLED:
            return start
    return len(near)


def _stepped(rows: Sequence[Told]) -> Checks:
    """Every step is over within so many answers."""
    return [
        _check(f"answers until back, {way}", [max(r["answers"] for r in rows if r["way"] == way)],
               WAIT_ANSWERS)
        for way in dict.fromkeys(row["way"] for row in rows)
    ]  # fmt: skip


# -- after steps of the link


def _levels(stage: Stage, seeds: int) -> list[Told]:
    """Times from 5 s after each step of the link on, of the table's edge and of the oracle."""

    def both(seed: int) -> Iterator[Told]:
        trace = stairs(6, seed=seed)
        seconds = 6 * STEP_S
        for way, policy in (("dynamic", "table"), ("oracle", "oracle")):
            played = _play(stage, stage.table, trace, seconds, policy)
            later = [one for one in played if one.t_s % STEP_S >= STEP_S / 2]
            took_s = [one.answer.elapsed_s for one in later]
            yield {
                "part": "stairs",
                "way": way,
                "seed": seed,
                "answers": len(later),
                "mean_s": statistics.fmean(took_s),
            }

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [
            row for rows in pool.map(lambda seed: list(both(seed)), range(seeds)) for row in rows
        ]


def stairs(count: int, *, seed: int = 0) -> Trace:
    """A link that becomes another one each `STEP_S` seconds: 0.2-30 Mbit/s, 5-150 ms."""
    chance = random.Random(f"stairs {seed}")
    moments = list[Moment]()
    for number in range(count):
        up_bps, rtt_s = 10 ** chance.uniform(5.3, 7.5), 10 ** chance.uniform(-2.3, -0.8)
        link = Link("stairs", up_bps=up_bps, down_bps=up_bps, rtt_s=rtt_s)
        moments.append(Moment(number * STEP_S, link))
    return Trace("stairs", tuple(moments))


def _near(rows: Sequence[Told]) -> Checks:
    """Within a tenth of the oracle."""
    means = {(row["way"], row["seed"]): row["mean_s"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    ratios = [means["dynamic", seed] / means["oracle", seed] for seed in seeds]
    return [_check("5 s after each step of the link: mean / oracle's", ratios, 1.1)]
