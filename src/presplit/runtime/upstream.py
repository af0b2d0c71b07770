"""What an edge asks when it wants a better answer: `Upstream`, a seam.

It is filled by the gRPC client (`presplit.runtime.wire.client`) and, without any network, by
`InProcess`. Nothing here raises for what a link or a server does: that is a `Failure`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.core.types import WHYS, Why
from presplit.runtime.hosted import Early, Form, Hosted, Reply, why_of

EARLY_WHYS = tuple(why for why in WHYS if why not in ("planned", "server"))
"""Why an exit may reply in place of the net's own classifier."""


@dataclass(frozen=True)
class Request:
    """One sample for the model ``model``: ``codes`` ``(1, *boundary)``, a reply of ``classes``.

    ``exits`` are those that may reply in place of the net's own classifier.
    """

    model: str
    codes: npt.NDArray[Any]
    classes: int
    exits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why no reply can be used; ``detail`` is for people.

    ``again_s`` is how long the server asks to be left alone, 0 if it says nothing of that; ``at``
    when it failed, on the clock of `time.monotonic`.
    """

    why: Why
    detail: str
    again_s: float = 0.0
    at: float = field(default_factory=time.monotonic, compare=False)


OnChange = Callable[[str, Failure | None], None]
"""Called with an address and why it is not asked any more; with None when it is back."""


def check_early(reply: Early, exits: Sequence[str]) -> None:
    """Raise `InputError` unless one of ``exits`` gave the reply, for a reason that it can have."""
    if reply.exit not in exits:
        raise InputError(f"expected a reply of an exit in {list(exits)}, got {reply.exit[:64]!r}")
    if reply.why not in EARLY_WHYS:
        raise InputError(f"an exit answers for one of {EARLY_WHYS}, got {reply.why[:64]!r}")


class Pending(Protocol):
    """A request on its way."""

    @property
    def server_s(self) -> float | None:
        """What the server says the reply took there, queues included; None where it says nothing.

        It is known once the reply is there, is never negative and at most what was waited.
        """
        ...

    def wait(self, until: float) -> Reply | Failure:
        """The logits, float32 ``(1, classes)``, or why there are none, by ``until``.

        ``until`` is on the clock of `time.monotonic`. A reply that is not there by then is a
        `Failure` of ``late``; it may be waited for again.
        """
        ...

    def cancel(self) -> None:
        """Ask no more: who waits gets a `Failure` at once, a reply that still comes is dropped."""
        ...


class Upstream(Protocol):
    """Where an edge sends what it does not answer itself; safe for several threads."""

    def greet(self, name: str) -> None:
        """Begin to connect and have the model ``name`` made ready; returns at once."""
        ...

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Put ``request`` on its way and return at once; its reply is worthless after ``until``."""
        ...

    def close(self) -> None:
        """Let go of the connection; what is on its way fails."""
        ...


class InProcess:
    """An upstream in the same process: what is ``hosted`` is asked without a network.

    The one who made ``hosted`` closes it.
    """

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted

    def greet(self, name: str) -> None:
        """Have the model made ready; what goes wrong is told when it is asked."""
        with contextlib.suppress(Exception):
            self._hosted.warm(name)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Put ``request`` before the hosted models."""
        try:
            future = self._hosted.run(request.model, request.codes, until=until)
        except Exception as error:  # whatever a server does becomes a reason
            return Failure(why_of(error), str(error))
        return _InProcessPending(future, request)

    def close(self) -> None:
        """Nothing is held here."""


class _InProcessPending:
    """A request that is being answered in this process."""

    def __init__(self, future: Future[Reply], request: Request) -> None:
        self._future = future
        self._exits = request.exits
        self._began = time.monotonic()
        self.server_s: float | None = None
        self._form = Form("logits", "float32", (request.classes,))
        self._reply: Future[Reply | Failure] = Future()
        future.add_done_callback(lambda _: self._settle())

    def wait(self, until: float) -> Reply | Failure:
        """The logits, or why there are none."""
        try:
            return self._reply.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            return Failure("late", "no reply in time")

    def cancel(self) -> None:
        """Not begun, it is not run; begun, its result is dropped."""
        self._be(Failure("link_down", "nobody waits any more"))
        self._future.cancel()

    def _settle(self) -> None:
        """Take what came of the future."""
        self.server_s = time.monotonic() - self._began
        try:
            reply = self._future.result()
        except Exception as error:  # whatever a server does becomes a reason
            return self._be(Failure(why_of(error), str(error)))
        try:
            if isinstance(reply, Early):
                check_early(reply, self._exits)
            self._form.check(reply.logits if isinstance(reply, Early) else reply)
        except InputError as error:
            return self._be(Failure("bad_reply", str(error)))
        return self._be(reply)

    def _be(self, reply: Reply | Failure) -> None:
        """Let ``reply`` be the reply, unless there is one."""
        with contextlib.suppress(InvalidStateError):
            self._reply.set_result(reply)
