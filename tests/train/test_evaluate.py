"""Evaluation: one table of logits, and every routing and threshold as brute force finds it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from presplit.core.errors import SpecError
from presplit.policies import confidence
from presplit.train import accuracies, add_exits, choose_thresholds, evaluate, route
from presplit.train.data import Samples
from presplit.train.judging.evaluate import balanced_accuracy
from presplit.train.zoo import small_cnn

DROPS = (0.0, 0.01, 0.1, 0.29, 1.0)

Case = tuple[np.ndarray, np.ndarray]


@settings(max_examples=20)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    copies=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_every_class_counts_alike_in_the_balanced_accuracy(
    counts: list[int], copies: int, seed: int
) -> None:
    """With as many of each it is the accuracy, and more of the same samples change nothing."""
    random = np.random.default_rng(seed)
    even = np.repeat(np.arange(5), 4)
    answers = random.integers(0, 5, 20)
    assert balanced_accuracy(answers, even) == pytest.approx((answers == even).mean())
    labels = np.repeat(2 * np.arange(len(counts)), counts)  # classes that are not there: 1, 3, ...
    answers = random.integers(0, 9, len(labels))
    more = np.where(labels == 0, copies, 1)
    assert balanced_accuracy(np.repeat(answers, more), np.repeat(labels, more)) == pytest.approx(
        balanced_accuracy(answers, labels)
    )


@st.composite
def cases(draw: st.DrawFn, exits: int = 2) -> Case:
    """Logits ``(exits, n, 3)`` from few levels, so that scores tie often, and labels."""
    n = draw(st.sampled_from([1, 2, 7, 100]))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    logits = random.integers(0, levels, (exits, n, 3)).astype(np.float32) / levels * 4
    return logits, random.integers(0, 3, n)


def followed(
    logits: np.ndarray, labels: np.ndarray, thresholds: list[float]
) -> tuple[Fraction, list[int]]:
    """Accuracy and the number of samples that leave at each exit, one sample after another."""
    right, left = 0, [0] * len(logits)
    for sample, label in enumerate(labels):
        for exit_ in range(len(logits)):
            sure = (
                exit_ == len(logits) - 1
                or confidence(logits[exit_, [sample]])[0] >= thresholds[exit_]
            )
            if sure:
                right += int(logits[exit_, sample].argmax() == label)
                left[exit_] += 1
                break
    return Fraction(right, len(labels)), left


@settings(max_examples=30)
@given(
    case=cases(exits=3),
    thresholds=st.lists(st.sampled_from([0.0, 0.4, 0.5, 0.7, 1.01]), min_size=2, max_size=2),
)
def test_every_sample_leaves_at_the_first_exit_that_is_sure(
    case: Case, thresholds: list[float]
) -> None:
    routed = route(*case, thresholds)
    right, left = followed(*case, thresholds)
    assert routed.accuracy == pytest.approx(float(right))
    assert routed.shares == pytest.approx([count / len(case[1]) for count in left])
    assert sum(routed.shares) == pytest.approx(1)


@settings(max_examples=30)
@given(case=cases(exits=3))
def test_thresholds_at_the_ends_give_the_accuracy_of_one_exit(case: Case) -> None:
    own = accuracies(*case)
    assert [route(*case, at).accuracy for at in ([0, 0], [2, 0], [2, 2])] == pytest.approx(own)


@settings(max_examples=40)
@given(case=cases(), max_drop=st.sampled_from(DROPS))
def test_the_chosen_threshold_never_loses_more_than_allowed(case: Case, max_drop: float) -> None:
    threshold = choose_thresholds(*case, max_drop=max_drop).thresholds[0]
    lost = accuracies(*case)[-1] - route(*case, [threshold]).accuracy
    assert lost <= max_drop + 1e-12


@settings(max_examples=40)
@given(case=cases(), max_drop=st.sampled_from(DROPS))
def test_no_lower_threshold_would_do_and_more_leave(case: Case, max_drop: float) -> None:
    """Of all thresholds that keep the accuracy, the chosen one lets the most samples leave."""
    logits, labels = case
    scores = confidence(logits[0])
    final = Fraction(int((logits[-1].argmax(-1) == labels).sum()), len(labels))
    allowed = [
        s
        for s in {*scores.tolist(), 2.0}
        if final - followed(*case, [s])[0] <= Fraction(str(max_drop))
    ]
    chosen = choose_thresholds(logits, labels, max_drop=max_drop).thresholds[0]
    np.testing.assert_array_equal(scores >= np.float32(chosen), scores >= np.float32(min(allowed)))


def test_an_exit_that_is_always_wrong_never_answers() -> None:
    logits = np.array([[[9, 0], [0, 9]], [[0, 9], [9, 0]]], np.float32)
    threshold = choose_thresholds(logits, np.array([1, 0]), max_drop=0).thresholds[0]
    assert route(logits, np.array([1, 0]), [threshold]).shares == (0.0, 1.0)


def test_a_loss_that_is_exactly_allowed_is_allowed() -> None:
    """0.29 * 100 is less than 29 in float64."""
    late = np.tile(np.array([9, 0], np.float32), (100, 1))
    for percent in range(101):
        early = late.copy()
        early[:percent] = [0, 8]  # wrong, and less sure than the others
        chosen = choose_thresholds(
            np.stack([early, late]), np.zeros(100, np.int64), max_drop=percent / 100
        )
        assert chosen.shares == (1.0, 0.0), percent


@pytest.mark.parametrize("batch", [1, 3, 10, 512])
def test_logits_do_not_depend_on_the_batch(batch: int) -> None:
    net = add_exits(small_cnn(width=8, size=8), ["stem"], example=torch.zeros(1, 1, 8, 8))
    samples = Samples(np.random.default_rng(0).normal(size=(10, 1, 8, 8)), np.zeros(10))
    found = evaluate(net, samples, batch=batch)
    assert found.shape == (2, 10, 10) and found.dtype == np.float32
    np.testing.assert_allclose(found, evaluate(net, samples), atol=1e-5)  # sums in another order


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_changes_neither_mode_nor_statistics(training: bool) -> None:
    net = small_cnn(width=8, size=8).train(training)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(net, Samples(np.ones((4, 1, 8, 8)), np.zeros(4)))
    assert net.training == training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_a_plain_classifier_has_one_exit() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert evaluate(net, Samples(np.ones((5, 2, 2)), np.zeros(5))).shape == (1, 5, 3)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(SpecError, match="no exit policy named 'certainty'"):
        choose_thresholds(
            np.zeros((2, 1, 2), np.float32), np.zeros(1, np.int64), max_drop=0, policy="certainty"
        )


def test_a_part_that_is_frozen_stays_in_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).train()
    net[1].eval()
    evaluate(net, Samples(np.zeros((3, 4)), np.zeros(3)))
    assert net.training and not net[1].training
