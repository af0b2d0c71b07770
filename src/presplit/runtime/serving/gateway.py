"""A gateway: to the edge it is a server, to the server an edge, and it has the whole net.

It takes the boundary at which an edge cuts, computes on to a second cut, where its own exits may
answer, and asks the next server for the rest. When that one is gone or late, the gateway answers
by what it has: what it holds, or the rest computed here. Only then it says that it cannot, and the
edge falls back. Any number of gateways may stand in a row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import msgspec
import numpy as np

from presplit.bundle import Bundle
from presplit.core.errors import PlanError, ServerError, SpecError
from presplit.core.memory import give_back
from presplit.core.plans import Gateway, Plan
from presplit.runtime.address import address_of, bare, is_loopback
from presplit.runtime.deadlines import Deadlines
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import Head, fits
from presplit.runtime.hosted import Array, Early, Hosted, Layer, Reply, TooLate
from presplit.runtime.pace import Pace
from presplit.runtime.sending import Sending
from presplit.runtime.serving.logs import tell
from presplit.runtime.serving.tail import Tail, Tails
from presplit.runtime.trip import Trip
from presplit.runtime.upstream import Failure, Request, Upstream
from presplit.runtime.upstreams.first_of import FirstOf
from presplit.runtime.upstreams.guard import MISSES, OPENS_AFTER, Guarded
from presplit.runtime.upstreams.servers import guarded
from presplit.runtime.walk import Walk
from presplit.runtime.wire.credentials import ClientCredentials

T = TypeVar("T")
Start = tuple[int, str]
"""The boundary at which requests enter, and the form in which they are computed."""

UNTOLD_S = 10.0
"""How long a request may take that says nothing of its deadline."""
GREETING_S = 2.0
"""How long the next server may take to answer when the gateway starts."""
PATIENCE_S = 2.0
"""A connection to the next server that is silent for so long is given up."""
MOST_WALKS = 2
"""For so many entries what the gateway computes is kept; clients name them, so it is bounded."""


class Forwarding(Layer):
    """The tails of ``bundle`` (``inner``, computed here where need be), passed on as ``does`` says.

    A request that enters behind the gateway's own split, and one of several samples, is computed
    here to the end. ``workers`` requests may wait for the next server at once. The caller closes
    ``upstream``. Raises `PlanError` if what the gateway should do does not fit the bundle.
    """

    def __init__(
        self,
        inner: Hosted,
        tails: Tails,
        bundle: Bundle,
        does: Gateway,
        upstream: Upstream,
        *,
        threads: int = 1,
        workers: int = 8,
        load: Load = ENGINES[DEFAULT],
    ) -> None:
        super().__init__(inner)
        self._tails, self._bundle, self._does, self._upstream = tails, bundle, does, upstream
        self._threads, self._load = threads, load
        self._plan = _plan(bundle, does)
        fits(self._plan, bundle)
        self._next = bundle.manifest.model_name(does.split, does.codec, does.server_form)
        self.sending = Sending(bundle, self._plan, upstream)
        self._lock = threading.Lock()
        self._walks: dict[Start, Future[Walk]] = {}
        self._deadlines, self._pace = Deadlines(), Pace()
        self._rest_s = 0.0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="gateway")

    def warm(self, name: str) -> Future[None]:
        """Done when what the gateway does for the model ``name`` is ready to run."""
        tail = self._tails.find(name)
        if self._is_mine(tail):
            return self._do(lambda: _forget(self._walk(tail)))
        if name == self._next:
            return self._do(self._time_the_rest)
        return self._inner.warm(name)

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """The next server's answer, or the best that there is here."""
        tail = self._tails.find(name)
        if len(array) > 1 or tail.split > self._does.split:
            return self._inner.run(name, array, until=until, client=client)
        latest = time.monotonic() + UNTOLD_S if until is None else until
        return self._do(lambda: self._answer(tail, array, latest))

    def close(self) -> None:
        """Finish what is running and let go of everything but the upstream."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._deadlines.close()
        self._inner.close()

    def _is_mine(self, tail: Tail) -> bool:
        """Whether something is computed here before the next server is asked."""
        return tail.split <= self._does.split and tail.contract.name != self._next

    def _answer(self, tail: Tail, codes: Array, until: float) -> Reply:
        """One request's answer; after ``until`` it is worthless."""
        if time.monotonic() >= until:
            raise TooLate("the deadline passed before the request's turn came")
        tail.contract.input.check(codes)
        by = until - self._does.spare_s
        if not self._is_mine(tail):
            return self._passed_on(tail, codes, by, until)
        found = self._walk(tail).find(tail.decode(codes), by, Trip())
        if found.held.exit == self._bundle.net.exits[-1].name:
            return found.held.logits
        return Early(found.held.logits, found.held.exit, found.why)

    def _passed_on(self, tail: Tail, codes: Array, by: float, until: float) -> Reply:
        """The next server's answer to just this request; without one the rest is computed here.

        It is asked so long that the rest can still be computed by ``by``, where there is the time.
        """
        if time.monotonic() < by - self._rest_s:
            by -= self._rest_s
        net = self._bundle.net
        exits = tuple(exit_.name for exit_ in net.exits[:-1] if exit_.after > tail.split)
        request = Request(tail.contract.name, codes, net.exits[-1].classes, exits)
        asked = self._upstream.ask(request, by)
        if not isinstance(asked, Failure):
            reply = asked.wait(by)
            if not isinstance(reply, Failure):
                return reply
            asked.cancel()
        return self._tails.run(tail.contract.name, codes, until=until)

    def _time_the_rest(self) -> None:
        """Know what it takes to compute here what is passed on as it came."""
        self._tails.warm(self._next)
        began = time.monotonic()
        self._tails.warm(self._next)
        self._rest_s = time.monotonic() - began

    def _walk(self, tail: Tail) -> Walk:
        """What is done for requests that enter as ``tail`` does, kept for the last few entries.

        Who comes first makes it; only those that enter likewise wait for that.
        """
        entry = (tail.split, tail.form)
        with self._lock:
            there = self._walks.pop(entry, None)
            found = self._walks[entry] = there or Future[Walk]()  # the last is the one last used
            gone = [self._walks.pop(each) for each in list(self._walks)[:-MOST_WALKS]]
        if there is None:
            self._make(tail, found)
        if gone:
            gone.clear()
            give_back()
        return found.result()

    def _make(self, tail: Tail, found: Future[Walk]) -> None:
        """Fill ``found``; a failure is for those who wait, the next one tries again."""
        net = self._bundle.net
        behind = {exit_.name for exit_ in net.exits if exit_.after > tail.split}
        rules = {n: t for n, t in self._plan.thresholds.items() if n in behind}
        plan = msgspec.structs.replace(self._plan, thresholds=rules, form=tail.form)
        try:
            head = Head(
                self._bundle, [plan], threads=self._threads, load=self._load, start=tail.split
            )
            walk = Walk(net, head, plan, self.sending, self._deadlines, self._pace)
            found.set_result(walk)
        except BaseException as error:
            with self._lock:
                self._walks = {key: walk for key, walk in self._walks.items() if walk is not found}
            found.set_exception(error)

    def _do(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(work)


def what_it_does(bundle: Bundle, given: Gateway | None) -> Gateway:
    """What a gateway with ``bundle`` does: what is ``given``, else what the bundle's plan says.

    Raises `PlanError` if there is neither, if nothing would be passed on, or if it would cut before
    the edge does.
    """
    plan = bundle.plan
    found = given or (None if plan is None else plan.gateway)
    if found is None:
        raise PlanError(
            f"{bundle.path}: carries no plan for a gateway; give its split (--split), or make one "
            "with presplit plan --gateway .. --uplink .. --save"
        )
    if found.split >= bundle.net.last:
        raise PlanError(
            f"gateway.split must be in 0..{bundle.net.last - 1}, got {found.split}: behind the "
            "last boundary nothing is left to pass on; serve without --forward-to"
        )
    if plan is not None and plan.split < bundle.net.last and found.split < plan.split:
        raise PlanError(
            f"gateway.split must be from the edge's split on: the plan in {bundle.path} has the "
            f"edge cut at {plan.split}, got {found.split}"
        )
    return found


def check_not_itself(forward_to: str, host: str, port: int) -> None:
    """Raise `SpecError` if ``forward_to`` is where the gateway itself listens.

    >>> check_not_itself("localhost:8443", "0.0.0.0", 8443)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: forward_to: localhost:8443 is this gateway itself; give the \
address of the next server
    """
    there, _, number = address_of(forward_to).rpartition(":")
    anywhere = bare(host) in ("", "0.0.0.0", "::")
    here = bare(there) == bare(host) or (is_loopback(there) and (anywhere or is_loopback(host)))
    if port and int(number) == port and here:
        raise SpecError(
            f"forward_to: {forward_to} is this gateway itself; give the address of the next server"
        )


def next_server(forward_to: str, credentials: ClientCredentials | None) -> Guarded | FirstOf:
    """Whom a gateway asks; the log says when that one cannot be used, and when it is back."""
    found = guarded(forward_to, patience_s=PATIENCE_S, credentials=credentials)
    found.on_change(_tell_of_next)
    return found


def _tell_of_next(address: str, failure: Failure | None) -> None:
    """One line in the log."""
    if failure is None:
        tell("next_back", f"{address}, the next server, answers again", address=address)
        return
    why = " ".join(failure.detail.split())[:300]  # gRPC's sentences may be long
    tell(
        "next_lost",
        f"{address}, the next server, cannot be used ({failure.why}: {why}); "
        "this gateway answers by what it has until that one is back",
        level=logging.WARNING,
        address=address,
        why=failure.why,
        detail=why,
    )


def check_same_net(sending: Sending, forward_to: str) -> None:
    """Raise `ServerError` if the next server says that it has another net.

    One that cannot be reached may come later: it is asked as often as its guard needs to say so
    and to look out for it.
    """
    zeros = np.zeros((1, *sending.shape), np.float32)
    until = time.monotonic() + GREETING_S
    for _ in range(OPENS_AFTER):
        asked, _ = sending.ask(zeros, until)
        reply = asked if isinstance(asked, Failure) else asked.wait(until)
        if not isinstance(reply, Failure) or reply.why not in MISSES:
            break
    else:
        return
    if isinstance(reply, Failure) and reply.why == "refused":
        raise ServerError(
            f"{forward_to} does not serve this bundle's net ({reply.detail}); serve the same "
            "bundle there"
        )


def _plan(bundle: Bundle, does: Gateway) -> Plan:
    """What the gateway does, as an edge's plan."""
    held = bundle.manifest.validation
    policy = "confidence" if held is None else held.policy
    if bundle.plan is not None:
        policy = bundle.plan.policy
    return Plan(
        does.split, does.thresholds, does.codec, policy=policy, server_form=does.server_form
    )


def _forget(_found: object) -> None:
    """Nothing is left of what was made ready but that it is there."""
