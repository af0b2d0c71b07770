"""What a recipe says is what training does.

It sets regimes, distillation, smoothing, averages and early stop.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from presplit.core.errors import DataError, GraphError, SpecError
from presplit.core.spec import spec_from
from presplit.train import MultiExit, Recipe, add_exits, evaluate, fit, initialise, runs, sparsify
from presplit.train.data import Samples, digits, hold_out
from presplit.train.fitting.losses import joint_loss, soft_loss
from presplit.train.fitting.recipe import OPTIMISERS
from presplit.train.zoo import mlp


@pytest.fixture(scope="module")
def parts() -> tuple[Samples, Samples]:
    return hold_out(hold_out(digits().train, 0.3)[1], 0.2)


def net(seed: int = 0) -> MultiExit:
    """Batch normalisation, dropout and an early exit."""
    torch.manual_seed(seed)
    layers = [
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, 10),
    ]
    return add_exits(nn.Sequential(*layers), ["3"], example=torch.zeros(2, 1, 8, 8))


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name for (name, old), new in pairs if not torch.equal(old, new)}


def test_the_separate_regime_trains_the_net_alone_and_then_only_the_heads(
    parts: tuple[Samples, Samples],
) -> None:
    """In the second half the net, its running means and its answers stay as they were."""
    train, held = parts
    half, whole = net(), net()
    recipe = Recipe(epochs=6, batch=32, regime="separate", backbone_epochs=3)
    history = fit(whole, train, recipe=recipe, validation=held)
    fit(half, train, recipe=Recipe(epochs=3, batch=32), validation=held, exit_weights=[0, 1])
    assert moved(half, whole) == {"heads.0.linear.weight", "heads.0.linear.bias"}
    assert len({epoch.accuracy[1] for epoch in history[2:]}) == 1
    assert history[-1].accuracy[0] > history[2].accuracy[0]
    assert all(value.requires_grad for value in whole.parameters())


def test_the_mixed_regime_trains_everything_in_its_second_half(
    parts: tuple[Samples, Samples],
) -> None:
    first, second = net(), net()
    for model, epochs in ((first, 2), (second, 4)):
        recipe = Recipe(
            epochs=epochs, batch=32, schedule="constant", regime="mixed" if epochs == 4 else "joint"
        )
        fit(model, parts[0], recipe=recipe, exit_weights=None if epochs == 4 else [0, 1])
    assert moved(first, second) >= {
        "heads.0.linear.weight",
        "model.1.weight",
        "model.2.running_mean",
    }


def test_what_the_user_froze_stays_frozen(parts: tuple[Samples, Samples]) -> None:
    model = net()
    model.model.get_submodule("1").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, parts[0], recipe=Recipe(epochs=2, batch=32, regime="mixed"))
    assert torch.equal(model.state_dict()["model.1.weight"], before["model.1.weight"])
    assert not model.model.get_submodule("1").get_parameter("weight").requires_grad


def test_the_loss_is_what_its_shares_say() -> None:
    torch.manual_seed(0)
    early, last, teacher, labels = (
        torch.randn(5, 3),
        torch.randn(5, 3),
        torch.randn(5, 3),
        torch.tensor([0, 1, 2, 0, 1]),
    )

    def soft(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence at temperature 2, by its definition."""
        p, q = (theirs / 2).softmax(1), (ours / 2).softmax(1)
        return 4 * (p * (p.log() - q.log())).sum(1).mean()

    hard = [F.cross_entropy(out, labels, label_smoothing=0.1) for out in (early, last)]
    expected = 3 * (0.3 * hard[0] + 0.5 * soft(early, teacher) + 0.2 * soft(early, last))
    expected = (expected + 0.5 * hard[1] + 0.5 * soft(last, teacher)) / 4
    found = joint_loss(
        [early, last],
        labels,
        [3, 1],
        label_smoothing=0.1,
        teacher=teacher,
        distil=0.5,
        self_distil=0.2,
        temperature=2.0,
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(soft_loss(early, early, 3.0)) == pytest.approx(0, abs=1e-6)


def test_a_net_that_only_distils_learns_to_answer_as_its_teacher(
    parts: tuple[Samples, Samples],
) -> None:
    train, held = parts
    teacher, student = mlp([64, 64, 10]), sparsify(mlp([64, 64, 10]), density=0.25)
    fit(teacher, train, recipe=Recipe(epochs=20, batch=32))
    wrong = Samples(
        train.x, (train.y + 1) % 10
    )  # the labels say nothing right: what is learned comes from the teacher
    fit(student, wrong, recipe=Recipe(epochs=30, batch=32, distil=1.0), teacher=teacher)
    same = evaluate(student, held)[0].argmax(1) == evaluate(teacher, held)[0].argmax(1)
    assert same.mean() > 0.85, "chance is 0.1"


def test_the_average_follows_the_net_by_its_decay(parts: tuple[Samples, Samples]) -> None:
    """Two steps, by hand; the pattern of a sparse layer is copied, not averaged."""
    train = parts[0].take(slice(0, 64))
    seen = [sparsify(mlp([64, 32, 10]), density=0.25) for _ in range(2)]
    for model, epochs in zip(seen, (1, 2), strict=True):
        initialise(model, seed=1)
        fit(model, train, recipe=Recipe(epochs=epochs, batch=64, schedule="constant"))
    start = sparsify(mlp([64, 32, 10]), density=0.25)
    initialise(start, seed=1)
    averaged = sparsify(mlp([64, 32, 10]), density=0.25)
    initialise(averaged, seed=1)
    fit(averaged, train, recipe=Recipe(epochs=2, batch=64, schedule="constant", ema=0.75))
    for name, value in averaged.state_dict().items():
        first, second, third = (model.state_dict()[name] for model in (start, *seen))
        expected = (
            0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
            if value.is_floating_point()
            else first
        )
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(
    parts: tuple[Samples, Samples],
) -> None:
    train, held = parts
    model = mlp([64, 64, 10])
    recipe = Recipe(epochs=200, batch=32, schedule="constant", rate=0.01, patience=3)
    history = fit(model, train, recipe=recipe, validation=held)
    seen = [epoch.accuracy[0] for epoch in history]
    assert len(history) < 200 and len(history) - 1 - seen.index(max(seen)) == 3
    assert (evaluate(model, held)[0].argmax(1) == held.y).mean() == pytest.approx(max(seen))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_learns(name: str, parts: tuple[Samples, Samples]) -> None:
    rate = 0.05 if name == "sgd" else 5e-3
    model = mlp([64, 32, 10])
    history = fit(
        model,
        parts[0],
        recipe=Recipe(epochs=15, batch=32, optimiser=name, rate=rate),
        validation=parts[1],
    )
    assert history[-1].accuracy[0] > 0.7


RUN = {"spec.json", "versions.json", "metrics.jsonl", "model.safetensors", "result.json"}

REFUSED = [
    (
        {"regime": "alternating"},
        "Recipe.regime: invalid enum value 'alternating', got 'alternating'",
    ),
    ({"epochs": 1, "regime": "mixed"}, "Recipe.epochs: regime 'mixed' needs 2 at least, got 1"),
    ({"distil": 0.7, "self_distil": 0.7}, "shares of one loss, .* got 0.7 . 0.7"),
    ({"ema": 1.5}, "Recipe.ema: expected `float` < 1.0, got 1.5"),
    ({"label_smoothing": math.nan}, "Recipe.label_smoothing: expected a finite number, got nan"),
    ({"rate": 0.0}, "Recipe.rate: expected `float` > 0.0, got 0.0"),
    ({"mixup": -0.1}, "Recipe.mixup: expected `float` >= 0.0, got -0.1"),
    ({"class_weights": "even"}, "Recipe.class_weights: .*even"),
    ({"class_weights": (1, 0)}, r"Recipe.class_weights.* > 0.0, got [(]1, 0[)]"),
    (
        {"class_weights": "balanced", "sampling": "balanced"},
        "Recipe.class_weights: expected no 'balanced' beside sampling 'balanced'",
    ),
    ({"epochs": 4, "backbone_epochs": 4}, "expected fewer than epochs = 4, got 4"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_recipe_that_means_nothing_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe(**given)  # type: ignore[arg-type]


def test_a_recipe_that_does_not_fit_the_net_is_refused(parts: tuple[Samples, Samples]) -> None:
    for recipe, message in (
        (Recipe(optimiser="lion"), "optimiser: no optimiser named 'lion'; there are: adam, adamw"),
        (Recipe(augment="flap"), "augment: no augmentation named 'flap'"),
        (Recipe(regime="mixed"), "regime 'mixed' trains early exits, and the net has none"),
        (Recipe(self_distil=0.5), "self_distil teaches early exits, and the net has none"),
        (Recipe(distil=0.5), "distil is 0.5: give fit the teacher to learn from"),
        (Recipe(patience=2), "patience is 2: give fit the validation part that it watches"),
    ):
        with pytest.raises(SpecError, match=message):
            fit(mlp([64, 10]), parts[0], recipe=recipe)


@pytest.mark.parametrize(("augment", "times"), [("none", 1), ("shift", 3)])
def test_a_teacher_whose_answers_never_change_is_asked_once(
    augment: str, times: int, parts: tuple[Samples, Samples]
) -> None:
    class Counting(nn.Module):
        """A teacher without parameters that answers as it likes."""

        seen = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.seen += len(x) if len(x) > 2 else 0  # by two samples it is checked
            return x.flatten(1)[:, :10]

    recipe = Recipe(epochs=3, batch=len(parts[0]) // 2, distil=0.5, augment=augment)
    fit(mlp([64, 10]), parts[0], recipe=recipe, teacher=Counting())
    assert Counting.seen == times * len(parts[0])


def test_a_teacher_of_other_classes_is_refused_before_training(
    parts: tuple[Samples, Samples],
) -> None:
    with pytest.raises(GraphError, match="teacher: expected 10 logits as the net's, got 12"):
        fit(mlp([64, 10]), parts[0], recipe=Recipe(distil=0.5), teacher=mlp([64, 12]))


@pytest.mark.long
def test_a_run_that_distils_trains_its_dense_parent_first_and_resumes_both(tmp_path: Path) -> None:
    """Or takes the net of the run that it names."""
    raw = {
        "training": {"epochs": 3, "distil": 0.5, "ema": 0.9},
        "data": {"validation": 0.4},
        "sparsity": {"density": 0.25},
        "exits": {"after": ["block1"]},
    }
    spec = spec_from({**raw, "model": {"width": 8}})
    told: list[int] = []

    def stop(epoch: object) -> None:
        told.append(1)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(spec, tmp_path / "run", on_epoch=stop)
    assert (tmp_path / "run" / "unfinished" / "state.safetensors").exists()
    found = runs.train(spec, tmp_path / "run", resume=True)
    assert runs.train(spec, tmp_path / "run", resume=True) == found, "it is finished"
    whole = runs.train(spec, tmp_path / "whole")
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert whole == found and files == RUN | {"teacher"}
    lines = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "whole")
    ]
    assert [len(each) for each in lines] == [3, 3]
    parent = runs.read_run(tmp_path / "run" / "teacher")
    assert parent.spec.sparsity is None and parent.exit_names == ("final",)
    named = spec_from(
        {**raw, "model": {"width": 8}}, set=[f"training.teacher={tmp_path / 'run' / 'teacher'}"]
    )
    assert runs.train(named, tmp_path / "named")["accuracy"] == whole["accuracy"]
    assert not (tmp_path / "named" / "teacher").exists()
    with pytest.raises(
        DataError, match="the run there is of another spec: seed was 0, now it is 1; resume it as"
    ):
        runs.train(
            spec_from({**raw, "model": {"width": 8}, "seed": 1}), tmp_path / "run", resume=True
        )
