"""How a page is told of times."""

from __future__ import annotations

from presplit.runtime.live.lately import Lately, Recent


def told(lately: Lately, recent: Recent) -> dict[str, dict[str, float]]:
    """The median and the 99th percentile of the last seconds and of all, and the longest of all."""
    spread = lately.spread()
    return {
        "recent": {"p50_s": recent.spread.p50_s, "p99_s": recent.spread.p99_s},
        "whole": {
            "p50_s": spread.p50_s,
            "p99_s": spread.p99_s,
            "longest_s": lately.longest_s,
        },
    }
