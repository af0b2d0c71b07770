"""One form for what files say in several ways, each as exact as the file itself.

Functions are inlined. Constants are initialisers: those that are listed among the inputs, as files
of IR 3 do, those stored as sparse tensors, and Constant nodes. The input is float32: a file that
takes another type of numbers gets a Cast behind it (a float32 holds every uint8 and float16, and
whole numbers up to 2 ** 24). So are the outputs, and a Softmax at their end is left out, because
exits are judged by logits. Classical machine learning's operators become ONNX's own where they
can (`presplit.graph.classical`). No two tensors share a name, those inside of If, Loop and Scan
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    inliner,
    numpy_helper,
)

from presplit.graph.classical import drop_last_identity, give_logarithms, plain
from presplit.graph.walk import attribute, bodies, every, graphs, rename, rename_body

NUMBERS = frozenset(
    {
        *(TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE),
        *(TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16),
        *(TensorProto.UINT32, TensorProto.INT32, TensorProto.UINT64, TensorProto.INT64),
    }
)
"""Types that a float32 input can be cast to."""
CONSTANTS_OUTSIDE_INPUTS = 4
"""The first IR version whose constants need not be listed among the inputs."""


def tidy(model: ModelProto, *, probabilities: Sequence[str] = ()) -> ModelProto:
    """``model``, which is valid, in this form; it may be changed itself.

    ``probabilities``: the outputs that are such, and become their logarithms.
    """
    model = inliner.inline_local_functions(model) if model.functions else model
    model.ir_version = max(model.ir_version, CONSTANTS_OUTSIDE_INPUTS)
    for graph in graphs(model.graph):
        _make_dense(graph)
        _lift_constants(graph)
    _drop_constant_inputs(model.graph)
    _open_nameless_batch(model.graph)
    _tell_bodies_apart(model.graph)
    _take_float32(model.graph)
    _give_float32(model.graph)
    plain(model)
    drop_last_identity(model.graph)
    _give_logits(model.graph)
    give_logarithms(model.graph, probabilities)
    return model


def _make_dense(graph: GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]


def _dense(sparse: SparseTensorProto, name: str) -> TensorProto:
    """A sparse tensor with its zeros; its indices are flat, or one row for each value."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    full = np.zeros(tuple(sparse.dims), values.dtype)
    places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), full.shape)
    full.reshape(-1)[places] = values
    return numpy_helper.from_array(full, name)


def _lift_constants(graph: GraphProto) -> None:
    """Turn Constant nodes into initialisers, but for those that are a body's result themselves."""
    results = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        tensor = None if node.op_type != "Constant" else _constant(node)
        if tensor is None or node.output[0] in results:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant node holds; None if it holds text."""
    (held,) = (each for each in node.attribute if each.name.startswith(("value", "sparse_value")))
    value, name = helper.get_attribute_value(held), node.output[0]
    if held.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = name
        return tensor
    if held.name == "sparse_value":
        return _dense(value, name)
    if held.name.startswith("value_string"):
        return None
    dtype = np.float32 if held.name.startswith("value_float") else np.int64
    return numpy_helper.from_array(np.array(value, dtype), name)


def _drop_constant_inputs(graph: GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)


def _open_nameless_batch(graph: GraphProto) -> None:
    """Take a batch of 0 or -1, as some converters write it, for an open one."""
    for value in graph.input:
        axes = value.type.tensor_type.shape.dim
        if len(axes) > 0 and axes[0].HasField("dim_value") and axes[0].dim_value <= 0:
            axes[0].dim_param = "batch"


def _tell_bodies_apart(graph: GraphProto) -> None:
    """Give names inside of a body that occur elsewhere too a prefix of their own."""
    seen = {value.name for value in (*graph.input, *graph.initializer)}
    seen |= {name for node in graph.node for name in node.output}
    for number, body in enumerate(body for node in every(graph.node) for body in bodies(node)):
        own = {value.name for value in (*body.input, *body.initializer)}
        own |= {name for node in body.node for name in node.output}
        clashing = {name: f"body_{number}/{name}" for name in own & seen - {""}}
        if clashing:
            rename_body(body, lambda name, new=clashing: new.get(name, name))
        seen |= {clashing.get(name, name) for name in own}


def _take_float32(graph: GraphProto) -> None:
    if len(graph.input) != 1:
        return
    given = graph.input[0]
    kind = given.type.tensor_type.elem_type
    if kind not in NUMBERS or kind == TensorProto.FLOAT:
        return
    inner = f"{given.name}/{TensorProto.DataType.Name(kind).lower()}"
    _rename_all(graph.node, given.name, inner)
    cast = helper.make_node("Cast", [given.name], [inner], to=kind)
    graph.node.insert(0, cast)
    given.type.tensor_type.elem_type = TensorProto.FLOAT


def _give_float32(graph: GraphProto) -> None:
    for value in graph.output:
        kind = value.type.tensor_type.elem_type
        if kind not in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
            continue
        inner = f"{value.name}/{TensorProto.DataType.Name(kind).lower()}"
        _rename_all(graph.node, value.name, inner)
        graph.node.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT))
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def _give_logits(graph: GraphProto) -> None:
    """Leave out a Softmax over the classes that nothing but an output reads."""
    made = {name for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    used = {name for node in every(graph.node) for name in node.input}
    for node in list(graph.node):
        if node.op_type != "Softmax" or node.output[0] not in outputs - used:
            continue
        logits = node.input[0]
        if logits not in made - outputs or attribute(node, "axis", -1) not in (-1, 1):
            continue
        graph.node.remove(node)
        _rename_all(graph.node, logits, node.output[0])


def _rename_all(nodes: Iterable[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        rename(node, lambda name: new if name == old else name)
