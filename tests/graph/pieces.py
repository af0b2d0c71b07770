"""Running what was cut, piece after piece, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from presplit import graph


def run(model: bytes, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs of a model, as it is written: nothing is fused."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"]).run(None, feeds)


def logits(row: graph.Row, x: Any) -> Any:
    """The net's own logits: every segment is a model of its own and feeds the next one."""
    pieces, last = graph.cut(row), row.net.last
    for number, segment in enumerate(pieces.segments):
        ends = row.net.boundaries[number : number + 2]
        entry = graph.entry(number, ends[0], "float32", (), last=last)
        leave = graph.leave(number + 1, ends[1], last=last)
        joined = b"".join([pieces.header, entry, segment.onnx, leave])
        onnx.checker.check_model(joined)
        (x,) = run(joined, {"boundary": x})
    return x


def samples(row: graph.Row, count: int = 3) -> Any:
    """Samples that fit the input of ``row``; whole numbers of 0..3 where it takes those."""
    random, shape = np.random.default_rng(1), (count, *row.net.boundaries[0].shape)
    if "int" in row.graph.input_type:
        return random.integers(0, 4, size=shape).astype(np.float32)
    return random.normal(size=shape).astype(np.float32)
