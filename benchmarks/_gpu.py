"""Linear layers on a GPU, where one is at hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks._rows import DENSITIES, row
from benchmarks._timing import relative_error
from presplit.patterns import grouped
from presplit.train import SparseLinear

CLOSE = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
"""Relative to the largest output: GPUs may multiply float32 in TF32, of 10 binary digits."""


def gpu_rows(quick: bool) -> list[dict[str, Any]]:
    """Inference and a training step at 1024..8192 and batch 256..4096 in two precisions; nothing without a GPU."""
    if not torch.cuda.is_available():
        print("left out: GPU rows; torch sees no GPU here")
        return []
    sizes, batches = ((1024, 4096), (256, 4096)) if quick else ((1024, 2048, 4096, 8192), (256, 1024, 4096))
    rows: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for n in sizes:
            for batch in batches:
                rows += _linear(n, batch, dtype)
    return rows


def _linear(n: int, batch: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One layer n -> n, with and without gradients."""
    x = torch.randn(batch, n, device="cuda", dtype=dtype, requires_grad=True)
    found: list[dict[str, Any]] = []
    for density in DENSITIES:
        layer = SparseLinear(grouped(n, n, density=density)).to("cuda", dtype)
        features = x.detach().t().contiguous().requires_grad_()
        weight = layer.dense_weight().detach().clone().requires_grad_()
        error = relative_error(layer(x).detach().float().cpu(), F.linear(x, weight).detach().float().cpu())
        assert error < CLOSE[dtype], f"dense and sparse compute different things: {error:.2g}"
        forms: dict[str, Callable[[], torch.Tensor]] = {
            "dense row": lambda w=weight: F.linear(x, w),
            "dense feature-major": lambda w=weight, f=features: w @ f,
            "grouped": lambda net=layer, f=features: net(f.t()),
        }
        name = str(dtype).removeprefix("torch.")
        for op, times in (("linear_infer", _times(forms)), ("linear_train", _times(forms, backward=True))):
            best = min(times["dense row"], times["dense feature-major"])
            cells = row(op, f"{n}x{n}", density, batch, "grouped cuda", best / times["grouped"], error, dtype=name)
            found.append(cells)
    return found


def _times(
    forms: dict[str, Callable[[], torch.Tensor]], *, backward: bool = False, rounds: int = 20
) -> dict[str, float]:
    """Median milliseconds of each form in turn, by the GPU's own clock."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 3):
        for name, form in forms.items():
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            if backward:
                form().sum().backward()
            else:
                with torch.no_grad():
                    form()
            ended.record()
            torch.cuda.synchronize()
            taken[name].append(began.elapsed_time(ended))
    return {name: statistics.median(values[3:]) for name, values in taken.items()}
