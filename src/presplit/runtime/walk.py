"""The way of one sample: through the head, upstream, and back to whatever is held.

Here stands the promise: once an exit has run there is an answer by the deadline, whatever the link
or the server does, and however slow the engine has become: what still runs then is stopped, between
two of its operators.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from presplit.core.errors import EngineError
from presplit.core.plans import Plan
from presplit.core.routing import sure
from presplit.core.types import Answer, Floats, Net, Where, Why
from presplit.policies import EXITS
from presplit.policies.profile import BALANCED, Profile
from presplit.runtime.behind import Behind, Job
from presplit.runtime.deadlines import Deadlines
from presplit.runtime.engines import Stopped
from presplit.runtime.fallback import Fallback
from presplit.runtime.head import Head, Held, Stretch
from presplit.runtime.hosted import Early, Reply
from presplit.runtime.pace import Pace
from presplit.runtime.sending import Sending
from presplit.runtime.trip import Trip
from presplit.runtime.upstream import Failure, Pending

LATE_S = 10.0
"""With nothing held a reply is waited for so long beyond the deadline, unless an exit is first."""

AS_PLANNED = ("confident", "planned", "server")


@dataclass(frozen=True)
class Found:
    """What answers, where it was computed and why it is that; what is asked behind it."""

    held: Held
    where: Where
    why: Why
    up_bytes: int = 0
    behind: Job | None = None

    def answer(self, elapsed_s: float, *, final: str, split: int, row: int | None) -> Answer:
        """The answer for the caller, ``elapsed_s`` after the beginning; its scores are read-only.

        It is degraded if a better one was planned and did not come: the net's own classifier,
        ``final``, is as good here as on the server. ``split`` and ``row`` say by
        which plan it was found.
        """
        scores = self.held.logits[0]
        scores.flags.writeable = False
        return Answer(
            label=int(scores.argmax()),
            scores=scores,
            exit=self.held.exit,
            where=self.where,
            why=self.why,
            elapsed_s=elapsed_s,
            up_bytes=self.up_bytes,
            degraded=self.why not in AS_PLANNED and self.held.exit != final,
            split=split,
            row=row,
        )


class Walk:
    """How samples are answered under one of the plans of ``head``.

    ``sending`` is None if the plan keeps all on the edge. With ``races`` what is computed while a
    reply is on its way is as welcome as the reply: the first of both is taken. ``deadlines`` stop
    what runs here too long; the caller closes them. ``pace`` is what is known of this machine's
    speed. ``profile`` says who answers first; what is asked afterwards is for ``behind``. Raises
    `SpecError` for an unknown policy.
    """

    def __init__(
        self,
        net: Net,
        head: Head,
        plan: Plan,
        sending: Sending | None,
        deadlines: Deadlines,
        pace: Pace,
        *,
        races: bool = False,
        profile: Profile = BALANCED,
        behind: Behind | None = None,
    ) -> None:
        self._final = net.exits[-1].name
        self._thresholds = plan.thresholds
        self._score = EXITS.find(plan.policy)
        self._way, self._fallback = head.way(plan), head.fallback(plan)
        self._sending, self._deadlines, self._pace = sending, deadlines, pace
        self._races, self._profile, self._behind = races, profile, behind

    @property
    def way(self) -> tuple[Stretch, ...]:
        """The stretches up to the split, in order."""
        return self._way

    @property
    def sending(self) -> Sending | None:
        """What asks the server; None if the plan keeps all on the edge."""
        return self._sending

    def find(
        self, values: Floats, by: float, trip: Trip, *, reply_by: float | None = None
    ) -> Found:
        """What answers the sample ``values`` ``(1, *input)`` by ``by``, as `time.monotonic` counts.

        A reply must be there ``reply_by``, if that is earlier: what is computed here has all the
        time. What is seen on the way is noted in ``trip``. Raises `EngineError` if this machine
        cannot compute any answer.
        """
        held: Held | None = None
        for number, stretch in enumerate(self._way):
            if held is not None:
                expected_s = self._pace.expected_s(stretch.seconds)
                if time.monotonic() + expected_s > by:
                    return Found(held, "edge", "no_time")
            try:
                values, at_exit = self._run(stretch, values, None if held is None else by, trip)
                if at_exit is not None:
                    at_exit.check()
            except Stopped:
                assert held is not None, "nothing is stopped before something is held"
                return Found(held, "edge", "no_time")
            except EngineError:
                if held is None:
                    raise
                return Found(held, "edge", "failed")
            held = at_exit or held
            if at_exit is not None and self._is_sure(at_exit):
                return Found(at_exit, "edge", "confident", behind=self._audit(values, number))
        if self._sending is None:
            assert held is not None, "the last stretch of all ends at the net's own exit"
            return Found(held, "edge", "planned")
        if self._profile != BALANCED:
            found = self._by_profile(values, held, by)
            if found is not None:
                return found
        return self._ask(values, held, by, trip, by if reply_by is None else reply_by)

    def _run(
        self, stretch: Stretch, values: Floats, by: float | None, trip: Trip
    ) -> tuple[Floats, Held | None]:
        """What ``stretch`` gives; raises `Stopped` if that is not there ``by``, unless it is None.

        What was stopped is noted as if it had been over then: a slow engine shows all the same.
        """
        began = time.monotonic()
        try:
            if by is None:
                found = stretch.run(values)
            else:
                with self._deadlines.stop_at(by) as stop:
                    found = stretch.run(values, stop=stop)
        except Stopped:
            took_s = time.monotonic() - began
            trip.ran(took_s, stretch.seconds)
            self._pace.stopped(took_s, stretch.seconds)
            raise
        took_s = time.monotonic() - began
        trip.ran(took_s, stretch.seconds)
        self._pace.ran(took_s, stretch.seconds)
        return found

    def _is_sure(self, held: Held) -> bool:
        """True if the exit may answer and its score reaches its threshold."""
        threshold = self._thresholds.get(held.exit) if self._profile.exits_answer else None
        return threshold is not None and bool(sure(self._score(held.logits), threshold)[0])

    def _audit(self, values: Floats, number: int) -> Job | None:
        """What is to be asked although the exit of this stretch was sure; mostly nothing."""
        if self._behind is None or self._sending is None or not self._behind.audits:
            return None
        return Job(values, self._way[number + 1 :], self._sending, audits=True)

    def _by_profile(self, values: Floats, held: Held | None, by: float) -> Found | None:
        """What answers without asking first; None if the server is to be asked as planned."""
        chain = self._fallback
        if not self._profile.asks:
            return Found(self._here(chain, values, held, by), "edge", "planned")
        if self._profile.first == "held":
            best = held or self._here(chain[:1], values, held, by)
            assert self._sending is not None, "what does not end here is sent"
            return Found(best, "edge", "planned", behind=Job(values, (), self._sending, False))
        takes_s = sum(self._pace.expected_s(stretch.seconds) for stretch in chain)
        whole = bool(chain) and chain[-1].ends_at(self._final)
        if self._profile.first != "here" or not whole or time.monotonic() + takes_s > by:
            return None
        best = self._here(chain, values, held, by)
        return Found(best, "edge", "planned" if best.exit == self._final else "no_time")

    def _here(self, chain: Sequence[Stretch], values: Floats, held: Held | None, by: float) -> Held:
        """The best answer of this device by then."""
        here = Fallback(chain, values, held, by=by, pace=self._pace)
        try:
            return here.best()
        finally:
            here.stop()

    def _ask(
        self, values: Floats, held: Held | None, by: float, trip: Trip, reply_by: float
    ) -> Found:
        """The reply if it is there ``reply_by``, else the best answer of this device by then.

        With nothing held the deadline cannot be kept for sure: after it, what comes first is the
        answer. An answer that is as good as the reply (`races`) is taken before it too.
        """
        assert self._sending is not None, "what does not end here is sent"
        latest = reply_by if held is not None else max(by, time.monotonic()) + LATE_S
        asked, up_bytes = self._sending.ask(values, latest)
        here = Fallback(self._fallback, values, held, by=by, pace=self._pace)
        try:
            if isinstance(asked, Failure):
                reply = asked
                trip.unasked(asked)
            else:
                trip.asks(up_bytes)
                reply = self._reply(asked, here, reply_by, latest)
                trip.heard(asked, reply)
            if isinstance(reply, Failure):
                return Found(here.best(), "edge", reply.why, up_bytes)
            return self._told(reply, up_bytes)
        finally:
            here.stop()

    def _reply(self, asked: Pending, here: Fallback, by: float, latest: float) -> Reply | Failure:
        """What came of the request; meanwhile this device begins when it has to, or at once."""
        if self._races:
            here.begin()
            here.once_over(asked.cancel)
            reply = _first(asked, here, by, latest)
            if _given_up(reply, here):
                return Failure("planned", "an answer was there before the reply")
            return reply
        begins_at = here.begins_at
        if begins_at <= time.monotonic():
            here.begin()
        if begins_at >= by:
            return _first(asked, here, by, latest)
        with self._deadlines.stop_at(begins_at) as moment:
            moment.ends(here.begin)
            return _first(asked, here, by, latest)

    def _told(self, reply: Reply, up_bytes: int) -> Found:
        """What the server says: its own answer, or that of an exit behind the split."""
        if isinstance(reply, Early):
            return Found(Held(reply.exit, reply.logits), "server", reply.why, up_bytes)
        return Found(Held(self._final, reply), "server", "server", up_bytes)


def _given_up(reply: Reply | Failure, here: Fallback) -> bool:
    """Whether no reply came because the answer here was first, or when it was there already."""
    return isinstance(reply, Failure) and reply.why == "link_down" and here.over


def _first(asked: Pending, here: Fallback, by: float, latest: float) -> Reply | Failure:
    """The reply by ``by``, or until there is an answer ``here`` or ``latest`` is over."""
    reply = asked.wait(by)
    if not isinstance(reply, Failure):
        return reply
    if reply.why == "late" and not here.holds:
        here.once_held(asked.cancel)
        later = asked.wait(latest)
        if not isinstance(later, Failure):
            return later
    asked.cancel()
    return reply
