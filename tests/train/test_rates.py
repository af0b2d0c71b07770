"""Rates of sparse layers follow from the connections that exist; all else has the recipe's rate."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from presplit.core.errors import DataError
from presplit.core.recipe import RECIPES
from presplit.train import Recipe, fit, sparsify
from presplit.train.data import Samples, digits, hold_out
from presplit.train.fitting.rates import by_rate
from presplit.train.fitting.recipe import OPTIMISERS, SCHEDULES
from presplit.train.zoo import mlp

PLAIN = Recipe(epochs=1, batch=64, rate=1e-2, schedule="constant")


@pytest.fixture(scope="module")
def few() -> Samples:
    return hold_out(digits().train, 0.2)[1]


def net() -> nn.Module:
    torch.manual_seed(0)
    return sparsify(mlp([64, 64, 64, 10]), layers={"fc1": 1 / 4, "fc2": 1 / 16})


def rate_of(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """Each parameter's rate by its name."""
    names = {id(value): name for name, value in model.named_parameters()}
    groups = by_rate(model, list(model.parameters()), recipe)
    return {names[id(value)]: group["lr"] for group in groups for value in group["params"]}


def test_connections_learn_faster_by_the_root_of_what_is_left_out_and_nothing_else_does() -> None:
    found = rate_of(net(), PLAIN)
    assert found.pop("fc1.values") == pytest.approx(2e-2)
    assert found.pop("fc2.values") == pytest.approx(4e-2)
    assert len(found) == 4 and set(found.values()) == {1e-2}


@pytest.mark.parametrize("family", ["bernoulli", "tiled"])
def test_a_convolution_s_rate_follows_from_its_density_in_every_family(family: str) -> None:
    model = sparsify(nn.Sequential(nn.Conv2d(16, 16, 3)), layers={"0": 1 / 4}, family=family)
    assert rate_of(model, PLAIN)["0.values"] == pytest.approx(2e-2, rel=0.05)


def test_groups_that_a_convolution_had_leave_nothing_out() -> None:
    model = sparsify(nn.Sequential(nn.Conv2d(64, 64, 3, groups=4)), layers={"0": 1 / 4})
    assert rate_of(model, PLAIN)["0.values"] == pytest.approx(2e-2)


def test_the_paper_s_recipe_and_a_dense_net_have_one_rate_for_all() -> None:
    assert set(rate_of(net(), RECIPES["paper"]).values()) == {1e-3}
    assert set(rate_of(mlp([64, 64, 10]), PLAIN).values()) == {1e-2}


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_the_first_step_moves_each_value_by_its_rate(optimiser: str, few: Samples) -> None:
    """Adam's first step is the rate in size, whatever the gradient, if there is any."""
    for rates, factor in (("by_fan_in", 4.0), ("uniform", 1.0)):
        model, samples = net(), Samples(few.x[:64], few.y[:64])
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        recipe = msgspec.structs.replace(PLAIN, optimiser=optimiser, rates=rates)
        fit(model, samples, recipe=recipe)
        moved = {
            name: float((value - before[name]).detach().abs().max())
            for name, value in model.named_parameters()
        }
        assert moved["fc2.values"] == pytest.approx(factor * 1e-2, rel=1e-3)
        for name in ("fc3.weight", "fc2.bias"):
            assert moved[name] == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_rates_keep_their_proportion_on_every_schedule(schedule: str) -> None:
    recipe = msgspec.structs.replace(PLAIN, schedule=schedule, decay=0.1)
    model = net()
    optimiser = OPTIMISERS["sgd"](by_rate(model, list(model.parameters()), recipe), recipe)
    steps = SCHEDULES[schedule](optimiser, recipe, 8)
    for _ in range(8):
        rates = sorted(group["lr"] for group in optimiser.param_groups)
        np.testing.assert_allclose(np.divide(rates, rates[0]), [1, 2, 4], rtol=1e-9)
        optimiser.step()
        steps.step()


def test_a_training_does_not_go_on_with_other_rates(few: Samples, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    fit(net(), few, recipe=PLAIN, state=state)
    other = msgspec.structs.replace(PLAIN, rates="uniform")
    with pytest.raises(DataError, match="rates was 'by_fan_in', now it is 'uniform'"):
        fit(net(), few, recipe=other, state=state)
