"""What is allowed and probably not meant is said once, with its numbers.

Healthy data raises nothing.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from presplit.core.errors import PresplitWarning
from presplit.core.spec import spec_from
from presplit.train import Recipe, fit, runs
from presplit.train.data import Samples, hold_out, load
from presplit.train.judging.doubts import also_in, data_doubts, scale_doubt
from presplit.train.layers.standardise import Standardise
from presplit.train.nets.checking import held_in_0_1, scales_inputs

NAMES = ("cat", "dog", "hen")
draw = np.random.default_rng(0)


def some(n: int, counts: tuple[int, ...] = (1, 1, 1), *, x: np.ndarray | None = None) -> Samples:
    """``n`` images of noise, their classes in the shares of ``counts``."""
    y = np.repeat(np.arange(len(counts)), counts)[np.arange(n) % sum(counts)]
    return Samples(draw.random((n, 1, 4, 4)).astype(np.float32) if x is None else x, y)


def doubts(train: Samples, held: Samples, test: Samples) -> list[str]:
    return data_doubts(train, held, test, names=NAMES)


def test_healthy_data_raises_no_doubt() -> None:
    assert doubts(some(300), some(90), some(90)) == []
    digits = load("digits")
    assert data_doubts(*hold_out(digits.train, 0.1), digits.test, names=digits.labels) == []
    # a share that differs a little, or by chance alone, is none
    assert doubts(some(300), some(90), some(90, (3, 2, 2))) == []
    assert doubts(some(300, (4, 3, 3)), some(90), some(6, (6, 1, 1))) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["mnist", "fsdd", "clothing", "cifar10"])
def test_the_data_sets_on_the_shelf_raise_no_doubt(name: str) -> None:
    try:
        data = load(name)
    except Exception as error:  # it is not on this machine
        pytest.skip(str(error))
    train, held = hold_out(data.train, 0.1)
    scaled = data.rate is not None
    assert data_doubts(train, held, data.test, names=data.labels, scaled=scaled) == []


def test_each_doubt_says_its_numbers() -> None:
    train, held, test = some(300), some(90), some(90)
    copied = np.concatenate([train.x[:9], test.x[9:]])
    for parts, message in (
        ((train, some(30), test), "30 samples are held out: .* lose less than 9.5 points"),
        ((train, some(90, (1, 1, 0)), test), "none is held out of hen"),
        ((some(300, (1, 1, 0)), some(90, (1, 1, 0)), test), "hen: there are test samples of it"),
        (
            (some(300, (8, 1, 1)), some(90, (8, 1, 1)), test),
            r"other shares .* 47% of them .*\(cat: 80% to train with, 33% to test with\)",
        ),
        ((train, held, some(90, x=copied)), "9 of 90 test samples are among those to train with"),
        ((some(300, x=255 * train.x), held, test), r"values from 0\.\d+ to 25\d(\.\d)?: .*uint8"),
    ):
        found = doubts(*parts)
        assert len(found) == 1, found
        assert re.search(message, found[0]), found


def test_a_test_set_of_classes_that_none_is_trained_on_is_named_and_nothing_is_divided_by_it() -> (
    None
):
    (found,) = doubts(some(300, (1, 1, 0)), some(90, (1, 1, 0)), some(90, (0, 0, 1)))
    assert found.startswith("hen: there are test samples of it and none to train with")


def test_copies_are_found_to_the_byte() -> None:
    x = draw.random((50, 3, 20, 20)).astype(np.float32)
    other = x[:10].copy()
    other[:5, 0, 0, 1] += 1e-6  # a byte that the first look passes over
    assert also_in(other, x) == 5
    assert also_in(x[:3, :, :10], x) == 0


def test_a_column_of_large_numbers_is_named_unless_the_net_scales_it() -> None:
    rows = draw.normal(size=(40, 3)).astype(np.float32) * [1, 1000, 1]
    assert scale_doubt(rows.astype(np.float32)).startswith("column 2 has values from -")
    assert scale_doubt(rows.astype(np.float32)[:, ::2]) == ""
    first = Standardise(np.zeros(3, np.float32), np.ones(3, np.float32))
    assert scales_inputs(nn.Sequential(first, nn.Linear(3, 2)))
    assert scales_inputs(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))
    assert not scales_inputs(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


class Careful(nn.Linear):
    """It gives numbers in 0..1 for samples in 0..1, and takes no others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.max() <= 1
        return torch.sigmoid(super().forward(x))


def test_a_sigmoid_at_the_end_is_seen_and_nothing_else_is_taken_for_one() -> None:
    x = torch.rand(20, 4)
    said = held_in_0_1(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), x)
    assert said.startswith("Sequential gives only numbers between 0 and 1") and "0.58 of 3" in said
    for end in (nn.Identity(), nn.ReLU(), nn.Tanh(), nn.LogSoftmax(1), nn.Hardtanh(0, 9)):
        assert held_in_0_1(nn.Sequential(nn.Linear(4, 3), end), x) == "", end
    assert held_in_0_1(Careful(4, 3), x) == ""


def test_python_is_warned_once_and_the_command_reads_it_in_the_result(tmp_path) -> None:
    net, recipe = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), Recipe(1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(net, some(30, x=255 * some(30).x), recipe=recipe)
        fit(nn.Sequential(net, nn.Sigmoid()), some(30), recipe=recipe)
    kinds = [each for each in said if each.category is PresplitWarning]
    assert [str(each.message).split()[0] for each in kinds] == ["the", "Sequential"]
    assert {each.filename for each in kinds} == {__file__}, "it points at the caller"
    x, y = np.float32(draw.random((200, 4)) * 3000), np.arange(200) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    spec = {
        "data": {"name": str(tmp_path / "d.npz"), "validation": 0.2},
        "model": {"kind": "mlp", "layers": [4, 2]},
        "training": {"epochs": 1},
    }
    notes = runs.train(spec_from(spec), tmp_path / "run")["notes"]
    assert [note.split()[0] for note in notes] == ["30", "column"]
