"""Cutting a row of segments into fragments that join by their bytes (see `presplit.bundle.read`).

Every tensor inside a segment or an exit gets that piece's prefix, so pieces never clash: a constant
that two segments use is stored in both. Boundaries are called ``boundary_00``, ``boundary_01``, ...
and the last one ``logits``; an exit gives ``logits.NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from presplit.core.encoding import Step
from presplit.core.tensors import INPUT, boundary_name, logits_name
from presplit.core.types import Boundary
from presplit.graph.boundaries import Row, segment_nodes
from presplit.graph.count import count_macs, count_weights
from presplit.graph.read import Graph
from presplit.graph.sizes import BATCH, batch_nodes
from presplit.graph.walk import needs, rename

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
}


@dataclass(frozen=True)
class Fragment:
    """Nodes and weights of one piece as ONNX protobuf bytes, with what they cost for one sample."""

    onnx: bytes
    macs: int
    weights: int


@dataclass(frozen=True)
class Fragments:
    """A net in pieces: a header, one fragment per segment, one per early exit."""

    header: bytes
    segments: tuple[Fragment, ...]
    exits: Mapping[str, Fragment]


def cut(row: Row) -> Fragments:
    """``row`` cut at every boundary."""
    graph, last = row.graph, row.net.last
    places = {tensor: boundary_name(number, last) for number, tensor in enumerate(row.tensors)}
    segments: list[Fragment] = []
    for number, (start, stop) in enumerate(zip(row.tensors, row.tensors[1:], strict=False)):
        nodes = segment_nodes(graph, start, stop)
        segments.append(
            _fragment(
                graph, nodes, start, f"segment_{number:02d}/", {t: places[t] for t in (start, stop)}
            )
        )
    exits: dict[str, Fragment] = {}
    for exit_, output in zip(row.net.exits[:-1], row.logits, strict=False):
        tensor = row.tensors[exit_.after]
        nodes = segment_nodes(graph, tensor, output)
        if output == tensor:  # the place itself is the exit's logits
            output, nodes = "itself", [helper.make_node("Identity", [tensor], ["itself"])]
        renamed = {tensor: places[tensor], output: logits_name(exit_.name)}
        result = helper.make_tensor_value_info(
            logits_name(exit_.name), TensorProto.FLOAT, ["batch", exit_.classes]
        )
        exits[exit_.name] = _fragment(graph, nodes, tensor, f"exit_{exit_.name}/", renamed, result)
    header = ModelProto(ir_version=graph.model.ir_version, producer_name="presplit")
    header.opset_import.extend(graph.model.opset_import)
    header.graph.name = "presplit"
    return Fragments(header.SerializeToString(deterministic=True), tuple(segments), exits)


def entry(
    number: int,
    boundary: Boundary,
    dtype: str,
    steps: Sequence[Step],
    *,
    last: int,
    shape: Sequence[int] | None = None,
) -> bytes:
    """The fragment that enters boundary ``number``.

    It takes the graph input ``boundary`` of ``dtype`` and ``shape`` (None: the boundary's own) and
    gives the boundary in float32 by ``steps``, a codec's decoder.
    """
    sizes = boundary.shape if shape is None else shape
    value = helper.make_tensor_value_info(INPUT, _TYPES[dtype], ["batch", *sizes])
    constants: list[TensorProto] = []
    nodes: list[NodeProto] = []
    read = INPUT
    for place, step in enumerate(steps or [Step("Identity")]):
        names = [f"entry/{place}/{k}" for k in range(len(step.constants))]
        constants += [
            numpy_helper.from_array(np.array(constant), name)
            for name, constant in zip(names, step.constants, strict=True)
        ]
        inputs = [*names, read] if step.looked_up else [read, *names]
        node = helper.make_node(step.op, inputs, [f"entry/{place}"])
        if step.to is not None:
            node.attribute.append(helper.make_attribute("to", _TYPES[step.to]))
        if step.axis:
            node.attribute.append(helper.make_attribute("axis", step.axis))
        nodes.append(node)
        read = f"entry/{place}"
    nodes[-1].output[0] = boundary_name(number, last)
    return _bytes(GraphProto(node=nodes, initializer=constants, input=[value]))


def leave(number: int, boundary: Boundary, *, last: int) -> bytes:
    """The fragment that makes boundary ``number`` a graph output."""
    name = boundary_name(number, last)
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *boundary.shape])
    return _bytes(GraphProto(output=[value]))


def _fragment(
    graph: Graph,
    nodes: Sequence[NodeProto],
    start: str,
    prefix: str,
    renamed: Mapping[str, str],
    *results: ValueInfoProto,
) -> Fragment:
    """``nodes`` and the constants they use, every tensor prefixed except those in ``renamed``.

    Where they need the size of the batch, it is that of ``start``, the piece's own input.
    """
    initializers, steps = graph.initializers, list(nodes)
    if any(BATCH in needs(node) for node in nodes):
        telling, constant = batch_nodes(start)
        initializers = {**initializers, constant.name: constant}
        steps = [*telling, *nodes]

    def name_of(name: str) -> str:
        return renamed.get(name, prefix + name)

    copies: list[NodeProto] = []
    for number, node in enumerate(steps):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}{number}"
        copy.ClearField("metadata_props")
        copy.ClearField("doc_string")
        rename(copy, name_of)
        copies.append(copy)
    constants: list[TensorProto] = []
    for name in sorted({name for node in steps for name in needs(node)} & set(initializers)):
        tensor = TensorProto()
        tensor.CopyFrom(initializers[name])
        tensor.name = name_of(name)
        constants.append(tensor)
    raw = _bytes(GraphProto(node=copies, initializer=constants, output=results))
    return Fragment(raw, count_macs(graph, nodes), count_weights(graph, nodes))


def _bytes(graph: GraphProto) -> bytes:
    return ModelProto(graph=graph).SerializeToString(deterministic=True)
