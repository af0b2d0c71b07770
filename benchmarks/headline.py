"""How fast our planned net answers beside everything one would do with the dense one.

Slow devices are this machine with every computation of an engine stretched by a stated factor: its
own speed on the dense net over that of the device's profile. The server is a process at full speed,
the link a shaped one, with rate, round trip and jitter of its profile (losses are not emulated, and
not planned for). Ways: the dense net on the edge in float32 and in int8; PNG and JPEG to a server
that runs it (the lowest quality that loses at most 0.3 points of held-out accuracy); its best split
without exits, as Neurosurgeon (ASPLOS 2017) would choose it from the same measured costs; and our
net under the plan that `presplit plan` chooses, from held-out samples alone. The dense ways are
written by hand, with nothing around them; ours goes through the edge as users have it. Encoding
runs at this machine's speed for all. Accuracy is that of the very plan on the whole test set.
Energy is the profile's watts for what the edge computed and encoded, and the link's for what it
sent.

``planned_s`` is the mean that the planner expected, where it chose. Nets are rows of ``accuracy``;
``--keep FOLDER`` keeps trained nets and bundles.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks import _headline as how
from benchmarks._headline import LOST, Line, Pair, Taken
from benchmarks.accuracy import KEPT, NETS
from presplit.bundle import Bundle
from presplit.core.costs import Device
from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.lab.slow_device import Slowed
from presplit.plan.limits import Limits
from presplit.plan.scenario import Scenario, scenario
from presplit.plan.search import choose
from presplit.profiles import DEVICES, LINKS

ALL_DEVICES = ("raspberry-pi-4", "raspberry-pi-zero-2", "esp32-s3")
ALL_LINKS = (
    *("nb-iot", "lte-m", "3g", "dsl", "lte", "wifi-busy", "5g", "wifi", "fast-ethernet"),
    "ethernet",
)
QUICK_LINKS = ("lte-m", "lte", "ethernet")
PAIRS = {
    "clothes": ("clothes wide parent", "clothes wide exits"),
    "cifar10": ("cifar10 parent", "cifar10 wide exits"),
    "cifar10 wide": ("cifar10 wide parent", "cifar10 wide exits"),
}
"""The dense net and ours, rows of ``accuracy``."""
OURS = "presplit"
FASTER, SHARE, SLOWER = 2.0, 0.8, 1.03
"""Ours is to be so many times faster on such a share of links, and nowhere slower than that."""
DIFFER = 0.01
"""A share of timed answers that may differ from those of batches: ties, rounded another way."""


def run(
    quick: bool,
    *,
    nets: tuple[str, ...] = ("clothes", "cifar10"),
    devices: tuple[str, ...] = ALL_DEVICES,
    links: tuple[str, ...] = ALL_LINKS,
    seed: int = 0,
    confidence: float = 0.95,
    keep: str = "",
    plot: str = "",
) -> dict[str, Any]:
    """One row for each net, device, link and way; ``quick``: one, one, three, and a few answers.

    ``nets``: names of `PAIRS`, or two rows of ``accuracy`` as DENSE:OURS. ``confidence`` is that of
    our plan's accuracy; 0 believes the held-out samples as they are. ``plot`` is the file of a
    drawing, as SVG, of the first net.
    """
    torch.set_num_threads(1)
    if quick:
        nets = nets[:1]
        devices = devices[:1] if devices == ALL_DEVICES else devices
        links = QUICK_LINKS if links == ALL_LINKS else links
    pairs = {name: _pair(name) for name in nets}
    rows: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if keep:
            os.environ[KEPT] = keep
        for name, (dense, ours) in pairs.items():
            pair = how.made(
                dense,
                ours,
                seed=seed,
                keep=Path(keep or folder),
                held_out=500 if quick else None,
                seconds=8.0 if quick else 30.0,
            )
            table = _Table(pair, name, quick, confidence or None)
            behind = [_link(each) for each in links]
            found = table.rows([DEVICES.find(each) for each in devices], behind)
            rows += found
            checks += [*checks_of(found), table.check()]
    if plot:
        draw([row for row in rows if row["net"] == nets[0]], plot)
    return {"rows": rows, "checks": checks}


def _pair(name: str) -> tuple[str, str]:
    """The rows of ``accuracy`` of the dense net and of ours."""
    dense, ours = PAIRS[name] if name in PAIRS else (*name.split(":"), "", "")[:2]
    for each in (dense, ours):
        if each not in NETS:
            raise SpecError(
                f"nets: there are {', '.join(PAIRS)}, or DENSE:OURS of {', '.join(NETS)}, got "
                f"{name!r}"
            )
    return dense, ours


def draw(rows: Sequence[Mapping[str, Any]], file: str) -> None:
    """The rows as an SVG file that stands alone, legible on white and on black."""
    from presplit.report.charts import alone
    from presplit.report.plots import times_over_links

    Path(file).write_text(alone(times_over_links(rows)), encoding="utf-8")


def _link(name: str) -> Link:
    """The profile without losses, which a shaper of streams cannot make."""
    return msgspec.structs.replace(LINKS.find(name), loss=0.0)


@dataclass(eq=False)
class _Table:
    """Measures the rows; what was measured or judged before is not measured again."""

    pair: Pair
    net: str
    quick: bool
    confidence: float | None
    judged: dict[tuple[object, ...], Any] = field(default_factory=dict)
    compared: list[bool] = field(default_factory=list)
    alone: dict[object, Taken] = field(default_factory=dict)

    def rows(self, devices: Sequence[Device], links: Sequence[Link]) -> list[dict[str, Any]]:
        """All rows: link by link, so that what no device computes is measured once."""
        found: list[dict[str, Any]] = []
        with ExitStack() as opened:
            lines = [
                opened.enter_context(how.line(each)) for each in (self.pair.dense, self.pair.ours)
            ]
            alone = {device.name: self._alone(device) for device in devices}
            for link in links:
                for each in lines:
                    each.be(link)
                sent = self._sent(lines[0])
                for device in devices:
                    rows = self._of(device, link, lines, {**alone[device.name], **sent})
                    found += rows
                    for row in rows:
                        print(json.dumps(row), file=sys.stderr, flush=True)
        return found

    def factor(self, device: Device) -> float:
        """How many times slower than this machine the device is on the dense net."""
        return max(1.0, self.pair.macs_per_s / device.macs_per_s)

    def check(self) -> dict[str, Any]:
        """Whether what was timed answered as in batches."""
        share = 1 - sum(self.compared) / len(self.compared)
        name = f"{self.net}: timed answers that differ from those in batches"
        return {"name": name, "value": share, "target": f"<= {DIFFER}", "ok": share <= DIFFER}

    def _alone(self, device: Device) -> dict[str, tuple[Plan, Taken]]:
        """The ways of the dense net that ask nobody."""
        last = self.pair.dense.net.last
        plans = {
            "dense edge": Plan(last),
            "dense int8 edge": Plan(last, form="int8", server_form="int8"),
        }
        return {way: (plan, self._dense(plan, device)) for way, plan in plans.items()}

    def _sent(self, line: Line) -> dict[str, tuple[Plan, Taken]]:
        """The ways in which the device computes nothing."""
        plans = {
            f"{codec} to dense{'' if form == how.PLAIN else f' {form}'}": Plan(
                0, codec=codec, server_form=form
            )
            for codec in dict.fromkeys(("png", self.pair.jpeg))
            for form in how.FORMS
        }
        return {way: (plan, self._dense(plan, None, line)) for way, plan in plans.items()}

    def _of(
        self,
        device: Device,
        link: Link,
        lines: Sequence[Line],
        found: dict[str, tuple[Plan, Taken]],
    ) -> list[dict[str, Any]]:
        """The rows of one device behind one link."""
        split = how.best_split(self._scenario(self.pair.dense, device, link))
        if split.split == self.pair.dense.net.last:
            found["dense split"] = split, found["dense edge"][1]
        else:
            found["dense split"] = split, self._dense(split, device, lines[0])
        mine = self._chosen(device, link)
        asks = None if mine.split == self.pair.ours.net.last else lines[1]
        taken = self._taken(how.planned, self.pair.ours, mine, device, asks)
        rows = [self._row(device, link, way, self.pair.dense, *each) for way, each in found.items()]
        return [*rows, self._row(device, link, OURS, self.pair.ours, mine, taken)]

    def _chosen(self, device: Device, link: Link) -> Plan:
        """Our plan: the planner's, so that held-out accuracy stays near the dense net's."""
        dense, ours = self.pair.held
        limits = Limits(max_drop=max(0.0, ours - dense + LOST), confidence=self.confidence)
        return choose(self._scenario(self.pair.ours, device, link), limits)

    def _scenario(self, bundle: Bundle, device: Device, link: Link) -> Scenario:
        costs = self.pair.ours_costs if bundle is self.pair.ours else self.pair.dense_costs
        return scenario(
            bundle,
            device=device,
            link=link,
            server="server-cpu",
            edge_costs=how.slower(costs, self.factor(device), device),
            server_costs=costs,
        )

    def _dense(self, plan: Plan, device: Device | None, line: Line | None = None) -> Taken:
        return self._taken(how.bare, self.pair.dense, plan, device, line)

    def _taken(
        self,
        opening: how.Open,
        bundle: Bundle,
        plan: Plan,
        device: Device | None,
        line: Line | None,
    ) -> Taken:
        alone = (bundle.path, device, *how.key_of(plan)) if line is None else None
        if alone in self.alone:  # no link changes it
            return self.alone[alone]
        load = Slowed(1.0 if device is None else self.factor(device))
        taken = how.taken(
            opening,
            bundle,
            plan,
            self.pair.test.x,
            load=load,
            line=line,
            limit_s=2.0 if self.quick else 8.0,
            most=100 if self.quick else 400,
        )
        labels = how.labels_of(bundle, plan, self.pair.test.x[list(taken.places)])
        self.compared += (labels == taken.labels).tolist()
        if alone is not None:
            self.alone[alone] = taken
        return taken

    def _labels(self, bundle: Bundle, plan: Plan) -> Any:
        """What the plan answers to the test set; of a quick run, to about a thousand images."""
        key = (bundle.path, *how.key_of(plan))
        if key not in self.judged:
            self.judged[key] = how.labels_of(bundle, plan, self.pair.test.x[:: self._step])
        return self.judged[key]

    @property
    def _step(self) -> int:
        return max(1, len(self.pair.test) // 1000) if self.quick else 1

    def _row(
        self, device: Device, link: Link, way: str, bundle: Bundle, plan: Plan, taken: Taken
    ) -> dict[str, Any]:
        right = self._labels(bundle, plan) == self.pair.test.y[:: self._step]
        costs = self.pair.ours_costs if bundle is self.pair.ours else self.pair.dense_costs
        return {
            "net": self.net,
            "device": device.name,
            "factor": self.factor(device),
            "link": link.name,
            "way": way,
            **taken.cells(),
            "energy_j": taken.joules(plan, costs, device, link),
            "accuracy": float(right.mean()),
            "planned_s": 0.0 if plan.expected is None else plan.expected.mean_s,
            "answers": len(taken.seconds),
            "plan": how.words(plan, bundle),
        }


def checks_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is asked of ours, net by net and device by device."""
    made: list[dict[str, Any]] = []
    for net, device in dict.fromkeys((row["net"], row["device"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["device"]) == (net, device)]
        told = f"{net}, {device}"
        made += [{**check, "name": f"{told}: {check['name']}"} for check in _of_device(mine)]
    return made


def _of_device(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    links = list(dict.fromkeys(row["link"] for row in rows))
    ours = {row["link"]: row for row in rows if row["way"] == OURS}
    others = {name: [r for r in rows if r["link"] == name and r["way"] != OURS] for name in links}
    fastest = {name: min(others[name], key=lambda row: row["mean_s"]) for name in links}
    gains = {
        key: [min(row[key] for row in others[name]) / ours[name][key] for name in links]
        for key in ("mean_s", "p50_s")
    }
    both = [min(each) for each in zip(*gains.values(), strict=True)]
    least = functools.partial(_check, at_least=True)
    enough = sum(gain >= FASTER for gain in both)
    lost = [
        max(row["accuracy"] for row in others[name] if row["way"] == "dense edge")
        - ours[name]["accuracy"]
        for name in links
    ]
    more = [ours[name]["up_bytes"] - fastest[name]["up_bytes"] for name in links]
    joules = [ours[name]["energy_j"] / fastest[name]["energy_j"] for name in links]
    return [
        least(
            f"links of {len(links)} on which it is twice as fast, mean and median",
            enough,
            SHARE * len(links),
        ),
        least("times as fast as the best of the others, least", min(both), 1 / SLOWER),
        _check("bytes more than the fastest of the others, most", max(more), 0.0),
        _check("energy over that of the fastest of the others, most", max(joules), 1.0),
        _check("accuracy lost against the dense net, most", max(lost), LOST),
    ]


def _check(name: str, value: float, target: float, *, at_least: bool = False) -> dict[str, Any]:
    sign = ">=" if at_least else "<="
    ok = value >= target if at_least else value <= target
    return {"name": name, "value": value, "target": f"{sign} {target:.4g}", "ok": ok}
