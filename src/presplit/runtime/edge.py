"""The edge: it holds an answer before it asks for a better one.

The head runs up to the plan's split, in one stretch for each exit that may answer. An exit that is
sure answers at once. Otherwise the boundary goes upstream; what comes back in time and belongs to
this request is the answer, and in every other case it is the deepest exit that this device reaches
by then, as far as the plan lets it go (`presplit.runtime.fallback`). The
deadline enters once and only shrinks: whatever the link or the server does becomes an answer's
``why``, never a delay and never an exception (`presplit.runtime.walk`).

With a table of plans the edge takes, before each answer, the row that is the best under the
conditions as its own traffic shows them (`presplit.runtime.choosing`). Everything that any row
needs is loaded at opening.

Source: early exit with offloading after SPINN (arXiv 2008.06402); the held answer is this project's
own promise.
"""

from __future__ import annotations

import functools
import numbers
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import structs

from presplit.bundle import Bundle, read
from presplit.core.cost import answer_by
from presplit.core.errors import InputError, PlanError, SpecError
from presplit.core.plans import Conditions, FallbackName, Plan, PlanTable
from presplit.core.protocols import SplitPolicyOf
from presplit.core.types import Answer, Floats
from presplit.core.value import DAY_S
from presplit.policies import PROFILES, SPLITS
from presplit.runtime.behind import Behind, Corrected, usual_drift
from presplit.runtime.choosing import Choosing
from presplit.runtime.deadlines import Deadlines
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import Head, fits
from presplit.runtime.opened import Opened
from presplit.runtime.pace import Pace
from presplit.runtime.sending import Sending
from presplit.runtime.trip import Trip
from presplit.runtime.upstream import Failure, Upstream
from presplit.runtime.upstreams.first_of import FirstOf
from presplit.runtime.upstreams.guard import Guarded
from presplit.runtime.upstreams.servers import guarded, named
from presplit.runtime.walk import Walk
from presplit.runtime.watching import Watcher, Watching
from presplit.runtime.wire.credentials import ClientCredentials
from presplit.runtime.wire.words import Words

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
        plan: Plan | PlanTable,
        *,
        upstream: Upstream | None = None,
        threads: int = 1,
        watch: Watcher | None = None,
        load: Load = ENGINES[DEFAULT],
        split_policy: str | SplitPolicyOf = "table",
        profile: str = "balanced",
        audit: float = 0.0,
        alarm: Callable[[str], None] | None = None,
        corrected: Corrected | None = None,
    ) -> None:
        """As `open`; the caller closes ``upstream``."""
        manner = PROFILES.find(profile)
        upstream = upstream if manner.asks else None
        policy = SPLITS.find(split_policy) if isinstance(split_policy, str) else split_policy
        self._opened = Opened("the edge")
        self._input = bundle.net.boundaries[0]
        self._plans = plans_of(plan)
        limits = [one.deadline_s for one in self._plans if one.deadline_s is not None]
        self._deadline_s = min(limits, default=DEFAULT_DEADLINE_S)
        head = Head(bundle, self._plans, threads=threads, load=load)
        sendings = [
            Sending(bundle, one, upstream) if one.split < bundle.net.last else None
            for one in self._plans
        ]
        self._asks = [sending is not None and sending.asks for sending in sendings]
        deadlines, pace = Deadlines(), Pace()
        self._final, self.model_bytes = bundle.net.exits[-1].name, head.nbytes
        closing: list[Callable[[], None]] = [deadlines.close]
        self._behind: Behind | None = None
        if upstream is not None and (audit or manner.first == "held"):
            drift = usual_drift(bundle, self._plans)
            self._behind = Behind(audit=audit, drift=drift, alarm=alarm, corrected=corrected)
            closing.append(self._behind.close)
        self._walks = [
            Walk(
                bundle.net,
                head,
                one,
                sending,
                deadlines,
                pace,
                races=races,
                profile=manner,
                behind=self._behind,
            )
            for one, sending, races in zip(self._plans, sendings, _races(plan), strict=True)
        ]
        self._watching = None if watch is None else Watching(watch)
        if self._watching is not None:
            closing.append(self._watching.close)
        self._guard: Guarded | FirstOf | None = None
        self._whys, self._counting = Counter[str](), threading.Lock()
        self._choosing: Choosing | None = None
        if isinstance(plan, PlanTable):
            self._choosing = Choosing(plan, self._walks, policy(plan))
            closing.append(self._choosing.close)
        # Called once: by `close`, with the last reference, or at the interpreter's end.
        self._let_go = weakref.finalize(self, _let_go, self._opened, closing)
        self._closing = closing

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        *,
        server: str | Sequence[str] | None = None,
        credentials: ClientCredentials | None = None,
        metadata: Words = (),
        upstream: Upstream | None = None,
        plan: Plan | None = None,
        table: PlanTable | None = None,
        fallback: FallbackName | None = None,
        split_policy: str | SplitPolicyOf = "table",
        profile: str = "balanced",
        audit: float = 0.0,
        alarm: Callable[[str], None] | None = None,
        corrected: Corrected | None = None,
        threads: int = 1,
        watch: Watcher | None = None,
        load: Load = ENGINES[DEFAULT],
    ) -> Self:
        """An edge for ``bundle`` (or its path), ready to answer.

        It asks ``server`` (``HOST:PORT``) over gRPC, the best of several (a list, or with commas
        between them), or any other ``upstream``, which the caller closes; with ``credentials``
        (`presplit.runtime.wire.credentials.client_credentials`), or by ``grpcs://HOST:PORT``, over
        TLS. ``metadata`` go with every call, for whoever stands before the server, such as
        ``("application", ...)`` for Ray's ingress.

        ``plan`` fixes one plan; else the edge chooses before each answer among the rows of
        ``table``, or of the bundle's own, by ``split_policy`` (a name on the shelf
        `presplit.policies.SPLITS`, or what makes a policy of one's own); else it goes by the
        bundle's own plan. Without anybody to ask, a plan that wants to has nothing to connect to:
        the edge answers alone, as deep as its fallback lets it, with ``why="link_down"``.
        ``fallback`` is taken in place of the plan's own: "none", "exit" or "deepest" (see `Plan`);
        ``edge.model_bytes`` tells the size of all models that are held. ``load`` makes the engines.

        ``profile`` is a name on the shelf `presplit.policies.PROFILES` and says who answers first:
        "balanced", "edge_first", "server_first", "answer_then_escalate" or "offline". With
        "answer_then_escalate" ``corrected`` is called with each answer and what the server said
        later. ``audit`` is the share of answers of sure exits that the server is asked for too,
        behind the answer; when it contradicts them more often than it did on the held-out samples,
        ``alarm`` is called with a sentence (else that is logged).

        ``watch`` is called with every `Answer` in their order, on a thread of its own: it can
        neither delay nor break an answer, and when `close` returns it has seen all that were given,
        unless it is slow (`presplit.runtime.watching`).

        All engines are made and run once, and connecting begins, before this returns. Raises
        `BundleError` for a damaged bundle, `PlanError` if there is no plan or it does not fit,
        `SpecError` for an address or a name that does not exist.
        """
        if server is not None and upstream is not None:
            raise SpecError("server and upstream both say whom to ask: give one of them")
        if server is not None:
            named(server)
        bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        chosen = _falling_back(_chosen(bundle, plan, table), fallback)
        plans = plans_of(chosen)
        for one in plans:
            fits(one, bundle)
        make = functools.partial(
            cls,
            bundle,
            chosen,
            threads=threads,
            watch=watch,
            load=load,
            split_policy=split_policy,
            profile=profile,
            audit=audit,
            alarm=alarm,
            corrected=corrected,
        )
        asks = PROFILES.find(profile).asks
        if server is None or not asks or all(one.split == bundle.net.last for one in plans):
            return make(upstream=upstream)
        longest_s = max(one.deadline_s or 0.0 for one in plans)
        patience_s = max(PATIENCE_S, longest_s)
        client = guarded(server, patience_s=patience_s, credentials=credentials, metadata=metadata)
        try:
            edge = make(upstream=client)
        except BaseException:
            client.close()
            raise
        edge._closing.append(client.close)
        edge._guard = client
        if edge._choosing is not None:
            client.on_heal(edge._choosing.heal)
        return edge

    def answer(self, image: Floats, *, deadline_s: float | None = None) -> Answer:
        """The answer for one sample, by ``deadline_s`` from now once an exit has run.

        From then on nothing is begun on the edge that would not be over in time, what turns out
        slower than at opening is stopped at the deadline, between two operators, and a reply is
        waited for only until the deadline less `MARGIN_S`; what this device computes itself has the
        whole deadline. As long as no exit has run there is nothing to answer with: then what comes
        first is the answer, the reply or the next exit, however late.

        ``image``: float32, exactly the net's input shape, without a batch, finite. The deadline is
        the argument, or the plan's, or `DEFAULT_DEADLINE_S`. ``up_bytes`` counts the payload handed
        to the link, arrived or not. Raises `InputError` for another array, a deadline that is not
        positive, or an edge that is closed or of another process; `EngineError` if this machine
        cannot compute any answer.
        """
        began = time.monotonic()
        self._check(image)
        limit_s, row, number, trip = self._limit(deadline_s), None, 0, Trip()
        if self._choosing is not None:
            row = number = self._choosing.choose(limit_s)
        by, reply_by = began + limit_s, began + answer_by(limit_s, asks=self._asks[number])
        found = self._walks[number].find(image[np.newaxis], by, trip, reply_by=reply_by)
        split = self._plans[number].split
        answer = found.answer(time.monotonic() - began, final=self._final, split=split, row=row)
        with self._counting:
            self._whys[answer.why] += 1
        if found.behind is not None and self._behind is not None:
            self._behind.put(found.behind, answer)
        if self._choosing is not None:
            self._choosing.learn(answer, trip)
        if self._watching is not None:
            self._watching.see(answer)
        return answer

    @property
    def conditions(self) -> Conditions | None:
        """What an edge with a table knows of the link, the server and itself; None with a plan."""
        return None if self._choosing is None else self._choosing.now

    @property
    def is_heard(self) -> bool | None:
        """Whether the last request of an edge with a table had a reply; None before the first."""
        return None if self._choosing is None else self._choosing.is_heard

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far, by name: answers by their ``why``, and what the guard counted.

        Of the guard are: requests ``asked`` and ``not asked``, ``replies`` that were used, those
        ``late`` or a ``bad_reply`` and so ignored, ``retries``, ``breaks`` of it and ``probes``.
        """
        found = {f"answers {why}": count for why, count in sorted(self._whys.items())}
        for other in (self._guard, self._behind):
            if other is not None:
                found |= dict(sorted(other.counts.items()))
        return found

    @property
    def said(self) -> dict[str, str]:
        """What link or server last told of a failure, by the answers' ``why``, in gRPC's words."""
        return {} if self._guard is None else dict(self._guard.said)

    @property
    def not_asked(self) -> dict[str, Failure]:
        """The servers that are not asked for the moment, and why: their breakers are open."""
        return {} if self._guard is None else self._guard.not_asked

    @property
    def probed_bytes(self) -> int:
        """Payload handed to the link besides that of answers: an edge with a table tries links."""
        return 0 if self._choosing is None else self._choosing.probed_bytes

    def settle(self, seconds: float) -> bool:
        """Wait for what is asked behind answers, so long at most; False if some is still asked.

        `close` leaves it out. An edge that asks nothing behind its answers is settled.
        """
        return self._behind is None or self._behind.settle(seconds)

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
        if np.count_nonzero(np.isfinite(image)) < image.size:  # quicker than all()
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


def plans_of(plan: Plan | PlanTable) -> tuple[Plan, ...]:
    """The plans of a table, or the one."""
    if isinstance(plan, PlanTable):
        return tuple(row.plan for row in plan.rows)
    return (plan,)


def _races(plan: Plan | PlanTable) -> list[bool]:
    """Whether what the edge computes while it waits is as welcome as the reply.

    A table says so. A plan on its own says that the server is to answer, and is taken at its word.
    """
    if isinstance(plan, PlanTable):
        return [row.meanwhile_s is not None for row in plan.rows]
    return [False]


def _chosen(bundle: Bundle, plan: Plan | None, table: PlanTable | None) -> Plan | PlanTable:
    """What the edge goes by: what is given before what the bundle carries, a table before a plan.

    Raises `SpecError` if both are given, `PlanError` if there is neither.
    """
    if plan is not None and table is not None:
        raise SpecError("plan and table both say where to cut: give one of them")
    for found in (plan, table, bundle.table, bundle.plan):
        if found is not None:
            return found
    raise PlanError(
        f"{bundle.path}: carries no plan; make one with presplit plan or pass plan=Plan(split=...)"
    )


def _falling_back(plan: Plan | PlanTable, fallback: FallbackName | None) -> Plan | PlanTable:
    """The same with another fallback, if one is said."""
    if fallback is None:
        return plan
    if isinstance(plan, Plan):
        return structs.replace(plan, fallback=fallback)
    plans = [structs.replace(row.plan, fallback=fallback) for row in plan.rows]
    rows = [structs.replace(row, plan=one) for row, one in zip(plan.rows, plans, strict=True)]
    return structs.replace(plan, rows=tuple(rows))


def _let_go(opened: Opened, closing: list[Callable[[], None]]) -> None:
    """Close what an edge holds; in the child of a fork nothing, for it belongs to the parent."""
    if opened.here:
        for close in closing:
            close()
