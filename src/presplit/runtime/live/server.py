"""What a page shows of a server: a watcher that counts requests, and the server's own word."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import Any

from presplit.runtime.live.lately import Key, Lately, shares
from presplit.runtime.live.times import told
from presplit.runtime.live.words import SERVER
from presplit.runtime.serving.process import Told
from presplit.runtime.serving.served import Served

MOST_CLIENTS = 32
"""So many clients are told apart; the rest are counted together."""
OTHERS = "others"
IN_FULL: Key = ("what", "in full")
REFUSED: Key = ("what", "no answer")


class ServerLive:
    """Counts a server's requests: it is its watcher, ``serve(watch=live, told=live.know)``."""

    def __init__(self) -> None:
        self._lately = Lately()
        self._clients = set[str]()
        self._told: Told | None = None
        self._lock = threading.Lock()

    def know(self, told: Told) -> None:
        """Learn what the server is made of, before it starts."""
        self._told = told

    def __call__(self, served: Served) -> None:
        """Count one request."""
        with self._lock:
            if len(self._clients) < MOST_CLIENTS:
                self._clients.add(served.client)
            client = served.client if served.client in self._clients else OTHERS
        is_full = served.why == "server"
        is_answer = bool(served.down_bytes)
        keys: list[Key] = [("why", served.why), ("client", client)]
        if served.model:
            keys.append(("model", served.model))
        if is_full:
            keys.append(IN_FULL)
        if not is_answer:
            keys.append(REFUSED)
        self._lately.add(served.seconds if is_answer else None, *keys)

    def now(self) -> dict[str, Any]:
        """All that is known at this moment, ready for JSON; ``docs/live.md`` says what is what."""
        recent, whole = self._lately.recent(), self._lately.kinds.copy()
        return {
            "kind": "server",
            "process": os.getpid(),
            "at": time.time(),
            "up_s": self._lately.up_s,
            "answers": self._lately.count - whole[REFUSED],
            "per_s": recent.per_s,
            "refused": {"recent": recent.kinds[REFUSED], "whole": whole[REFUSED]},
            "times": told(self._lately, recent),
            "whys": shares("why", recent.kinds, whole, SERVER),
            "models": shares("model", recent.kinds, whole),
            "clients": shares("client", recent.kinds, whole),
            "seconds": self._lately.seconds(IN_FULL, REFUSED),
            **self._own(),
        }

    def _own(self) -> dict[str, Any]:
        """What the server itself counts."""
        if self._told is None:
            return {"name": "starting", "bundles": {}, "broken": {}}
        catalogue, crew = self._told.catalogue, Counter(self._told.crew.told())
        batches = self._told.tally.now().batches
        runs = sum(batches.counts)
        bundles = {key: str(each.path) for key, each in list(catalogue.bundles.items())}
        return {
            "name": ", ".join(sorted(each.rpartition("-")[0] for each in bundles)),
            "bundles": bundles,
            "broken": {str(path): str(error) for path, error in list(catalogue.broken.items())},
            "inside": self._told.door.inside,
            "waiting": crew["inside"],
            "crew": dict(crew),
            "runs": runs,
            "batch": batches.total / runs if runs else 0.0,
        }
