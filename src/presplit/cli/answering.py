"""What ``presplit run`` does with samples, and what it says when it is over."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from json import dumps
from typing import TYPE_CHECKING

from presplit.cli.options import say
from presplit.core import units

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Floats
    from presplit.runtime.feeding.ledger import Ledger
    from presplit.runtime.feeding.lines import Line, Lines, Tally
    from presplit.runtime.feeding.sample import Sample
    from presplit.runtime.feeding.taking import Taking

DEGRADED, BAD = 3, 4
"""Exit codes: every answer was degraded; some samples have no answer."""
FAR = 50
"""Spans that differ by more than so many times are told.

Photographs differ by less, 0..1 and 0..255 by more.
"""
SHOWN = 16
"""Samples that are looked at before a span is told."""


class Stop(Exception):
    """The first bad sample, with ``--strict``."""


class Printer:
    """Prints lines; with ``strict`` the first one with an error is the last."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._is_told = False
        self._printed = deque[object](maxlen=1024)
        self._changed = threading.Condition()

    def __call__(self, line: Line) -> None:
        """Print one line; raises `Stop` after a bad one if that is to be the end."""
        with self._changed:
            print(dumps(line), flush=True)
            self._printed.append(line["sample"])
            is_first = not self._is_told and line.get("kept") is False
            self._is_told |= is_first
            self._changed.notify_all()
        if is_first:
            say("the ledger cannot take this answer, nor perhaps others (kept: false); they go on")
        if self._strict and "error" in line:
            raise Stop

    def waits_for(self, sample: int, seconds: float) -> bool:
        """Whether the line of this sample was printed of late, or is within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: sample in self._printed, seconds)


class Scale:
    """Tells once if samples have a range far from that of those the net was exported with.

    Bytes that were never scaled have such a range.
    """

    def __init__(self, bundle: Bundle) -> None:
        seen = bundle.manifest.ports[0].encodings.get("int8")
        self._span = None if seen is None else 255 * seen.scale
        self._low = self._high = 0.0
        self._left = SHOWN
        self._lock = threading.Lock()

    def see(self, x: Floats) -> None:
        """Look at one sample."""
        with self._lock:
            if self._left <= 0:
                return
            self._low = min(self._low, float(x.min()))
            self._high = max(self._high, float(x.max()))
            self._left -= 1
            if self._left == 0:
                self._tell()

    def end(self) -> None:
        """Tell what was seen of fewer samples."""
        if self._left > 0:
            self._left = 0
            self._tell()

    def _tell(self) -> None:
        own, span = self._high - self._low, self._span
        if span is None or not 0 < own < math.inf or span / FAR < own < span * FAR:
            return
        say(
            f"the samples' values span {own:.3g}, those that the net was exported with "
            f"{span:.3g}: are they scaled alike? (only uint8 is scaled here, to 0..1)"
        )


def paced(samples: Iterable[Sample], rate: float | None) -> Iterable[Sample]:
    """The samples, ``rate`` a second at most."""
    return samples if rate is None else _paced(samples, rate)


def _paced(samples: Iterable[Sample], rate: float) -> Iterator[Sample]:
    began = time.monotonic()
    for number, sample in enumerate(samples):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield sample


@contextmanager
def stoppable() -> Generator[None]:
    """SIGTERM ends what is done inside as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def over_http(port: int, lines: Lines, taking: Taking, printer: Printer, *, streams: int) -> None:
    """Answer what is posted to ``port`` until Ctrl-C or SIGTERM."""
    from presplit.runtime.feeding.loopback import Loopback

    ask = _asker(lines, taking, printer, streams)
    server = Loopback(port, ask)
    say(f"POST an image, a .wav or a .npy file to {server.address}; stop with Ctrl-C")
    try:
        server.run()
    finally:
        server.close()


def _asker(
    lines: Lines, taking: Taking, printer: Printer, streams: int
) -> Callable[[bytes, str | None], tuple[int, dict[str, object]]]:
    """What gives the status and the line for a body; ``streams`` of them are answered at once."""
    import itertools
    import uuid

    from presplit.runtime.feeding.sample import Sample

    numbers, room = itertools.count(), threading.BoundedSemaphore(streams)

    def ask(body: bytes, id_: str | None) -> tuple[int, dict[str, object]]:
        named: dict[str, object] = {} if id_ is None else {"id": id_}
        sample = Sample(id_ or uuid.uuid4().hex, named, lambda: taking.raw(body))
        with room:
            (line,) = lines.kept([lines.of(next(numbers), sample)])
        try:
            printer(line)
        except Stop:
            return 400, line
        return (400 if "error" in line else 200), line

    return ask


def sum_up(tally: Tally, *, took_s: float) -> None:
    """Say how many answers were given why and by which rows."""
    why = ", ".join(f"{count} {why}" for why, count in tally.whys.most_common())
    bad = f", {units.counted(tally.bad, 'bad sample')}" if tally.bad else ""
    degraded = f", {tally.degraded} degraded" if tally.degraded else ""
    answers = units.counted(tally.answers, "answer")
    say(f"{answers} in {took_s:.2f} s ({why or 'none'}){degraded}{bad}")
    if "torch" in sys.modules:
        say("torch was loaded, which no edge needs")
    if tally.skipped:
        say(f"{tally.skipped} more were answered before, by the ledger, and not asked again")
    if tally.rows:
        used = ", ".join(f"{count} by row {row}" for row, count in sorted(tally.rows.items()))
        say(f"of the table: {used}")


def sum_up_ledger(ledger: Ledger) -> None:
    """Say what the ledger holds, and what it could not keep."""
    gone = f"; {ledger.gone:,} older ones had to go" if ledger.gone else ""
    say(f"{ledger.path} holds {len(ledger):,} answers{gone}")
    if ledger.missed:
        say(
            f"{ledger.missed:,} answers could not be written there ({ledger.problem}); their lines "
            "say kept: false"
        )


def code_of(tally: Tally) -> int:
    """The exit code for what became of the samples."""
    if tally.bad:
        return BAD
    is_degraded = tally.answers > 0 and tally.degraded == tally.answers
    return DEGRADED if is_degraded else 0
