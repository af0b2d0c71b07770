"""The wait at a busy server agrees with requests that are served one by one."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from presplit.core.errors import PlanError
from presplit.plan import wait
from presplit.plan.queueing import must_wait


@pytest.mark.parametrize(("load_per_s", "workers"), [(5.0, 1), (12.0, 2), (26.0, 4)])
def test_the_wait_is_that_of_a_simulated_queue(load_per_s: float, workers: int) -> None:
    random = np.random.default_rng(7)
    count, service_s = 150_000, 0.1
    arrives = np.cumsum(random.exponential(1 / load_per_s, count))
    takes = random.exponential(service_s, count)
    free = [0.0] * workers
    waits = np.empty(count)
    for number in range(count):
        starts = max(arrives[number], heapq.heappop(free))
        waits[number] = starts - arrives[number]
        heapq.heappush(free, starts + takes[number])
    told = wait(load_per_s=load_per_s, service_s=service_s, workers=workers)
    # A simulated queue is itself uncertain: its draws depend on one another.
    assert told.within(0.0) == pytest.approx((waits == 0).mean(), abs=0.02)
    assert told.mean_s == pytest.approx(waits.mean(), rel=0.1)
    assert told.quantile(0.9) == pytest.approx(np.quantile(waits, 0.9), rel=0.1)


def test_one_worker_is_busy_as_often_as_it_is_loaded() -> None:
    assert [must_wait(load, 1) for load in (0.0, 0.25, 0.9)] == pytest.approx([0.0, 0.25, 0.9])


def test_a_load_without_end_is_refused() -> None:
    with pytest.raises(PlanError, match=r"20 requests a second of 0\.1 s each keep 2 workers busy"):
        wait(load_per_s=20, service_s=0.1, workers=2)
    with pytest.raises(PlanError, match="at least 1 worker, got"):
        wait(load_per_s=1, service_s=0.1, workers=0)
