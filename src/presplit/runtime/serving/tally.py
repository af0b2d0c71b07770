"""Counts of what a server served: few numbers under one lock, read when somebody asks.

A counter of Prometheus' library costs microseconds for each label; these cost one look-up.
"""

from __future__ import annotations

import copy
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from presplit.core.types import Runnable
from presplit.runtime.engines import Arrays, Engine, Load, Stop
from presplit.runtime.serving.echo import PREFIX
from presplit.runtime.serving.served import Served

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper edges of the buckets of times."""
SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Upper edges of the buckets of batches."""


@dataclass
class Histogram:
    """How many values fell into each bucket (the last is above all edges), and their sum."""

    edges: Sequence[float]
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Count one more value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def join(self, counts: Sequence[int], total: float) -> None:
        """Count those of another one with the same edges."""
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.total += total

    def copy(self) -> Histogram:
        """The same now, whatever is added later."""
        return Histogram(self.edges, list(self.counts), self.total)

    def quantile(self, q: float) -> float:
        """The upper edge of the bucket in which the quantile lies; 0 if it is empty.

        >>> h = Histogram((1.0, 2.0))
        >>> [h.add(v) for v in (0.5, 1.5, 1.6)] and (h.quantile(0.5), h.quantile(0.1))
        (2.0, 1.0)
        """
        wanted, seen = q * sum(self.counts), 0
        for count, edge in zip(self.counts, [*self.edges, float("inf")], strict=True):
            seen += count
            if count and seen >= wanted:
                return edge
        return 0.0


@dataclass(frozen=True)
class Counts:
    """A `Tally` at one moment: requests by (model, why, exit), and what they took."""

    requests: dict[tuple[str, str, str], int]
    seconds: dict[str, Histogram]
    samples: dict[str, Histogram]
    up_bytes: dict[str, int]
    down_bytes: dict[str, int]
    waited: Histogram
    compute: Histogram
    batches: Histogram

    @property
    def by_why(self) -> dict[str, int]:
        """Requests by what became of them."""
        found: Counter[str] = Counter()
        for (_, why, _), count in self.requests.items():
            found[why] += count
        return dict(found)

    @property
    def all_seconds(self) -> Histogram:
        """What answers took, whatever the model."""
        found = Histogram(SECONDS)
        for each in self.seconds.values():
            found.join(each.counts, each.total)
        return found


@dataclass(slots=True)
class _Row:
    """What became of the requests of one model in one way."""

    count: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    total_s: float = 0.0
    samples: int = 0
    by_seconds: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    by_samples: list[int] = field(default_factory=lambda: [0] * (len(SIZES) + 1))


class Tally:
    """Counts what it is told: a watcher of a `Door`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._refused = 0
        self._waited, self._compute = Histogram(SECONDS), Histogram(SECONDS)
        self._batches = Histogram(SIZES)

    def __call__(self, served: Served) -> None:
        """Count one request that was let in."""
        model, _, why, seconds, batch, up_bytes, down_bytes, exit_ = served
        with self._lock:
            row = self._rows.get((model, why, exit_))
            if row is None:
                row = self._new_row(model, why, exit_)
            row.count += 1
            row.up_bytes += up_bytes
            row.down_bytes += down_bytes
            row.total_s += seconds
            row.samples += batch
            row.by_seconds[bisect_left(SECONDS, seconds)] += 1
            row.by_samples[bisect_left(SIZES, batch)] += 1

    def _new_row(self, model: str, why: str, exit_: str) -> _Row:
        # An echo's name says how long its reply is: as many names as lengths.
        name = PREFIX if model.startswith(PREFIX) else model
        return self._rows.setdefault((name, why, exit_), _Row())

    def refuse(self) -> None:
        """Count one request that never got in, because it was not what any model takes."""
        with self._lock:
            self._refused += 1

    def waited(self, seconds: float) -> None:
        """Count one request that is computed from now on."""
        with self._lock:
            self._waited.add(seconds)

    def computed(self, samples: int, seconds: float) -> None:
        """Count one run of an engine."""
        with self._lock:
            self._compute.add(seconds)
            self._batches.add(samples)

    def now(self) -> Counts:
        """The counts at this moment."""
        with self._lock:
            rows = {key: copy.deepcopy(row) for key, row in self._rows.items()}
            once = (self._waited.copy(), self._compute.copy(), self._batches.copy())
            refused = self._refused
        found = Counts({}, {}, {}, {}, {}, *once)
        if refused:
            found.requests["", "refused", ""] = refused
        for (model, why, exit_), row in rows.items():
            found.requests[model, why, exit_] = row.count
            found.up_bytes[model] = found.up_bytes.get(model, 0) + row.up_bytes
            found.down_bytes[model] = found.down_bytes.get(model, 0) + row.down_bytes
            samples = found.samples.setdefault(model, Histogram(SIZES))
            samples.join(row.by_samples, row.samples)
            if row.down_bytes:
                found.seconds.setdefault(model, Histogram(SECONDS)).join(
                    row.by_seconds, row.total_s
                )
        return found


class Timed:
    """Makes the engines of ``load``, and counts in ``tally`` what every run of one takes."""

    def __init__(self, load: Load, tally: Tally) -> None:
        self._load, self._tally = load, tally

    def __call__(self, model: Runnable, threads: int) -> Engine:
        """The engine of ``model``, counted."""
        return _TimedEngine(self._load(model, threads), self._tally)


class _TimedEngine:
    """See `Timed`."""

    def __init__(self, inner: Engine, tally: Tally) -> None:
        self._inner, self._tally = inner, tally

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        """As inside."""
        began = time.perf_counter()
        found = self._inner.run(inputs, stop=stop)
        samples = len(next(iter(inputs.values())))
        self._tally.computed(samples, time.perf_counter() - began)
        return found
