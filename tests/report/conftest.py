"""What the demo hands over: one row for each way, and a timeline across an outage."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    ways = {
        "edge": 0.0,
        "server": 784.0,
        "split": 400.0,
        "split+exit": 110.0,
        "split+exit+outage": 90.0,
    }
    numbers = {
        "accuracy": 0.975,
        "edge_share": 0.7,
        "mean_s": 0.0042,
        "p50_s": 0.0012,
        "p99_s": 0.031,
        "edge_bytes": 18480,
        "edge_macs": 1e6,
    }
    return [{"way": way, "up_bytes": sent, **numbers} for way, sent in ways.items()]


@pytest.fixture
def timeline() -> list[dict[str, Any]]:
    whys = ["confident", "server", "late", "link_down"]
    return [
        {"t_s": k / 10, "elapsed_s": 0.001 * (1 + k % 30), "why": whys[k % 4]} for k in range(120)
    ]
