"""A guard before a server: who cannot be reached, or would be late, is not asked.

After some misses in a row the breaker opens, and requests fail at once: no answer waits for a
server that is gone or hangs. Meanwhile a thread beside the answers finds out when it is back: it
knocks (`presplit.runtime.upstreams.knocking`), connects anew, and sends the last request again as a
probe, about once a second at most. Besides: a request fails at once that even the
fastest of the last replies would be too slow for, that the server has refused as such, that comes
before an overloaded server wants to be asked again, or that is
one too many; and one that found no connection is sent once more if time and a budget allow it.

Sources: circuit breaker, M. Nygard, "Release It!"; the budget of retries is gRPC's (gRFC A6).
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

from presplit.core.errors import PresplitError
from presplit.core.types import Why
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, OnChange, Pending, Request, Upstream
from presplit.runtime.upstreams.knocking import knock

OPENS_AFTER = 3
"""Misses in a row after which the server is not asked any more."""
MISSES: tuple[Why, ...] = ("late", "link_down", "bad_reply", "failed")
"""What counts as one: an overload is told by a server that lives, and so is a refusal."""
PROBE_S = 15.0
"""How long the reply to a probe is waited for: a server that hung answers it when it goes on."""
MOST_PROBES = 8
"""So many wait at once at most."""
LONG_S = 0.02
"""A probe that took longer is followed by another: it may have waited for a connection."""
EVERY_S = (1.0, 1.3)
"""Between the beginnings of two probes, drawn anew each time so that many edges do not meet."""
SOON_S = (0.25, 0.35)
"""Between the first two: who has just begun to listen may not be ready."""
REFUSED_S = 10.0
"""A model that the server refused is not asked for again so long."""
KEPT = 8
"""Of the last replies for a model so many are remembered."""
HOPELESS = 0.8
"""A reply takes at least such a share of the fastest of these."""
MOST_AWAY_S = 1.0
"""So long a server that is overloaded is left alone if it asks for that or more."""
MOST = 64
"""Requests on their way at once."""
TOKENS, PER_REPLY = 10.0, 0.1
"""Retries that may be saved up, and what a reply earns: with many failures there are none."""


class Guarded:
    """What ``make`` makes, an upstream, guarded; made anew when the server is back.

    ``address`` (``HOST:PORT``) is where to knock, None if there is no such place. ``retries`` is
    False where somebody else tries again.
    """

    def __init__(
        self,
        make: Callable[[], Upstream],
        *,
        address: str | None = None,
        retries: bool = True,
    ) -> None:
        self._make, self._address, self._retries = make, address, retries
        self._lock, self._back, self._ended = threading.Lock(), threading.Event(), False
        self._trying = list[Upstream]()
        self._up = make()
        self._names = list[str]()
        self._misses = self._flying = 0
        self._tokens = 1.0
        self._open: Failure | None = None
        self._probing = False
        self._refused = dict[str, tuple[float, str]]()
        self._times = dict[str, deque[float]]()
        self._heard = time.monotonic()
        self._away_until = 0.0
        self._last: Request | None = None
        self.counts = Counter[str]()
        self.said = dict[str, str]()
        self._on_heal: Callable[[], None] | None = None
        self._on_change: OnChange | None = None

    @property
    def not_asked(self) -> dict[str, Failure]:
        """The server, and why it is not asked for the moment; empty while it is."""
        why = self._open
        return {} if why is None else {self._address or "the server": why}

    def on_heal(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever the server is back."""
        self._on_heal = call

    def on_change(self, call: OnChange) -> None:
        """Have ``call`` called once when the server is asked no more, and once when it is back."""
        self._on_change = call

    def greet(self, name: str) -> None:
        """As inside."""
        if name not in self._names:
            self._names.append(name)
        self._up.greet(name)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """As inside, unless there is no use in it."""
        with self._lock:
            self._last = request
            failure = self._why_not(request, until)
            if failure is not None:
                self.counts["not asked"] += 1
                return failure
            up = self._up
        return self._sent(up, request, until)

    def close(self) -> None:
        """Close the connection; what is on its way fails."""
        with self._lock:
            self._ended = True
            self._back.set()
            trying, self._trying = self._trying, []
        self._drop(trying)
        self._up.close()

    def settle(
        self, request: Request, why: Why, detail: str, waited_s: float, again_s: float = 0.0
    ) -> None:
        """Take notice of what came of a request: its reply (``why`` "server") or a failure.

        A server that is overloaded is not asked for ``again_s``.
        """
        with self._lock:
            if why == "overloaded":
                self._away_until = time.monotonic() + min(again_s, MOST_AWAY_S)
            self.counts["replies" if why == "server" else why] += 1
            if detail:
                self.said[why] = detail
            if why == "server":
                self._tokens = min(TOKENS, self._tokens + PER_REPLY)
                self._times.setdefault(request.model, deque(maxlen=KEPT)).append(waited_s)
                self._heard = time.monotonic()
                self._misses = 0
            elif why == "refused":
                self._refuse(request.model, detail)
            elif why in MISSES:
                self._misses += 1
                if self._misses >= OPENS_AFTER and self._open is None:
                    self.counts["breaks"] += 1
                    self._open = Failure(why, f"not asked since {detail}")
                    self._tell(Failure(why, detail))
                    self._probe()

    def landed(self) -> None:
        """A request is not on its way any more."""
        with self._lock:
            self._flying -= 1

    def again(self, request: Request, until: float) -> Pending | Failure | None:
        """The request once more; None if that is of no use or beyond the budget."""
        with self._lock:
            fits = self._tokens >= 1 and self._why_not(request, until) is None
            if not self._retries or not fits or self._ended:
                return None
            self._tokens -= 1
            self.counts["retries"] += 1
            up = self._up
        return up.ask(request, until)

    def _sent(self, up: Upstream, request: Request, until: float) -> Pending | Failure:
        """The request on its way."""
        asked = up.ask(request, until)
        with self._lock:
            self.counts["asked"] += 1
            self._flying += not isinstance(asked, Failure)
        if isinstance(asked, Failure):
            self.settle(request, asked.why, asked.detail, 0.0, asked.again_s)
            return asked
        return _Watched(self, asked, request, until)

    def _why_not(self, request: Request, until: float) -> Failure | None:
        """Why a request is not sent; the lock is held."""
        now = time.monotonic()
        if self._open is not None:
            return self._open
        since, detail = self._refused.get(request.model, (-REFUSED_S, ""))
        if now - since < REFUSED_S:
            return Failure("refused", detail)
        if now < self._away_until:
            left_ms = 1000 * (self._away_until - now)
            return Failure("overloaded", f"the server asks to be left alone for {left_ms:.0f} ms")
        if self._flying >= MOST:
            return Failure("overloaded", f"{MOST} requests are on their way already")
        times = self._times.get(request.model)
        if times and until - now < HOPELESS * min(times):
            if now - self._heard > EVERY_S[0]:
                self._probe()
            return Failure("no_time", f"replies take {min(times):.3g} s and more")
        return None

    def _refuse(self, model: str, detail: str) -> None:
        """Do not ask for the model for a while; said once. The lock is held."""
        self._misses = 0
        if model not in self._refused:
            where = self._address or "the server"
            logging.getLogger("presplit.edge").warning("%s refuses %s: %s", where, model, detail)
        self._refused[model] = time.monotonic(), detail

    def _probe(self) -> None:
        """Have it found out how the server does; the lock is held."""
        if self._probing or self._ended:
            return
        self._back = threading.Event()
        thread = threading.Thread(target=self._work, name="guard", daemon=True)
        try:
            thread.start()
            self._probing = True
        except RuntimeError:  # no more threads: the next request is the probe
            self._open, self._misses = None, 0

    def _work(self) -> None:
        """Probe until the server answers, and for as long as the breaker is open.

        It may open again while this thread is still busy with the break before.
        """
        while True:
            try:
                self._look()
            except Exception:  # no more files, perhaps: there may be some later
                logging.getLogger("presplit.edge").exception("a probe could not be made")
                self._back.wait(EVERY_S[0])
            with self._lock:
                if self._open is None or self._ended:
                    self._probing = False
                    return
                if self._back.is_set():
                    self._back = threading.Event()

    def _look(self) -> None:
        """Probe until a probe is answered, each over a connection of its own beside those before.

        A connection that is lost is never answered on, and one over a slow link takes long: so the
        ones before are kept for a while.
        """
        lost = self._open is not None and self._open.why == "link_down"
        every_s = SOON_S
        while not self._back.is_set():
            at_once = self._address is None or knock(self._address, self._back)
            if self._back.is_set():
                return
            began = time.monotonic()
            self._begin(self._new() if lost or not at_once else self._up)
            pause_s = began + random.uniform(*every_s) - time.monotonic()
            lost, every_s = True, EVERY_S
            self._back.wait(max(0.0, pause_s))

    def _new(self) -> Upstream:
        """A new connection, or the old one where none can be made."""
        try:
            return self._make()
        except PresplitError:  # what it needs, a certificate perhaps, is not there any more
            return self._up

    def _begin(self, up: Upstream) -> None:
        """Send a probe over ``up``; of those that wait already the oldest may have to go."""
        with self._lock:
            self._trying.append(up)
            gone = self._trying[:-MOST_PROBES]
            self._trying = self._trying[-MOST_PROBES:]
            if self._ended:  # it was closed while this one was made
                gone, self._trying = [*gone, *self._trying], []
        self._drop(gone)
        with contextlib.suppress(RuntimeError):  # no more threads now, perhaps later
            threading.Thread(target=self._try, args=(up,), name="probe", daemon=True).start()

    def _try(self, up: Upstream) -> None:
        """One probe; with its reply all goes on as ever, over its connection."""
        request = self._last
        assert request is not None, "nothing is probed before something was asked"
        reply, took_s = self._asked_once(up, request)
        for _ in range(2):
            if took_s > LONG_S and not isinstance(reply, Failure):
                # Most of that it may have hung, or connected: what it takes now is seen by others.
                reply, again_s = self._asked_once(up, request)
                took_s = again_s if took_s > 2 * again_s else min(took_s, again_s)
        if isinstance(reply, Failure) and reply.why in MISSES:
            with self._lock:
                self._trying = [one for one in self._trying if one is not up]
            self._drop([up])
            return
        with self._lock:
            if self._back.is_set() or all(one is not up for one in self._trying):
                return  # another one was first, or this one was closed
            self._back.set()
            old, self._up = self._up, up
            others, self._trying = [one for one in self._trying if one is not up], []
            # A refusal or an overload shows as well that somebody is there.
            if not isinstance(reply, Failure):
                self._times[request.model] = deque([took_s], maxlen=KEPT)
            self._heard = time.monotonic()
            was_open = self._open is not None
            self._open, self._misses = None, 0
        self._drop([*others, old])
        if old is not up:
            for name in self._names:
                up.greet(name)
        if was_open:
            self._tell(None)
        if self._on_heal is not None:
            self._on_heal()

    def _tell(self, failure: Failure | None) -> None:
        """Say that the server is asked no more, or is back."""
        if self._on_change is not None:
            self._on_change(self._address or "the server", failure)

    def _drop(self, ups: Iterable[Upstream]) -> None:
        """Close connections that are not the one in use."""
        for up in ups:
            if up is not self._up:
                up.close()

    def _asked_once(self, up: Upstream, request: Request) -> tuple[Reply | Failure, float]:
        """What comes of a probe, and the seconds that it took."""
        began = time.monotonic()
        with self._lock:
            self.counts["probes"] += 1
        asked = up.ask(request, began + PROBE_S)
        reply = asked if isinstance(asked, Failure) else asked.wait(began + PROBE_S)
        if isinstance(reply, Failure) and not isinstance(asked, Failure):
            asked.cancel()
        return reply, time.monotonic() - began


class _Watched:
    """A request on its way; what comes of it is told to its guard, once for each try."""

    def __init__(self, guard: Guarded, inner: Pending, request: Request, until: float) -> None:
        self._guard, self._inner, self._request, self._until = guard, inner, request, until
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._settled = self._cancelled = self._waited = self._tried = False

    @property
    def server_s(self) -> float | None:
        """As inside."""
        return self._inner.server_s

    def wait(self, until: float) -> Reply | Failure:
        """As inside; what found no connection is sent once more."""
        self._waited = False
        reply = self._inner.wait(until)
        if self._cancelled:
            return reply
        if isinstance(reply, Failure) and reply.why == "late" and until < self._until:
            self._waited = True
            return reply
        if isinstance(reply, Failure):
            if reply.why == "link_down" and not self._tried and self._again(reply):
                return self.wait(until)
            self._settle(reply.why, reply.detail, reply.again_s)
        else:
            self._settle("server", "")
        return reply

    def cancel(self) -> None:
        """As inside. Given up after its time it is a miss; given up before that, it is nothing."""
        self._cancelled = True
        self._inner.cancel()
        self._settle("late" if self._waited else "planned", "no reply in time")

    def _again(self, failure: Failure) -> bool:
        """Whether it is on its way once more."""
        self._tried = True
        self._guard.settle(self._request, failure.why, failure.detail, 0.0)
        asked = self._guard.again(self._request, self._until)
        if asked is None or isinstance(asked, Failure):
            with self._lock:
                self._settled, settled = True, self._settled
            if not settled:
                self._guard.landed()
            return False
        self._inner, self._began = asked, time.monotonic()
        if self._cancelled:
            asked.cancel()
        return True

    def _settle(self, why: Why, detail: str, again_s: float = 0.0) -> None:
        """Tell the guard, unless it was told."""
        with self._lock:
            self._settled, settled = True, self._settled
        if not settled:
            self._guard.landed()
            waited_s = time.monotonic() - self._began
            self._guard.settle(self._request, why, detail, waited_s, again_s)
