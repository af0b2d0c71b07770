"""Cutting a row of segments into fragments that join by their bytes (see `presplit.bundle.read`).

Every tensor inside a segment or an exit gets that piece's prefix, so pieces never clash: a constant
that two segments use is stored in both. Boundaries are called ``boundary_00``, ``boundary_01``, ...
and the last one ``logits``; an exit gives ``logits.NAME``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """A net in pieces: a header, one fragment per segment, one per early exit.

    ``enter[k]`` and ``leave[k]``: what leads from boundary k in float32 to what the pieces know,
    and back; nothing where they know float32.
    """

    header: bytes
    segments: tuple[Fragment, ...]
    exits: Mapping[str, Fragment]
    enter: tuple[bytes, ...]
    leave: tuple[bytes, ...]


def cut(row: Row) -> Fragments:
    """``row`` cut at every boundary."""
    graph, last = row.graph, row.net.last
    names = [boundary_name(number, last) for number in range(last + 1)]
    segments = tuple(
        Fragment(fragment, count_macs(graph, nodes), count_weights(graph, nodes))
        for fragment, nodes in cut_segments(graph, row.tensors, names)
    )
    exits = {
        name: Fragment(fragment, count_macs(graph, nodes), count_weights(graph, nodes))
        for name, fragment, nodes in cut_exits(graph, row, row.tensors, names)
    }
    nothing = (b"",) * (last + 1)
    return Fragments(header(graph), segments, exits, nothing, nothing)


def cut_segments(
    graph: Graph, tensors: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[bytes, list[NodeProto]]]:
    """Each segment's fragment and nodes; ``tensors`` are cut at and called ``names`` from then."""
    places = dict(zip(tensors, names, strict=True))
    for number, (start, stop) in enumerate(zip(tensors, tensors[1:], strict=False)):
        nodes = segment_nodes(graph, start, stop)
        renamed = {tensor: places[tensor] for tensor in (start, stop)}
        yield _fragment(graph, nodes, start, f"segment_{number:02d}/", renamed), nodes


def cut_exits(
    graph: Graph, row: Row, tensors: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[str, bytes, list[NodeProto]]]:
    """Each early exit of ``row`` by name, its fragment and nodes in ``graph``."""
    for exit_, output in zip(row.net.exits[:-1], row.logits, strict=False):
        tensor = tensors[exit_.after]
        nodes, given = segment_nodes(graph, tensor, output), output
        if output == tensor:  # the place itself is the exit's logits
            given, nodes = "itself", [helper.make_node("Identity", [tensor], ["itself"])]
        renamed = {tensor: names[exit_.after], given: logits_name(exit_.name)}
        result = helper.make_tensor_value_info(
            logits_name(exit_.name), TensorProto.FLOAT, ["batch", exit_.classes]
        )
        fragment = _fragment(graph, nodes, tensor, f"exit_{exit_.name}/", renamed, result)
        yield exit_.name, fragment, nodes


def header(graph: Graph) -> bytes:
    """What every model of the pieces of ``graph`` begins with: the versions of its operators."""
    made = ModelProto(ir_version=graph.model.ir_version, producer_name="presplit")
    made.opset_import.extend(graph.model.opset_import)
    made.graph.name = "presplit"
    return made.SerializeToString(deterministic=True)


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
    return as_bytes(GraphProto(node=nodes, initializer=constants, input=[value]))


def leave(number: int, boundary: Boundary, *, last: int) -> bytes:
    """The fragment that makes boundary ``number`` a graph output."""
    name = boundary_name(number, last)
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *boundary.shape])
    return as_bytes(GraphProto(output=[value]))


def _fragment(
    graph: Graph,
    nodes: Sequence[NodeProto],
    start: str,
    prefix: str,
    renamed: Mapping[str, str],
    *results: ValueInfoProto,
) -> bytes:
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
    return as_bytes(GraphProto(node=copies, initializer=constants, output=results))


def as_bytes(graph: GraphProto) -> bytes:
    """A fragment: a model that holds nothing but ``graph``."""
    return ModelProto(graph=graph).SerializeToString(deterministic=True)
