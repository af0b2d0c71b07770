"""What is promised of every answer, and how it is looked at."""

from __future__ import annotations

import statistics
import time

import numpy as np

from presplit.bundle import Bundle
from presplit.core.types import Answer
from presplit.runtime import Edge
from presplit.runtime.engines import ENGINES

IMAGE = np.random.default_rng(0).random(16, dtype=np.float32)
DEADLINE_S = 0.1
SLACK_S = 0.01
"""What an answer may take beyond its deadline (the promise)."""
STALL_S = 0.25
"""How long a machine that is busy with other things may stall one answer out of many."""


def answers_in_time(edge: Edge, *, count: int = 12, deadline_s: float = DEADLINE_S) -> list[Answer]:
    """``count`` answers that are in time by the caller's clock.

    That is the rule, and none is held up by more than a stall.
    """
    found, took = [], []
    for _ in range(count):
        began = time.monotonic()
        found.append(edge.answer(IMAGE, deadline_s=deadline_s))
        took.append(time.monotonic() - began)
    assert statistics.median(took) <= deadline_s + SLACK_S
    assert max(took) <= deadline_s + STALL_S
    return found


def held(bundle: Bundle, split: int) -> np.ndarray:
    """What the edge holds under `Plan(split)`: the exit at the split, or the next one."""
    name, stop = {0: ("early", 1), 1: ("early", 1), 2: ("middle", 2)}[split]
    head = bundle.runnable(0, stop, exits=[name])
    return ENGINES["onnxruntime"](head, 1).run({head.input: IMAGE[None]})[head.logits[name]][0]


def assert_own(answers: list[Answer], bundle: Bundle, *, split: int, why: set[str]) -> None:
    """Every answer is the edge's own for one of the reasons ``why``, and most are the deepest.

    The whole net's is as good as the server's; what is held answers where a busy machine did not
    get that far in time.
    """
    assert {answer.where for answer in answers} == {"edge"}
    assert {answer.why for answer in answers} <= why
    whole = bundle.runnable(0, bundle.net.last)
    deepest = ENGINES["onnxruntime"](whole, 1).run({whole.input: IMAGE[None]})
    for answer in answers:
        assert answer.degraded == (answer.exit != "final")
        if answer.degraded and answer.exit == "early":
            np.testing.assert_array_equal(answer.scores, held(bundle, min(split, 1)))
        elif answer.degraded:
            np.testing.assert_array_equal(answer.scores, held(bundle, 2))
        else:
            expected = deepest[whole.logits["final"]][0]
            np.testing.assert_allclose(answer.scores, expected, rtol=1e-5)
    assert 2 * sum(answer.exit == "final" for answer in answers) >= len(answers)


def comes_back(edge: Edge) -> bool:
    """True if the server answers again within 5 seconds (the promise)."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        if edge.answer(IMAGE, deadline_s=DEADLINE_S).why == "server":
            return True
        time.sleep(0.05)
    return False
