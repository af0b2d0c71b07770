"""A sparse convolution over one or two dimensions is the dense one with zeros.

The zeros are in channels and in kernels, with groups and every padding.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.patterns.periodic_kernel import KernelSupports, periodic_kernel
from presplit.train import SparseConv1d, SparseConv2d
from presplit.train.layers.convolution import Convolution

TERMS = 1024
"""Both sides sum fewer terms than this, in another order: each may round once a term."""
CLOSE = TERMS * torch.finfo(torch.float64).eps
SIZE = (8, 7)
KINDS = {1: SparseConv1d, 2: SparseConv2d}
AXES = pytest.mark.parametrize("axes", KINDS)


def ran(layer: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and the gradients of the input and of all parameters, for an arbitrary loss."""
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return y.detach(), list(torch.autograd.grad((y * loss).sum(), [x, *layer.parameters()]))


@AXES
@pytest.mark.parametrize("family", ["grouped", "tiled", "biregular"])
def test_one_sample_without_a_batch_is_taken_as_a_dense_convolution_takes_it(
    family: str, axes: int
) -> None:
    layer = KINDS[axes](PATTERNS[family](32, 64, density=0.25), kernel_size=(3, 3)[:axes])
    sample = torch.randn(32, *(5, 4)[:axes])
    assert layer(sample).shape == (64, *(3, 2)[:axes])
    assert torch.equal(layer(sample), layer(sample[None])[0])


@AXES
def test_samples_of_another_size_are_refused(axes: int) -> None:
    layer = KINDS[axes](PATTERNS["grouped"](8, 8, density=0.5), kernel_size=(3, 3)[:axes])
    for shape in ((2, 7, *SIZE[:axes]), (2, 3, 8, *SIZE[:axes]), (8,)):
        with pytest.raises(ValueError, match=r"of 8 channels, \(batch, 8, ...\), got"):
            layer(torch.zeros(shape))
    with pytest.raises(PatternError, match=rf"kernel_size must have length {axes}, got \(3, 3, 3"):
        KINDS[axes](layer.pattern, kernel_size=(3, 3, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Convolution, Pattern, KernelSupports | None]:
    """A dense convolution of any kind, a pattern within its groups, and entries of its kernels."""
    axes, groups = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 1, 2]))
    family, density = draw(st.sampled_from([*PATTERNS])), draw(st.sampled_from([0.25, 0.5, 1.0]))
    n_in, n_out = draw(st.sampled_from([(8, 16), (16, 8), (32, 64)]))
    kernel = draw(st.sampled_from([(3, 3), (1, 3), (2, 3), (4, 2)]))[:axes]
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", (1, 1), (0, 2)]))
    padding = padding if isinstance(padding, str) else padding[:axes]
    if padding == "same" and mode == "zeros":
        kernel = (3, 1)[:axes]  # torch warns that even ones cost a copy
    torch.manual_seed(draw(st.integers(0, 9)))
    dense = (nn.Conv1d if axes == 1 else nn.Conv2d)(
        n_in,
        n_out,
        kernel,
        stride=1 if padding == "same" else draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))[:axes],
        padding=padding,
        dilation=draw(st.sampled_from([(1, 1), (2, 2), (1, 2)]))[:axes],
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=torch.float64,
    )
    parts = [
        PATTERNS[family](n_in // groups, n_out // groups, density=density, seed=seed)
        for seed in range(groups)
    ]
    width = max(part.fan_in for part in parts)
    index = np.full((sum(len(part.index) for part in parts), width), -1)
    for k, part in enumerate(parts):
        rows = slice(k * len(part.index), (k + 1) * len(part.index))
        index[rows, : part.fan_in] = np.where(part.index < 0, -1, part.index + k * (n_in // groups))
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(n_out)
    pattern = Pattern(
        n_in, parts[0].tile, index, order if groups == 1 and draw(st.booleans()) else None
    )
    area = math.prod(kernel)
    supports = None
    if pattern.is_regular and draw(st.booleans()):
        whole, seed = draw(st.integers(0, 3)), draw(st.integers(0, 9))
        supports = periodic_kernel(
            kernel, support=draw(st.integers(1, area)), period=area + 2, dense=whole, seed=seed
        )
    return dense, pattern, supports


def restricted(
    dense: Convolution, pattern: Pattern, supports: KernelSupports | None
) -> Convolution:
    """``dense`` with zeros where nothing exists, in the layout that its groups have."""
    twin = copy.deepcopy(dense)
    mask = pattern.mask() if supports is None else supports.mask(pattern)
    mask = mask.reshape(*mask.shape, *(1,) * (dense.weight.ndim - mask.ndim))
    rows, columns = pattern.n_out // dense.groups, pattern.n_in // dense.groups
    within = [
        mask[k * rows : (k + 1) * rows, k * columns : (k + 1) * columns]
        for k in range(dense.groups)
    ]
    with torch.no_grad():
        twin.weight.mul_(torch.from_numpy(np.concatenate(within)))
    return twin


@settings(max_examples=50)
@given(case=convolutions())
def test_a_sparse_convolution_is_the_dense_one_with_zeros_in_channels_and_kernels(
    case: tuple[Convolution, Pattern, KernelSupports | None],
) -> None:
    dense, pattern, supports = case
    kind, twin = KINDS[len(dense.kernel_size)], restricted(*case)
    sparse = kind.from_dense(dense, pattern, supports=supports)
    x = torch.randn(2, pattern.n_in, *SIZE[: len(dense.kernel_size)], dtype=torch.float64)
    (ours, of_ours), (theirs, of_theirs) = ran(sparse, x), ran(twin, x)
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(of_ours[0], of_theirs[0], rtol=CLOSE, atol=CLOSE)
    with torch.no_grad():
        twin.weight.copy_(of_theirs[1])
        if twin.bias is not None:
            twin.bias.copy_(of_theirs[2])
    gradients = kind.from_dense(twin, pattern, supports=supports)
    torch.testing.assert_close(
        of_ours[1:], [p.detach() for p in gradients.parameters()], rtol=CLOSE, atol=CLOSE
    )


@settings(max_examples=20)
@given(case=convolutions())
def test_a_convolution_that_goes_to_dense_and_back_computes_the_same(
    case: tuple[Convolution, Pattern, KernelSupports | None],
) -> None:
    dense, pattern, supports = case
    kind = KINDS[len(dense.kernel_size)]
    sparse = kind.from_dense(dense, pattern, supports=supports)
    again = kind.from_dense(sparse.to_dense(), pattern, supports=supports)
    torch.testing.assert_close(again.state_dict(), sparse.state_dict(), rtol=0, atol=0)
    x = torch.randn(2, pattern.n_in, *SIZE[: len(dense.kernel_size)], dtype=torch.float64)
    torch.testing.assert_close(sparse.to_dense()(x), sparse(x), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("kernel", [(3, 3), (9,)])
def test_a_boosted_layer_stores_the_entries_that_exist_and_no_more(kernel: tuple[int, ...]) -> None:
    """16 x 8 connections, two ninths of the kernels whole and the others with one entry."""
    supports = periodic_kernel(kernel, support=1, period=9, dense=2)
    pattern = PATTERNS["grouped"](16, 8, density=1.0)
    layer = KINDS[len(kernel)](pattern, kernel_size=kernel, supports=supports)
    assert layer.values.shape == (int(supports.mask(layer.pattern).sum()),)
    assert layer.density == layer.values.numel() / (16 * 8 * 9)


def test_supports_that_do_not_go_along_with_a_layer_are_refused() -> None:
    supports = periodic_kernel((3, 3), support=2)
    with pytest.raises(
        PatternError, match=r"the layer's kernels are \(3, 1\), the supports are of \(3, 3\)"
    ):
        SparseConv2d(PATTERNS["grouped"](16, 8, density=0.5), kernel_size=(3, 1), supports=supports)
    with pytest.raises(PatternError, match="need outputs that read equally many channels"):
        SparseConv2d(
            PATTERNS["bernoulli"](16, 8, density=0.5), kernel_size=(3, 3), supports=supports
        )
    with pytest.raises(
        PatternError, match=r"the layer's kernels are \(9,\), the supports are of \(3, 3\)"
    ):
        SparseConv1d(PATTERNS["grouped"](16, 8, density=0.5), kernel_size=(9,), supports=supports)
