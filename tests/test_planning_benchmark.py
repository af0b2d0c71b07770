"""What the benchmark of planning computes itself: the baselines, as their papers say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from presplit.core.link import Link

ROOT = str(Path(__file__).parents[1])


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    from benchmarks import _choosing

    return _choosing


def test_a_regression_finds_the_law_that_times_follow_and_no_negative_weight(choosing) -> None:
    random = np.random.default_rng(0)
    features = np.stack([np.ones(12), *random.uniform(1, 100, (2, 12))], axis=1)
    law = np.array([0.5, 0.02, 0.1])
    assert choosing.regression(features, features @ law) == pytest.approx(law)
    rising = choosing.regression(features, 1 + features[:, 1])
    assert (choosing.regression(features, 200 - features[:, 1]) >= 0).all() and rising[2] == 0


def test_the_exhaustive_baseline_takes_the_split_of_the_least_sum(choosing) -> None:
    edge_s, server_s = np.array([0.01, 0.1]), np.array([0.001, 0.01])
    boundary_bytes = np.array([10_000.0, 1_000.0, 40.0])

    def split(rtt_s: float, up_bps: float) -> int:
        link = Link("link", up_bps=up_bps, down_bps=up_bps, rtt_s=rtt_s)
        return choosing.best_split(edge_s, server_s, boundary_bytes, link).split

    assert [split(0.01, 1e9), split(0.01, 1e6), split(0.2, 1e6)] == [0, 1, 2]
