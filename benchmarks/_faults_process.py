"""Promises of processes: a server that is stopped, replaced, used for long; a training killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from benchmarks._faults import Row, Rows, serving


def drained(quick: bool) -> Iterator[Row]:
    """An idle server ends by itself."""
    with serving() as server:
        harm = server.harm()
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = server.process.wait(15)
        took = time.monotonic() - began
    yield Row(
        22,
        "an idle server ends on SIGTERM",
        harm or f"exit {code} after {took:.1f} s",
        1,
        not harm and code == 0,
    )


PARTS: dict[int, Rows] = {22: drained}
