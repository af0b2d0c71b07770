"""What several threads count is counted once each, however they take turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.core.types import Answer
from presplit.runtime import Edge
from presplit.runtime.feeding.ledger import Ledger
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.upstreams.guard import Guarded
from presplit.runtime.watching import ROOM, Watching

ANSWER = Answer(0, np.zeros(4, np.float32), "final", "edge", "planned", 0.0, 0, False, 1, None)
THREADS, TIMES = 4, 3


class Slow(int):
    """A number that takes its time to grow: who reads it meanwhile reads the old one."""

    def __add__(self, other: int) -> Slow:
        found = Slow(int(self) + other)
        time.sleep(0.002)
        return found


def together(call: Callable[[], object]) -> None:
    """Call it by several threads, several times each."""
    threads = [
        threading.Thread(target=lambda: [call() for _ in range(TIMES)]) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_answers_probes_and_what_was_missed_are_each_counted(
    bundle: Bundle, tmp_path: Path
) -> None:
    image = np.zeros(16, np.float32)
    with Edge.open(bundle, plan=Plan(bundle.net.last)) as edge:
        edge._whys["planned"] = Slow(0)
        together(lambda: edge.answer(image))
        assert edge.counts["answers planned"] == THREADS * TIMES

    class Gone:
        """A server that nobody reaches."""

        def greet(self, name: str) -> None: ...

        def ask(self, request: Request, until: float) -> Any:
            return Failure("link_down", "UNAVAILABLE")

        def close(self) -> None: ...

    guard = Guarded(Gone)
    guard.counts["probes"] = Slow(0)
    request = Request("small", np.zeros((1, 12), np.float32), 4)
    together(lambda: guard._asked_once(Gone(), request))
    assert guard.counts["probes"] == THREADS * TIMES

    busy, goes_on = threading.Event(), threading.Event()

    def watch(answer: Answer) -> None:
        busy.set()
        goes_on.wait(5)

    watching = Watching[Answer](watch)
    watching.see(ANSWER)
    assert busy.wait(5)
    for _ in range(ROOM):
        watching.see(ANSWER)
    watching.missed = Slow(0)
    together(lambda: watching.see(ANSWER))
    goes_on.set()
    assert watching.missed == THREADS * TIMES
    watching.close()

    with Ledger(tmp_path / "answers.db") as ledger:
        ledger._told = Slow(0)
        together(lambda: ledger(ANSWER))
        assert len(ledger) == THREADS * TIMES
    ledger.missed = Slow(0)
    together(lambda: ledger.put("1.jpg", {}))
    assert ledger.missed == THREADS * TIMES
