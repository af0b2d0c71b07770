"""Mixed samples: labels say what is in them, and exits and teachers learn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from presplit.core.errors import DataError
from presplit.train import Recipe, add_exits, evaluate, fit
from presplit.train.data import Samples, digits, hold_out
from presplit.train.fitting.losses import joint_loss
from presplit.train.fitting.mixup import mixed
from presplit.train.zoo import mlp

FEW = hold_out(digits().train, 0.3)[1]


def marked(count: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of a class each, whose values are their classes; from 1 on."""
    labels = torch.arange(count)
    values = (labels + 1.0).view(-1, *[1] * len(shape))
    return values.expand(count, *shape).clone(), labels


def test_mixup_adds_samples_as_it_adds_labels() -> None:
    torch.manual_seed(0)
    x, labels = marked(300, 5)
    found, shares = mixed(x, labels, 300, mixup=0.4)
    torch.testing.assert_close(shares.sum(1), torch.ones(300))
    expected = shares @ (torch.arange(300) + 1.0)
    torch.testing.assert_close(found, expected[:, None].expand(300, 5), rtol=1e-4, atol=1e-4)
    largest = shares.max(1).values
    assert (shares > 0).sum(1).max() == 2 and largest.min() < 0.55 and largest.max() > 0.99
    assert 0.4 < shares.diag().mean() < 0.6, "a sample and the other one count alike"


def test_cutmix_puts_one_box_in_and_labels_say_how_large_it_is() -> None:
    torch.manual_seed(0)
    x, labels = marked(200, 2, 12, 20)
    found, shares = mixed(x, labels, 200, cutmix=1.0)
    for number, (image, share) in enumerate(zip(found, shares, strict=True)):
        foreign = image[0] != number + 1
        assert torch.equal(image[0], image[1]) and len(image[0][foreign].unique()) <= 1
        assert float(share[number]) == pytest.approx(1 - float(foreign.float().mean()), abs=1e-5)
        places = foreign.nonzero()
        if len(places):
            sides = places.max(0).values - places.min(0).values + 1
            assert int(sides.prod()) == len(places), "a whole box"
    assert shares.diag().min() < 0.2 and shares.diag().max() > 0.95


def test_of_mixup_and_cutmix_each_batch_takes_one() -> None:
    torch.manual_seed(0)
    x, labels = marked(8, 1, 6, 6)
    whole = 0
    for _ in range(100):
        found, _ = mixed(x, labels, 8, mixup=1.0, cutmix=1.0)
        whole += int(bool((found == found.round()).all()))
    assert 30 < whole < 70, "cutmix leaves pixels as they are"


def test_labels_as_shares_of_one_class_give_the_loss_of_labels() -> None:
    torch.manual_seed(0)
    exits, labels = [torch.randn(6, 4), torch.randn(6, 4)], torch.tensor([0, 1, 2, 3, 3, 1])
    asked: dict[str, Any] = {"label_smoothing": 0.1, "self_distil": 0.2}
    for weights in (None, torch.tensor([1.0, 2.0, 0.5, 3.0])):
        hard = joint_loss(exits, labels, [1, 2], class_weights=weights, **asked)
        shares = nn.functional.one_hot(labels, 4).float()
        soft = joint_loss(exits, shares, [1, 2], class_weights=weights, **asked)
        torch.testing.assert_close(soft, hard)


def test_a_net_with_exits_learns_from_mixed_samples_and_a_teacher() -> None:
    """The teacher is asked of each mixed batch: what it said of the samples is of no use."""
    asked: list[torch.Tensor] = []

    class Asked(nn.Module):
        """A teacher without parameters, which remembers what it was asked."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(x.clone())
            return x.flatten(1)[:, :10]

    net = add_exits(mlp([64, 64, 32, 10]), ["relu1"], example=torch.zeros(1, 64))
    recipe = Recipe(8, 64, mixup=0.2, label_smoothing=0.1, distil=0.1, self_distil=0.2, ema=0.9)
    history = fit(net, FEW, recipe=recipe, teacher=Asked(), validation=FEW)
    assert min(history[-1].accuracy) > 0.6, "chance is 0.1"
    whole = {row.tobytes() for row in FEW.x}
    seen = np.concatenate([batch.numpy() for batch in asked if len(batch) > 2])
    assert len(seen) == 8 * len(FEW)
    assert np.mean([row.tobytes() in whole for row in seen]) < 0.5


def test_batches_of_a_loader_are_mixed_and_augmented_too() -> None:
    data = TensorDataset(torch.from_numpy(FEW.x.copy()), torch.from_numpy(FEW.y.copy()))
    recipe = Recipe(6, rate=0.02, cutmix=1.0, mixup=0.2, augment="nudge+erase")
    net = nn.Sequential(nn.Flatten(), mlp([64, 32, 10]))
    fit(net, DataLoader(data, batch_size=32, shuffle=True), recipe=recipe)
    found = evaluate(net, FEW)[0].argmax(1) == FEW.y
    assert found.mean() > 0.5, "chance is 0.1"


def test_what_cannot_be_mixed_is_refused_before_training() -> None:
    with pytest.raises(DataError, match=r"cutmix: expected images .*shape \(64,\); mixup mixes"):
        fit(mlp([64, 10]), Samples(FEW.x.reshape(-1, 64), FEW.y), recipe=Recipe(cutmix=1.0))
    words = TensorDataset(torch.arange(8).view(8, 1), torch.arange(8) % 2)
    net = nn.Sequential(nn.Embedding(8, 4), nn.Flatten(), nn.Linear(4, 2))
    for recipe, message in (
        (Recipe(mixup=1.0), "mixup: only numbers with a fraction can be mixed, got torch.int64"),
        (Recipe(augment="noise"), "augment: noise changes numbers with a fraction, got torch.int"),
    ):
        with pytest.raises(DataError, match=message):
            fit(net, DataLoader(words, batch_size=4), recipe=recipe)
