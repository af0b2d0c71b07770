"""Who answers first by each profile, and what is asked behind answers that were given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import SpecError
from presplit.core.plans import Plan
from presplit.core.types import Answer
from presplit.runtime import Edge
from presplit.runtime.hosted import Hosted, Layer, Reply
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import InProcess


class Counted(Layer):
    """What is hosted; ``asked`` counts, and ``lies`` has it give another class."""

    def __init__(self, inner: Hosted) -> None:
        super().__init__(inner)
        self.asked, self.lies = 0, False

    def run(self, name: str, array: Any, **more: Any) -> Future[Reply]:
        self.asked += 1
        found = super().run(name, array, **more)
        if not self.lies:
            return found
        other: Future[Reply] = Future()
        other.set_result(np.roll(found.result(), 1))  # type: ignore[arg-type]
        return other


@pytest.fixture
def hosted(bundle: Bundle) -> Iterator[Counted]:
    found = Counted(hosting(bundle))
    yield found
    found.close()


def soon(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not is_so() and time.monotonic() < until:
        time.sleep(0.005)
    return is_so()


NEVER, ALWAYS = {"early": 2.0}, {"early": 0.0}


@pytest.mark.parametrize(
    ("profile", "thresholds", "expected", "asked"),
    [
        ("balanced", NEVER, ("server", "final", "server"), 1),
        ("balanced", ALWAYS, ("confident", "early", "edge"), 0),
        ("edge_first", NEVER, ("planned", "final", "edge"), 0),
        ("edge_first", ALWAYS, ("confident", "early", "edge"), 0),
        ("server_first", ALWAYS, ("server", "final", "server"), 1),
        ("answer_then_escalate", NEVER, ("planned", "early", "edge"), 1),
        ("answer_then_escalate", ALWAYS, ("confident", "early", "edge"), 0),
        ("offline", NEVER, ("planned", "final", "edge"), 0),
    ],
)
def test_a_profile_says_who_answers_first(
    bundle: Bundle,
    promised: SimpleNamespace,
    hosted: Counted,
    profile: str,
    thresholds: dict[str, float],
    expected: tuple[str, str, str],
    asked: int,
) -> None:
    plan = Plan(1, thresholds, deadline_s=5.0)
    with Edge.open(bundle, upstream=InProcess(hosted), plan=plan, profile=profile) as edge:
        answer = edge.answer(promised.IMAGE)
        assert (answer.why, answer.exit, answer.where) == expected
        assert not answer.degraded
        assert soon(lambda: hosted.asked == asked)
    if profile == "offline":
        # It never even connects, and what may not run here does not.
        with Edge.open(
            bundle, server="127.0.0.1:1", plan=plan, profile=profile, fallback="none"
        ) as edge:
            assert edge.answer(promised.IMAGE).exit == "early"
            assert "asked" not in edge.counts


def test_edge_first_asks_where_the_deadline_is_too_near_for_the_whole_net(
    slow_bundle: Bundle, promised: SimpleNamespace
) -> None:
    hosted = Counted(hosting(slow_bundle))
    plan = Plan(1, deadline_s=5.0)
    with Edge.open(
        slow_bundle, upstream=InProcess(hosted), plan=plan, profile="edge_first"
    ) as edge:
        assert edge.answer(promised.IMAGE).why == "planned"
        whys = {edge.answer(promised.IMAGE, deadline_s=0.012).why for _ in range(3)}
    assert hosted.asked >= 1 and "planned" not in whys
    hosted.close()


def test_a_correction_follows_an_answer_that_was_given_at_once(
    bundle: Bundle, promised: SimpleNamespace, hosted: Counted
) -> None:
    told = list[tuple[Answer, Answer]]()
    with Edge.open(
        bundle,
        upstream=InProcess(hosted),
        plan=Plan(0, deadline_s=5.0),  # no exit before the split: the next one answers
        profile="answer_then_escalate",
        corrected=lambda given, better: told.append((given, better)),
    ) as edge:
        answer = edge.answer(promised.IMAGE)
        assert edge.settle(10) and len(told) == 1
        counts = edge.counts
    (given, better) = told[0]
    assert given is answer and (given.exit, given.where) == ("early", "edge")
    assert (better.exit, better.where, better.why) == ("final", "server", "server")
    assert counts.get("corrections", 0) == int(better.label != given.label)


def test_an_audit_sees_when_sure_exits_are_contradicted_more_often_than_they_were(
    bundle: Bundle, promised: SimpleNamespace, hosted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    said = list[str]()
    plan = Plan(1, ALWAYS, deadline_s=5.0)
    with Edge.open(
        bundle, upstream=InProcess(hosted), plan=plan, audit=1.0, alarm=said.append
    ) as edge:
        early = edge.answer(promised.IMAGE)
        assert soon(lambda: edge.counts.get("audited", 0) == 1)
        agrees = edge.counts["audited and contradicted"] == 0
        hosted.lies = agrees  # from now on it says something else than the exit
        for _ in range(40):
            answer = edge.answer(promised.IMAGE)
            assert (answer.why, answer.elapsed_s < 1) == ("confident", True)
            time.sleep(0.002)
        assert soon(lambda: edge.counts.get("alarms", 0) >= 1)
        assert edge.counts["audited"] + edge.counts.get("left out behind", 0) <= 41
    assert "more often than" in said[0] and "the data may have drifted" in said[0]
    assert len(said) == edge.counts["alarms"].bit_length(), "the 1st, 2nd, 4th, 8th are said"
    assert early.where == "edge"
    with pytest.raises(SpecError, match="audit must be a share"):
        Edge.open(bundle, upstream=InProcess(hosted), plan=plan, audit=3)
    with pytest.raises(SpecError, match="no profile named 'fast'"):
        Edge.open(bundle, plan=plan, profile="fast")
