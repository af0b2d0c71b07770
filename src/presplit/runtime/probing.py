"""Small requests and runs beside the traffic, where the traffic itself does not show enough.

An edge that answers everything itself would never hear that the link is back, and one that sends
everything on never that it is faster than it was. So where nothing was seen for a while, and
answers are wanted, a probe goes: one sample of noise by the row that sends the least, and one run
of a stretch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from presplit.core.errors import EngineError
from presplit.core.plans import Row
from presplit.core.types import Floats
from presplit.runtime.estimate import LAST, Estimate
from presplit.runtime.head import Stretch
from presplit.runtime.sending import Sending
from presplit.runtime.trip import Trip
from presplit.runtime.upstream import Failure
from presplit.runtime.walk import Walk

FIRST_S, EVERY_S = 0.1, 1.0
"""Seconds without evidence after which a probe goes, and the next ones, each after twice as long.

What was seen last may be a stall, or the first time of all, so it is looked at again soon.
"""
SHARE = 0.05
"""Of the link's and of the processor's time probes take so much at most."""
PATIENCE_S = 2.0
"""How long the reply of a probe is waited for."""
LEAST_RUN_S = 0.001
"""A stretch that takes less says little of how fast this machine is."""


@dataclass(frozen=True)
class Probe:
    """What is sent and what is run: each None where nothing is sent or run by any row."""

    row: Row
    sending: Sending | None
    codes: Floats | None
    stretch: Stretch | None
    values: Floats | None


class Probing:
    """Probes on a thread of its own, when `wake` finds that it is time; ends with `close`."""

    def __init__(self, probe: Probe, estimate: Estimate) -> None:
        self._probe, self._estimate = probe, estimate
        self._wanted = threading.Event()
        self._ended = False
        self._link_at = self._run_at = 0.0
        self._heard, self._patience_s = 0.0, FIRST_S
        self._thread = threading.Thread(target=self._work, name="probing", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Probe if it is time to; returns at once."""
        now = time.monotonic()
        if self._link_due(now) or self._run_due(now):
            self._wanted.set()

    def close(self) -> None:
        """Probe no more; a probe that is on its way is not waited for."""
        self._ended = True
        self._wanted.set()

    def _link_due(self, now: float) -> bool:
        if self._probe.sending is None:
            return False
        if self._estimate.heard_at != self._heard:
            self._heard, self._patience_s = self._estimate.heard_at, FIRST_S
        return now - self._heard >= self._patience_s and now >= self._link_at

    def _run_due(self, now: float) -> bool:
        unseen = now - self._estimate.computed_at >= EVERY_S
        return self._probe.stretch is not None and unseen and now >= self._run_at

    def _work(self) -> None:
        """Probe whenever it is wanted."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ended:
                return
            now = time.monotonic()
            if self._run_due(now):
                self._run()
            if self._link_due(now):
                self._ask()

    def _run(self) -> None:
        """Run the stretch as often as it takes to be believed."""
        probe, first = self._probe, time.monotonic()
        assert probe.stretch is not None and probe.values is not None, "it is due"
        self._run_at = first + EVERY_S
        for _ in range(LAST // 2 + 1):
            trip, began = Trip(), time.monotonic()
            try:
                probe.stretch.run(probe.values)
            except EngineError:
                return  # the next answer tells its caller
            trip.ran(time.monotonic() - began, probe.stretch.seconds)
            self._estimate.learn(probe.row, trip)
        self._run_at = first + max(EVERY_S, (time.monotonic() - first) / SHARE)

    def _ask(self) -> None:
        """Send the noise once."""
        probe, trip, began = self._probe, Trip(), time.monotonic()
        assert probe.sending is not None and probe.codes is not None, "it is due"
        asked, nbytes = probe.sending.ask(probe.codes, began + PATIENCE_S)
        if isinstance(asked, Failure):
            trip.unasked(asked)
        else:
            trip.asks(nbytes)
            reply = asked.wait(began + PATIENCE_S)
            trip.heard(asked, reply)
            asked.cancel()
        occupied_s = min(PATIENCE_S, 8 * nbytes / self._estimate.sound_bps)
        self._link_at = began + occupied_s / SHARE
        if not self._ended:
            self._estimate.learn(probe.row, trip)
            self._heard = self._estimate.heard_at
            self._patience_s = min(EVERY_S, 2 * self._patience_s)


def probe_of(walks: Sequence[Walk], rows: Sequence[Row]) -> Probe:
    """The cheapest probe of the walks of ``rows``."""
    sendings = {
        number: walk.sending
        for number, walk in enumerate(walks)
        if walk.sending is not None and walk.sending.asks
    }
    ways = [stretch for walk in walks for stretch in walk.way]
    telling = [stretch for stretch in ways if stretch.seconds >= LEAST_RUN_S]
    stretch = min(telling or ways, key=lambda one: one.seconds, default=None)
    if not telling and ways:
        stretch = max(ways, key=lambda one: one.seconds)
    number = min(sendings, key=lambda one: rows[one].up_bytes, default=0)
    sending = sendings.get(number)
    return Probe(
        row=rows[number],
        sending=sending,
        codes=None if sending is None else noise(sending.shape),
        stretch=stretch,
        values=None if stretch is None else noise(stretch.shape),
    )


def noise(shape: Sequence[int]) -> Floats:
    """One sample of values in 0..1, float32 ``(1, *shape)``, always the same."""
    return np.random.default_rng(0).random((1, *shape), dtype=np.float32)
