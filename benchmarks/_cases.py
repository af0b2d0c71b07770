"""What the benchmark of planning measures: answers of real edges, over shaped links, by many ways.

A way is a split, a codec and a form of each side; no exit answers. The edge is in this process, its
engines slowed by a stated factor; the tail server and the shaped link are processes. Answers of all
ways are interleaved in an order drawn anew each round, each after the rest that the costs were
measured with, so that a slow second of the machine falls on all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks._bundles import KINDS
from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device
from presplit.core.link import Link
from presplit.core.plans import Estimate, Plan
from presplit.core.types import Floats, Runnable
from presplit.lab.processes import running
from presplit.lab.slow_device import Slowed
from presplit.plan.choose import fastest
from presplit.plan.evaluate import evaluate
from presplit.plan.limits import Limits
from presplit.plan.scenario import Scenario, scenario
from presplit.runtime import Edge
from presplit.runtime.engines import DEFAULT, ENGINES, Engine, Load
from presplit.runtime.measuring.measure import measure
from presplit.runtime.measuring.rounds import BURST
from presplit.runtime.upstream import Failure, Pending, Request, Upstream
from presplit.runtime.wire.client import Client

DEADLINE_S = 60.0
"""So long that every reply is waited for."""
ROOM = Device("here", macs_per_s=1e9, memory_bytes=1e12, power_w=1.0)
FREE = Limits(max_drop=1.0, confidence=None)
"""Nets that were trained for seconds promise no accuracy: the fastest way is asked for."""
WARM_UPS = 3

LINKS = (
    Link("0.1 Mbit/s, 150 ms", up_bps=0.1e6, down_bps=0.1e6, rtt_s=0.15),
    Link("2 Mbit/s, 30 ms", up_bps=2e6, down_bps=2e6, rtt_s=0.03),
    Link("10 Mbit/s, 20 ms, jitter 5 ms", up_bps=10e6, down_bps=10e6, rtt_s=0.02, jitter_s=0.005),
    Link("100 Mbit/s, 1 ms", up_bps=100e6, down_bps=100e6, rtt_s=0.001),
    Link("0.5 Mbit/s, 60 ms, jitter 10 ms", up_bps=5e5, down_bps=1e6, rtt_s=0.06, jitter_s=0.01),
    Link("5 Mbit/s, 10 ms", up_bps=5e6, down_bps=5e6, rtt_s=0.01),
    Link("30 Mbit/s, 5 ms, jitter 2 ms", up_bps=30e6, down_bps=30e6, rtt_s=0.005, jitter_s=0.002),
    Link("200 Mbit/s, 2 ms", up_bps=200e6, down_bps=200e6, rtt_s=0.002),
)
QUICK_LINKS = 4


class Way(NamedTuple):
    """One way to answer, no exit in use."""

    split: int
    codec: str
    form: str
    server_form: str

    def plan(self) -> Plan:
        """The way as a plan that waits for every reply."""
        split, codec, form, server_form = self
        return Plan(split, codec=codec, form=form, server_form=server_form, deadline_s=DEADLINE_S)

    def __str__(self) -> str:
        return f"{self.split} {self.codec} {self.form}/{self.server_form}"


@dataclass(frozen=True)
class Subject:
    """A bundle with what it costs on the slowed edge and on the server."""

    name: str
    bundle: Bundle
    slowed: Slowed
    edge: Costs
    server: Costs

    def scenario(self, link: Link) -> Scenario:
        """What the planner goes by."""
        return scenario(
            self.bundle,
            device=ROOM,
            link=link,
            server=ROOM,
            edge_costs=self.edge,
            server_costs=self.server,
        )

    def sample(self) -> Floats:
        """One made-up input."""
        shape = self.bundle.net.boundaries[0].shape
        return np.random.default_rng(1).random(shape, dtype=np.float32)


def subject(name: str, bundle: Bundle, seconds: float) -> Subject:
    """``bundle`` measured on a slowed edge and, in half the time, as the server runs it."""
    slowed = Slowed(KINDS[name].factor, load=_loaded_once())
    edge = measure(bundle, seconds=seconds, load=slowed)
    server = measure(bundle, seconds=seconds / 2)
    say(f"{name}: measured, precision {edge.precision:.3f} and {server.precision:.3f}")
    return Subject(name, bundle, slowed, edge, server)


def _loaded_once() -> Load:
    """Engines by their model: ways share stretches, and edges of all links share engines."""
    made: dict[tuple[bytes, int], Engine] = {}

    def load(runnable: Runnable, threads: int) -> Engine:
        key = (runnable.onnx, threads)
        if key not in made:
            made[key] = ENGINES[DEFAULT](runnable, threads)
        return made[key]

    return load


def expectations(found: Scenario) -> dict[Way, Estimate]:
    """What the planner expects of every way without exits."""
    expected: dict[Way, Estimate] = {}
    for block in evaluate(found, no_thresholds(found)):
        (plan,) = block.plans(np.array([0]))
        assert plan.expected is not None
        expected[Way(plan.split, plan.codec, plan.form, plan.server_form)] = plan.expected
    return expected


def chosen(found: Scenario) -> Way:
    """The way that the planner takes where no exit may answer."""
    best = fastest(found, FREE, grids=no_thresholds(found))
    assert best is not None
    plan = best.plan(deadline_s=None)
    return Way(plan.split, plan.codec, plan.form, plan.server_form)


def no_thresholds(found: Scenario) -> list[Floats]:
    """Grids by which no exit answers."""
    return [np.array([], np.float32)] * len(found.early)


class Switched:
    """An upstream that is another one for each link; edges keep it."""

    def __init__(self) -> None:
        self.to: Upstream | None = None

    def greet(self, name: str) -> None:
        """Connecting begins with the first request."""

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """As the upstream of the moment."""
        assert self.to is not None
        return self.to.ask(request, until)

    def close(self) -> None:
        """Nothing is held here."""


class Ground:
    """Edges of one subject for all ways, opened as they are asked for, and their answers.

    Closed by ``with``. ``server`` is where its tails are hosted.
    """

    def __init__(self, about: Subject, server: str) -> None:
        self.about, self.server = about, server
        self._switched = Switched()
        self._edges: dict[Way, Edge] = {}
        self._sample = about.sample()

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *_: object) -> None:
        for edge in self._edges.values():
            edge.close()

    @contextlib.contextmanager
    def over(self, link: Link) -> Iterator[None]:
        """``link`` lies before the server."""
        with running("presplit.lab.shaper", *shape(self.server, link)) as (address, _):
            client = Client(address, patience_s=DEADLINE_S)
            self._switched.to = client
            try:
                yield
            finally:
                client.close()

    def warm(self, way: Way) -> None:
        """Open the edge and have the tail loaded."""
        for _ in range(WARM_UPS):
            self.seconds(way)

    def seconds(self, way: Way) -> float:
        """What one answer takes, after a rest."""
        return self.answer(way)[0]

    def answer(self, way: Way) -> tuple[float, Floats]:
        """What one answer takes, after a rest, and its scores."""
        edge = self._edge(way)
        time.sleep(self.about.edge.pause_s)
        answer = edge.answer(self._sample)
        last = way.split == self.about.bundle.net.last
        if not last and answer.where != "server":
            raise RuntimeError(f"{self.about.name}, {way}: answered by the edge: {answer.why}")
        return answer.elapsed_s, np.asarray(answer.scores)

    def rounds(
        self, ways: Sequence[Way], *, least: int, most: int, seconds: float
    ) -> dict[Way, list[float]]:
        """What answers take by each of ``ways``, for about so many seconds.

        In each round each way answers a few times in a row, as an edge with a plan does; the first
        of those is not counted.
        """
        took: dict[Way, list[float]] = {way: [] for way in ways}
        random, ends = np.random.default_rng(0), time.monotonic() + seconds
        for done in range(0, most, BURST):
            if done >= least and time.monotonic() > ends:
                break
            for place in random.permutation(len(ways)).tolist():
                self.seconds(ways[place])
                took[ways[place]] += [self.seconds(ways[place]) for _ in range(BURST)]
        return took

    def _edge(self, way: Way) -> Edge:
        """The edge for ``way``; its stretches are not slowed while it is opened."""
        if way not in self._edges:
            slowed, factor = self.about.slowed, self.about.slowed.factor
            slowed.factor = 1.0
            self._edges[way] = Edge.open(
                self.about.bundle, upstream=self._switched, plan=way.plan(), load=slowed
            )
            slowed.factor = factor
        return self._edges[way]


def serving(bundle: Bundle) -> tuple[str, ...]:
    """The words of a server that keeps the tails of all ways at hand."""
    return ("presplit", "serve", str(bundle.path), "--port", "0", "--keep-mb", "4000", "--json")


def shape(server: str, link: Link) -> tuple[str, ...]:
    """The words of a shaper before ``server``."""
    numbers = {
        "--up-bps": link.up_bps,
        "--down-bps": link.down_bps,
        "--rtt-s": link.rtt_s,
        "--jitter-s": link.jitter_s,
    }
    words = [word for name, value in numbers.items() for word in (name, str(value))]
    return ("--target", server, *words)


@dataclass
class Case:
    """A subject behind a link: what the planner expects, and what was seen of some ways."""

    about: Subject
    link: Link
    expected: dict[Way, Estimate]
    chosen: Way
    seen: dict[Way, list[float]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def median_s(self) -> dict[Way, float]:
        """The median of each way that was measured well."""
        return {way: statistics.median(took) for way, took in self.seen.items()}

    def noise(self, way: Way) -> float:
        """How far the medians of every other answer lie apart, as a share of the median."""
        took = self.seen[way]
        # Every other round, not every other answer: those of one round are alike.
        round_of = np.arange(len(took)) // BURST % 2
        one, other = (np.median(np.array(took)[round_of == half]) for half in (0, 1))
        halves = float(abs(one - other))
        return halves / self.median_s[way]


def finalists(ground: Ground, case: Case, most: int, answers: int) -> list[Way]:
    """The fastest ``most`` ways by a few answers of each, expectations left aside.

    Ways are tried from the fewest bytes on; what the bytes alone take longer than the best whole
    answer cannot be the best.
    """
    link, best = case.link, float("inf")
    least: dict[Way, float] = {}
    for way in sorted(case.expected, key=lambda way: case.expected[way].up_bytes):
        nbytes = case.expected[way].up_bytes
        if nbytes and link.rtt_s + link.up_s(nbytes) > best:
            continue
        ground.seconds(way)
        least[way] = min(ground.seconds(way) for _ in range(answers))
        best = min(best, least[way])
    return sorted(least, key=lambda way: least[way])[:most]


def say(line: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def joined(ways: Iterable[Way]) -> list[Way]:
    """Each of ``ways`` once."""
    return list(dict.fromkeys(ways))
