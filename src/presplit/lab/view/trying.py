"""A plan tried for real in three seconds: an edge here, a shaped link, a server in its own process.

The edge's engines are made as slow as its device, the server's as slow as its own. Samples leave at
the exits as often as the held-out samples did, in whatever order: which exit is sure of a sample is
told to it, what it takes is measured.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec
import numpy as np

from presplit.core.errors import PresplitError, ServerError
from presplit.core.link import Link
from presplit.core.types import Answer, Floats, Runnable
from presplit.lab.processes import Process, address_of, end, start
from presplit.lab.slow_device import Slowed
from presplit.lab.view.here import PAUSE_S
from presplit.lab.view.place import Asked, Places
from presplit.lab.view.predict import plan_of
from presplit.plan.parts import answers, block_of
from presplit.runtime.edge import Edge
from presplit.runtime.engines import DEFAULT, ENGINES, Arrays, Engine, Stop
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, Pending, Request, Upstream
from presplit.runtime.upstreams.servers import guarded

RUN_S = 2.6
"""How long after it was asked for answers are begun; what was begun is over by `LAST_S`."""
LAST_S = 2.9
MOST = 60
STEADY_S = 0.005
"""A net that is faster than this is slowed by what it takes awake, without what wakes it up."""
GOLDEN = 0.6180339887498949
OPEN_LINK = {"up_bps": 1e10, "down_bps": 1e10, "rtt_s": 0.0, "jitter_s": 0.0}
"""The link while an edge connects: what is measured begins after that."""
TOLD = 1e-9


class Try(contextlib.AbstractContextManager["Try"]):
    """A server and a shaped link for ``places``, each a process, from the first `run` on.

    `warm` starts them before. They are killed at the end; a run that lasts then fails.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._processes = list[Process]()
        self._address = ""
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for process in self._processes:
            process.kill()  # whoever waits for what it says is woken
        with self._lock:  # what was being started is there now
            for process in self._processes:
                end(process)

    def warm(self) -> None:
        """Start the server and the link on a thread; what goes wrong is told by `run`."""

        def go() -> None:
            with contextlib.suppress(PresplitError), self._lock:
                self._start()

        threading.Thread(target=go, name="warming", daemon=True).start()

    def run(self, wish: Asked) -> dict[str, Any]:
        """What answers take under the plan that is asked for, as values for JSON.

        Raises `ServerError` if the server cannot be started.
        """
        with self._lock:
            return self._run(wish)

    def _run(self, wish: Asked) -> dict[str, Any]:
        began, places = time.perf_counter(), self._places
        found = places.scenario(wish)
        block = block_of(found, plan_of(found, wish))
        plan = msgspec.structs.replace(
            block.plans(np.array([0]))[0], expected=None, fallback="exit"
        )
        leaving = answers(block)
        edge, server = places.side(wish.device), places.side(wish.server)
        notes: list[str] = []
        load = _Steered(_slowed(edge.factor, places.here.warm_s, wish.device, notes))
        up: _Timed | None = None
        with contextlib.ExitStack() as opened:
            if plan.split < found.net.last:
                self._start()
                _order(self._processes[1], {**OPEN_LINK, "outage": False})
                _order(self._processes[0], {"factor": _least(server.factor, wish.server, notes)})
                up = _Timed(guarded(self._address, patience_s=60.0, credentials=None))
                opened.callback(up.close)
            edge_here = opened.enter_context(Edge(places.net.bundle, plan, upstream=up, load=load))
            seen = _Seen(load, up, edge_here, [*leaving], [*leaving.values()], places.net.samples)
            seen.one(30.0)  # connected, and the tail is ready
            if up is not None:
                _order(self._processes[1], _shape(found.link, notes))
                time.sleep(0.02)
            load.begin()
            given = seen.all(wish.deadline_s, began=began)
        return _told(given, wish, notes)

    def _start(self) -> None:
        """The processes, unless they run already."""
        if self._closed:
            raise ServerError("the page is closed")
        if self._processes and all(one.poll() is None for one in self._processes):
            return
        for process in self._processes:
            end(process)
        path = str(self._places.net.bundle.path)
        server = start("presplit.lab.slow_device", path, "--factor", "1")
        self._processes = [server]
        shaper = start("presplit.lab.shaper", "--target", address_of(server))
        self._processes.append(shaper)
        self._address = address_of(shaper)


@dataclass(frozen=True)
class _One:
    """One answer, and what its parts took: engines, the rest of the edge, the link, the server."""

    answer: Answer
    head_s: float
    own_s: float
    link_s: float
    server_s: float


class _Steered:
    """Makes engines whose early exits are sure of a sample if, and only if, they are told to be.

    ``leaves`` is the exit at which the next sample leaves; ``took_s`` counts what engines took.
    """

    def __init__(self, slowed: tuple[Slowed, float]) -> None:
        self._slowed, self._factor = slowed
        self.leaves = ""
        self.took_s = 0.0

    def begin(self) -> None:
        """Be as slow as the device from now on: opening needs no patience."""
        self._slowed.factor = self._factor

    def __call__(self, runnable: Runnable, threads: int) -> Engine:
        return _SteeredEngine(self._slowed(runnable, threads), runnable.logits, self)


class _SteeredEngine:
    """See `_Steered`."""

    def __init__(self, inner: Engine, logits: Mapping[str, str], steered: _Steered) -> None:
        self._inner, self._logits, self._steered = inner, logits, steered

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        """As inside; logits are certain or equal."""
        began = time.perf_counter()
        found = dict(self._inner.run(inputs, stop=stop))
        for name, tensor in self._logits.items():
            told = np.zeros_like(found[tensor])
            told[:, 0] = 50.0 * (name == self._steered.leaves)
            found[tensor] = told
        self._steered.took_s += time.perf_counter() - began
        return found


class _Timed:
    """An upstream that notes what was waited for, and what of it the server says it took."""

    def __init__(self, inner: Upstream) -> None:
        self._inner = inner
        self.waited_s = self.server_s = 0.0

    def greet(self, name: str) -> None:
        """As inside."""
        self._inner.greet(name)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """As inside, timed."""
        asked = self._inner.ask(request, until)
        return asked if isinstance(asked, Failure) else _TimedPending(asked, self)

    def close(self) -> None:
        """As inside."""
        self._inner.close()


class _TimedPending:
    """See `_Timed`."""

    def __init__(self, inner: Pending, timed: _Timed) -> None:
        self._inner, self._timed = inner, timed
        self._began = time.perf_counter()

    @property
    def server_s(self) -> float | None:
        """As inside."""
        return self._inner.server_s

    def wait(self, until: float) -> Reply | Failure:
        """As inside."""
        reply = self._inner.wait(until)
        self._timed.waited_s = time.perf_counter() - self._began
        self._timed.server_s = self._inner.server_s or 0.0
        return reply

    def cancel(self) -> None:
        """As inside."""
        self._inner.cancel()


@dataclass(frozen=True)
class _Seen:
    """An edge that is asked one sample after another."""

    load: _Steered
    up: _Timed | None
    edge: Edge
    names: list[str]
    shares: list[float]
    samples: Floats
    counted: list[int] = field(default_factory=list)

    def one(self, deadline_s: float) -> _One:
        """The next sample's answer."""
        number = len(self.counted)
        self.counted.append(number)
        # Spread evenly whatever the number: each exit gets its share of few answers too.
        place = int(np.searchsorted(np.cumsum(self.shares), (number * GOLDEN + 0.5) % 1.0))
        self.load.leaves = self.names[min(place, len(self.names) - 1)]
        self.load.took_s = 0.0
        if self.up is not None:
            self.up.waited_s = self.up.server_s = 0.0
        sample = self.samples[number % len(self.samples)]
        answer = self.edge.answer(sample, deadline_s=deadline_s)
        waited_s = 0.0 if self.up is None else self.up.waited_s
        server_s = 0.0 if self.up is None else min(self.up.server_s, waited_s)
        head_s = self.load.took_s
        own_s = max(0.0, answer.elapsed_s - head_s - waited_s)
        return _One(answer, head_s, own_s, waited_s - server_s, server_s)

    def all(self, deadline_s: float | None, *, began: float) -> list[_One]:
        """As many answers as there are in the time, which runs since ``began``."""
        found = list[_One]()
        self.counted.clear()
        while len(found) < MOST and time.perf_counter() - began < RUN_S:
            left_s = max(0.1, LAST_S - (time.perf_counter() - began))
            one = self.one(left_s if deadline_s is None else min(deadline_s, left_s))
            if deadline_s is not None or one.answer.why in ("confident", "planned", "server"):
                found.append(one)
            # The machine rests as it does while a link keeps it waiting.
            time.sleep(max(0.0, PAUSE_S - one.link_s))
        return found


def _slowed(factor: float, here_s: float, name: str, notes: list[str]) -> tuple[Slowed, float]:
    """What makes engines, at first as fast as here, and the factor for later."""
    least = _least(factor, name, notes)
    steady = least > 1 and here_s < STEADY_S
    return Slowed(1.0, steady=steady, load=ENGINES[DEFAULT]), least


def _least(factor: float, name: str, notes: list[str]) -> float:
    """A factor that this machine can be slowed by."""
    if factor < 1 - TOLD:
        notes.append(
            f"{name} would be {1 / factor:.3g} times as fast as this machine, which stands for it "
            "unslowed"
        )
    return min(10_000.0, max(1.0, factor))


def _shape(link: Link, notes: list[str]) -> dict[str, float]:
    """``link`` as an order to the shaper."""
    if link.loss:
        notes.append(f"{link.name} loses packets; the link here delays and does not lose them")
    if link.window_bytes is not None:
        notes.append(f"{link.name} begins with a small window; the link here does not")
    rtt_s = link.rtt_s if link.rtt_draws is None else link.rtt_draws.quantile(0.5)
    return {
        "up_bps": link.up_bps,
        "down_bps": link.down_bps,
        "rtt_s": rtt_s,
        "jitter_s": link.jitter_s if link.rtt_draws is None else 0.0,
    }


def _order(process: Process, order: Mapping[str, object]) -> None:
    """Tell ``process`` one order."""
    assert process.stdin is not None, "it was started with a pipe"
    process.stdin.write(msgspec.json.encode(order).decode() + "\n")
    process.stdin.flush()


def _told(found: list[_One], wish: Asked, notes: list[str]) -> dict[str, Any]:
    """The answers in numbers."""
    if not found:
        return {"answers": 0, "notes": [*notes, "no answer was there within three seconds"]}
    elapsed = np.array([one.answer.elapsed_s for one in found])
    means = {
        "head": ("edge", np.mean([one.head_s for one in found])),
        "edge's own, encode": ("edge", np.mean([one.own_s for one in found])),
        "link and messages": ("link", np.mean([one.link_s for one in found])),
        "tail": ("server", np.mean([one.server_s for one in found])),
    }
    in_time = None if wish.deadline_s is None else float((elapsed <= wish.deadline_s).mean())
    return {
        "answers": len(found),
        "mean_s": float(elapsed.mean()),
        "p50_s": float(np.quantile(elapsed, 0.5)),
        "p99_s": float(np.quantile(elapsed, 0.99)),
        "in_time": in_time,
        "seconds": sorted(elapsed.tolist()),
        "parts": [{"name": name, "of": of, "s": float(s)} for name, (of, s) in means.items()],
        "ends": dict(_counted(found)),
        "notes": notes,
    }


def _counted(found: list[_One]) -> Iterator[tuple[str, int]]:
    """How many answers each exit gave, with the reason where it was none of the planned ones."""
    seen: dict[str, int] = {}
    for one in found:
        why = one.answer.why
        planned = why in ("confident", "planned", "server")
        name = one.answer.exit if planned else f"{one.answer.exit} ({why})"
        seen[name] = seen.get(name, 0) + 1
    yield from seen.items()
