"""Counting multiply-accumulates and weights of ONNX nodes.

What is counted is what runs (`presplit.graph.operators` has the list): a sparse layer in tile form
costs its connections, one that is scattered into a dense weight costs the dense product, although
it stores only its values. A quantised net counts as the float net that it was made of. An If costs
its dearer branch and stores both; a Loop or Scan costs its body once a trip. The table of an
embedding is a weight, as parameters are counted elsewhere; looking it up costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any

from onnx import NodeProto, TensorProto, numpy_helper

from presplit.core.errors import GraphError
from presplit.graph.operators import COUNTED, FREE, Counted, Dims
from presplit.graph.read import Graph
from presplit.graph.walk import attribute, bodies, every, needs, operator

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_FEW_BITS = {
    *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16),
    *(TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2),
}
_RESHAPES = frozenset(
    {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Expand"}
)


def count_macs(graph: Graph, nodes: Iterable[NodeProto]) -> int:
    """Multiply-accumulates of ``nodes`` for one sample.

    Raises `GraphError` for an operator that is on no list, or whose operands' sizes cannot be told.
    """
    return sum(_macs(graph, node) for node in nodes)


def count_weights(graph: Graph, nodes: Iterable[NodeProto]) -> int:
    """Stored weights that ``nodes`` multiply with or look up; a weight used twice counts once.

    A weight of few bits counts as one of many: 9 for a kernel of 3 x 3, whatever their type.
    """
    found: dict[str, int] = {}
    for node in every(nodes):
        for name in _weight_operands(node, graph.live):
            if name not in graph.live:
                found |= _stored(graph, name, few_bits=True)
        if operator(node) == "com.microsoft.MatMulNBits":  # several weights share a byte
            found[node.input[1]] = attribute(node, "K", 0) * attribute(node, "N", 0)
        if operator(node) == "ai.onnx.ml.TreeEnsembleClassifier":  # they lie in the node itself
            kept = (attribute(node, key, []) for key in ("nodes_values", "class_weights"))
            found[node.output[1]] = sum(map(len, kept))
    return sum(found.values())


def _weight_operands(node: NodeProto, live: Container[str]) -> list[str]:
    counted = COUNTED.get(operator(node))
    if counted is None:
        return []
    if node.op_type == "Gather" and node.input[1] not in live:  # it picks, and looks nothing up
        return []
    places = range(len(node.input)) if counted.weights is None else counted.weights
    return [node.input[place] for place in places if place < len(node.input) and node.input[place]]


def _stored(graph: Graph, name: str, *, few_bits: bool) -> dict[str, int]:
    """Sizes of the weights that ``name`` is computed from, by their names.

    Numbers of few bits are weights where they are multiplied or dequantised (``few_bits``), and
    zero points elsewhere; scales, and single numbers without an axis, are none.
    """
    tensor = graph.initializers.get(name)
    if tensor is not None:
        counts = tensor.data_type in (_FLOATS | _FEW_BITS if few_bits else _FLOATS)
        return {name: math.prod(tensor.dims)} if counts and len(tensor.dims) > 0 else {}
    node = graph.producer.get(name)
    if node is None:
        return {}
    if node.op_type in ("DequantizeLinear", "Cast"):
        return _stored(graph, node.input[0], few_bits=True)
    if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return _stored(graph, node.input[0], few_bits=False)
    if node.op_type in _RESHAPES:
        return _stored(graph, node.input[0], few_bits=few_bits)
    found: dict[str, int] = {}
    for operand in needs(node):
        found |= _stored(graph, operand, few_bits=node.op_type.startswith("QLinear"))
    return found


def _macs(graph: Graph, node: NodeProto) -> int:
    """Multiply-accumulates of one node for one sample, the batch counted as 1."""
    name = operator(node)
    inside = bodies(node)
    if inside:
        return _macs_of_bodies(graph, node)
    if name in FREE:
        return 0
    counted: Counted | None = COUNTED.get(name)
    if counted is None:
        raise GraphError(
            f"operator {name} (it makes {node.output[0]!r}) is not known, so what it costs cannot "
            "be counted; write it in ONNX's own operators, or add it to presplit.graph.operators"
        )
    return counted.macs(_Operands(graph, node))


def _macs_of_bodies(graph: Graph, node: NodeProto) -> int:
    inside = [count_macs(graph, body.node) for body in bodies(node)]
    if node.op_type == "If" or not any(inside):
        return max(inside)
    trips = _trips(graph, node)
    if trips is None:
        raise GraphError(
            f"{node.op_type} (it makes {node.output[0]!r}) computes a number of times that its "
            "input decides, so what it costs cannot be counted; give it a constant number of trips"
        )
    return trips * sum(inside)


def _trips(graph: Graph, node: NodeProto) -> int | None:
    """How often a Loop or Scan runs at most; None if that is not constant."""
    if node.op_type == "Loop":
        most = graph.initializers.get(node.input[0])
        return None if most is None else int(numpy_helper.to_array(most).item())
    if node.op_type != "Scan":
        return None
    scanned: int = attribute(node, "num_scan_inputs", 1)
    axes: list[int] = attribute(node, "scan_input_axes", [0])
    shape = graph.shapes.get(node.input[len(node.input) - scanned])
    return None if shape is None else shape[axes[0]]


class _Operands:
    """The sizes of one node's operands and result for one sample (`operators.Sizes`)."""

    def __init__(self, graph: Graph, node: NodeProto) -> None:
        self.graph, self.node = graph, node

    def has(self, number: int) -> bool:
        return number < len(self.node.input) and self.node.input[number] != ""

    def operand(self, number: int) -> Dims:
        return self._dims(self.node.input[number])

    def result(self) -> Dims:
        return self._dims(self.node.output[0])

    def attribute(self, name: str, default: Any) -> Any:
        return attribute(self.node, name, default)

    def _dims(self, name: str) -> Dims:
        """Sizes of a tensor, 1 for the batch."""
        if name in self.graph.initializers:
            return tuple(self.graph.initializers[name].dims)
        shape = self.graph.shapes.get(name)
        if shape is None:
            raise GraphError(
                f"the sizes of {name!r} cannot be told, so what {operator(self.node)} costs cannot "
                "be counted; export the net with all sizes but the batch fixed"
            )
        return tuple(1 if size is None else size for size in shape)
