"""Running a graph by ONNX's own reference evaluator.

It is slow, needs no engine, and is the definition of each operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from presplit.core.errors import GraphError
from presplit.core.types import Floats
from presplit.graph.read import Graph


def run(graph: Graph, x: Floats, tensors: Sequence[str]) -> dict[str, Floats]:
    """The values of the named float32 tensors for ``x`` ``(batch, *shape)``.

    Tensors inside the graph can be named too.
    """
    wanted = list(dict.fromkeys(tensors))
    model = graph.model.graph
    known = {value.name: value for value in (*model.input, *model.value_info, *model.output)}
    probe = ModelProto()
    probe.CopyFrom(graph.model)
    del probe.graph.output[:]
    probe.graph.output.extend(known[name] for name in wanted)
    evaluator: Any = ReferenceEvaluator(probe)
    return dict(zip(wanted, evaluator.run(None, {graph.input: x}), strict=True))


def run_whole(model: ModelProto, x: Floats) -> list[Floats]:
    """The outputs of a model of one input, in order.

    Raises `GraphError` if it does not take ``x``.
    """
    evaluator: Any = ReferenceEvaluator(model)
    try:
        return evaluator.run(None, {model.graph.input[0].name: x})
    except (ValueError, IndexError, TypeError, RuntimeError) as error:
        raise GraphError(f"the graph does not take {x.shape}: {error}") from error
