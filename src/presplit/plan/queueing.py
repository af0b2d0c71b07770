"""What a request waits for at a busy server: the M/M/c queue as a distribution.

Requests come at random at a mean rate, ``workers`` serve one each at a time, service times are
exponential. Source: Erlang's C formula (1917); given that one waits, the wait is exponential with
the rate ``workers / service_s - load_per_s``.
"""

from __future__ import annotations

import numpy as np

from presplit.core.errors import PlanError
from presplit.core.times import Times

DRAWS = 1000
"""Evenly spaced quantiles that stand for the wait."""


def must_wait(load: float, workers: int) -> float:
    """The probability that a request finds all workers busy; ``load`` is the mean of busy ones.

    >>> must_wait(0.5, 1), round(must_wait(1.0, 2), 4)
    (0.5, 0.3333)
    """
    blocked = 1.0  # Erlang's B, from no worker on
    for count in range(1, workers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))


def wait(*, load_per_s: float, service_s: float, workers: int = 1) -> Times:
    """What a request waits until a worker is free, its own service left out.

    ``load_per_s``: requests a second of all clients; ``service_s``: the mean time of serving one.
    Raises `PlanError` where more comes than can be served: the wait would grow without end.

    >>> wait(load_per_s=10, service_s=0.05).within(0.0), wait(load_per_s=0, service_s=1).draws_s
    (0.5, (0.0,))
    """
    if load_per_s < 0 or service_s < 0 or workers < 1:
        raise PlanError(
            "expected a load and a service time of at least 0 and at least 1 worker, got "
            f"{load_per_s} requests a second, {service_s} s and {workers} workers"
        )
    load = load_per_s * service_s
    if load >= workers:
        raise PlanError(
            f"{load_per_s:g} requests a second of {service_s:g} s each keep {load:.3g} workers "
            f"busy, and there are {workers}: the wait grows without end; add workers or take load "
            "away"
        )
    if load == 0:
        return Times.of(0.0)
    busy = must_wait(load, workers)
    free_per_s = workers / service_s - load_per_s
    # The share that waits longer than t is busy * exp(-free_per_s * t).
    longer = 1 - (np.arange(DRAWS) + 0.5) / DRAWS
    return Times.of(np.maximum(0.0, np.log(busy / longer) / free_per_s).tolist())
