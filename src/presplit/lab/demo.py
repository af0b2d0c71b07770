"""The main job once through, for real: train, cut, plan, answer in many ways, break the server.

Three processes besides this one: the tail server, a shaped link, and an edge that never loads
torch and is as slow as the device that it stands for. Numbers in the table are what those processes
did, not what was planned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.lab.demo_nets import DEMOS, DIGITS, Ready, Settings, agreement, bundles, train
from presplit.lab.demo_ways import (
    DENSE,
    WAYS,
    Slowness,
    plain_plans,
    planned,
    row,
    slowness,
    verdict,
)
from presplit.lab.stage import Breaking, Stage
from presplit.plan.explain import named

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.costs import Device
    from presplit.core.link import Link
    from presplit.core.plans import Plan
    from presplit.plan.limits import Limits

__all__ = ["DEMOS", "DIGITS", "WAYS", "Settings", "Shown", "agreement", "show"]

KILLED, RESTARTED = 0.28, 0.4
"""When in the last way's run, as shares of it, the server is killed and started again."""


@dataclass(frozen=True)
class Shown:
    """What one demo did.

    ``rows``: one for each of `WAYS`, as `presplit.report.plots.WAYS` shows them, and one for
    ``planned``, the way that the planner chose, where that is none of them. ``answers`` are those
    of the last way; ``broken`` is when its server was killed and when it listened again, in
    seconds after the first answer. ``held_out`` samples told the planner how sure exits must be.
    """

    data: str
    slow: Slowness
    link: Link
    deadline_s: float
    held_out: int
    limits: Limits
    plan: Plan
    planned: str
    dense: Mapping[str, Any]
    sparse: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    answers: Sequence[Mapping[str, Any]]
    asked: int
    broken: tuple[float, float]
    seconds: float

    @property
    def lost(self) -> int:
        """How many images got no answer in the outage."""
        return self.asked - len({answer["sample"] for answer in self.answers})

    @property
    def longest_s(self) -> float:
        """What the longest answer in the outage took."""
        return max(answer["elapsed_s"] for answer in self.answers)

    @property
    def verdict(self) -> str:
        """One sentence: how the planned way compares with the best dense one."""
        return verdict(self.rows, self.planned, self.slow.device)

    def to_builtins(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        import msgspec

        return {
            "device": self.slow.device.name,
            "factor": self.slow.factor,
            "link": self.link.name,
            "planned": self.planned,
            "plan": msgspec.to_builtins(self.plan),
            "verdict": self.verdict,
            "dense_accuracy": self.dense["accuracy"]["final"],
            "dense_weights": self.dense["weights"],
            "sparse_weights": self.sparse["weights"],
            "table": list(self.rows),
            "outage": {
                "lost": self.lost,
                "longest_s": self.longest_s,
                "deadline_s": self.deadline_s,
            },
        }


def show(
    settings: Settings,
    out: Path,
    *,
    device: Device,
    link: Link,
    deadline_s: float,
    seed: int = 0,
    images: int | None = None,
    tell: Callable[[str], None] = print,
) -> Shown:
    """Run the whole demo in the directory ``out``, with the first ``images`` of the test set.

    The edge is as slow as ``device``. ``tell`` is given a line for people at each step. Raises
    `PresplitError` if the joined segments do not compute what the trained net does, or a process
    fails.
    """
    began = time.monotonic()
    dense, sparse = train(settings, seed, out, tell)
    ready = bundles(settings, out, images or settings.images, tell)
    slow = slowness(ready.dense, device)
    tell(f"[4/5] measuring, and planning for the device: {slow.told()}")
    plans = plain_plans(ready.dense, ready.ours, deadline_s)
    plan, both, limits = planned(
        ready.ours,
        slow,
        link,
        sample=ready.held_out.x[0],
        measured_s=settings.measured_s,
        max_drop=settings.max_drop,
        deadline_s=deadline_s,
    )
    way = "split+exit" if plan == both else "planned"
    plans |= {way: plan, "split+exit": both, WAYS[-1]: both}
    tell(f"      planned: {named(plan)}")
    rows, answers, broken = _answer(settings, ready, plans, (link, slow), tell)
    took_s = time.monotonic() - began
    tell(f"[5/5] done in {took_s:.0f} s")
    return Shown(
        settings.name,
        slow,
        link,
        deadline_s,
        len(ready.held_out.y),
        limits,
        plan,
        way,
        dense,
        sparse,
        rows,
        answers,
        len(ready.labels),
        broken,
        took_s,
    )


Answers = list[dict[str, Any]]


def _answer(
    settings: Settings,
    ready: Ready,
    plans: Mapping[str, Plan],
    place: tuple[Link, Slowness],
    tell: Callable[[str], None],
) -> tuple[list[dict[str, Any]], Answers, tuple[float, float]]:
    """The row of each way, the answers of the last one, and when its server was gone."""
    (link, slow), asked, seconds = place, len(ready.labels), settings.outage_run_s
    tell(
        f"      answering {asked} images in {len(plans)} ways over {link.up_bps / 1e6:g} Mbit/s "
        f"with {link.rtt_s * 1e3:g} ms round trip"
    )
    rows: list[dict[str, Any]] = []
    answers: Answers = []
    broken = (0.0, 0.0)
    for bundle in (ready.dense, ready.ours):
        own = {
            way: plan for way, plan in plans.items() if (way in DENSE) == (bundle is ready.dense)
        }
        with Stage(bundle, link, streams=settings.streams, slow=slow.factor) as stage:
            for way, plan in own.items():
                breaking = None
                if way == WAYS[-1]:
                    breaking = Breaking(asked / seconds, KILLED * seconds, RESTARTED * seconds)
                alone = plan.split == bundle.net.last and not plan.thresholds
                answers = stage.answer(
                    plan, ready.some if alone else ready.images, breaking=breaking
                )
                hits = _alone(ready, bundle, plan) if alone else _hits(ready, answers)
                rows.append(row(way, bundle, plan, answers, hits))
                right, p50_s = rows[-1]["accuracy"], rows[-1]["p50_s"]
                tell(f"      {way}: {100 * right:.2f} %, p50 {1e3 * p50_s:.2f} ms")
            broken = stage.broken
    return rows, answers, broken


def _hits(ready: Ready, answers: Answers) -> list[bool]:
    """Which answers are right."""
    return [int(one["label"]) == ready.labels[int(one["sample"])] for one in answers]


def _alone(ready: Ready, bundle: Bundle, plan: Plan) -> list[bool]:
    """Which of all images a net answers rightly that is alone; its time is that of some."""
    import numpy as np

    from presplit.runtime import Local

    with_plan = Local.open(bundle, plan=plan)
    labels = with_plan.answer(np.load(ready.images)).labels
    return [bool(hit) for hit in labels == np.array(ready.labels)]
