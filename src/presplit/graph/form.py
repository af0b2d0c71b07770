"""The int8 form of a net in pieces: the whole graph is quantised once and then cut in its codes.

A boundary that the whole net codes is cut between QuantizeLinear and DequantizeLinear. So pieces
hand on codes: joined again they are the quantised net itself, operator by operator, and a boundary
is not coded twice. At a boundary that the net does not code, such as the residual stream of a
transformer, its pieces hand on float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, ModelProto, ValueInfoProto, helper, numpy_helper

from presplit.core.encoding import Seen
from presplit.core.tensors import boundary_name
from presplit.graph.boundaries import Row
from presplit.graph.cut import Fragment, Fragments, as_bytes, cut_exits, cut_segments, header
from presplit.graph.quantise import Scale, quantised
from presplit.graph.read import Graph
from presplit.graph.regroup import regrouped
from presplit.graph.sizes import BATCH
from presplit.graph.walk import needs


@dataclass(frozen=True)
class Form:
    """A net in another form than float32: its pieces, and the codes of its boundaries.

    ``ranges[k]``: what 256 codes at boundary k reach over; None where it stays float32.
    """

    fragments: Fragments
    ranges: tuple[Seen | None, ...]


def to_optimise(row: Row) -> bytes:
    """The model of ``row`` with every boundary as output, so that no rewriting passes one."""
    model = ModelProto()
    model.CopyFrom(row.graph.model)
    given = {value.name for value in model.graph.output} | {row.graph.input}
    model.graph.output.extend(_values(row.graph, [t for t in row.tensors if t not in given]))
    return model.SerializeToString()


def to_quantise(row: Row, folded: bytes) -> tuple[ModelProto, bytes]:
    """The model as it is to be quantised, and the same with every float32 tensor as output.

    ``folded`` is `to_optimise` without what can be folded, such as normalisation after a
    convolution. What the second gives for samples are the ranges that `in_int8` needs.
    """
    optimised = ModelProto.FromString(folded)
    graph, outputs = row.graph, set(row.graph.outputs)
    kept = [value for value in optimised.graph.output if value.name in outputs]
    del optimised.graph.output[:]
    optimised.graph.output.extend(kept)
    domains = {node.domain for node in optimised.graph.node}
    versions = [v for v in optimised.opset_import if not v.domain or v.domain in domains]
    del optimised.opset_import[:]
    optimised.opset_import.extend(versions)
    channels = {
        name: shape[1] for name, shape in graph.shapes.items() if len(shape) > 1 and shape[1]
    }
    regrouped(optimised, channels, {*row.tensors, *outputs})
    shown = ModelProto()
    shown.CopyFrom(optimised)
    inner = [
        name
        for node in optimised.graph.node
        for name in node.output
        if graph.is_float32(name) and name in graph.live and name not in outputs
    ]
    shown.graph.output.extend(_values(graph, inner))
    return optimised, shown.SerializeToString()


def in_int8(
    row: Row, model: ModelProto, seen: Mapping[str, Seen], fragments: Fragments
) -> tuple[Form, ModelProto]:
    """The int8 form of ``row``, and the whole quantised model.

    ``model`` is that of `to_quantise`; ``seen`` has the range of every float32 tensor of it;
    ``fragments`` are those of float32, which say what each piece costs. Raises `GraphError` if
    nothing of it can be quantised.
    """
    scales: dict[str, Scale] = {}
    whole = quantised(model, seen, scales)
    graph = Graph(whole, row.graph.input, row.graph.outputs, row.graph.shapes, row.graph.types)
    last = row.net.last
    read_too = {
        name for node in graph.nodes if node.op_type != "QuantizeLinear" for name in needs(node)
    }
    coded = [scales.get(tensor) if tensor not in read_too else None for tensor in row.tensors]
    tensors, names = list(row.tensors), [boundary_name(k, last) for k in range(last + 1)]
    enter, leave = [b""] * (last + 1), [b""] * (last + 1)
    for number, scale in enumerate(coded):
        if scale is None:
            continue
        tensors[number] = f"{tensors[number]}/codes"
        codes = f"{names[number]}.codes"
        enter[number] = _step("QuantizeLinear", names[number], codes, scale)
        leave[number] = _step("DequantizeLinear", codes, names[number], scale)
        names[number] = codes
    segments = tuple(
        replace(of, onnx=fragment)
        for of, (fragment, _) in zip(
            fragments.segments, cut_segments(graph, tensors, names), strict=True
        )
    )
    exits: dict[str, Fragment] = {
        name: replace(fragments.exits[name], onnx=fragment)
        for name, fragment, _ in cut_exits(graph, row, tensors, names)
    }
    made = Fragments(header(graph), segments, exits, tuple(enter), tuple(leave))
    return Form(made, tuple(scale and scale.reach for scale in coded)), whole


def _step(kind: str, read: str, given: str, scale: Scale) -> bytes:
    """The fragment of one node that codes a boundary, or says what its codes stand for."""
    constants = [
        numpy_helper.from_array(np.asarray(value), f"{kind}/{read}/{name}")
        for name, value in (("scale", scale.scale), ("zero", scale.zero_point))
    ]
    node = helper.make_node(kind, [read, *(c.name for c in constants)], [given])
    return as_bytes(GraphProto(node=[node], initializer=constants))


def _values(graph: Graph, names: list[str]) -> list[ValueInfoProto]:
    """``names`` as outputs of a graph."""
    return [
        helper.make_tensor_value_info(name, graph.types[name], None)
        for name in names
        if not name.startswith(BATCH)
    ]
