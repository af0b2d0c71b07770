"""What is asked behind answers that were already given: corrections of them, and audits.

A small share of the answers that an exit was sure of is asked of the server too. If it disagrees
more often than it did on the held-out samples, the data are not what they were, and that is said
before the accuracy that was promised is lost (`presplit.policies.drift`).
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from presplit.bundle import Bundle
from presplit.core.errors import PresplitError, SpecError
from presplit.core.plans import Plan
from presplit.core.routing import route
from presplit.core.types import Answer, Floats
from presplit.policies.drift import Drift
from presplit.runtime.head import Stretch
from presplit.runtime.hosted import Early
from presplit.runtime.sending import Sending
from presplit.runtime.upstream import Failure

ROOM = 16
"""So many wait to be asked at most; one more is left out, and counted."""
PATIENCE_S = 5.0
"""How long such a reply is waited for."""
MOST_RISE = 0.05
"""So much more disagreement than usual is told, where the plan does not say what may be lost."""

Corrected = Callable[[Answer, Answer], None]
"""Called with the answer that was given and the one that the server gave later."""


@dataclass(frozen=True)
class Job:
    """What is still to be done for one sample: stretches to run on ``values``, then to ask."""

    values: Floats
    rest: Sequence[Stretch]
    sending: Sending
    audits: bool


class Behind:
    """Asks on a thread of its own.

    ``audit`` is the share of sure answers that is asked too, ``drift`` what looks at them,
    ``alarm`` is called with a sentence when it sees something (else that is logged), ``corrected``
    with answers and what the server said later.
    """

    def __init__(
        self,
        *,
        audit: float,
        drift: Drift,
        alarm: Callable[[str], None] | None,
        corrected: Corrected | None,
    ) -> None:
        if not 0 <= audit <= 1:
            raise SpecError(f"audit must be a share in 0..1, got {audit}")
        self._audit, self._drift, self._alarm, self._corrected = audit, drift, alarm, corrected
        self._random = random.Random()
        self._jobs: queue.Queue[tuple[Job, Answer] | None] = queue.Queue(ROOM)
        self._ended = False
        self.counts, self._counting = Counter[str](), threading.Lock()
        threading.Thread(target=self._work, name="behind", daemon=True).start()

    @property
    def audits(self) -> bool:
        """Whether this sure answer is one of those to be asked too."""
        return self._random.random() < self._audit

    def put(self, job: Job, answer: Answer) -> None:
        """Have ``job`` done behind ``answer``; returns at once."""
        try:
            self._jobs.put_nowait((job, answer))
        except queue.Full:
            with self._counting:
                self.counts["left out behind"] += 1

    def settle(self, seconds: float) -> bool:
        """Wait for what was put before, so long at most; False if not all of it is done."""
        with self._jobs.all_tasks_done:
            return self._jobs.all_tasks_done.wait_for(
                lambda: not self._jobs.unfinished_tasks, seconds
            )

    def close(self) -> None:
        """Ask no more."""
        self._ended = True
        try:
            self._jobs.put_nowait(None)
        except queue.Full:
            return

    def _work(self) -> None:
        """One after another."""
        while (found := self._jobs.get()) is not None and not self._ended:
            job, answer = found
            began = time.monotonic()
            try:
                reply = self._asked(job)
            except PresplitError as error:  # the engine's fault: the next answer tells its caller
                reply = Failure("failed", str(error))
            if not isinstance(reply, Failure):
                self._take(job, answer, reply, time.monotonic() - began)
            self._jobs.task_done()

    def _asked(self, job: Job) -> Floats | Failure:
        """The server's logits for one sample."""
        values = job.values
        for stretch in job.rest:
            values, _ = stretch.run(values)
        until = time.monotonic() + PATIENCE_S
        asked, _ = job.sending.ask(values, until)
        reply = asked if isinstance(asked, Failure) else asked.wait(until)
        if isinstance(reply, Failure) and not isinstance(asked, Failure):
            asked.cancel()
        return Failure("refused", "an exit answered") if isinstance(reply, Early) else reply

    def _take(self, job: Job, answer: Answer, logits: Floats, took_s: float) -> None:
        """Compare the server's logits with the answer that was given."""
        scores = logits[0]
        scores.flags.writeable = False
        label = int(scores.argmax())
        if not job.audits:
            self.counts["corrections"] += label != answer.label
            better = _better(answer, label, scores, took_s)
            if self._corrected is not None:
                _call(lambda: self._corrected and self._corrected(answer, better))
            return
        self.counts["audited"] += 1
        self.counts["audited and contradicted"] += label != answer.label
        if self._drift.sees(label != answer.label):
            self.counts["alarms"] += 1
            # Of what goes on, the 1st, 2nd, 4th, 8th alarm are said.
            if self.counts["alarms"].bit_count() == 1:
                self._say()

    def _say(self) -> None:
        """The data are not what they were."""
        alarms = self.counts["alarms"]
        again = f"; the {alarms}th such alarm" if alarms > 2 else ""
        n, other = self.counts["audited"], self.counts["audited and contradicted"]
        text = (
            f"the server contradicts exits that were sure more often than {self._drift.usual:.1%}, "
            f"as on the held-out samples ({other} of {n} audited so far): the data may have "
            f"drifted; plan again with samples of today{again}"
        )
        if self._alarm is None:
            logging.getLogger("presplit.edge").warning(text)
        else:
            alarm = self._alarm
            _call(lambda: alarm(text))


def _better(answer: Answer, label: int, scores: Floats, took_s: float) -> Answer:
    """The server's answer to the same sample."""
    return Answer(
        label=label,
        scores=scores,
        exit="final",
        where="server",
        why="server",
        elapsed_s=answer.elapsed_s + took_s,
        up_bytes=answer.up_bytes,
        degraded=False,
        split=answer.split,
        row=answer.row,
    )


def _call(call: Callable[[], object]) -> None:
    """Call a user's function; what it raises ends nothing."""
    try:
        call()
    except Exception:
        logging.getLogger("presplit.edge").exception("a function given to Edge failed")


def usual_drift(bundle: Bundle, plans: Sequence[Plan]) -> Drift:
    """How often the net contradicts exits of ``plans`` that are sure, by the held-out samples.

    Of those that both get wrong, half are counted. What may be lost more is what the plan's
    promise leaves.
    """
    usual, rise = 0.0, MOST_RISE
    for plan in plans:
        usual = max(usual, _contradicted(bundle, plan))
        expected = plan.expected
        if expected is not None and expected.edge_share > 0 and expected.accuracy_low > 0:
            left = expected.accuracy - expected.accuracy_low
            rise = min(rise, max(0.02, left / expected.edge_share))
    return Drift(usual, usual + rise)


def _contradicted(bundle: Bundle, plan: Plan) -> float:
    """The share of the held-out samples of which an exit is sure and the net says otherwise."""
    held = bundle.manifest.validation
    if held is None or plan.form not in held.marks or not plan.thresholds:
        return 0.0
    scores, hits = bundle.evidence(plan.form)
    rules = [plan.thresholds.get(exit_.name, np.inf) for exit_ in bundle.net.exits[:-1]]
    leaves = route(scores[: len(rules)], rules)
    early = leaves < len(rules)
    if not early.any():
        return 0.0
    own = hits[leaves, np.arange(hits.shape[1])][early]
    last = hits[-1][early]
    return float((own != last).mean() + 0.5 * (~own & ~last).mean())
