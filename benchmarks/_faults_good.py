"""A good client as a process, until its input ends.

Its words: ``ADDRESS MODEL RATE DEADLINE_S GOLDEN_HEX KEYS``.
It sends at its rate whatever becomes of the replies, and prints what it saw as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._faults import channel, good_request
from presplit.runtime.wire import messages


class _Client:
    """One channel, and what became of each request."""

    def __init__(self, connected: grpc.Channel, model: str, deadline_s: float, golden: bytes):
        self._raw = good_request(model).SerializeToString()
        self._infer: Any = connected.unary_unary(messages.path("ModelInfer"))
        self._golden, self._deadline_s = np.frombuffer(golden, np.float32), deadline_s
        self.statuses: Counter[str] = Counter()
        self.took: list[float] = []
        self.refused: list[float] = []
        self.wrong = 0
        self._lock = threading.Lock()

    def first(self) -> None:
        """One request that may take its time: the connection is made with it."""
        self._infer(self._raw, timeout=10)

    def send(self) -> Any:
        """One request on its way."""
        began = time.monotonic()
        call = self._infer.future(self._raw, timeout=self._deadline_s)
        call.add_done_callback(lambda done: self._ended(done, time.monotonic() - began))
        return call

    def _ended(self, call: Any, took: float) -> None:
        with self._lock:
            self.statuses[call.code().name] += 1
            if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refused.append(took)
            if call.code() is grpc.StatusCode.OK:
                self.took.append(took)
                reply = messages.ModelInferResponse.FromString(call.result())
                logits = np.frombuffer(reply.raw_output_contents[0], np.float32)
                # Computed in a batch with others, the last bits may differ.
                self.wrong += not np.allclose(logits, self._golden, rtol=1e-4, atol=1e-5)


def main(words: list[str]) -> None:
    """Send until the standard input ends."""
    address, model, rate, deadline_s, golden, keys = words
    connected = channel(address, Path(keys) if keys else None)
    client = _Client(connected, model, float(deadline_s), bytes.fromhex(golden))
    client.first()
    print("{}", flush=True)
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    calls, began = [], time.monotonic()
    due = began
    while not ended.wait(max(0.0, due - time.monotonic())):
        calls.append(client.send())
        due += 1 / float(rate)
    seconds = time.monotonic() - began
    until = time.monotonic() + float(deadline_s) + 5
    while sum(client.statuses.values()) < len(calls) and time.monotonic() < until:
        time.sleep(0.01)
    seen = {
        "n": len(calls),
        "answered": client.statuses["OK"],
        "wrong": client.wrong,
        "p99_s": p99(client.took or [float(deadline_s)]),
        "refused_p99_s": p99(client.refused or [0.0]),
        "seconds": seconds,
        "statuses": dict(client.statuses),
    }
    print(json.dumps(seen), flush=True)


def p99(took: list[float]) -> float:
    """What 99 of 100 stay below."""
    return sorted(took)[int(0.99 * (len(took) - 1))]


if __name__ == "__main__":
    main(sys.argv[1:])
