"""Every way to run and keep a layer gives the same.

It may be in half precision, compiled, in two processes, copied, or saved.
"""

from __future__ import annotations

import copy
import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.patterns.periodic_kernel import periodic_kernel
from presplit.train import SparseConv1d, SparseConv2d, SparseLinear, sparsify
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.zoo import mlp

Layer = TypeVar("Layer", SparseLinear, SparseConv1d, SparseConv2d)

ROUNDING = 2.0**-8
"""The largest relative error of rounding to bfloat16, which keeps 8 binary digits."""
ROUNDINGS = 4
"""Both factors, their sum, and the sum with the bias may each be rounded once.

Sums inside are float32.
"""
TERMS = 1024
"""Sums have fewer terms than this; taken in another order, each term may be rounded once."""
SAME = TERMS * torch.finfo(torch.float32).eps
CLOSE = TERMS * torch.finfo(torch.float64).eps
SHAPES = [(1,), (5,), (2, 3)]
"""One sample, some, and some with positions: a layer runs each another way."""


def _forms() -> dict[str, Pattern]:
    """Every form and order that a layer of 64 -> 64 can have."""
    random = np.random.default_rng(0)
    some = np.stack([random.choice(64, 16, replace=False) for _ in range(4)])
    ragged = some.copy()
    ragged[1, 9:] = -1
    dealt = PATTERNS["grouped"](64, 64, density=0.25)
    return {
        "straight": Pattern(64, 16, np.arange(64).reshape(4, 16)),
        "dealt": dealt,
        "any partition": Pattern(64, 16, random.permutation(64).reshape(4, 16)),
        "overlapping": Pattern(64, 16, some),
        "dealt, outputs in another order": Pattern(64, 16, dealt.index, random.permutation(64)),
        "overlapping, outputs in another order": Pattern(64, 16, some, random.permutation(64)),
        "scattered": PATTERNS["biregular"](64, 64, density=0.25),
        "scattered, outputs in another order": Pattern(
            64, 1, np.repeat(some, 16, axis=0), random.permutation(64)
        ),
        "ragged": Pattern(64, 16, ragged),
        "ragged, outputs in another order": Pattern(64, 16, ragged, random.permutation(64)),
    }


FORMS = _forms()
SUPPORTS = {
    "whole": None,
    "even": periodic_kernel((3, 3), support=2, period=9),
    "ragged": periodic_kernel((3, 3), support=2, period=7, dense=2),
}
OVER_TIME = {
    "whole": None,
    "even": periodic_kernel((5,), support=2, period=9),
    "ragged": periodic_kernel((5,), support=2, period=7, dense=2),
}


def drawn(layer: Layer) -> Layer:
    """``layer`` with a different bias for every output, so that no mix-up goes unseen."""
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    return layer


def linear(form: str) -> SparseLinear:
    torch.manual_seed(0)
    return drawn(SparseLinear(FORMS[form]))


def convolution(form: str, supports: str = "whole") -> SparseConv2d:
    torch.manual_seed(0)
    kept = SUPPORTS[supports] if FORMS[form].is_regular else None
    return drawn(SparseConv2d(FORMS[form], kernel_size=(3, 3), padding=(1, 1), supports=kept))


def over_time(form: str, supports: str = "whole") -> SparseConv1d:
    torch.manual_seed(0)
    kept = OVER_TIME[supports] if FORMS[form].is_regular else None
    return drawn(SparseConv1d(FORMS[form], kernel_size=(5,), padding=(2,), supports=kept))


def ran(layer: nn.Module, x: Tensor, loss: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Output and the gradients of the input and of all parameters, for an arbitrary loss."""
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    if loss is None:
        loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return y.detach(), list(torch.autograd.grad((y * loss).sum(), [x, *layer.parameters()]))


# ---- bfloat16


def check_half(layer: SparseLayer, x: Tensor) -> None:
    """Under autocast all is as near to float32 as rounding allows.

    The bound is so many roundings of the sum of magnitudes.
    """
    y, gradients = ran(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        half, half_gradients = ran(layer, x)
    magnitudes = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in magnitudes.parameters():
            parameter.abs_()
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).abs()
    most, most_gradients = ran(magnitudes, x.abs(), loss)
    for ours, exact, bound in zip(
        [half, *half_gradients], [y, *gradients], [most, *most_gradients], strict=True
    ):
        assert ((ours.float() - exact).abs() <= ROUNDINGS * ROUNDING * bound + SAME).all()
    assert {gradient.dtype for gradient in half_gradients} == {torch.float32}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_under_autocast_a_linear_layer_gives_bfloat16_and_takes_gradients_in_float32(
    form: str, shape: tuple[int, ...]
) -> None:
    check_half(linear(form), torch.randn(*shape, 64))


@pytest.mark.parametrize("supports", SUPPORTS)
@pytest.mark.parametrize("form", FORMS)
def test_under_autocast_a_convolution_gives_bfloat16_and_takes_gradients_in_float32(
    form: str, supports: str
) -> None:
    check_half(convolution(form, supports), torch.randn(2, 64, 4, 3))
    check_half(over_time(form, supports), torch.randn(2, 64, 4))


def test_under_autocast_a_whole_net_is_half_precision_between_its_layers() -> None:
    net = sparsify(mlp([64, 128, 64, 10]), density=0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(torch.randn(5, 64))
    assert logits.dtype == torch.bfloat16
    F.cross_entropy(logits.float(), torch.zeros(5, dtype=torch.long)).backward()
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}


# ---- compiled


COMPILED = ["straight", "dealt", "overlapping, outputs in another order", "scattered", "ragged"]
"""One of each form and order: each is compiled for a second."""


def _compiled_nets() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    return {
        "linear": (lambda: nn.Sequential(*(linear(form) for form in COMPILED)), (64,)),
        "convolution": (
            lambda: nn.Sequential(*(convolution(form, "ragged") for form in COMPILED[1:4])),
            (64, 4, 3),
        ),
        "over time": (
            lambda: nn.Sequential(*(over_time(form, "ragged") for form in COMPILED[1:3])),
            (64, 4),
        ),
        "sparsify": (lambda: sparsify(mlp([64, 128, 64, 10]), density=0.25), (64,)),
    }


NETS = _compiled_nets()


@pytest.mark.parametrize("kind", NETS)
def test_a_compiled_net_computes_what_it_computes_as_it_is_at_any_batch(kind: str) -> None:
    make, shape = NETS[kind]
    net = make()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (3, 1):
        x = torch.randn(batch, *shape)
        torch.testing.assert_close(ran(compiled, x), ran(net, x), rtol=SAME, atol=SAME)  # type: ignore[arg-type]


def test_a_compiled_net_is_not_compiled_again_for_another_batch() -> None:
    net = sparsify(mlp([64, 128, 64, 10]), density=0.25)
    graphs = 0

    def counting(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(net, backend=counting, dynamic=True)
    for batch in (3, 8, 5, 64):
        compiled(torch.randn(batch, 64))
    assert graphs == 1


# ---- in two processes


def networks() -> dict[str, nn.Module]:
    """A sparse perceptron and a sparse CNN; no normalisation, which would see half a batch."""
    images = nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    supports = periodic_kernel((3, 3), support=2, period=7, dense=2)
    return {
        "grouped": sparsify(mlp([32, 64, 64, 4]), density=0.25),
        "bernoulli": sparsify(mlp([32, 64, 64, 4]), density=0.25, family="bernoulli", seed=3),
        "images": sparsify(images, density=0.5, kernels={"4": supports}),
    }


def learned(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """``net`` after two steps."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net


def batch_of(kind: str) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (2, 5, 5) if kind == "images" else (32,)
    return torch.randn(8, *shape, generator=random), torch.arange(8) % 4


def one_of_two(rank: int, folder: Path) -> None:
    """What each process does: train on its half, and keep what it has learnt."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(
        rank
    )  # the second process starts from other values, and takes those of the first
    for kind, net in networks().items():
        x, y = batch_of(kind)
        both = learned(DistributedDataParallel(net), x[rank::2], y[rank::2])
        torch.save(both.state_dict(), folder / f"{kind}-{rank}.pt")
        del both
    # what holds the connection goes before it, and nobody before the other: else one may crash
    gc.collect()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_two_processes_with_half_a_batch_each_learn_what_one_learns_from_the_whole(
    tmp_path: Path,
) -> None:
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    torch.manual_seed(0)
    alone = {kind: learned(net, *batch_of(kind)).state_dict() for kind, net in networks().items()}
    try:
        for process in both:
            _, complaints = process.communicate(timeout=120)
            assert process.returncode == 0, complaints
    finally:
        for process in both:
            process.kill()
    for kind, expected in alone.items():
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True)
            torch.testing.assert_close(
                found,
                {f"module.{name}": value for name, value in expected.items()},
                rtol=SAME,
                atol=SAME,
            )


# ---- copied and saved


def _layers() -> dict[str, Callable[[], SparseLayer]]:
    made: dict[str, Callable[[], SparseLayer]] = {
        f"linear: {form}": lambda form=form: linear(form) for form in FORMS
    }
    for supports in SUPPORTS:
        for form in (
            FORMS if supports == "whole" else [form for form in FORMS if FORMS[form].is_regular]
        ):
            made[f"convolution: {form}, {supports}"] = lambda f=form, s=supports: convolution(f, s)
            made[f"over time: {form}, {supports}"] = lambda f=form, s=supports: over_time(f, s)
    return made


LAYERS = _layers()


def saved(value: object, *, weights_only: bool) -> object:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=weights_only)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_the_same_layer_after_it_was_copied_saved_or_filled_from_its_state(
    kind: str,
) -> None:
    layer = LAYERS[kind]()
    x = torch.randn(2, 64, *(4, 3)[: len(layer.kernel)])
    expected = ran(layer, x)
    filled = LAYERS[kind]()
    with torch.no_grad():
        for parameter in filled.parameters():
            parameter.zero_()
    filled.load_state_dict(saved(layer.state_dict(), weights_only=True))  # type: ignore[arg-type]
    for other in (copy.deepcopy(layer), saved(layer, weights_only=False), filled):
        assert isinstance(other, SparseLayer) and (other.form, other.order) == (
            layer.form,
            layer.order,
        )
        torch.testing.assert_close(ran(other, x), expected, rtol=0, atol=0)


def test_a_saved_state_brings_the_entries_that_its_kernels_keep() -> None:
    """The seeds of pattern and supports are not needed.

    The layer to be filled was drawn from others.
    """
    both = [
        SparseConv2d(
            PATTERNS["grouped"](16, 16, density=0.5),
            kernel_size=(3, 3),
            supports=periodic_kernel((3, 3), support=2, period=8, seed=seed),
        )
        for seed in (1, 2)
    ]
    both[1].load_state_dict(both[0].state_dict())
    x = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(both[1](x), both[0](x), rtol=0, atol=0)
    torch.testing.assert_close(both[1].dense_weight() != 0, both[0].dense_weight() != 0)


# ---- no samples


@pytest.mark.parametrize("form", FORMS)
def test_no_samples_give_no_outputs_and_no_gradient(form: str) -> None:
    for layer, shape, made in (
        (linear(form), (0, 64), (0, 64)),
        (linear(form), (0, 3, 64), (0, 3, 64)),
        (convolution(form), (0, 64, 4, 3), (0, 64, 4, 3)),
        (over_time(form), (0, 64, 4), (0, 64, 4)),
    ):
        y, gradients = ran(layer, torch.zeros(shape))
        assert y.shape == made and gradients[0].shape == shape
        assert not any(gradient.any() for gradient in gradients)


# ---- the dense layer after sparse ones


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (64,), (2, 3)])
@pytest.mark.parametrize("feature_major", [True, False])
def test_a_feature_major_layer_is_a_linear_layer_with_the_same_state(
    bias: bool, shape: tuple[int, ...], feature_major: bool
) -> None:
    plain = nn.Linear(16, 6, bias=bias, dtype=torch.float64)
    layer = FeatureMajorLinear(16, 6, bias=bias, dtype=torch.float64)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(*shape, 16, dtype=torch.float64)
    if feature_major:
        x = x.mT.contiguous().mT
    (ours, of_ours), (theirs, of_theirs) = ran(layer, x), ran(plain, x)
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(of_ours, of_theirs, rtol=CLOSE, atol=CLOSE)
    plain.load_state_dict(layer.state_dict())


def test_between_sparse_layers_and_the_classifier_nothing_is_copied() -> None:
    net = sparsify(mlp([64, 128, 64, 10]), density=0.25)
    seen: list[Tensor] = []
    for layer in net.children():
        if isinstance(layer, SparseLinear | FeatureMajorLinear):
            layer.register_forward_hook(lambda _, __, y: seen.append(y))
    net(torch.randn(5, 64))
    assert [y.stride() for y in seen] == [(1, 5)] * 3 and [y.t().is_contiguous() for y in seen] == [
        True
    ] * 3


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), Path(sys.argv[2]))
