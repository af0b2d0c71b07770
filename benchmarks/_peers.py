"""What a user would pick instead, for a linear layer whose weight has zeros."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._rows import plain, sessions
from benchmarks._timing import Work
from presplit.core.errors import MissingLibrary, library
from presplit.train import to_onnx

said: set[str] = set()
"""What was said to be left out: once is enough."""


BLOCK = 16
"""The side of BSR's blocks."""


def peers(x: Tensor, weight: Tensor, order: Tensor, copies: int) -> dict[str, list[Work]]:
    """Each peer's runs, each with a copy of its own; what is not installed is left out with a line.

    ``order``: the inputs, those of one group after those of another. BSR, which gains only where
    whole blocks are empty, gets weight and inputs in this order, free of charge.
    """
    features = x.t().contiguous()
    columns, dense = features.numpy(), plain(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its compressed rows a prototype
        csr, bsr = (
            weight.to_sparse_csr(),
            weight[:, order].contiguous().to_sparse_bsr((BLOCK, BLOCK)),
        )
    assert bsr.values().numel() <= 1.01 * int(weight.count_nonzero()), (
        "BSR stores blocks that are mostly zeros"
    )
    grouped_features = features[order].contiguous()
    rows = library("scipy.sparse", need="the scipy peer", extra="bench").csr_matrix(weight.numpy())
    found: dict[str, list[Work]] = {
        "masked dense": [functools.partial(F.linear, x, weight.clone()) for _ in range(copies)],
        "torch CSR": [
            functools.partial(torch.matmul, csr.clone(), features) for _ in range(copies)
        ],
        "torch BSR 16x16": [
            functools.partial(torch.matmul, bsr.clone(), grouped_features) for _ in range(copies)
        ],
        "scipy CSR": [functools.partial(rows.copy().__matmul__, columns) for _ in range(copies)],
        "onnxruntime with zeros": sessions(dense, x, copies),
    }
    try:
        openvino = library("openvino", need="the OpenVINO peer", extra="bench")
    except MissingLibrary as missing:
        _leave_out(str(missing))
    else:
        core, raw = openvino.Core(), to_onnx(dense, x).SerializeToString()
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = [
            core.compile_model(core.read_model(raw, b""), "CPU", options) for _ in range(copies)
        ]
        found["openvino with zeros"] = [
            functools.partial(_inferred, model, x) for model in compiled
        ]
    return found


def deepsparse(
    python: str, x: Tensor, weight: Tensor, seconds: float, *, hot: bool
) -> tuple[float, float] | None:
    """Median seconds and error of DeepSparse, or None without an environment that has it.

    It is run by ``python``, which is that of the environment.
    """
    if not python:
        _leave_out(
            "DeepSparse 1.8; --deepsparse takes the python of an environment that has it (Python "
            "3.11 or older)"
        )
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("weight", weight), ("x", x)):
            np.save(Path(folder) / f"{name}.npy", value.numpy())
        arguments = [folder, str(seconds), *([] if hot else ["--cold"])]
        command = [python, "-m", "benchmarks._deepsparse", *arguments]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        )
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["error"]


def _leave_out(what: str) -> None:
    if what not in said:
        print(f"left out: {what}")
        said.add(what)


def _inferred(model: object, x: Tensor) -> object:
    return model(x.numpy())[0]  # type: ignore[operator]
