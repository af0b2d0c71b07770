"""A budget becomes densities that `sparsify` takes, and the sparse net keeps to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError, PatternError, PresplitWarning
from presplit.patterns import PATTERNS
from presplit.runtime import seconds_of
from presplit.train import (
    SparseLinear,
    allocate,
    count_weights,
    layer_times,
    sparsify,
    summary,
    to_onnx,
)
from presplit.train.zoo import mlp, resnet8

IMAGE = torch.zeros(1, 3, 32, 32)


def cost(model: nn.Module, unit: str) -> int:
    rows = summary(model, IMAGE)
    return sum(row.macs for row in rows) if unit == "macs" else sum(row.weights for row in rows)


@pytest.mark.parametrize("family", ["grouped", "biregular", "bernoulli"])
@pytest.mark.parametrize("profile", ["uniform", "uniform+", "erk", "early_sparse"])
@pytest.mark.parametrize("unit", ["weights", "macs"])
def test_the_sparse_net_meets_the_budget(family: str, profile: str, unit: str) -> None:
    net, tolerance = resnet8(width=32), 0.1 if family == "grouped" else 0.01
    shares = allocate(
        net, IMAGE, budget=0.4, unit=unit, profile=profile, family=family, tolerance=tolerance
    )  # type: ignore[arg-type]
    made = sparsify(net, layers=shares, family=family)
    assert cost(made, unit) / cost(net, unit) == pytest.approx(0.4, rel=tolerance + 1e-3)


@pytest.mark.parametrize("family", PATTERNS)
def test_a_budget_in_bytes_is_what_values_and_index_take(family: str) -> None:
    """One of the layers has groups of its own.

    How wide Bernoulli's index is shows only when it is drawn.
    """
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 128, 1),
        nn.Flatten(),
        nn.Linear(128, 128),
    )
    example = torch.zeros(1, 3, 5, 5)
    shares = allocate(net, example, budget=0.6, unit="bytes", family=family, tolerance=0.1)
    made = sparsify(net, layers=shares, family=family)

    def held(model: nn.Module) -> int:
        state = {
            name: value for name, value in model.state_dict().items() if not name.endswith("bias")
        }
        return sum(value.numel() * value.element_size() for value in state.values())

    assert held(made) / held(net) == pytest.approx(
        0.6, rel=0.12 if family == "bernoulli" else 0.1 + 1e-3
    )


class Unused(nn.Module):
    """One layer is never called, as what attention reads of its parts is not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)
        self.never = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(input=torch.relu(self.a(x)))))


def test_a_layer_that_never_runs_stays_dense_and_does_not_disturb_a_budget_of_multiplications() -> (
    None
):
    found = {
        profile: allocate(
            Unused(), torch.rand(2, 64), budget=0.4, unit="macs", profile=profile, tolerance=0.1
        )  # type: ignore[arg-type]
        for profile in ("uniform", "early_sparse")
    }
    assert found["uniform"]["never"] == 1.0 and found["uniform"] != found["early_sparse"]


def test_a_budget_of_everything_keeps_all_layers_dense() -> None:
    net = mlp([64, 64, 10])
    assert count_weights(
        sparsify(net, layers=allocate(net, torch.zeros(1, 64), budget=1.0))
    ) == count_weights(net)


def test_layers_are_timed_in_the_order_that_they_have_in_the_net() -> None:
    orders: list[str] = []

    def clock(layer: nn.Module, _: Tensor) -> float:
        if isinstance(layer, SparseLinear):
            orders.append(layer.order)
        return 1.0

    layer_times(mlp([64, 64, 64, 10]), torch.zeros(1, 64), densities=(0.25,), seconds=clock)
    assert orders == ["straight", "dealt"]


def test_no_output_reads_fewer_features_than_asked_and_what_cannot_be_sparse_stays_dense() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 32, 3, groups=32),
        nn.Conv2d(32, 256, 1),
        nn.Conv2d(256, 256, 3, groups=2),
    )
    shares = allocate(net, IMAGE, budget=0.3, least_features=16, tolerance=0.1)
    assert shares["0"] == shares["1"] == 1.0
    assert 32 * shares["2"] >= 16 and 128 * shares["3"] >= 16
    made = sparsify(net, layers=shares)
    assert count_weights(made) / count_weights(net) == pytest.approx(0.3, rel=0.1)


def test_by_time_narrow_layers_stay_dense_and_wide_ones_carry_the_sparsity() -> None:
    """With a clock that says so, a layer's time is its weights, never less than that of 4,096."""

    def clock(layer: nn.Module, _: Tensor) -> float:
        return max(4096.0, float(count_weights(layer)))

    net = mlp([64, 64, 512, 512, 10])
    times = layer_times(net, torch.zeros(1, 64), seconds=clock)
    assert set(times) == {"fc1", "fc2", "fc3", "fc4"} and set(times["fc3"]) == {
        1 / 16,
        1 / 8,
        1 / 4,
        1 / 2,
        1.0,
    }
    shares = allocate(net, torch.zeros(1, 64), budget=0.3, times=times)
    assert shares["fc1"] == 1.0 and shares["fc3"] < 1.0


def test_layers_are_timed_on_the_engine_that_will_run_them() -> None:
    net = mlp([64, 64, 7])  # the second layer stays dense
    seen: list[tuple[int, ...]] = []

    def clock(layer: nn.Module, x: Tensor) -> float:
        seen.append(tuple(x.shape))
        return seconds_of(to_onnx(layer, x).SerializeToString(), {"input": x.numpy()}, repeats=3)

    times = layer_times(net, torch.zeros(2, 64), densities=(0.5,), seconds=clock)
    assert set(times["fc1"]) == {0.5, 1.0} and all(
        t > 0 for of_layer in times.values() for t in of_layer.values()
    )
    assert set(seen) == {(2, 64)}


def test_timing_leaves_the_model_as_it_was() -> None:
    net = resnet8(width=8).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    layer_times(net, IMAGE, densities=(0.5,))
    assert net.training and all(layer.training for layer in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_an_impossible_budget_is_refused_with_what_is_possible() -> None:
    with pytest.raises(
        PatternError, match=r"a budget is a share of the dense net's weights, in 0..1, got 1.5"
    ):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=1.5)
    with pytest.raises(
        PatternError, match=r"a budget of 47.36 weights is impossible: \d+..4736 are possible"
    ):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.01, tolerance=0.5)
    with pytest.warns(PresplitWarning, match=r"nearest total .* reach is 832, 17.6 times it"):
        shares = allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.01)
    assert shares == {"fc1": 0.125, "fc2": 0.5}
    with pytest.raises(PatternError, match="layer fc1 needs times"):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.5, times={})
    with pytest.raises(
        PatternError, match="a family whose densities are listed: grouped, .*, got 'local'"
    ):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.5, family="local")
    with pytest.raises(
        PatternError, match="unit: expected one of weights, macs, bytes, got 'flops'"
    ):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.5, unit="flops")  # type: ignore[arg-type]
    with pytest.raises(PatternError, match="profile: expected one of uniform, .*, got 'nope'"):
        allocate(mlp([64, 64, 10]), torch.zeros(1, 64), budget=0.5, profile="nope")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="an example is a batch of at least one sample, got none"):
        allocate(mlp([64, 64, 10]), torch.zeros(0, 64), budget=0.5)
    with pytest.raises(GraphError, match="ReLU has no linear layer or convolution"):
        allocate(nn.ReLU(), torch.zeros(1, 64), budget=0.5)
