"""The operators of a model, as one looks at them: what each computes, its sizes, what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from presplit.graph.count import count_macs, count_weights
from presplit.graph.read import Graph, read
from presplit.graph.walk import needs, operator


@dataclass(frozen=True)
class Operator:
    """One node of a graph.

    ``node`` is its name in the file, ``kind`` what it computes, ``inputs`` and ``outputs`` the
    tensors that it reads and makes; ``shape`` is that of its first output for one sample.
    ``weight_bytes`` are those of all constants that it reads, biases included.
    """

    node: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    macs: int
    weights: int
    weight_bytes: int


def operators(model: bytes) -> list[Operator]:
    """Every operator of the ONNX ``model`` that computes something of its input, in their order.

    Raises `GraphError` if it is none, or if what an operator costs cannot be counted.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'''
    >>> [(one.kind, one.shape) for one in operators(parser.parse_model(text).SerializeToString())]
    [('Relu', (4,))]
    """
    graph = read(model)
    return [
        _listed(graph, node)
        for node in graph.nodes
        if any(name in graph.live for name in node.output)
    ]


def _listed(graph: Graph, node: NodeProto) -> Operator:
    shape = graph.shapes.get(node.output[0]) or ()
    return Operator(
        node=node.name,
        kind=operator(node).removeprefix("com.microsoft."),
        inputs=tuple(needs(node)),
        outputs=tuple(name for name in node.output if name),
        shape=tuple(size or 1 for size in shape[1:]),
        macs=count_macs(graph, [node]),
        weights=count_weights(graph, [node]),
        weight_bytes=sum(_bytes(graph.initializers.get(name)) for name in set(needs(node))),
    )


def _bytes(tensor: TensorProto | None) -> int:
    """What a constant takes in memory; 0 if it is none."""
    if tensor is None:
        return 0
    if tensor.raw_data:
        return len(tensor.raw_data)
    return math.prod(tensor.dims) * _WIDTHS.get(tensor.data_type, 4)


_WIDTHS: dict[int, int] = {
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL), 1),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16), 2),
    **dict.fromkeys((TensorProto.INT64, TensorProto.DOUBLE), 8),
}
"""Bytes of an element, where they are not 4."""
