"""Counting multiply-accumulates and weights of ONNX nodes.

Convolutions, MatMul, Gemm and recurrent layers are counted, as the field does; biases,
normalisation and elementwise work are not. What is counted is what runs: a sparse layer in tile
form costs its connections, one that is scattered into a dense weight costs the dense product,
although it stores only its values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnx import NodeProto, TensorProto

from presplit.graph.read import Graph

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}

RECURRENT = ("LSTM", "GRU", "RNN")


def count_macs(graph: Graph, nodes: Iterable[NodeProto]) -> int:
    """Multiply-accumulates of ``nodes`` for one sample."""
    return sum(_macs(graph, node) for node in nodes)


def count_weights(graph: Graph, nodes: Iterable[NodeProto]) -> int:
    """Stored weights that ``nodes`` multiply with; a weight used twice counts once."""
    found: set[str] = set()
    for node in nodes:
        for name in _multiplied(node):
            if name not in graph.live:
                found |= graph.ancestors(name)
    tensors = [graph.initializers[name] for name in found if name in graph.initializers]
    return sum(math.prod(tensor.dims) for tensor in tensors if tensor.data_type in _FLOATS)


def _multiplied(node: NodeProto) -> list[str]:
    """The operands of a multiplication that may be weights."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return [node.input[1]]
    if node.op_type in RECURRENT:
        return list(node.input[1:3])
    return list(node.input[:2]) if node.op_type in ("MatMul", "Gemm") else []


def _macs(graph: Graph, node: NodeProto) -> int:
    """Multiply-accumulates of one node for one sample, the batch counted as 1."""
    if node.op_type == "Conv":
        return _size(graph, node.output[0]) * math.prod(_dims(graph, node.input[1])[1:])
    if node.op_type == "ConvTranspose":
        return _size(graph, node.input[0]) * math.prod(_dims(graph, node.input[1])[1:])
    if node.op_type == "MatMul":
        return _size(graph, node.output[0]) * _dims(graph, node.input[0])[-1]
    if node.op_type == "Gemm":
        transposed = next((a.i for a in node.attribute if a.name == "transA"), 0)
        return _size(graph, node.output[0]) * _dims(graph, node.input[0])[0 if transposed else -1]
    if node.op_type in RECURRENT:  # both weights once a step; the steps are the input's first axis
        return _dims(graph, node.input[0])[0] * sum(_size(graph, name) for name in node.input[1:3])
    return 0


def _size(graph: Graph, name: str) -> int:
    return math.prod(_dims(graph, name))


def _dims(graph: Graph, name: str) -> tuple[int, ...]:
    """Sizes of a tensor, 1 for the batch."""
    if name in graph.initializers:
        return tuple(graph.initializers[name].dims)
    return tuple(size or 1 for size in graph.shapes.get(name, (1,)))
