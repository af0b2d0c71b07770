"""Linear layers and convolutions on a GPU, where one is at hand."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks._rows import DENSITIES, row
from benchmarks._timing import relative_error
from presplit.patterns import grouped
from presplit.train import SparseConv2d, SparseLinear

CLOSE = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
"""Relative to the largest output: GPUs may multiply float32 in TF32, of 10 binary digits."""


def gpu_rows(quick: bool) -> list[dict[str, Any]]:
    """Inference and a training step in two precisions; nothing without a GPU.

    Linear layers at 1024..8192 with batches of 256..4096; convolutions of 64..512 channels with
    batches of 128.
    """
    if not torch.cuda.is_available():
        print("left out: GPU rows; torch sees no GPU here")
        return []
    sizes, batches = (
        ((1024, 4096), (256, 4096)) if quick else ((1024, 2048, 4096, 8192), (256, 1024, 4096))
    )
    rows: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for n in sizes:
            for batch in batches:
                rows += _linear(n, batch, dtype)
        for channels, side in ((64, 32),) if quick else ((64, 32), (128, 16), (256, 8), (512, 8)):
            rows += _convolution(channels, side, dtype)
    return rows


def _linear(n: int, batch: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One layer n -> n, with and without gradients."""
    x = torch.randn(batch, n, device="cuda", dtype=dtype, requires_grad=True)
    found: list[dict[str, Any]] = []
    for density in DENSITIES:
        layer = SparseLinear(grouped(n, n, density=density)).to("cuda", dtype)
        features = x.detach().t().contiguous().requires_grad_()
        weight = layer.dense_weight().detach().clone().requires_grad_()
        error = relative_error(
            layer(x).detach().float().cpu(), F.linear(x, weight).detach().float().cpu()
        )
        assert error < CLOSE[dtype], f"dense and sparse compute different things: {error:.2g}"
        forms: dict[str, Callable[[], torch.Tensor]] = {
            "dense row": lambda w=weight: F.linear(x, w),
            "dense feature-major": lambda w=weight, f=features: w @ f,
            "grouped": lambda net=layer, f=features: net(f.t()),
        }
        name = str(dtype).removeprefix("torch.")
        for op, times in (
            ("linear_infer", _times(forms)),
            ("linear_train", _times(forms, backward=True)),
        ):
            best = min(times["dense row"], times["dense feature-major"])
            cells = row(
                op,
                f"{n}x{n}",
                density,
                batch,
                "grouped cuda",
                best / times["grouped"],
                error,
                dtype=name,
            )
            found.append(cells)
    return found


def _convolution(channels: int, side: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One 3x3 convolution as the layer runs it, and always in groups, against the dense one."""
    x = torch.randn(128, channels, side, side, device="cuda", dtype=dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    found: list[dict[str, Any]] = []
    for density in DENSITIES:
        layer = SparseConv2d(
            grouped(channels, channels, density=density),
            kernel_size=(3, 3),
            padding=(1, 1),
            bias=False,
        )
        layer = layer.to("cuda", dtype)
        dense = layer.to_dense().to(memory_format=torch.channels_last)
        forms = {
            "dense": functools.partial(dense, x),
            "in groups cuda": functools.partial(_in_groups, layer, x),
            "grouped cuda": functools.partial(layer, x),
        }
        want = forms["dense"]().detach().float().cpu()
        for op, times in (
            ("conv_infer", _times(forms)),
            ("conv_train", _times(forms, backward=True)),
        ):
            for form in ("in groups cuda", "grouped cuda"):
                error = relative_error(forms[form]().detach().float().cpu(), want)
                assert error < CLOSE[dtype], (
                    f"dense and {form} compute different things: {error:.2g}"
                )
                shape, name = f"3x3 C{channels} {side}^2", str(dtype).removeprefix("torch.")
                found.append(
                    row(
                        op,
                        shape,
                        density,
                        128,
                        form,
                        times["dense"] / times[form],
                        error,
                        dtype=name,
                    )
                )
    return found


def _in_groups(layer: SparseConv2d, x: torch.Tensor) -> torch.Tensor:
    """What ``layer``, a 3x3 convolution whose channels are dealt, computes.

    It is a channel shuffle and groups.
    """
    groups, fan_in = layer.index.shape
    return F.conv2d(F.channel_shuffle(x, fan_in), layer.kernels(), padding=1, groups=groups)


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
