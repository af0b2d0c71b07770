"""A slower device than this one: every computation of an engine takes a stated factor as long.

What an engine computes is computed as ever, and its result is kept back until so many times its
time have passed: most of that asleep, so that others get the processor as they would beside another
machine, the last part awake, because sleeping is not exact. Memory, caches and the ratio of one
operator to another stay those of this machine.

``python -m presplit.lab.slow_device BUNDLE --factor 4`` is `presplit serve` on such a device. It
prints one line of JSON with its address and takes orders as lines of JSON on standard input:
``{"factor": 1}``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from presplit.core.errors import PresplitError, SpecError
from presplit.core.types import Runnable
from presplit.runtime.engines import DEFAULT, ENGINES, Arrays, Engine, Load, Stop, Stopped
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.process import Started
from presplit.runtime.serving.server import serve

PACE_RUNS, PACES = 9, 5
"""Runs in a row that tell what an engine takes when nothing has to wake up, and how often.

A neighbour that takes the processor away is not seen in the least of several.
"""
AWAKE_S = 0.0003
"""The last part of a wait is spent awake: a sleep of Linux ends up to so much too late."""


class Slowed:
    """Makes engines that take ``factor`` times as long as those of ``load``.

    ``factor`` is 1 or more, and may be assigned anew at any time: runs that begin then go by it.
    Raises `SpecError` for another one. What waking up and a busy neighbour take is stretched with
    the rest, unless the device is ``steady``: then an engine always takes ``factor`` times what it
    takes here when it is run again and again.

    >>> Slowed(0.5)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: factor must be a number from 1 to 10000, got 0.5
    """

    def __init__(
        self, factor: float, *, steady: bool = False, load: Load = ENGINES[DEFAULT]
    ) -> None:
        self.factor, self.steady = factor, steady
        self._load = load

    @property
    def factor(self) -> float:
        """How many times as long as without it a computation takes."""
        return self._factor

    @factor.setter
    def factor(self, value: float) -> None:
        if not 1 <= value <= 10_000:
            raise SpecError(f"factor must be a number from 1 to 10000, got {value}")
        self._factor = float(value)

    def __call__(self, runnable: Runnable, threads: int) -> Engine:
        """The engine of ``runnable``, as slow as it is asked to be."""
        return _SlowEngine(self._load(runnable, threads), self)


class _SlowEngine:
    """See `Slowed`."""

    def __init__(self, inner: Engine, slowed: Slowed) -> None:
        self._inner, self._slowed = inner, slowed
        self._paces = dict[tuple[int, ...], float]()

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        """As inside, later; a run is stopped while it waits, too."""
        factor, began = self._slowed.factor, time.perf_counter()
        found = self._inner.run(inputs, stop=stop)
        took_s = self._pace_s(inputs) if self._slowed.steady else time.perf_counter() - began
        until = began + factor * took_s
        stopped = threading.Event()
        if stop is not None:
            stop.ends(stopped.set)
        stopped.wait(max(0.0, until - AWAKE_S - time.perf_counter()))
        while time.perf_counter() < until and not stopped.is_set():
            pass
        if stopped.is_set():
            raise Stopped("the run was stopped")
        return found

    def _pace_s(self, inputs: Arrays) -> float:
        """What inputs of such shapes take here, by `warm_s`, found once."""
        shapes = tuple(size for name in sorted(inputs) for size in inputs[name].shape)
        if shapes not in self._paces:
            self._paces[shapes] = warm_s(lambda: self._inner.run(inputs))
        return self._paces[shapes]


def warm_s(run: Callable[[], object]) -> float:
    """The median seconds of `PACE_RUNS` calls of ``run`` in a row, the least of `PACES` such."""
    medians = list[float]()
    for _ in range(PACES):
        took = list[float]()
        for _ in range(PACE_RUNS):
            began = time.perf_counter()
            run()
            took.append(time.perf_counter() - began)
        medians.append(statistics.median(took))
    return min(medians)


class Order(Struct, forbid_unknown_fields=True):
    """One line of standard input: how slow to be from now on."""

    factor: Annotated[float, Meta(ge=1, le=10_000)]


def _obey_standard_input(slowed: Slowed) -> None:
    """Each line is an order; a wrong one is answered on standard error and changes nothing."""
    for line in sys.stdin:
        try:
            slowed.factor = msgspec.json.decode(line, type=Order).factor
        except (msgspec.MsgspecError, UnicodeError) as error:
            print(f'an order is one line of JSON such as {{"factor": 4}}: {error}', file=sys.stderr)


def _say(started: Started) -> None:
    print(msgspec.json.encode({"address": started.address}).decode(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve from the command line; exit code 2 and one sentence for what a user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m presplit.lab.slow_device", description="Serve a bundle on a slowed device."
    )
    parser.add_argument("bundle")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    parser.add_argument("--factor", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        slowed = Slowed(chosen.factor)
        threading.Thread(target=_obey_standard_input, args=(slowed,), daemon=True).start()
        config = Config(port=chosen.port, threads=chosen.threads)
        serve(chosen.bundle, config, load=slowed, ready=_say)
    except PresplitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
