"""What is known of a model at one size of its batch: shapes, and small values made from them.

Shapes are inferred by onnx, and what nets compute with shapes is run by onnx's reference, in turn,
until nothing new is found. Large weights do not matter for that and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from presplit.graph.stand_ins import stand_in
from presplit.graph.walk import attribute, bodies, graphs, is_own

Values = dict[str, npt.NDArray[Any]]

SMALL = 2048
"""A tensor of more elements is not taken for what is computed from shapes.

Less than any of `PROBES`, so that a row for each sample is always too large.
"""
ARITHMETIC = frozenset(
    {
        *("Shape", "Size", "Gather", "GatherElements", "Slice", "Split", "Concat", "Squeeze"),
        *("Unsqueeze", "Reshape", "Flatten", "Transpose", "Identity", "Cast", "Expand", "Tile"),
        *("Range", "ConstantOfShape", "ScatterElements", "ScatterND", "Where", "Not", "And", "Or"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Add", "Sub", "Mul", "Div"),
        *("Mod", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round"),
        *("Min", "Max", "Sum", "Log", "Exp", "Clip"),
        *("ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax"),
    }
)
"""Operators by which nets compute with shapes."""


@dataclass(frozen=True)
class Probe:
    """What is known at one size of the batch; ``sized`` are the tensors that come from shapes."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    values: Values
    sized: frozenset[str]


def skeleton(model: ModelProto) -> ModelProto:
    """A copy of ``model`` without large weights and declared shapes.

    Shape inference finds the same there, and faster. Operators of other domains are replaced by
    ONNX's own that give the same shapes; where there are none, what the file declares is kept.
    """
    result = ModelProto(ir_version=model.ir_version)
    result.opset_import.extend(model.opset_import)
    result.graph.name = model.graph.name
    result.graph.input.extend(model.graph.input)
    result.graph.output.extend(model.graph.output)
    result.graph.initializer.extend(_light(tensor) for tensor in model.graph.initializer)
    declared: set[str] = set()
    for node in model.graph.node:
        instead = stand_in(node)
        if instead is None:
            result.graph.node.append(node)
            # ONNX does not infer what a Loop gives either: its state may change its shape
            declared |= set() if is_own(node) and node.op_type != "Loop" else set(node.output)
        else:
            result.graph.node.extend(instead.nodes)
            result.graph.initializer.extend(instead.constants)
    result.graph.value_info.extend(v for v in model.graph.value_info if v.name in declared)
    for value in result.graph.output:
        if value.name not in declared:
            value.type.tensor_type.ClearField("shape")
    for node in result.graph.node:
        for body in (inner for outer in bodies(node) for inner in graphs(outer)):
            del body.value_info[:]
    return result


def probed_at(model: ModelProto, batch: int) -> Probe:
    """What is known of ``model``, which is tidy, at one size of the batch.

    Shapes are inferred and values evaluated in turn, until nothing new is found.
    """
    probed = skeleton(model)
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    inner = [body for node in probed.graph.node for outer in bodies(node) for body in graphs(outer)]
    values_inside = [value for body in inner for value in (*body.input, *body.output)]
    for value in (*probed.graph.value_info, *values_inside):
        for axis in value.type.tensor_type.shape.dim:
            if symbol and axis.dim_param == symbol:
                axis.dim_value = batch
    probed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in probed.graph.initializer
        if math.prod(tensor.dims) <= SMALL and tensor.data_type != TensorProto.STRING
    }
    sized: set[str] = set()
    while True:
        inferred = shape_inference.infer_shapes(probed, data_prop=True)
        shapes, types = _inferred(inferred)
        if not _evaluate(probed, shapes, values, sized):
            return Probe(shapes, types, values, frozenset(sized))


def _light(tensor: TensorProto) -> TensorProto:
    if math.prod(tensor.dims) <= SMALL:
        return tensor
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)


def _inferred(model: ModelProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes of which every axis is told, and types, those inside of bodies included."""
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
        for value in (*graph.input, *graph.value_info, *graph.output):
            told = value.type.tensor_type
            types[value.name] = told.elem_type
            if told.HasField("shape") and all(
                axis.HasField("dim_value") for axis in told.shape.dim
            ):
                shapes[value.name] = tuple(axis.dim_value for axis in told.shape.dim)
    return shapes, types


def _evaluate(
    probed: ModelProto, shapes: Mapping[str, tuple[int, ...]], values: Values, sized: set[str]
) -> bool:
    """Replace the nodes of ``probed`` whose results can be computed by constants; True if any."""
    kept: list[NodeProto] = []
    for node in probed.graph.node:
        found = _results(node, shapes, values, probed)
        if found is None:
            kept.append(node)
            continue
        values.update(found)
        if node.op_type in ("Shape", "Size") or not sized.isdisjoint(node.input):
            sized.update(found)
        probed.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in found.items()
        )
    changed = len(kept) < len(probed.graph.node)
    del probed.graph.node[:]
    probed.graph.node.extend(kept)
    return changed


def _results(
    node: NodeProto, shapes: Mapping[str, tuple[int, ...]], values: Values, probed: ModelProto
) -> Values | None:
    """What ``node`` gives, if that follows from shapes and small constants alone."""
    if node.op_type not in ARITHMETIC or not is_own(node):
        return None
    if node.op_type in ("Shape", "Size"):
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        start, end = attribute(node, "start", 0), attribute(node, "end", len(shape))
        told = shape[start:end] if node.op_type == "Shape" else math.prod(shape)
        return {node.output[0]: np.array(told, np.int64)}
    given = {name: values[name] for name in node.input if name in values}
    if not all(name in given for name in node.input if name) or not _stays_small(node, given):
        return None
    return _computed(node, given, probed)


def _stays_small(node: NodeProto, given: Values) -> bool:
    """True unless the result of ``node`` may have more elements than `SMALL`."""
    operands = [given[name] for name in node.input if name]
    if node.op_type == "Range":
        start, limit, delta = (float(operand.reshape(-1)[0]) for operand in operands)
        return delta != 0 and (limit - start) / delta <= SMALL
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        size = operands[0].size if len(operands) > 1 else 1
        return size * abs(math.prod(map(int, operands[-1]))) <= SMALL
    return math.prod(max(1, operand.size) for operand in operands[:2]) <= SMALL**2


def _computed(node: NodeProto, given: Values, probed: ModelProto) -> Values | None:
    """``node`` run by ONNX's reference; None if the reference cannot."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph([node], "arithmetic", inputs, outputs),
        opset_imports=probed.opset_import,
        ir_version=probed.ir_version,
    )
    evaluator: Any = ReferenceEvaluator(alone)
    try:
        with np.errstate(all="ignore"):
            found = [np.asarray(value) for value in evaluator.run(None, given)]
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError):
        return None  # a graph that cannot run, such as an index beyond its axis
    if any(value.size > SMALL for value in found):
        return None
    return dict(zip((name for name in node.output if name), found, strict=True))
