"""An upstream in the same process: every failure of what is hosted becomes a reason."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import BundleError, EngineError, InputError
from presplit.core.types import Floats
from presplit.runtime.hosted import Array, Layer, Overloaded, TooLate, UnknownModel
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import Failure, InProcess, Request


class Giving(Layer):
    """Gives whatever it is told to, at once or by its future."""

    gives: Floats | Exception
    at_once = False

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Floats]:
        found: Future[Floats] = Future()
        if not isinstance(self.gives, Exception):
            found.set_result(self.gives)
        elif self.at_once:
            raise self.gives
        else:
            found.set_exception(self.gives)
        return found


@pytest.mark.parametrize("at_once", [True, False])
def test_every_failure_has_its_reason(bundle: Bundle, at_once: bool) -> None:
    giving = Giving(hosting(bundle))
    giving.at_once = at_once
    request = Request("any", np.zeros((1, 12), np.float32), 4)
    whys = {
        UnknownModel: "refused",
        InputError: "refused",
        Overloaded: "overloaded",
        TooLate: "late",
        EngineError: "failed",
        BundleError: "failed",
        ValueError: "failed",
    }
    for kind, why in whys.items():
        giving.gives = kind("because")
        found = InProcess(giving).ask(request, time.monotonic() + 5)
        reply = found if isinstance(found, Failure) else found.wait(time.monotonic() + 5)
        assert reply == Failure(why, "because")
    giving.close()


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((1, 5), np.float32),
        np.zeros((2, 4), np.float32),
        np.zeros((1, 4), np.float64),
        np.full((1, 4), np.nan, np.float32),
    ],
)
def test_logits_of_another_form_are_no_reply(bundle: Bundle, logits: np.ndarray) -> None:
    giving = Giving(hosting(bundle))
    giving.gives = logits
    found = InProcess(giving).ask(Request("any", np.zeros((1, 12), np.float32), 4), 0.0)
    assert not isinstance(found, Failure)
    reply = found.wait(time.monotonic() + 5)
    giving.close()
    assert isinstance(reply, Failure) and reply.why == "bad_reply"


def test_a_request_that_is_given_up_wakes_who_waits_for_it(bundle: Bundle) -> None:
    class Never(Layer):
        def run(
            self, name: str, array: Array, *, until: float | None, client: str = ""
        ) -> Future[Floats]:
            return Future()

    never = Never(hosting(bundle))
    found = InProcess(never).ask(Request("any", np.zeros((1, 12), np.float32), 4), 0.0)
    assert not isinstance(found, Failure)
    assert found.wait(time.monotonic() + 0.01) == Failure("late", "no reply in time")
    threading.Timer(0.02, found.cancel).start()
    assert found.wait(time.monotonic() + 5) == Failure("link_down", "nobody waits any more")
    never.close()
