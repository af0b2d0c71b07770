"""Uneven classes: weights and order make them count alike, and only where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from presplit.core.errors import SpecError
from presplit.train import Recipe, evaluate, fit
from presplit.train.data import Samples
from presplit.train.fitting.balance import balanced_order, balanced_weights
from presplit.train.fitting.losses import joint_loss
from presplit.train.fitting.trainer import Trainer
from presplit.train.zoo import mlp

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def uneven(seed: int) -> Samples:
    """Two classes that overlap, nine samples of the first for one of the second."""
    draw = np.random.default_rng(seed)
    y = (np.arange(400) % 10 == 0).astype(np.int64)
    return Samples(draw.normal(size=(400, 2)) + 1.2 * y[:, None], y)


@given(COUNTS)
def test_balanced_weights_make_classes_count_alike_and_a_sample_one(counts: list[int]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    weights = balanced_weights(labels, len(counts) + 1)
    assert weights[-1] == 0, "a class without samples"
    torch.testing.assert_close(weights[labels].mean(), torch.tensor(1.0))
    each = weights[:-1] * torch.tensor(counts)
    torch.testing.assert_close(each, each[:1].expand(len(counts)))
    roots = balanced_weights(labels, len(counts), power=0.5)
    torch.testing.assert_close(roots[labels].mean(), torch.tensor(1.0))
    torch.testing.assert_close((roots / roots[0]) ** 2, weights[:-1] / weights[0])


@given(COUNTS, st.integers(0, 99))
def test_a_balanced_epoch_has_every_class_as_often_and_repeats_only_what_is_rare(
    counts: list[int], seed: int
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    members = [(labels == each).nonzero().flatten() for each in range(len(counts))]
    places = balanced_order(members, torch.Generator().manual_seed(seed))
    assert len(places) == len(labels)
    seen = torch.bincount(labels[places], minlength=len(counts))
    assert seen.max() - seen.min() <= 1
    for own in members:
        times = (places[:, None] == own).sum(0)
        assert times.max() - times.min() <= 1


def test_class_weights_count_samples_of_a_batch_as_often_as_they_say() -> None:
    """A weight of 2 is a sample that is there twice; the mean is over the samples."""
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    found = joint_loss([logits], labels, [1.0], class_weights=torch.tensor([1.0, 1.0, 2.0]))
    twice = torch.tensor([0, 1, 2, 2, 3, 3, 4])
    torch.testing.assert_close(found, F.cross_entropy(logits[twice], labels[twice]) * 7 / 5)


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        ({"class_weights": "balanced"}, 0.7),
        ({"class_weights": "root"}, 0.5),  # halfway to all classes alike, and so is what is found
        ({"class_weights": (1, 9)}, 0.7),
        ({"sampling": "balanced"}, 0.7),
    ],
)
def test_a_rare_class_is_found_when_classes_count_alike(
    asked: dict[str, object], least: float
) -> None:
    found = []
    for more in ({}, asked):
        net = mlp([2, 2])
        fit(net, uneven(0), recipe=Recipe(20, 40, 0.02, **more))  # type: ignore[arg-type]
        test = uneven(1)
        found.append(float((evaluate(net, test)[0].argmax(1) == 1)[test.y == 1].mean()))
    assert found[0] < 0.3 and found[1] > least


def test_the_samples_of_a_balanced_epoch_come_with_what_the_teacher_said_of_them() -> None:
    samples = uneven(0)
    recipe = Recipe(1, 64, sampling="balanced", distil=0.5)
    trainer = Trainer(mlp([2, 2]), samples, recipe=recipe, teacher=mlp([2, 2]))
    _, labels, taught = (torch.cat(parts) for parts in zip(*trainer._batches, strict=True))
    assert labels.sum() == 200 and len(taught) == 400
    assert len(taught[labels == 1].unique(dim=0)) == 40


def test_balance_that_cannot_be_had_is_refused_before_training() -> None:
    samples = uneven(0)
    loader = DataLoader(
        TensorDataset(torch.from_numpy(samples.x.copy()), torch.from_numpy(samples.y.copy())), 40
    )
    for recipe, message in (
        (Recipe(class_weights="balanced"), "class_weights: 'balanced' needs the labels of all"),
        (Recipe(class_weights="root"), "class_weights: 'root' needs the labels of all samples"),
        (Recipe(sampling="balanced"), "sampling: 'balanced' needs the labels of all samples, and"),
    ):
        with pytest.raises(SpecError, match=message):
            fit(mlp([2, 2]), loader, recipe=recipe)
    fit(mlp([2, 2]), loader, recipe=Recipe(1, class_weights=(1, 9)))
    with pytest.raises(SpecError, match="class_weights: expected one for each of 2 classes, got 3"):
        fit(mlp([2, 2]), samples, recipe=Recipe(class_weights=(1, 2, 3)))
