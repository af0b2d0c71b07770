"""A sparse convolution is the dense one with zeros.

The zeros are in channels and in kernels, with groups and every padding.
"""

from __future__ import annotations

import copy

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
from presplit.train import SparseConv2d

TERMS = 1024
"""Both sides sum fewer terms than this, in another order: each may round once a term."""
CLOSE = TERMS * torch.finfo(torch.float64).eps


def ran(layer: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and the gradients of the input and of all parameters, for an arbitrary loss."""
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return y.detach(), list(torch.autograd.grad((y * loss).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("family", ["grouped", "tiled", "biregular"])
def test_one_image_without_a_batch_is_taken_as_a_dense_convolution_takes_it(family: str) -> None:
    layer = SparseConv2d(PATTERNS[family](32, 64, density=0.25), kernel_size=(3, 3))
    image = torch.randn(32, 5, 4)
    assert layer(image).shape == (64, 3, 2) and torch.equal(layer(image), layer(image[None])[0])


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, Pattern, KernelSupports | None]:
    """A dense convolution of any kind, a pattern within its groups, and entries of its kernels."""
    groups = draw(st.sampled_from([1, 1, 2]))
    family, density = draw(st.sampled_from([*PATTERNS])), draw(st.sampled_from([0.25, 0.5, 1.0]))
    n_in, n_out = draw(st.sampled_from([(8, 16), (16, 8), (32, 64)]))
    kernel = draw(st.sampled_from([(3, 3), (1, 3), (2, 3), (4, 2)]))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", 1, (0, 2)]))
    if padding == "same" and mode == "zeros":
        kernel = (3, 1)  # torch warns that even ones cost a copy
    torch.manual_seed(draw(st.integers(0, 9)))
    dense = nn.Conv2d(
        n_in,
        n_out,
        kernel,
        stride=1 if padding == "same" else draw(st.sampled_from([1, 2, (2, 1)])),
        padding=padding,
        dilation=draw(st.sampled_from([1, 2, (1, 2)])),
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
    area = kernel[0] * kernel[1]
    supports = None
    if pattern.is_regular and draw(st.booleans()):
        whole, seed = draw(st.integers(0, 3)), draw(st.integers(0, 9))
        supports = periodic_kernel(
            kernel, support=draw(st.integers(1, area)), period=area + 2, dense=whole, seed=seed
        )
    return dense, pattern, supports


def restricted(dense: nn.Conv2d, pattern: Pattern, supports: KernelSupports | None) -> nn.Conv2d:
    """``dense`` with zeros where nothing exists, in the layout that its groups have."""
    twin = copy.deepcopy(dense)
    mask = pattern.mask()[:, :, None, None] if supports is None else supports.mask(pattern)
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
    case: tuple[nn.Conv2d, Pattern, KernelSupports | None],
) -> None:
    dense, pattern, supports = case
    sparse, twin = SparseConv2d.from_dense(dense, pattern, supports=supports), restricted(*case)
    x = torch.randn(2, pattern.n_in, 8, 7, dtype=torch.float64)
    (ours, of_ours), (theirs, of_theirs) = ran(sparse, x), ran(twin, x)
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(of_ours[0], of_theirs[0], rtol=CLOSE, atol=CLOSE)
    with torch.no_grad():
        twin.weight.copy_(of_theirs[1])
        if twin.bias is not None:
            twin.bias.copy_(of_theirs[2])
    gradients = SparseConv2d.from_dense(twin, pattern, supports=supports)
    torch.testing.assert_close(
        of_ours[1:], [p.detach() for p in gradients.parameters()], rtol=CLOSE, atol=CLOSE
    )


@settings(max_examples=20)
@given(case=convolutions())
def test_a_convolution_that_goes_to_dense_and_back_computes_the_same(
    case: tuple[nn.Conv2d, Pattern, KernelSupports | None],
) -> None:
    dense, pattern, supports = case
    sparse = SparseConv2d.from_dense(dense, pattern, supports=supports)
    again = SparseConv2d.from_dense(sparse.to_dense(), pattern, supports=supports)
    torch.testing.assert_close(again.state_dict(), sparse.state_dict(), rtol=0, atol=0)
    x = torch.randn(2, pattern.n_in, 8, 7, dtype=torch.float64)
    torch.testing.assert_close(sparse.to_dense()(x), sparse(x), rtol=CLOSE, atol=CLOSE)


def test_a_boosted_layer_stores_the_entries_that_exist_and_no_more() -> None:
    """16 x 8 connections, two ninths of the kernels whole and the others with one entry."""
    supports = periodic_kernel((3, 3), support=1, period=9, dense=2)
    pattern = PATTERNS["grouped"](16, 8, density=1.0)
    layer = SparseConv2d(pattern, kernel_size=(3, 3), supports=supports)
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
