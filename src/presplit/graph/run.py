"""Running a graph by ONNX's own reference evaluator: slow, needs no engine, and is the definition of each operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from presplit.core.types import Floats
from presplit.graph.read import Graph


def run(graph: Graph, x: Floats, tensors: Sequence[str]) -> dict[str, Floats]:
    """The values of the named float32 tensors, those inside the graph included, for ``x`` ``(batch, *shape)``."""
    wanted = list(dict.fromkeys(tensors))
    model = graph.model.graph
    known = {value.name: value for value in (*model.input, *model.value_info, *model.output)}
    probe = ModelProto()
    probe.CopyFrom(graph.model)
    del probe.graph.output[:]
    probe.graph.output.extend(known[name] for name in wanted)
    evaluator: Any = ReferenceEvaluator(probe)
    return dict(zip(wanted, evaluator.run(None, {graph.input: x}), strict=True))
