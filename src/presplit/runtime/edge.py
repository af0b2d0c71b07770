"""The edge: it holds an answer before it asks for a better one.

The head runs up to the plan's split, in one session for each stretch that ends at an exit which may
answer. An exit that is sure answers at once. Otherwise the boundary goes to the server; what comes
back in time and belongs to this request is the answer, and in every other case it is the deepest
exit that has run here. The deadline enters once and only shrinks: whatever the link or the server
does becomes an answer's ``why``, never a delay and never an exception.

Source: early exit with offloading after SPINN (arXiv 2008.06402); the held answer is this project's
own promise.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from presplit.bundle import Bundle, read
from presplit.codecs import CODECS
from presplit.core.cost import MARGIN_S
from presplit.core.errors import InputError, PlanError, SpecError
from presplit.core.types import Answer, Floats, Plan, Where, Why
from presplit.policies import EXITS
from presplit.runtime.head import Held, Stretch, cuts, holding
from presplit.runtime.wire.client import Client, Failure, Pending, address_of

DEFAULT_DEADLINE_S = 1.0
"""The deadline when neither the call nor the plan gives one.

Longer than any link that is worth asking over.
"""
PATIENCE_S = 2.0
"""A connection that is silent for so long is given up.

The plan's deadline takes its place if that is longer.
"""


class Edge:
    """A bundle running on this machine, with a tail server to ask.

    It is made by `Edge.open` and closed by ``with``.

    Safe to use from several threads at once.
    """

    def __init__(self, bundle: Bundle, plan: Plan, *, client: Client | None, threads: int) -> None:
        net = bundle.net
        self._input = net.boundaries[0]
        self._final = net.exits[-1].name
        self._all_here = plan.split == net.last
        self._thresholds = plan.thresholds
        self._score = EXITS.find(plan.policy)
        self._deadline_s = DEFAULT_DEADLINE_S if plan.deadline_s is None else plan.deadline_s
        self._client = client
        self._closed = False
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count()
        self._head = [Stretch(bundle, *cut, threads=threads) for cut in cuts(net, plan)]
        self._fallback: Stretch | None = None
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="edge")
        if not self._all_here:
            self._codec = CODECS.find(plan.codec)
            self._encoding = bundle.encoding(plan.split, plan.codec)
            self._model_name = bundle.manifest.model_name(plan.split, plan.codec)
            self._plain_name = bundle.manifest.model_name(plan.split, "float32")
            following = holding(net, plan)
            if following is not None and following.after > plan.split:
                self._fallback = Stretch(
                    bundle, plan.split, following.after, following, threads=threads
                )
        self._warm_up()

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        *,
        server: str | None = None,
        plan: Plan | None = None,
        threads: int = 1,
    ) -> Edge:
        """An edge for ``bundle`` (or its path), ready to answer.

        It asks ``server`` (``HOST:PORT``).

        ``plan`` replaces the bundle's own. Without a server, a plan that wants one has nothing to
        connect to: the answers come from the exits on the edge with ``why="link_down"``; pass
        ``Plan(split=net.last)`` to have the whole net answer here. All sessions are made and run
        once, and connecting begins, before this returns. Raises `BundleError` for a damaged bundle,
        `PlanError` if there is no plan or it does not fit, `SpecError` for an address or a name
        that does not exist.
        """
        bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        plan = plan or bundle.plan
        if plan is None:
            raise PlanError(
                f"{bundle.path}: carries no plan; make one with presplit plan or pass "
                "plan=Plan(split=...)"
            )
        try:
            plan.fits(bundle.net)
        except SpecError as error:
            raise PlanError(f"the plan does not fit {bundle.path}: {error}") from error
        client = None
        if server is not None:
            address_of(server)
        if server is not None and plan.split < bundle.net.last:
            patience_s = max(PATIENCE_S, plan.deadline_s or 0.0)
            client = Client(server, classes=bundle.net.exits[-1].classes, patience_s=patience_s)
        try:
            return cls(bundle, plan, client=client, threads=threads)
        except BaseException:
            if client is not None:
                client.close()
            raise

    def answer(self, image: Floats, *, deadline_s: float | None = None) -> Answer:
        """The answer for one sample, by ``deadline_s`` from now once the first exit has run.

        From then on nothing is begun on the edge that would not be over in time, and a reply is
        waited for only until the deadline less `MARGIN_S`.

        ``image``: float32, exactly the net's input shape, without a batch, finite. The deadline is
        the argument, or the plan's, or `DEFAULT_DEADLINE_S`. ``up_bytes`` counts the payload handed
        to the link, arrived or not. Raises `InputError` for another array, a deadline that is not
        positive, or a closed edge; nothing else.
        """
        began = time.monotonic()
        self._check(image)
        until = began + self._limit(deadline_s) - MARGIN_S
        values, held = image[np.newaxis], None
        for stretch in self._head:
            if held is not None and time.monotonic() + stretch.seconds > until:
                return _answer(began, held, "edge", "no_time", degraded=True)
            values, found = stretch.run(values)
            held = found or held
            if found is not None and self._is_sure(found):
                return _answer(began, found, "edge", "confident")
        if held is not None and self._all_here:
            return _answer(began, held, "edge", "planned")
        asked, up_bytes = self._ask(values, until)
        meanwhile = self._fall_back(values) if held is None else None
        reply = asked.wait(until) if isinstance(asked, Pending) else asked
        if not isinstance(reply, Failure):
            if meanwhile is not None:
                meanwhile.cancel()
            return _answer(began, Held(self._final, reply), "server", "server", up_bytes)
        if held is None:
            assert meanwhile is not None, "the fallback runs whenever nothing is held"
            held = meanwhile.result()
        return _answer(began, held, "edge", reply.why, up_bytes, degraded=True)

    def close(self) -> None:
        """Close the channel; further calls to `answer` raise `InputError`."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Edge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, image: Floats) -> None:
        """Raise `InputError` unless the edge is open and ``image`` is one sample for the net."""
        if self._closed:
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
        limit = self._deadline_s if deadline_s is None else deadline_s
        if not (0 < limit < math.inf):
            raise InputError(f"deadline_s must be a positive number of seconds, got {limit}")
        return limit

    def _is_sure(self, held: Held) -> bool:
        """True if the exit may answer and its score reaches its threshold."""
        threshold = self._thresholds.get(held.exit)
        return threshold is not None and bool(self._score(held.logits)[0] >= threshold)

    def _ask(self, values: Floats, until: float) -> tuple[Pending | Failure, int]:
        """The request on its way, or why there is none, and the bytes handed to the link."""
        if self._client is None:
            return Failure("link_down", "no server was given"), 0
        if until <= time.monotonic():
            return Failure("no_time", "the deadline is too near to ask"), 0
        model_name = self._model_name
        codes = self._codec.encode(values, self._encoding)
        if codes is None:  # values that the codec cannot carry go as they are
            codes, model_name = values, self._plain_name
        remaining = until - time.monotonic()
        if remaining <= 0:
            return Failure("no_time", "encoding took the time that was left"), 0
        request_id = f"{self._prefix}-{next(self._numbers)}"
        return self._client.ask(
            model_name, codes, timeout_s=remaining, request_id=request_id
        ), codes.nbytes

    def _fall_back(self, values: Floats) -> Future[Held]:
        """What the next exit after the split will say.

        It is computed while the reply is on its way, never before it.
        """
        fallback = self._fallback
        assert fallback is not None, "made whenever the head carries no exit"

        def compute() -> Held:
            held = fallback.run(values)[1]
            assert held is not None, "the fallback ends at an exit"
            return held

        try:
            return self._pool.submit(compute)
        except RuntimeError as error:
            raise InputError("the edge was closed while it answered") from error

    def _warm_up(self) -> None:
        """Run and time everything with zeros, and begin to connect.

        So the first answer is as quick as the others.
        """
        values = np.zeros((1, *self._input.shape), np.float32)
        for stretch in self._head:
            values, held = stretch.time(values)
            if held is not None:
                self._score(held.logits)
        if self._fallback is not None:
            self._fallback.run(values)
        if self._client is not None:
            self._codec.encode(values, self._encoding)
            self._client.greet(self._model_name)


def _answer(
    began: float, held: Held, where: Where, why: Why, up_bytes: int = 0, *, degraded: bool = False
) -> Answer:
    """The answer that ``held`` gives, timed from ``began``."""
    scores = held.logits[0]
    scores.flags.writeable = False
    elapsed_s = time.monotonic() - began
    return Answer(
        int(scores.argmax()), scores, held.exit, where, why, elapsed_s, up_bytes, degraded
    )
