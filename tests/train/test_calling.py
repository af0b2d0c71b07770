"""Nets that people bring work, or one true sentence refuses them before they are trained."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.train import (
    add_exits,
    allocate,
    decide,
    evaluate,
    export,
    fit,
    layer_times,
    sparsify,
    summary,
    to_onnx,
)
from presplit.train.data import Samples
from presplit.train.nets.calling import exit_logits, unwrapped
from presplit.train.nets.checking import check_classifier
from presplit.train.nets.copying import bare_copy, exportable
from presplit.train.nets.inspect import survey

X = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
SAMPLES = Samples(X.numpy(), np.arange(8) % 4)
Outputs = collections.namedtuple("Outputs", "logits aux")


class Answers(nn.Module):
    """A net that gives what a function makes of itself and its input."""

    def __init__(self, how: Callable[[Answers, Tensor], object], *, classes: int = 4) -> None:
        super().__init__()
        self.how, self.net, self.aux = how, row(classes), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> object:
        """``x``: float ``(batch, 16)``."""
        return self.how(self, x)


def row(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, classes))


class Own(Exception):
    """What only the user's code knows."""


def failing(error: Exception) -> nn.Module:
    def how(_net: Answers, _x: Tensor) -> object:
        raise error

    return Answers(how)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = nn.Linear(16, 4), nn.Linear(12, 4)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Both float."""
        return self.image(image) + self.table(table)


DOORS: dict[str, Callable[[nn.Module, Path], object]] = {
    "fit": lambda net, _: fit(net, SAMPLES, epochs=1),
    "evaluate": lambda net, _: evaluate(net, SAMPLES),
    "add_exits": lambda net, _: add_exits(net, "auto", example=X),
    "materialise": lambda net, _: add_exits(
        net, [*dict(net.named_children())][:1], classes=4
    ).materialise(X),
    "export": lambda net, where: export(net, X, where / "net.bundle"),
    "to_onnx": lambda net, _: to_onnx(net, X),
    "survey": lambda net, _: survey(net, (16,)),
    "summary": lambda net, _: summary(net, X),
    "allocate": lambda net, _: allocate(net, X, budget=0.5),
    "layer_times": lambda net, _: layer_times(net, X),
}


@pytest.mark.parametrize("door", DOORS)
def test_whatever_a_net_raises_is_one_sentence_with_the_cause_kept(
    door: str, tmp_path: Path
) -> None:
    for error, said in (
        (KeyError("mask"), "KeyError: 'mask'"),
        (Own("not\nnow"), "not now"),
        (AssertionError(), "AssertionError"),
    ):
        with pytest.raises(GraphError, match=r"Answers does not take a .*16.*: " + said) as caught:
            DOORS[door](failing(error), tmp_path)
        assert caught.value.__cause__ is error
    with pytest.raises(GraphError, match="missing 1 required positional argument: 'table'"):
        DOORS[door](TwoInputs(), tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda net, x: net.net(x).argmax(1), "logits of floats, got int64"),
        (lambda net, x: torch.fft.fft(net.net(x)), "logits of floats, got complex64"),
        (lambda net, x: (net.net(x), x), "Answers returns 2 things"),
        (lambda net, x: {"out": net.net(x)}, "or an object that has them as .logits, got dict"),
        (lambda net, x: None, "got NoneType"),
        (lambda net, x: net.net(x)[:, :1].sigmoid(), "gives one number for each sample"),
        (lambda net, x: net.net(x)[:, 0], "gives one number for each sample"),
        (lambda net, x: net.net(x)[:, None], r"\(batch, classes\), Answers gives \(\d, 1, 4\)"),
    ],
)
def test_an_output_that_is_no_logits_is_refused_at_every_door(
    output: Callable[[Answers, Tensor], object], said: str, tmp_path: Path
) -> None:
    for door in ("fit", "add_exits", "export", "survey"):
        with pytest.raises(GraphError, match=said):
            DOORS[door](Answers(output), tmp_path)


@pytest.mark.parametrize(
    "auxiliary",
    [
        lambda net, x: (net.net(x), net.aux(x)),
        lambda net, x: [net.net(x), net.aux(x)],
        lambda net, x: {"aux": net.aux(x), "logits": net.net(x)},
        lambda net, x: Outputs(net.net(x), net.aux(x)),
    ],
)
def test_a_net_with_auxiliary_logits_in_training_learns_by_its_own(
    auxiliary: Callable[[Answers, Tensor], object],
) -> None:
    """So it ends with the very values of a net without them."""

    def found(how: Callable[[Answers, Tensor], object], after: list[str]) -> Tensor:
        torch.manual_seed(0)
        net: nn.Module = Answers(how)
        net = add_exits(net, after) if after else net
        fit(net, SAMPLES, epochs=1)
        return exit_logits(net.eval(), X)[-1]

    def plain(net: Answers, x: Tensor) -> Tensor:
        return net.net(x)

    def both(net: Answers, x: Tensor) -> object:
        return auxiliary(net, x) if net.training else plain(net, x)

    for after in ([], ["net.1"]):
        torch.testing.assert_close(found(both, after), found(plain, after), rtol=0, atol=0)


def test_logits_that_differ_between_training_and_evaluation_are_refused_before_training() -> None:
    def features_first(net: Answers, x: Tensor) -> object:
        return (x, net.net(x)) if net.training else net.net(x)

    def only_evaluated(net: Answers, x: Tensor) -> Tensor:
        if net.training:
            raise KeyError("targets")
        return net.net(x)

    with pytest.raises(GraphError, match=r"\(2, 16\) in training and \(2, 4\) in evaluation"):
        fit(Answers(features_first), SAMPLES, epochs=1)
    with pytest.raises(GraphError, match="KeyError: 'targets'"):
        fit(Answers(only_evaluated), SAMPLES, epochs=1)


def test_a_check_leaves_statistics_modes_and_random_states_as_they_are() -> None:
    net = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    net[2].eval()
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    before = torch.get_rng_state()
    check_classifier(net, X, 4)
    torch.testing.assert_close(net.state_dict(), kept, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in net] == [True, True, False, True]


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # type: ignore[return-value]


def compiled_inside() -> nn.Module:
    net = row()
    net[0] = compiled(net[0])
    return net


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "torch.compile": lambda: compiled(row()),
    "DataParallel": lambda: nn.DataParallel(row()),
    "both": lambda: compiled(nn.DataParallel(row())),
    "AveragedModel": lambda: torch.optim.swa_utils.AveragedModel(row()),
    "one layer compiled": compiled_inside,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_only_wraps_a_net_is_taken_off(name: str) -> None:
    net = WRAPPED[name]()
    assert [n for n, _ in bare_copy(net).named_modules()] == ["", "0", "1", "2"]
    assert [*decide(bare_copy(net), density=0.5)] == ["0", "2"]
    assert add_exits(net, ["1"], example=X).exit_names == ("1", "final")
    values = [*unwrapped(net).parameters()]
    before = [value.detach().clone() for value in values]
    fit(net, SAMPLES, epochs=1)
    assert all((value != old).any() for value, old in zip(values, before, strict=True))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (lambda: torch.jit.trace(row(), X), "Sequential is a TorchScript module"),
        (
            lambda: nn.Sequential(row(), torch.jit.trace(nn.Linear(4, 4), X[:, :4])),
            "Sequential: 1 is a TorchScript module",
        ),
        (
            lambda: torch.ao.quantization.quantize_dynamic(row(), {nn.Linear}),
            "Sequential: 0 is a quantised Linear",
        ),
        (lambda: row().to("meta"), "Sequential: 0 has no values yet"),
        (lambda: nn.ModuleDict({"None": row()}), "a submodule that is called 'None'"),
        (lambda: nn.ModuleDict({"a\nb": row()}), r"a submodule that is called 'a\\nb'"),
        (lambda: torch.relu, "a torch.nn.Module is expected, got builtin_function"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_net_that_cannot_be_changed_or_exported_is_refused_at_every_door(
    net: Callable[[], nn.Module], said: str, tmp_path: Path
) -> None:
    for door in ("fit", "add_exits", "export", "survey", "allocate"):
        with pytest.raises(GraphError, match=said):
            DOORS[door](net(), tmp_path)
    with pytest.raises(GraphError, match=said):
        sparsify(net(), density=0.5)


def test_a_net_that_cannot_be_copied_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    net = row()
    net.lock = threading.Lock()  # type: ignore[assignment]
    for door in ("fit", "add_exits", "export"):
        with pytest.raises(GraphError, match="Sequential cannot be copied, .*lock"):
            DOORS[door](net, tmp_path)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_old_norms_of_weights_are_copied_and_baked_into_what_is_exported() -> None:
    net = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(16, 32)), nn.utils.spectral_norm(nn.Linear(32, 4))
    ).eval()
    expected = net(X)  # and from here on the norms hold values that torch does not copy
    found = exportable(net, X)
    assert {name for name, _ in found.named_parameters()} == {
        f"{layer}.{value}" for layer in "01" for value in ("weight", "bias")
    }
    close = 16 * torch.finfo(torch.float32).eps  # the same sums; a norm is rounded once more
    torch.testing.assert_close(found(X), expected, rtol=close, atol=close)
    assert len(add_exits(net, ["0"], example=X)(X)) == 2
    kept = decide(net, layers={"*": 1})
    assert [decision.pattern for decision in kept.values()] == [None, None]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_of_another_float_type_are_exported_in_float32_or_refused_by_its_name(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    name = str(dtype).removeprefix("torch.")

    def inside(net: Answers, x: Tensor) -> Tensor:
        return net.net(x.to(dtype)).float()

    casting = Answers(inside)
    casting.net.to(dtype)
    for door in ("fit", "add_exits", "export", "survey"):
        with pytest.raises(GraphError, match=f"computes in {name} inside"):
            DOORS[door](casting, tmp_path)
    whole = row().to(dtype)
    assert exportable(whole, X)(X).dtype == torch.float32
    for door in ("fit", "evaluate", "summary"):
        with pytest.raises(GraphError, match=rf"values of {name}, .*: call .float\(\) first"):
            DOORS[door](whole, tmp_path)


def test_lazy_layers_get_their_sizes_in_copies_and_in_training_alone() -> None:
    net = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(4))
    assert add_exits(net, ["1"], example=X).model[0].weight.shape == (32, 16)
    with pytest.raises(GraphError, match="layer 0 has no size yet: run an example"):
        summary(net, X)
    with pytest.raises(GraphError, match="0: has no size yet: run an example"):
        sparsify(net, density=0.5)
    assert isinstance(net[0], nn.LazyLinear)
    fit(net, SAMPLES, epochs=1)
    assert [each.weights for each in summary(net)] == [512, 128]


def test_probabilities_in_place_of_logits_are_refused_before_training() -> None:
    net = nn.Sequential(nn.Linear(16, 4), nn.Softmax(1))
    with pytest.raises(
        GraphError, match="Sequential gives probabilities, .* leave its softmax out"
    ):
        check_classifier(net, X, 4)
