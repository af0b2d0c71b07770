"""Training: the same seed gives the same bits, rates follow the recipe, and all exits learn."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from presplit.core.errors import DataError, GraphError, SpecError
from presplit.train import (
    RECIPES,
    MultiExit,
    Recipe,
    SparseLinear,
    accuracies,
    add_exits,
    evaluate,
    fit,
    initialise,
    sparsify,
)
from presplit.train.data import Samples, digits, hold_out
from presplit.train.fitting.losses import joint_loss
from presplit.train.fitting.recipe import SCHEDULES
from presplit.train.fitting.trainer import Trainer
from presplit.train.zoo import mlp

QUICK = Recipe(epochs=2, batch=64)


@pytest.fixture(scope="module")
def few() -> Samples:
    return hold_out(digits().train, 0.2)[1]


def dropping() -> nn.Module:
    """A net that draws random numbers in training, and an exit whose size is not known before."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
    )
    return add_exits(sparsify(net, density=0.25), ["2"])


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(few: Samples) -> None:
    found = []
    for before in (0, 1):
        model = dropping()
        torch.manual_seed(before)
        fit(model, few, recipe=QUICK, seed=5)
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_another_seed_gives_other_weights(few: Samples) -> None:
    found = []
    for seed in (5, 6):
        model = dropping()
        fit(model, few, recipe=QUICK, seed=seed)
        found.append(weights(model))
    assert (found[0]["model.1.values"] != found[1]["model.1.values"]).any()


@pytest.mark.parametrize("family", ["grouped", "biregular", "bernoulli"])
def test_training_changes_values_and_never_the_pattern(family: str, few: Samples) -> None:
    model = sparsify(mlp([64, 32, 10]), density=0.25, family=family)
    layer = model.get_submodule("fc1")
    assert isinstance(layer, SparseLinear)
    before, index = layer.values.detach().clone(), layer.index.clone()
    fit(model, few, recipe=QUICK)
    assert (layer.values != before).any()
    torch.testing.assert_close(layer.index, index, rtol=0, atol=0)
    assert not layer.to_dense().weight.detach().numpy()[~layer.pattern.mask()].any()


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls_and_every_exit_learns(name: str, few: Samples) -> None:
    model = add_exits(mlp([64, 64, 32, 10]), ["relu1"], example=torch.zeros(1, 64))
    initialise(model, name, seed=0)
    history = fit(model, few, recipe=name, epochs=40, validation=few)
    assert history[-1].loss < 0.7 * history[0].loss
    assert min(history[-1].accuracy) > 0.5, "chance is 0.1"


def test_the_history_has_one_entry_an_epoch_as_it_was_told(few: Samples) -> None:
    told = []
    model = add_exits(mlp([64, 16, 10]), ["relu1"])
    history = fit(model, few, recipe=QUICK, epochs=3, validation=few, on_epoch=told.append)
    assert told == history and [epoch.number for epoch in history] == [1, 2, 3]
    assert history[-1].accuracy == tuple(accuracies(evaluate(model, few), few.y))
    assert fit(model, few, recipe=QUICK)[-1].accuracy == () and not model.training


def rates(recipe: Recipe, steps: int) -> list[float]:
    """The rate of each step, and of the one after the last."""
    optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=recipe.rate)
    schedule = SCHEDULES[recipe.schedule](optimiser, recipe, recipe.epochs * steps)
    found = [optimiser.param_groups[0]["lr"]]
    for _ in range(recipe.epochs * steps):
        optimiser.step()
        schedule.step()
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_the_paper_s_rate_decays_with_every_step() -> None:
    recipe = RECIPES["paper"]
    assert (recipe.epochs, recipe.batch, recipe.rate, recipe.decay) == (50, 256, 1e-3, 1e-5)
    assert rates(recipe, 4) == pytest.approx([1e-3 / (1 + 1e-5 * step) for step in range(201)])


def test_the_default_rate_rises_to_its_height_once_and_ends_at_nothing() -> None:
    recipe = RECIPES["default"]
    found = rates(recipe, 10)
    top = found.index(max(found))
    assert found[top] == pytest.approx(recipe.rate, rel=0.01)
    assert all(a <= b for a, b in itertools.pairwise(found[: top + 1]))
    assert all(a >= b for a, b in itertools.pairwise(found[top:]))
    assert found[-1] < 1e-3 * recipe.rate


def test_a_cosine_rate_falls_from_its_height_to_nothing() -> None:
    recipe = Recipe(epochs=2, rate=0.1, schedule="cosine")
    expected = [0.1 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert rates(recipe, 10) == pytest.approx(expected, abs=1e-12)


def test_an_epoch_sees_every_sample_once(few: Samples) -> None:
    seen: list[int] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and torch.is_grad_enabled():  # not when fit looks before it begins
                seen.extend(x[:, 0].long().tolist())
            return self.layer(x)

    numbers = np.arange(100, dtype=np.float32)[:, None]
    fit(Watching(), Samples(numbers, np.zeros(100)), recipe=Recipe(epochs=1, batch=32))
    assert sorted(seen) == list(range(100)) and seen != list(range(100))


def test_a_last_batch_of_one_sample_does_not_stop_batch_normalisation() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    samples = Samples(np.random.default_rng(0).normal(size=(33, 4)), np.zeros(33))
    assert len(fit(net, samples, recipe=Recipe(epochs=2, batch=32))) == 2
    x, y = (torch.from_numpy(part.copy()) for part in (samples.x, samples.y))
    assert len(fit(net, loaded(x, y, 16), epochs=2)) == 2


def loaded(x: torch.Tensor, y: torch.Tensor, batch: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    return DataLoader(TensorDataset(x, y), batch_size=batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.to(torch.int32),
        lambda y: y.to(torch.int16),
        lambda y: y.to(torch.uint8),
        lambda y: y.to(torch.float64),
        lambda y: y[:, None],
    ],
)
def test_labels_of_any_whole_type_train_the_same_net(change: Callable) -> None:
    x, y = torch.rand(12, 4), torch.arange(12) % 3
    found = []
    for labels in (y, change(y)):
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        fit(net, loaded(x, labels, 6), epochs=1)
        found.append(net.weight.detach())
    assert torch.equal(*found)


def test_inputs_of_another_width_or_of_bytes_are_brought_to_the_net_s() -> None:
    x, y = torch.randint(0, 256, (12, 4), dtype=torch.uint8), torch.arange(12) % 3
    found = []
    for given in (x, x / 255, (x / 255).double()):
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        fit(net, loaded(given, y, 6), epochs=1)
        found.append(net.weight.detach())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.eye(3)[torch.arange(12) % 3], r"got shape \(6, 3\); of one-hot rows take y.argmax"),
        (
            torch.arange(12) - 1,
            "labels are whole numbers from 0 on, got torch.int64 such as .-1, 0",
        ),
        (torch.rand(12), "labels are whole numbers from 0 on, got torch.float32"),
        (torch.arange(12) // 6 * 3, r"labels must be in 0..2, got 3"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(nn.Linear(4, 3), loaded(torch.rand(12, 4), y, 6), epochs=1)


class Lying:
    """A loader whose length may be wrong."""

    def __init__(self, batches: list[object], said: int) -> None:
        self.batches, self.said = batches, said

    def __len__(self) -> int:
        return self.said

    def __iter__(self) -> Iterator[object]:
        return iter(self.batches)


def test_batches_that_are_no_pairs_or_more_than_said_are_refused() -> None:
    good = (torch.rand(6, 4), torch.arange(6) % 3)
    for batches, said, message in (
        ([{"x": good[0], "y": good[1]}], 1, "a batch is two tensors .*, got dict"),
        ([(*good, good[1])], 1, "a batch is two tensors .*, got .'Tensor', 'Tensor', 'Tensor'"),
        ([good, (good[0], None)], 2, "a batch is two tensors .*, got .'Tensor', 'NoneType'"),
        ([good, good, good], 2, "the loader says it has 2 batches, and gives more"),
        ([], 0, "fit trains on one batch at least, got a loader of none"),
    ):
        with pytest.raises(DataError, match=message):
            fit(nn.Linear(4, 3), Lying(batches, said), epochs=1)  # type: ignore[arg-type]


def test_the_schedule_ends_where_it_must_though_a_last_sample_joined_a_batch() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    trainer = Trainer(net, loaded(torch.rand(13, 4), torch.arange(13) % 3, 6), epochs=2)
    while not trainer.finished:
        trainer.epoch()
    (group,) = trainer.state().header["groups"]
    assert group["lr"] < 1e-3 * RECIPES["default"].rate


def test_validation_that_does_not_fit_is_refused_before_training() -> None:
    train = Samples(np.zeros((4, 4)), np.array([0, 1, 0, 1]))
    for held, message in (
        (
            Samples(np.zeros((4, 5)), np.zeros(4)),
            r"expected samples of shape \(4,\) .*, got \(5,\)",
        ),
        (Samples(np.zeros((4, 4)), np.full(4, 2)), r"validation: labels must be in 0..1, got 2"),
        ((train.x, train.y), r"validation: Samples\(x, y\) are expected, got tuple"),
    ):
        with pytest.raises(DataError, match=message):
            fit(mlp([4, 2]), train, epochs=1, validation=held)  # type: ignore[arg-type]


def test_every_exit_tells_all_classes_apart() -> None:
    train = Samples(np.zeros((6, 4)), np.arange(6) % 3)
    net = add_exits(mlp([4, 4, 3]), ["relu1"], example=torch.zeros(2, 4))
    net.model.fc2 = nn.Linear(4, 2)
    with pytest.raises(GraphError, match=r"shape \(2, 3\), its own are \(2, 2\)"):
        fit(net, train, epochs=1)


def test_an_exit_s_weight_says_what_its_loss_counts(few: Samples) -> None:
    found = {}
    for weight in (1e-6, 1e6):
        model = add_exits(mlp([64, 32, 32, 10]), ["relu1"], example=torch.zeros(1, 64))
        initialise(model, seed=0)
        found[weight] = fit(
            model, few, recipe=Recipe(20, 64), validation=few, exit_weights=[weight, 1]
        )[-1].accuracy
    assert found[1e-6][1] > found[1e6][1] and found[1e6][0] > found[1e-6][0]


def test_auto_weighs_each_exit_by_what_its_answers_cost(few: Samples) -> None:
    model = add_exits(mlp([64, 32, 32, 10]), ["relu1", "relu2"], example=torch.zeros(1, 64))
    spent = np.array([2_368, 3_712, 4_032])  # the exits before it are paid too
    same = copy.deepcopy(model)
    losses = [
        fit(net, few, recipe=Recipe(2, 64), exit_weights=weights)[-1].loss
        for net, weights in ((model, "auto"), (same, [*(spent / spent[-1])]))
    ]
    assert losses[0] == losses[1]
    torch.testing.assert_close(model.state_dict(), same.state_dict(), rtol=0, atol=0)
    alone = mlp([64, 10])
    assert fit(alone, few, recipe=QUICK, exit_weights="auto")


def test_exit_weights_of_an_unknown_name_are_refused(few: Samples) -> None:
    model = add_exits(mlp([64, 16, 10]), ["relu1"])
    with pytest.raises(SpecError, match="a number for each of 2 exits or 'auto', got 'best'"):
        fit(model, few, recipe=QUICK, exit_weights="best")  # type: ignore[arg-type]


def test_the_joint_loss_is_the_weighted_mean_of_the_exits_losses() -> None:
    unsure, sure = torch.zeros(2, 2), torch.tensor([[99.0, 0.0], [99.0, 0.0]])
    assert float(joint_loss([unsure, sure], torch.tensor([0, 0]), [1, 3])) == pytest.approx(
        math.log(2) / 4
    )


def test_bfloat16_trains_and_leaves_float32_weights(few: Samples) -> None:
    model = sparsify(mlp([64, 32, 10]), density=0.25)
    history = fit(model, few, recipe=Recipe(epochs=2, batch=64, bf16=True))
    assert history[1].loss < history[0].loss
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", RECIPES)
def test_values_begin_as_the_recipe_says(name: str) -> None:
    model = sparsify(mlp([1024, 256, 10]), density=0.25)
    initialise(model, name, seed=0)
    layer = model.get_submodule("fc1")
    assert isinstance(layer, SparseLinear)
    degree, bias = (1024, 0.1) if name == "paper" else (256, 0.0)
    assert float(layer.values.detach().std()) == pytest.approx((2 / degree) ** 0.5, rel=0.02)
    assert all((p == bias).all() for n, p in model.named_parameters() if n.endswith("bias"))
    again = sparsify(mlp([1024, 256, 10]), density=0.25)
    initialise(again, name, seed=0)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_unknown_recipe_or_schedule_is_refused(few: Samples) -> None:
    with pytest.raises(SpecError, match="no recipe named 'papers' .nearest: paper."):
        fit(mlp([64, 10]), few, recipe="papers")
    with pytest.raises(
        SpecError,
        match="no schedule named 'step'; there are: one_cycle, cosine, inverse_time, constant",
    ):
        fit(mlp([64, 10]), few, recipe=Recipe(schedule="step"))


@pytest.mark.parametrize("count", [1, 3])
def test_exit_weights_of_another_number_are_refused(count: int, few: Samples) -> None:
    model = add_exits(mlp([64, 16, 10]), ["relu1"])
    assert isinstance(model, MultiExit)
    with pytest.raises(
        SpecError, match=r"exit_weights: expected one for each of 2 exits, got \[.*\]"
    ):
        fit(model, few, recipe=QUICK, exit_weights=[1.0] * count)


@pytest.mark.parametrize("weights", [[-2.0, 1.0], [float("nan"), 1.0], [0.0, 0.0], ["a", 1.0]])
def test_exit_weights_that_weigh_nothing_are_refused_before_training(
    weights: list, few: Samples
) -> None:
    model = add_exits(mlp([64, 16, 10]), ["relu1"])
    with pytest.raises(SpecError, match="exit_weights: expected finite numbers of 0 or more"):
        fit(model, few, recipe=QUICK, exit_weights=weights)


@pytest.mark.parametrize("hidden", [-8, 8.5, (8, 8)])
def test_hidden_channels_of_exits_are_whole_numbers(hidden: object) -> None:
    with pytest.raises(GraphError, match="hidden: expected a number of channels"):
        add_exits(mlp([64, 16, 10]), ["relu1"], example=torch.zeros(2, 64), hidden=hidden)


class Changed(nn.Module):
    """A net of ten classes whose logits ``change`` makes into something else."""

    def __init__(self, change: Callable[[torch.Tensor], object], *, frozen: bool = False) -> None:
        super().__init__()
        self.net, self.change = (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(not frozen),
            change,
        )

    def forward(self, x: torch.Tensor) -> object:
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (
            Changed(lambda y: y, frozen=True),
            SpecError,
            "regime .joint. trains the net, and nothing of it in Changed has requires_grad",
        ),
        (
            Changed(lambda y: y.detach()),
            GraphError,
            "no gradient flows back from the logits of Changed: it detaches",
        ),
        (
            Changed(lambda y: y[:, :4]),
            GraphError,
            r"the data has 10 classes, Changed gives logits of shape \(2, 4\)",
        ),
        (
            Changed(lambda y: (y, y)),
            GraphError,
            "a classifier returns logits, Changed returns 2 things",
        ),
        (
            Changed(lambda y: y.view(3, 7)),
            GraphError,
            r"Changed does not take a sample of the data, float32 \(1, 8, 8\)",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(
    net: nn.Module, error: type[Exception], message: str, few: Samples
) -> None:
    with pytest.raises(error, match=message):
        fit(net, few, recipe=QUICK)


@pytest.mark.parametrize(
    ("regime", "frozen"), [("separate", "model"), ("mixed", "model"), ("separate", "heads")]
)
def test_a_part_that_is_trained_alone_must_not_be_frozen(
    regime: str, frozen: str, few: Samples
) -> None:
    net = add_exits(mlp([64, 16, 10]), ["relu1"], example=torch.zeros(1, 64))
    net.get_submodule(frozen).requires_grad_(False)
    with pytest.raises(
        SpecError,
        match=f"regime '{regime}' trains the .* and nothing of it in MultiExit has requires",
    ):
        fit(net, few, recipe=Recipe(epochs=2, regime=regime))


def test_a_frozen_net_trains_its_exits_and_stays_as_it_is(few: Samples) -> None:
    net = add_exits(mlp([64, 16, 10]), ["relu1"])
    net.model.requires_grad_(False)
    before = [value.clone() for value in net.model.parameters()]
    first, *_, last = fit(net, few, recipe=Recipe(epochs=8, batch=32))
    assert last.loss < first.loss
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(net.model.parameters(), before, strict=True)
    )


def test_no_epochs_and_other_data_than_samples_are_refused() -> None:
    net, data = mlp([4, 3, 2]), Samples(np.zeros((4, 4)), np.array([0, 1, 0, 1]))
    with pytest.raises(SpecError, match="Recipe.epochs: expected `int` >= 1, got 0"):
        fit(net, data, epochs=0)
    with pytest.raises(
        DataError, match=r"fit trains on Samples\(x, y\), or on batches .*, got tuple"
    ):
        fit(net, (data.x, data.y))  # type: ignore[arg-type]


def test_a_training_that_diverges_is_said_at_once() -> None:
    net, data = mlp([4, 3, 2]), Samples(np.ones((4, 4)), np.array([0, 1, 0, 1]))
    with torch.no_grad():
        net.get_submodule("fc2").get_parameter("bias").fill_(math.nan)
    with pytest.raises(
        DataError, match="training diverged: the loss of epoch 1 is nan; lower the rate"
    ):
        fit(net, data, epochs=2)


def test_a_last_step_that_diverges_is_no_result(few: Samples) -> None:
    recipe = Recipe(epochs=1, batch=1000, rate=1e30, optimiser="sgd", schedule="constant")
    with pytest.raises(DataError, match="training diverged"):
        fit(mlp([64, 16, 10]), few, recipe=recipe)


def test_a_teacher_from_whom_nothing_is_learned_is_refused(few: Samples) -> None:
    with pytest.raises(SpecError, match="teacher: nothing is learned from it, because distil"):
        fit(mlp([64, 10]), few, epochs=1, teacher=mlp([64, 10]))
