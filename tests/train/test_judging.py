"""What is said of classes, of calibration and of thresholds is what counting by hand gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.cli.classes import classes_text
from presplit.train import route
from presplit.train.judging.calibration import reliability
from presplit.train.judging.classes import confusion, per_class
from presplit.train.judging.curve import MOST, curve
from presplit.train.judging.thresholds import temperature

EXITS = ("early", "late", "final")
NAMES = ("boot", "shoe", "hat", "sock")


@st.composite
def judged(draw: st.DrawFn, exits: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(exits, n, 5)``, one output more than classes, and labels of three of four."""
    n = draw(st.sampled_from([1, 3, 60]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return random.normal(size=(exits, n, 5)).astype(np.float32), random.integers(0, 3, n)


@settings(max_examples=20)
@given(case=judged(3))
def test_classes_are_counted_as_their_confusions_are(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = case
    rows = per_class(logits, labels, names=NAMES, exit_names=EXITS)
    for name, own in zip(EXITS, logits, strict=True):
        counts = np.array(confusion(own.argmax(-1), labels, classes=4, outputs=5))
        assert counts.sum() == len(labels) and counts.sum(1).tolist() == [r["test"] for r in rows]
        for place, row in enumerate(rows):
            right, all_of, named = counts[place, place], counts[place].sum(), counts[:, place].sum()
            assert row["accuracy"][name] == (right / all_of if all_of else None)
            assert row["precision"][name] == (right / named if named else None)
            low, high = row["interval"][name]
            assert low <= (row["accuracy"][name] or 0.0) + 1e-12 and high <= 1


@settings(max_examples=20)
@given(case=judged(1))
def test_bins_of_reliability_hold_every_sample_and_their_means_are_the_whole_s(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    (logits,), labels = case
    found = reliability(logits, labels)
    sure = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    counts = np.array([cell["samples"] for cell in found["bins"]])
    assert counts.sum() == len(labels) and 0 <= found["error"] <= 1
    for key, whole in (
        ("confidence", sure.max(1).mean()),
        ("accuracy", (logits.argmax(1) == labels).mean()),
    ):
        means = np.array([cell[key] for cell in found["bins"]])
        assert counts @ means / len(labels) == pytest.approx(whole)
    assert all(c["low"] - 1e-9 <= c["confidence"] <= c["high"] + 1e-9 for c in found["bins"])


def test_a_temperature_makes_a_net_that_is_too_sure_as_sure_as_it_is_right() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=(2000, 4)) * 2
    chances = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    labels = (chances.cumsum(1) < random.random((2000, 1))).sum(1)
    loud = (3 * true).astype(np.float32)
    before = reliability(loud, labels)
    after = reliability(loud, labels, temperature=temperature(loud, labels))
    assert before["error"] > 0.1 > 0.03 > after["error"]


@settings(max_examples=20)
@given(case=judged(3), early=st.integers(1, 2))
def test_a_curve_s_points_are_what_routing_by_its_thresholds_gives(
    case: tuple[np.ndarray, np.ndarray], early: int
) -> None:
    logits, labels = case
    logits, names, macs = logits[2 - early :], EXITS[2 - early :], [10, 20, 60][2 - early :]
    test = logits[:, ::-1] * 2, labels
    rows = curve((logits, labels), test, exit_macs=macs, exit_names=names)
    assert 1 <= len(rows) <= MOST
    for row in rows:
        thresholds = [*row["thresholds"].values()]
        held, other = route(logits, labels, thresholds), route(*test, thresholds)
        assert (row["validation_accuracy"], row["accuracy"]) == (held.accuracy, other.accuracy)
        assert [*row["shares"].values()] == [*held.shares]
        assert row["macs"] == pytest.approx(np.dot(held.shares, macs))
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
    right = [row["validation_accuracy"] for row in rows]
    if early == 2:  # of several exits only what pays is there
        assert right == sorted(set(right))


def said(counts: list[list[int]], most: int) -> str:
    """What the command says of these confusions of ``NAMES``."""
    labels = np.repeat(np.arange(4), np.sum(counts, 1))
    answers = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
    logits = np.eye(4, dtype=np.float32)[answers][None]
    rows = per_class(logits, labels, names=NAMES, exit_names=["final"])
    result = {"accuracy": {"final": 0}, "per_class": rows, "confusion": {"final": counts}}
    return classes_text(result, most=most)


def test_the_worst_classes_come_first_and_what_is_not_shown_is_said() -> None:
    text = said([[9, 1, 0, 0], [4, 4, 2, 0], [0, 0, 10, 0], [0, 0, 0, 0]], 2)
    lines = text.splitlines()
    assert lines[0].startswith("The 2 worst of 3 classes")
    assert lines[3].split()[:5] == ["shoe", "10", "40.0", "%", "17"]
    assert lines[3].endswith("boot (4)") and lines[4].startswith("boot")
    assert "1 more, each at least 100.0 % right: --classes 3 shows all" in text
    assert "Nothing is known of sock: the test set has no sample of it" in text
    assert "of 7 wrong answers" in text and lines[-3] == "  shoe taken for boot: 4 of 10"
    assert "Each class" in said([[1, 0, 0, 0]] + [[0, 1, 0, 0]] * 3, 4)
    assert "confusions" not in said(np.eye(4, dtype=int).tolist(), 4)
