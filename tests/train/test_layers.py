"""Sparse layers compute what the masked dense layer does, and hold nothing that does not exist."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from presplit.core.errors import GraphError, PatternError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.train.layers.convolution import SparseConv1d, SparseConv2d
from presplit.train.layers.linear import SparseLinear
from presplit.train.layers.sparse import SparseLayer

TERMS = 1024
"""Both sides sum fewer terms than this, in another order: each may round once a term."""
CLOSE = TERMS * torch.finfo(torch.float64).eps


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Every family, overlapping tiles, and uneven rows, with and without an order of outputs."""
    kind = draw(st.sampled_from([*PATTERNS, "overlapping", "uneven"]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if kind in PATTERNS:
        drawn = PATTERNS[kind](
            *draw(st.sampled_from([(12, 8), (8, 12), (40, 40)])), density=0.25, seed=1
        )
        n_in, tile, index = drawn.n_in, drawn.tile, drawn.index
    else:
        n_in, tile = 9, draw(st.sampled_from([2, 16, 20]))
        rows = [sorted(random.choice(n_in, 4, replace=False).tolist()) for _ in range(3)]
        if kind == "uneven":
            rows = [row[: draw(st.integers(0, 4))] for row in rows[:-1]] + rows[-1:]
        index = np.array([row + [-1] * (4 - len(row)) for row in rows])
    order = random.permutation(len(index) * tile) if draw(st.booleans()) else None
    return Pattern(n_in, tile, np.asarray(index), order)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Pattern, nn.Conv2d]:
    """A dense float64 convolution of any shape that becomes sparse, with a pattern of its size."""
    pattern = draw(patterns())
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    same = draw(st.booleans())  # with odd kernels: torch warns that even ones cost a copy
    kernel = draw(st.tuples(*(st.sampled_from([1, 3]),) * 2) if same else pair)
    torch.manual_seed(0)
    dense = nn.Conv2d(
        pattern.n_in,
        pattern.n_out,
        kernel,
        stride=1 if same else draw(pair),
        padding="same" if same else draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(pair),
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )
    return pattern, dense


def linear(pattern: Pattern, *, bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(pattern.n_in, pattern.n_out, bias=bias, dtype=torch.float64)


def restricted(dense: nn.Linear | nn.Conv2d, pattern: Pattern) -> Tensor:
    """The dense weight, zero where the pattern has no connection, as a leaf with a gradient."""
    mask = torch.from_numpy(
        pattern.mask().reshape(pattern.n_out, pattern.n_in, *(1,) * (dense.weight.ndim - 2))
    )
    return (dense.weight.detach() * mask).requires_grad_()


def check(
    sparse: SparseLayer, ours: Tensor, theirs: Tensor, weight: Tensor, dense: nn.Linear | nn.Conv2d
) -> None:
    """Outputs agree; so do the gradients of the values and of the bias, for an arbitrary loss."""
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    torch.manual_seed(1)
    loss = torch.randn_like(ours)
    (ours * loss).sum().backward()
    (theirs * loss).sum().backward()
    assert weight.grad is not None and sparse.values.grad is not None
    probe = copy.deepcopy(sparse)
    probe.take_dense(weight.grad, None)
    torch.testing.assert_close(sparse.values.grad, probe.values.detach(), rtol=CLOSE, atol=CLOSE)
    if sparse.bias is not None:
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad, rtol=CLOSE, atol=CLOSE)


@settings(max_examples=30)
@given(pattern=patterns(), bias=st.booleans(), leading=st.sampled_from([(), (1,), (5,), (2, 3)]))
def test_a_sparse_linear_layer_is_the_dense_one_with_zeros(
    pattern: Pattern, bias: bool, leading: tuple[int, ...]
) -> None:
    dense = linear(pattern, bias=bias)
    sparse, weight = SparseLinear.from_dense(dense, pattern), restricted(dense, pattern)
    x = torch.randn(*leading, pattern.n_in, dtype=torch.float64)
    check(sparse, sparse(x), F.linear(x, weight, dense.bias), weight, dense)


@settings(max_examples=30)
@given(case=convolutions())
def test_a_sparse_convolution_is_the_dense_one_with_zeros(case: tuple[Pattern, nn.Conv2d]) -> None:
    pattern, dense = case
    sparse, weight = SparseConv2d.from_dense(dense, pattern), restricted(dense, pattern)
    x = torch.randn(2, pattern.n_in, 8, 7, dtype=torch.float64)
    theirs = F.conv2d(x, weight, dense.bias, dense.stride, dense.padding, dense.dilation)
    check(sparse, sparse(x), theirs, weight, dense)


@settings(max_examples=20)
@given(pattern=patterns(), bias=st.booleans())
def test_a_linear_layer_goes_to_dense_and_back_unchanged(pattern: Pattern, bias: bool) -> None:
    sparse = SparseLinear(pattern, bias=bias)
    dense = sparse.to_dense()
    assert not dense.weight.detach().numpy()[~pattern.mask()].any()
    again = SparseLinear.from_dense(dense, pattern)
    torch.testing.assert_close(again.state_dict(), sparse.state_dict(), rtol=0, atol=0)


@settings(max_examples=20)
@given(case=convolutions())
def test_a_convolution_goes_to_dense_and_back_unchanged(case: tuple[Pattern, nn.Conv2d]) -> None:
    sparse = SparseConv2d.from_dense(case[1], case[0])
    dense = sparse.to_dense()
    kept = ("kernel_size", "stride", "padding", "dilation", "in_channels", "out_channels")
    assert [getattr(dense, name) for name in kept] == [getattr(case[1], name) for name in kept]
    again = SparseConv2d.from_dense(dense, case[0])
    torch.testing.assert_close(again.state_dict(), sparse.state_dict(), rtol=0, atol=0)


@settings(max_examples=30)
@given(pattern=patterns())
def test_a_layer_gives_back_the_pattern_that_it_was_made_of(pattern: Pattern) -> None:
    found = SparseLinear(pattern).pattern
    np.testing.assert_array_equal(found.index, pattern.index)
    np.testing.assert_array_equal(found.mask(), pattern.mask())


@settings(max_examples=30)
@given(pattern=patterns())
def test_layers_are_batched_exactly_when_stock_kernels_run_them_fast(pattern: Pattern) -> None:
    shared = pattern.tile >= 16 or (pattern.tile > 1 and pattern.is_partition)
    assert SparseLinear(pattern).form == (
        "batched" if pattern.is_regular and shared else "scattered"
    )


@pytest.mark.parametrize("family", PATTERNS)
def test_a_saved_layer_fills_one_that_was_drawn_from_another_seed(family: str) -> None:
    """The pattern is in the state, so the seed is not needed."""
    saved, other = (
        SparseLinear(PATTERNS[family](64, 32, density=0.25, seed=seed)) for seed in (1, 2)
    )
    for target in (other, copy.deepcopy(other)):
        target.load_state_dict(saved.state_dict())
        x = torch.randn(3, 64)
        torch.testing.assert_close(target(x), saved(x), rtol=0, atol=0)
        np.testing.assert_array_equal(target.pattern.mask(), saved.pattern.mask())


def test_a_saved_order_of_outputs_fills_a_layer_with_another_one() -> None:
    index = PATTERNS["grouped"](8, 8, density=0.5).index
    saved, other = (
        SparseLinear(Pattern(8, 4, index, np.random.default_rng(s).permutation(8))) for s in (1, 2)
    )
    other.load_state_dict(saved.state_dict())
    torch.testing.assert_close(other(torch.eye(8)), saved(torch.eye(8)), rtol=0, atol=0)


@pytest.mark.parametrize("family", PATTERNS)
def test_a_copied_layer_computes_the_same_and_is_independent(family: str) -> None:
    layer = SparseLinear(PATTERNS[family](32, 16, density=0.25))
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 32)
    before = layer(x)
    torch.testing.assert_close(twin(x), before, rtol=0, atol=0)
    with torch.no_grad():
        twin.values.zero_()
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_batched_layer_holds_nothing_of_dense_size(
    kernel: tuple[int, ...], ordered: bool
) -> None:
    n_in, n_out, area = 256, 128, 9 if kernel else 1
    drawn = PATTERNS["grouped"](n_in, n_out, density=1 / 8)
    pattern = Pattern(n_in, drawn.tile, drawn.index, np.arange(n_out)[::-1] if ordered else None)
    layer = SparseConv2d(pattern, kernel_size=(3, 3)) if kernel else SparseLinear(pattern)
    layer(torch.randn(2, n_in, *(5,) * len(kernel))).sum().backward()
    held = [
        value
        for value in (*vars(layer).values(), *layer.state_dict().values())
        if isinstance(value, Tensor)
    ]
    held += [
        *layer.parameters(),
        *layer.buffers(),
        *(p.grad for p in layer.parameters() if p.grad is not None),
    ]
    connections = n_in * n_out // 8
    assert max(tensor.numel() for tensor in held) == connections * area
    besides = [tensor for tensor in held if tensor.numel() != connections * area]
    assert sum(tensor.numel() for tensor in besides) < connections, (
        "only what is as long as inputs or outputs"
    )


def test_adam_keeps_a_state_for_existing_values_only() -> None:
    layer = SparseLinear(PATTERNS["biregular"](800, 40, density=0.05), bias=False)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.randn(4, 800)).sum().backward()
    optimiser.step()
    (state,) = optimiser.state.values()
    assert state["exp_avg"].numel() == state["exp_avg_sq"].numel() == layer.values.numel() == 1600


@pytest.mark.parametrize("family", PATTERNS)
@pytest.mark.parametrize(("fan_in", "degree"), [("sparse", 64), ("dense", 256)])
def test_values_begin_with_the_variance_of_their_fan_in(
    family: str, fan_in: str, degree: int
) -> None:
    torch.manual_seed(0)
    layer = SparseLinear(PATTERNS[family](256, 128, density=0.25))
    layer.reset_parameters(fan_in=fan_in, bias=0.1)  # type: ignore[arg-type]
    spread = float(layer.values.detach().std())
    assert spread == pytest.approx(
        (2 / degree) ** 0.5, rel=0.05
    )  # 8,192 normal values; Bernoulli degrees vary
    assert layer.bias is not None and (layer.bias == 0.1).all()


def test_an_output_that_reads_nothing_gives_its_bias() -> None:
    layer = SparseLinear(Pattern(3, 1, np.array([[0, 1], [-1, -1]])))
    layer.reset_parameters(bias=0.5)
    assert layer(torch.ones(1, 3))[0, 1] == 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_sparse_layer_keeps_the_dense_one_s_dtype(dtype: torch.dtype) -> None:
    pattern = PATTERNS["grouped"](8, 8, density=0.5)
    layer = SparseLinear.from_dense(nn.Linear(8, 8, dtype=dtype), pattern)
    assert (
        layer.values.dtype
        == layer(torch.ones(1, 8, dtype=dtype)).dtype
        == layer.to_dense().weight.dtype
        == dtype
    )
    assert layer.index.dtype == torch.int32


def test_a_pattern_across_the_groups_of_a_convolution_is_refused() -> None:
    with pytest.raises(
        PatternError, match="joins channels that the convolution's 2 groups keep apart"
    ):
        SparseConv2d.from_dense(
            nn.Conv2d(8, 8, 3, groups=2), PATTERNS["grouped"](8, 8, density=0.5)
        )
    with pytest.raises(GraphError, match="only plain convolutions become sparse"):
        SparseConv2d.from_dense(nn.ConvTranspose2d(8, 8, 3), PATTERNS["grouped"](8, 8, density=0.5))  # type: ignore
    with pytest.raises(GraphError, match="for SparseConv1d a Conv1d, got Conv2d"):
        SparseConv1d.from_dense(nn.Conv2d(8, 8, 3), PATTERNS["grouped"](8, 8, density=0.5))  # type: ignore


def test_a_pattern_of_another_size_is_refused() -> None:
    with pytest.raises(PatternError, match="the layer is 8 -> 4, the pattern 4 -> 8"):
        SparseLinear.from_dense(nn.Linear(8, 4), PATTERNS["grouped"](4, 8, density=0.5))
    with pytest.raises(PatternError, match="the layer is 8 -> 4, the pattern 4 -> 8"):
        SparseConv2d.from_dense(nn.Conv2d(8, 4, 1), PATTERNS["grouped"](4, 8, density=0.5))


def test_the_state_of_a_pattern_with_other_connections_is_refused() -> None:
    saved = SparseLinear(PATTERNS["bernoulli"](16, 8, density=0.5)).state_dict()
    with pytest.raises(
        (RuntimeError, PatternError), match="connections need values of shape|size mismatch"
    ):
        SparseLinear(PATTERNS["bernoulli"](16, 8, density=0.25)).load_state_dict(saved)


@pytest.mark.parametrize("family", PATTERNS)
def test_a_convolution_moves_to_channels_last(family: str) -> None:
    layer = SparseConv2d(
        PATTERNS[family](8, 8, density=0.5, seed=1), kernel_size=(3, 3), padding=(1, 1)
    ).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    expected = layer(x)
    moved = layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        moved(x.contiguous(memory_format=torch.channels_last)), expected, rtol=CLOSE, atol=CLOSE
    )
    moved.reset_parameters()
