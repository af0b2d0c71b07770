"""The edge: it holds an answer before it asks for a better one.

The head runs up to the plan's split, in one stretch for each exit that may answer. An exit that is
sure answers at once. Otherwise the boundary goes upstream; what comes back in time and belongs to
this request is the answer, and in every other case it is the deepest exit that has run here. The
deadline enters once and only shrinks: whatever the link or the server does becomes an answer's
``why``, never a delay and never an exception (`presplit.runtime.walk`).

Source: early exit with offloading after SPINN (arXiv 2008.06402); the held answer is this project's
own promise.
"""

from __future__ import annotations

import numbers
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from presplit.bundle import Bundle, read
from presplit.core.cost import answer_by
from presplit.core.errors import InputError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.core.types import Answer, Floats
from presplit.core.value import DAY_S
from presplit.runtime.address import address_of
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import Head, fits
from presplit.runtime.opened import Opened
from presplit.runtime.sending import Sending
from presplit.runtime.upstream import Upstream
from presplit.runtime.walk import Walk
from presplit.runtime.watching import Watcher, Watching
from presplit.runtime.wire.client import Client

DEFAULT_DEADLINE_S = 1.0
"""The deadline when neither the call nor the plan gives one.

Longer than any link that is worth asking over.
"""
PATIENCE_S = 2.0
"""A connection that is silent for so long is given up.

The plan's deadline takes its place if that is longer.
"""


class Edge:
    """A bundle running on this machine, with somebody upstream to ask.

    It is made by `Edge.open` and closed by ``with``; safe to use from several threads at once. A
    process that was forked since must open its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        plan: Plan,
        *,
        upstream: Upstream | None = None,
        threads: int = 1,
        watch: Watcher | None = None,
        load: Load = ENGINES[DEFAULT],
    ) -> None:
        """As `open`; the caller closes ``upstream``, and ``load`` makes the engines."""
        self._opened = Opened("the edge")
        self._input = bundle.net.boundaries[0]
        self._deadline_s = plan.deadline_s or DEFAULT_DEADLINE_S
        head = Head(bundle, [plan], threads=threads, load=load)
        goes_on = plan.split < bundle.net.last
        sending = Sending(bundle, plan, upstream) if goes_on else None
        self._asks = goes_on and upstream is not None
        self._walk = Walk(bundle.net, head, plan, sending)
        self._watching = None if watch is None else Watching(watch)
        closing = [] if self._watching is None else [self._watching.close]
        # Called once: by `close`, with the last reference, or at the interpreter's end.
        self._let_go = weakref.finalize(self, _let_go, self._opened, closing)
        self._closing: list[Callable[[], None]] = closing

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        *,
        server: str | None = None,
        upstream: Upstream | None = None,
        plan: Plan | None = None,
        threads: int = 1,
        watch: Watcher | None = None,
    ) -> Self:
        """An edge for ``bundle`` (or its path), ready to answer.

        It asks ``server`` (``HOST:PORT``) over gRPC, or any other ``upstream``, which the caller
        closes. ``plan`` replaces the bundle's own. Without anybody to ask, a plan that wants to has
        nothing to connect to: the answers come from the exits on the edge with ``why="link_down"``;
        pass ``Plan(split=net.last)`` to have the whole net answer here.

        ``watch`` is called with every `Answer` in their order, on a thread of its own: it can
        neither delay nor break an answer, and when `close` returns it has seen all that were given,
        unless it is slow (`presplit.runtime.watching`).

        All engines are made and run once, and connecting begins, before this returns. Raises
        `BundleError` for a damaged bundle, `PlanError` if there is no plan or it does not fit,
        `SpecError` for an address or a name that does not exist.
        """
        if server is not None and upstream is not None:
            raise SpecError("server and upstream both say whom to ask: give one of them")
        address = None if server is None else address_of(server)
        bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        plan = bundle.plan if plan is None else plan
        if plan is None:
            raise PlanError(
                f"{bundle.path}: carries no plan; make one with presplit plan or pass "
                "plan=Plan(split=...)"
            )
        fits(plan, bundle)
        if address is None or plan.split == bundle.net.last:
            return cls(bundle, plan, upstream=upstream, threads=threads, watch=watch)
        client = Client(address, patience_s=max(PATIENCE_S, plan.deadline_s or 0.0))
        try:
            edge = cls(bundle, plan, upstream=client, threads=threads, watch=watch)
        except BaseException:
            client.close()
            raise
        edge._closing.append(client.close)
        return edge

    def answer(self, image: Floats, *, deadline_s: float | None = None) -> Answer:
        """The answer for one sample, by ``deadline_s`` from now once an exit has run.

        From then on nothing is begun on the edge that would not be over in time, and a reply is
        waited for only until the deadline, less `MARGIN_S` where a server is asked. As long as no
        exit has run there is nothing to answer with: then what comes first is the answer, the reply
        or the next exit, however late.

        ``image``: float32, exactly the net's input shape, without a batch, finite. The deadline is
        the argument, or the plan's, or `DEFAULT_DEADLINE_S`. ``up_bytes`` counts the payload handed
        to the link, arrived or not. Raises `InputError` for another array, a deadline that is not
        positive, or an edge that is closed or of another process; `EngineError` if this machine
        cannot compute any answer.
        """
        began = time.monotonic()
        self._check(image)
        by = began + answer_by(self._limit(deadline_s), asks=self._asks)
        found = self._walk.find(image[np.newaxis], by)
        answer = found.answer(time.monotonic() - began)
        if self._watching is not None:
            self._watching.see(answer)
        return answer

    def close(self) -> None:
        """Close the connection; further calls to `answer` raise `InputError`.

        What is being answered at that moment is answered by an exit. Closing again does nothing.
        """
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, image: Floats) -> None:
        """Raise `InputError` unless the edge is open here and ``image`` is one sample for it."""
        self._opened.check()
        if not self._let_go.alive:
            raise InputError("the edge is closed; open it again to get answers")
        expected = f"the input must be one float32 sample of shape {self._input.shape}"
        # Callers without types may pass anything.
        if not isinstance(image, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{expected}, got {type(image).__name__}")
        if image.dtype != np.float32 or image.shape != self._input.shape:
            raise InputError(f"{expected}, got {image.dtype} of shape {image.shape}")
        if not np.isfinite(image).all():
            raise InputError(f"{expected} with finite values, got NaN or infinity")

    def _limit(self, deadline_s: float | None) -> float:
        """The deadline in seconds from the beginning."""
        given = self._deadline_s if deadline_s is None else deadline_s
        # Callers without types may pass anything.
        is_number = isinstance(given, numbers.Real)  # pyright: ignore[reportUnnecessaryIsInstance]
        limit = float(given) if is_number else 0.0  # of a float32 clock little would be left
        if not 0 < limit <= DAY_S:
            raise InputError(
                f"deadline_s must be a positive number of seconds, a day at most, got {given}"
            )
        return limit


def _let_go(opened: Opened, closing: list[Callable[[], None]]) -> None:
    """Close what an edge holds; in the child of a fork nothing, for it belongs to the parent."""
    if opened.here:
        for close in closing:
            close()
