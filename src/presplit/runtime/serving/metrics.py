"""What Prometheus reads of a server: the tally's counts in its words, made when it asks.

The counters of its library take a lock and a look-up for each label at each request; here a request
costs what `presplit.runtime.serving.tally` does, and the library is used when somebody reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from presplit.core.errors import library
from presplit.runtime.serving.tally import Counts, Histogram

KIND = "text/plain; version=0.0.4; charset=utf-8"
"""The type of the text."""


class Metrics:
    """Writes what is counted; raises `MissingLibrary` if Prometheus' library is not there."""

    def __init__(self) -> None:
        self._library: Any = library("prometheus_client", need="/metrics", extra="serve")
        self._core: Any = library("prometheus_client.core", need="/metrics", extra="serve")
        self._process: Any = self._library.CollectorRegistry()
        self._library.ProcessCollector(registry=self._process)

    def text(
        self,
        counts: Counts,
        *,
        bundles: Mapping[str, str],
        gauges: Mapping[str, float],
        crew: Mapping[str, int],
    ) -> bytes:
        """All of it: ``counts``, the hashes of ``bundles``, ``gauges`` and the crew's counts."""
        registry = self._library.CollectorRegistry()
        registry.register(_Given([*self._requests(counts), *self._others(bundles, gauges, crew)]))
        found: bytes = self._library.generate_latest(registry)
        return found + self._library.generate_latest(self._process)

    def _requests(self, counts: Counts) -> list[Any]:
        """What became of requests, and what they took."""
        core = self._core
        requests = core.CounterMetricFamily(
            "presplit_requests", "Requests by what became of them.", labels=("model", "why", "exit")
        )
        for key, count in counts.requests.items():
            requests.add_metric(key, count)
        found = [requests]
        for name, text, table in (
            ("presplit_received_bytes", "Bytes of the arrays that came.", counts.up_bytes),
            ("presplit_sent_bytes", "Bytes of the logits that went back.", counts.down_bytes),
        ):
            family = core.CounterMetricFamily(name, text, labels=("model",))
            for model, count in table.items():
                family.add_metric((model,), count)
            found.append(family)
        for name, text, histograms in (
            ("presplit_request_seconds", "From coming in to the answer.", counts.seconds),
            ("presplit_request_samples", "Samples in a request.", counts.samples),
        ):
            found.append(self._histogram(name, text, histograms))
        for name, text, one in (
            ("presplit_wait_seconds", "From coming in to being computed.", counts.waited),
            ("presplit_compute_seconds", "Runs of engines.", counts.compute),
            ("presplit_batch_samples", "Samples in a run of an engine.", counts.batches),
        ):
            family = core.HistogramMetricFamily(name, text)
            family.add_metric((), *_buckets(one))
            found.append(family)
        return found

    def _others(
        self, bundles: Mapping[str, str], gauges: Mapping[str, float], crew: Mapping[str, int]
    ) -> list[Any]:
        """What is served, what is so now, and what the crew counts."""
        core = self._core
        info = core.GaugeMetricFamily(
            "presplit_bundle_info", "1 for each bundle.", labels=("bundle", "sha256")
        )
        for key, sha256 in bundles.items():
            info.add_metric((key, sha256), 1)
        admission = core.CounterMetricFamily(
            "presplit_admission", "Requests by what admission made of them.", labels=("what",)
        )
        for what, count in crew.items():
            admission.add_metric((what,), count)
        found = [info, admission]
        for name, value in gauges.items():
            found.append(core.GaugeMetricFamily(f"presplit_{name}", GAUGES[name], value=value))
        return found

    def _histogram(self, name: str, text: str, histograms: Mapping[str, Histogram]) -> Any:
        """A histogram for each model."""
        family = self._core.HistogramMetricFamily(name, text, labels=("model",))
        for model, histogram in histograms.items():
            family.add_metric((model,), *_buckets(histogram))
        return family


GAUGES = {
    "inside": "Requests that are inside now, waiting or computed.",
    "ready": "1 while the server is ready.",
    "bundles_broken": "Bundles on disk that cannot be served as they are.",
    "log_missed": "Lines of the log that nobody read in time.",
}
"""What each gauge says."""


class _Given:
    """A collector of what is given."""

    def __init__(self, families: Iterable[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        """All of it."""
        return self._families


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """A histogram's buckets, each with all below it, and its sum."""
    found, seen = list[tuple[str, float]](), 0
    edges = [*map(str, histogram.edges), "+Inf"]
    for edge, count in zip(edges, histogram.counts, strict=True):
        seen += count
        found.append((edge, seen))
    return found, histogram.total
