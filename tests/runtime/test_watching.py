"""A watcher sees every answer and can neither delay nor break one."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.core.types import Answer
from presplit.runtime import Edge
from presplit.runtime.watching import ROOM, Watching

IMAGES = np.random.default_rng(0).random((40, 16), dtype=np.float32)


def test_after_closing_a_watcher_has_seen_every_answer_in_order(bundle: Bundle) -> None:
    seen: list[Answer] = []
    with Edge.open(bundle, plan=Plan(3), watch=seen.append) as edge:
        answers = [edge.answer(image) for image in IMAGES]
    assert [id(answer) for answer in seen] == [id(answer) for answer in answers]


def test_a_watcher_that_raises_is_told_so_and_sees_the_next_answer(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    seen: list[Answer] = []

    def watch(answer: Answer) -> None:
        seen.append(answer)
        raise SystemExit("the disk is full")

    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with Edge.open(bundle, plan=Plan(3), watch=watch) as edge:
        whys = [edge.answer(image).why for image in IMAGES[:3]]
    assert whys == ["planned"] * 3
    assert len(seen) == 3
    assert [str(each.exc_value) for each in told] == ["the disk is full"] * 3


def test_a_watcher_that_stands_still_delays_neither_answers_nor_closing(bundle: Bundle) -> None:
    gate = threading.Event()
    edge = Edge.open(bundle, plan=Plan(3), watch=lambda _: gate.wait(20))
    began = time.monotonic()
    for image in IMAGES:
        edge.answer(image)
    answered = time.monotonic() - began
    edge.close()
    closed = time.monotonic() - began
    gate.set()
    assert answered < 1
    assert closed < 5


def test_what_a_slow_watcher_misses_is_counted(bundle: Bundle) -> None:
    gate = threading.Event()
    watching = Watching(lambda _: gate.wait(20))
    with Edge.open(bundle, plan=Plan(3)) as edge:
        answer = edge.answer(IMAGES[0])
    for _ in range(ROOM + 5):
        watching.see(answer)
    assert 4 <= watching.missed <= 5
    gate.set()
    watching.close()
