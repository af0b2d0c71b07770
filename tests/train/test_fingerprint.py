"""A net is recognised by what it answers.

A healthy one always is, and one whose code has changed by half a percent never is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import DataError
from presplit.train import add_exits, sparsify
from presplit.train.fitting import checkpoint, fingerprint
from presplit.train.zoo import mlp, resnet8, vit


class Ending(nn.Module):
    """A net of fixed values whose logits ``change`` makes into something else."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.change = nn.Linear(8, 4), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x))


X = torch.linspace(-1, 2, 16).reshape(2, 8)
MASK = torch.tensor([0.0, 0.0, float("-inf"), 0.0])
CHANGES = {
    "no numbers": lambda y: y * float("nan"),
    "another sign": lambda y: -y,
    "another sign of what is small": lambda y: -1e-4 * y,
    "by a percent": lambda y: 1.01 * y,
    "another shape": lambda y: y[:, :3],
    "random": lambda y: y + torch.randn_like(y),
    "one class masked": lambda y: y + MASK,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    small = 1e-4 if "small" in name else 1.0
    kept = fingerprint.evidence(Ending(lambda y: small * y), X)
    assert fingerprint.is_another(Ending(CHANGES[name]), kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y,
        lambda y: y + MASK,
        lambda y: 1e-6 * y,
        lambda y: 1e30 * y,
        CHANGES["no numbers"],
    ],
)
def test_a_healthy_net_is_known_again(change: Callable[[Tensor], Tensor]) -> None:
    kept = fingerprint.evidence(Ending(change), X)
    assert kept and not fingerprint.is_another(Ending(change), kept)


class Words(nn.Module):
    """A net of ids: ``sizes`` says how many there are at each place."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = nn.ModuleList(nn.Embedding(size, 4) for size in sizes)
        self.change = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pairs = enumerate(self.tables)
        return self.change(sum(table(x[:, place].long()) for place, table in pairs))


@pytest.mark.parametrize(
    ("kind", "sizes"), [("float", (9, 9)), ("long", (9, 9)), ("float", (9, 3))]
)
def test_a_net_of_ids_is_asked_for_ids_that_it_has(kind: str, sizes: tuple[int, ...]) -> None:
    columns = [torch.randint(0, size, (50,)) for size in sizes]
    x, net = getattr(torch.stack(columns, 1), kind)(), Words(*sizes)
    kept = fingerprint.evidence(net, x)
    assert kept and not fingerprint.is_another(net, kept)
    drawn = fingerprint.noise(kept)
    assert drawn.dtype == x.dtype and torch.equal(drawn, drawn.round())
    net.change = nn.Tanh()
    assert fingerprint.is_another(net, kept)


def test_a_change_of_one_exit_is_seen_beside_larger_ones() -> None:
    net = add_exits(mlp([8, 16, 4]), ["relu1"], example=X)
    with torch.no_grad():
        net.model.fc2.weight.mul_(1000)
    kept = fingerprint.evidence(net, X)
    assert not fingerprint.is_another(net, kept)
    net.heads[0].pool.most, head = 1, net.heads[0]
    with torch.no_grad():
        head.linear.bias.add_(0.1)
    assert fingerprint.is_another(net, kept)


@pytest.mark.parametrize("name", ["resnet8", "vit", "mlp"])
def test_products_of_ten_binary_digits_make_no_other_net(name: str) -> None:
    """As a GPU may multiply: inputs and weights lose what comes after their tenth digit."""
    x = torch.rand(2, 3, 32, 32)
    net = {
        "resnet8": resnet8(width=16),
        "vit": vit(),
        "mlp": nn.Sequential(nn.Flatten(), mlp([3072, 64, 10])),
    }[name]
    net = sparsify(net, density=0.25).eval()
    kept = fingerprint.evidence(net, x)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(ten_digits(value))
    for part in net.modules():
        if not list(part.children()):
            part.register_forward_pre_hook(
                lambda part, given: tuple(ten_digits(each) for each in given)
            )
    assert not fingerprint.is_another(net, kept)


def ten_digits(value: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((mantissa * 2048).round() / 2048, exponent)


WRONG = {
    "limits": None,
    "shape": torch.tensor([2**20, 2**20]),
    "shape ": torch.tensor([-8]),
    "shape  ": torch.tensor(8),
    "limits ": torch.zeros(3, dtype=torch.float64),
    "whole": torch.tensor([True, False]),
    "float": torch.tensor(1),
    "0": None,
    "1": torch.zeros(2, 4, dtype=torch.float64),
    "1 ": None,
}


@pytest.mark.parametrize("name", WRONG)
def test_evidence_of_another_form_is_refused_in_a_sentence_with_the_file(
    name: str, tmp_path: Path
) -> None:
    file, net = tmp_path / "net.safetensors", Ending(lambda y: y)
    checkpoint.save(file, net, x=X)
    tensors, about = checkpoint.read_tensors(file)
    full = f"recognised.{name.strip()}"
    if name == "1 ":
        tensors["recognised.other"] = torch.zeros(2)
    elif WRONG[name] is None:
        del tensors[full]
    else:
        tensors[full] = WRONG[name]
    checkpoint.write_tensors(file, tensors, about)
    with pytest.raises(DataError, match=rf"{file}: .* recognised by .*{full}\); train anew"):
        checkpoint.restore(file, net)


def test_samples_too_large_to_draw_leave_no_evidence() -> None:
    vast = torch.zeros(1).expand(1, 2**14, 2**14)
    assert fingerprint.evidence(nn.Identity(), vast) == {}


def test_no_random_number_is_drawn_and_nothing_it_raises_comes_out() -> None:
    restless, broken = Ending(lambda y: y + torch.randn_like(y)), Ending(lambda y: y[7])
    before = torch.get_rng_state()
    assert fingerprint.evidence(restless, X) == fingerprint.evidence(broken, X) == {}
    assert not fingerprint.is_another(broken, {})
    assert torch.equal(torch.get_rng_state(), before)
