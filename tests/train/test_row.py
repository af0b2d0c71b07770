"""The compiled product of one sample is the dense product, is taken in the plain case only, and may be missing."""

from __future__ import annotations

import concurrent.futures
import copy
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.train import SparseLinear, row
from presplit.train.row import row_product

KERNEL = row._row
ROOT = Path(__file__).parents[2]
SAME = 1e-5
"""Relative to the largest output: float32 sums of at most a few thousand terms, taken in another order."""

compiled = pytest.mark.skipif(row._row is None, reason="the kernel was not compiled here, or torch is too old for it")


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Regular patterns: the families, and any tiles and fan-ins, also such as no vector is long, in any order."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    family = draw(st.sampled_from([None, *PATTERNS]))
    if family is not None:
        drawn = PATTERNS[family](*draw(st.sampled_from([(12, 8), (40, 40), (256, 128)])), density=0.25, seed=1)
        n_in, tile, index = drawn.n_in, drawn.tile, drawn.index
        if not drawn.is_regular:
            index = index[:, :1]
    else:
        fan_in, tile = draw(st.sampled_from([1, 3, 16, 17, 64, 1500])), draw(st.sampled_from([1, 3, 4, 5, 16, 21]))
        n_in, tiles = fan_in + draw(st.integers(0, 40)), draw(st.sampled_from([1, 2, 7, 40]))
        index = np.stack([random.permutation(n_in)[:fan_in] for _ in range(tiles)])
    order = random.permutation(len(index) * tile) if draw(st.booleans()) else None
    return Pattern(n_in, tile, np.asarray(index), order)


def layer_of(pattern: Pattern, *, bias: bool = True) -> SparseLinear:
    torch.manual_seed(0)
    layer = SparseLinear(pattern, bias=bias).requires_grad_(False)
    if layer.bias is not None:
        layer.bias.normal_()
    return layer


def small(family: str = "grouped") -> SparseLinear:
    return layer_of(PATTERNS[family](64, 32, density=0.25))


def exact(layer: SparseLinear, x: Tensor) -> Tensor:
    """The dense product in float64, rounded."""
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(x.double(), layer.dense_weight().double(), bias).float()


def by_torch(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What comes out where the kernel was not compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row, "_row", None)
        return layer(x)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=SAME, atol=SAME * float(theirs.detach().abs().max()))


@settings(max_examples=150)
@given(pattern=patterns(), bias=st.booleans(), leading=st.sampled_from([(), (1,), (1, 1)]))
def test_one_sample_gives_the_dense_product_with_the_kernel_and_without(
    pattern: Pattern, bias: bool, leading: tuple[int, ...]
) -> None:
    layer = layer_of(pattern, bias=bias)
    x = torch.randn(*leading, pattern.n_in)
    expected = exact(layer, x)
    assert_same(by_torch(layer, x), expected)
    assert_same(layer(x), expected)
    assert (row_product(x, layer, layer.n_in) is None) == (row._row is None)


@compiled
@pytest.mark.parametrize("family", ["grouped", "tiled", "block", "biregular"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_the_outputs_that_read_it_and_no_others(family: str, odd: float) -> None:
    layer = layer_of(PATTERNS[family](64, 64, density=0.25, seed=1))
    layer.values[0, 0, 0] = 0.0  # 0 * inf is not 0
    x = torch.randn(1, 64)
    x[0, int(layer.index[0, 0])] = odd
    y = row_product(x, layer, 64)
    assert y is not None
    products = layer.values.double() * x[0].double()[layer.index.long()][:, None, :]
    assert layer.bias is not None
    expected = products.sum(2).view(1, 64) + layer.bias.double()
    torch.testing.assert_close(y, expected.float(), rtol=SAME, atol=SAME, equal_nan=True)
    assert 0 < int(y.isfinite().sum()) < 64


@compiled
def test_views_and_features_in_another_layout_are_read_where_they_lie() -> None:
    layer, x = small(), torch.randn(64, 2)
    for sample in (x.t()[:1], x[:, 1:].t(), x.t().contiguous()[1:], torch.randn(1, 1).expand(1, 64)):
        assert_same(layer(sample), exact(layer, sample))
    imaginary = torch.randn(1, 64, dtype=torch.complex64).conj().imag
    lone = layer_of(Pattern(1, 1, np.array([[0]])))
    for each, sample in ((layer, imaginary), (lone, imaginary[:, :1]), (layer, torch._neg_view(x[:, :1]).t())):
        assert sample.is_neg()
        assert_same(each(sample), exact(each, sample.clone()))


# ---- where it is not taken


class Watching(TorchFunctionMode):
    seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen += 1
        return func(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen += 1
        return func(*args, **(kwargs or {}))


def _traced(layer: SparseLinear, x: Tensor) -> Tensor:
    found: Tensor = torch.jit.trace(layer, x, check_trace=False)(x * 2) / 2
    return found


def _batched(layer: SparseLinear, x: Tensor) -> Tensor:
    return torch.func.vmap(layer)(torch.stack([x, x]))[0]


def _called(layer: SparseLinear, x: Tensor) -> Tensor:
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    return torch.func.vmap(lambda values: torch.func.functional_call(layer, {**state, "values": values}, (x,)))(
        layer.values[None]
    )[0]


def _forward_mode(layer: SparseLinear, x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        y = layer(torch.autograd.forward_ad.make_dual(x, x))
        value, tangent = torch.autograd.forward_ad.unpack_dual(y)
        assert tangent is not None
        return value


def _transposed(layer: SparseLinear, x: Tensor) -> Tensor:
    y, tangent = torch.func.jvp(layer, (x,), (x,))
    assert bool(tangent.any())
    return y


def _watched(mode: type[Watching] | type[Dispatching]) -> Callable[[SparseLinear, Tensor], Tensor]:
    def run(layer: SparseLinear, x: Tensor) -> Tensor:
        with mode() as looking:
            y = layer(x)
        assert looking.seen
        return y

    return run


def _with_gradient(layer: SparseLinear, x: Tensor) -> Tensor:
    y = layer(x.clone().requires_grad_())
    assert y.requires_grad
    return y.detach()


def _in_training(layer: SparseLinear, x: Tensor) -> Tensor:
    layer.requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert layer.values.grad is not None and layer.bias is not None and layer.bias.grad is not None
    return y.detach()


def _pruned(layer: SparseLinear, x: Tensor) -> Tensor:
    for name in ("values", "bias"):
        prune.identity(layer, name)
    return layer(x).detach()


OTHERWISE: dict[str, Callable[[SparseLinear, Tensor], Tensor]] = {
    "a gradient of the sample": _with_gradient,
    "training": _in_training,
    "two samples": lambda layer, x: layer(torch.cat([x, x]))[:1],
    "vmap over samples": _batched,
    "vmap over weights": _called,
    "forward mode": _forward_mode,
    "jvp": _transposed,
    "a torch function mode": _watched(Watching),
    "a dispatch mode": _watched(Dispatching),
    "compiled": lambda layer, x: torch.compile(layer, backend="eager", fullgraph=True)(x),
    "exported": lambda layer, x: torch.export.export(layer, (x,)).module()(x),
    "strictly exported": lambda layer, x: torch.export.export(layer, (x,), strict=True).module()(x),
    "double": lambda layer, x: layer.double()(x.double()).float(),
    "pruned": _pruned,
}


class Refusing:
    """Stands where the extension does, and is not to give anything."""

    @staticmethod
    def product(*given: object) -> None:
        """The extension itself refuses what has no memory of its own, as inside a transform of `torch.func`."""
        assert KERNEL is None or KERNEL.product(*given) is None, "the kernel was taken"


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", [*OTHERWISE, "traced"])
@pytest.mark.parametrize("family", ["grouped", "biregular"])
def test_only_the_plain_case_takes_the_kernel(way: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = small(family), torch.randn(1, 64)
    expected = exact(layer, x) if way != "traced" else exact(layer, x * 2) / 2
    monkeypatch.setattr(row, "_row", Refusing)
    assert_same({**OTHERWISE, "traced": _traced}[way](layer, x), expected)
    if KERNEL is not None:
        with pytest.raises(AssertionError, match="the kernel was taken"):
            small(family)(x)


def test_autocast_multiplies_in_its_own_precision() -> None:
    layer, x = small(), torch.randn(1, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == by_torch(layer, x).dtype == torch.bfloat16


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_outputs_are_those_of_the_mode(mode: Callable[[], object]) -> None:
    layer, x = small().requires_grad_(), torch.randn(1, 64)
    with mode():  # type: ignore[attr-defined]
        y, theirs = layer(x), by_torch(layer, x)
        assert (y.requires_grad, y.is_inference(), y.stride()) == (False, theirs.is_inference(), theirs.stride())
        assert_same(y.relu_(), theirs.relu())


# ---- nothing is kept from call to call


def test_each_call_reads_the_weights_that_are_there_now() -> None:
    layer, x = small(), torch.randn(1, 64)
    layer(x)

    def check(changed: SparseLinear) -> None:
        assert_same(changed(x), exact(changed, x))

    layer.values.mul_(2)
    check(layer)
    layer.values.data = layer.values.data.clone()
    check(layer)
    twin = copy.deepcopy(layer)
    twin.values.zero_()
    check(twin)
    check(layer)
    check(layer.double().float())
    other = layer_of(Pattern(64, 8, np.random.default_rng(0).permutation(64).reshape(4, 16)))
    layer.load_state_dict(other.state_dict())
    check(layer)
    assert_same(layer(x), other(x))
    layer.load_state_dict(small().state_dict(), assign=True)
    check(layer)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    check(torch.load(buffer, weights_only=False))
    check(copy.deepcopy(layer).share_memory())


def test_an_output_outlives_its_layer() -> None:
    layer, x = small(), torch.randn(1, 64)
    y, expected = layer(x), exact(layer, x)
    del layer
    others = [small()(x * 2) for _ in range(20)]
    assert_same(y, expected)
    assert len({each.data_ptr() for each in [*others, y]}) == 21


@compiled
def test_threads_do_not_disturb_each_other() -> None:
    layer = layer_of(PATTERNS["grouped"](1024, 1024, density=0.25))  # large enough to run beside Python
    samples = torch.randn(40, 1, 1024)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for x, y in zip(samples, pool.map(layer, samples), strict=True):
            assert_same(y, exact(layer, x))


# ---- refusals


@compiled
@pytest.mark.parametrize("family", ["grouped", "biregular"])
@pytest.mark.parametrize("wrong", [64, -1, 2**31 - 1])
def test_an_index_that_leads_out_of_the_sample_is_refused(family: str, wrong: int) -> None:
    layer = small(family)
    layer.index[-1, -1] = wrong
    with pytest.raises(IndexError, match="index or order of outputs leads out of range"):
        layer(torch.randn(1, 64))


@compiled
def test_an_order_that_leads_out_of_the_outputs_is_refused() -> None:
    drawn = PATTERNS["grouped"](64, 32, density=0.25)
    layer = layer_of(Pattern(64, drawn.tile, drawn.index, np.arange(32)[::-1].copy()))
    assert layer.out_order is not None
    layer.out_order[3] = 32
    with pytest.raises(IndexError, match="leads out of range"):
        layer(torch.randn(1, 64))


def test_a_sample_of_another_width_is_refused_as_ever() -> None:
    with pytest.raises(ValueError, match=r"expected inputs of 64 features, .* got \(1, 65\)"):
        small()(torch.randn(1, 65))
    with pytest.raises(ValueError, match="expected inputs of 64 features"):
        small()(torch.randn(64, 1))


# ---- the build

TRY = """
import sys, torch
from presplit.patterns import grouped
from presplit.train import SparseLinear, row
assert row.__file__.startswith(sys.argv[1]), row.__file__
layer = SparseLinear(grouped(64, 32, density=0.25)).requires_grad_(False)
x = torch.randn(1, 64)
torch.testing.assert_close(layer(x), layer.to_dense()(x))
print(row._row is not None)
"""


@pytest.mark.parametrize("compiler", [None, "false", "no-such-compiler"])
def test_a_wheel_works_with_a_compiler_and_without(compiler: str | None, tmp_path: Path) -> None:
    if compiler is None and (shutil.which("cc") is None or row._row is None):
        pytest.skip("no C compiler here")
    environment = {**os.environ, **({} if compiler is None else {"CC": compiler})}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    said = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    pure = compiler is not None
    assert wheel.name.endswith("-py3-none-any.whl") == pure and ("-cp311-abi3-" in wheel.name) != pure
    assert ("without its compiled kernel, which is optional" in said.stdout + said.stderr) == pure
    with zipfile.ZipFile(wheel) as packed:
        assert not any(name.endswith(".c") for name in packed.namelist())
        packed.extractall(tmp_path / "site")
    try_it = [sys.executable, "-c", TRY, str(tmp_path)]
    found = subprocess.run(
        try_it, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(not pure), found.stderr
