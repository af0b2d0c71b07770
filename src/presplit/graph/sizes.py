"""What depends on the size of the batch alone: shapes, and what nets compute from them.

``x.shape[0]`` is a value of no sample, yet in a graph it is a path: Shape of the input, then an
Expand of a class token, a state of zeros, the norm that divides a row. Such a path would pass by
every boundary. So shapes are inferred for three sizes of the batch, and every small tensor that is
computed from shapes is evaluated for each of them. What is the same for all becomes a constant;
what grows with the batch is computed anew as ``a + b * batch``, where the one tensor `BATCH` holds
the batch's size. A fragment computes `BATCH` from its own input (`presplit.graph.cut`), so no path
needs it. What depends on the batch in another way stays as it is, a path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from presplit.graph.stand_ins import stand_in
from presplit.graph.walk import attribute, bodies, graphs, is_own, needs

Shape = tuple[int | None, ...]
Values = dict[str, npt.NDArray[Any]]

BATCH = "presplit/batch"
"""The tensor that holds the size of the batch, int64 ``(1,)``."""
PROBES = (9973, 7919, 3001)
"""Sizes of a batch to infer shapes with: primes that no other size of a net is likely to be.

Two give the line ``a + b * batch``, the third shows that it is one.
"""
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


class Sizes(NamedTuple):
    """Shapes and types of all tensors of a model.

    None in a shape is the batch. An axis that holds several rows for each sample has their number.
    A shape that cannot be told is left out.
    """

    shapes: dict[str, Shape]
    types: dict[str, int]


@dataclass(frozen=True)
class Probe:
    """What is known at one size of the batch; ``sized`` are the tensors that come from shapes."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    values: Values
    sized: frozenset[str]


def batch_nodes(source: str) -> tuple[list[NodeProto], TensorProto]:
    """The nodes that make `BATCH` from the shape of ``source``, and the constant they need."""
    first = f"{BATCH}/first"
    nodes = [
        helper.make_node("Shape", [source], [f"{BATCH}/shape"]),
        helper.make_node("Gather", [f"{BATCH}/shape", first], [BATCH], axis=0),
    ]
    return nodes, numpy_helper.from_array(np.zeros(1, np.int64), first)


def settle(model: ModelProto) -> Sizes:
    """Rewrite what ``model`` computes from shapes, and give the sizes of its tensors.

    ``model`` is tidy, has one input, and an open batch as that input's first axis.
    """
    seen = [probe(model, batch) for batch in PROBES]
    declared, declared_types = _declared(model)
    shapes = _told(seen)
    _rewrite(model, seen)
    _constant_targets(model, seen)
    _drop_unused(model)
    _declare(model, seen)
    return Sizes({**declared, **shapes}, {**declared_types, **seen[0].types})


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


def probe(model: ModelProto, batch: int) -> Probe:
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


def line(
    seen: Sequence[npt.NDArray[Any]],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """``a`` and ``b`` of ``a + b * batch``, from the values at each of `PROBES`; None if no line.

    >>> line([np.array([3, 2 * batch]) for batch in PROBES])
    (array([3, 0]), array([0, 2]))
    >>> line([np.array(batch**2) for batch in PROBES]) is None
    True
    """
    one, two, three = seen
    if not one.shape == two.shape == three.shape:
        return None
    if np.array_equal(one, two) and np.array_equal(one, three):
        return one, np.zeros_like(one)
    if one.dtype.kind != "i":
        return None
    slope, rest = np.divmod(one - two, PROBES[0] - PROBES[1])
    start = one - slope * PROBES[0]
    straight = not rest.any() and np.array_equal(start + slope * PROBES[2], three)
    return (start, slope) if straight else None


def _shape_line(name: str, seen: Sequence[Probe]) -> tuple[list[int], list[int]] | None:
    """The sizes of a tensor's axes as lines over the batch; None if they cannot be told."""
    if not all(name in probe.shapes for probe in seen):
        return None
    found = line([np.array(probe.shapes[name], np.int64) for probe in seen])
    return None if found is None else (found[0].tolist(), found[1].tolist())


def _told(seen: Sequence[Probe]) -> dict[str, Shape]:
    """Shapes with None for the batch; those that depend on it in another way are left out."""
    shapes: dict[str, Shape] = {}
    for name in seen[0].shapes:
        found = _shape_line(name, seen)
        if found is None or any(a and b for a, b in zip(*found, strict=True)):
            continue
        rows = [b if b > 1 else None for b in found[1]]
        axes = zip(*found, rows, strict=True)
        shapes[name] = tuple(a if b == 0 else several for a, b, several in axes)
    return shapes


def _rewrite(model: ModelProto, seen: Sequence[Probe]) -> None:
    """Replace what is computed from shapes, keeping its name."""
    lines: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    for name in seen[0].sized.intersection(*(probe.sized for probe in seen[1:])):
        found = line([probe.values[name] for probe in seen])
        if found is not None:
            lines[name] = found
    nodes, constant = batch_nodes(model.graph.input[0].name)
    if constant.name not in {tensor.name for tensor in model.graph.initializer}:
        model.graph.initializer.append(constant)
    for node in model.graph.node:
        outputs = [name for name in node.output if name]
        if outputs[0].startswith(BATCH):  # they are there since a fixed batch was opened
            continue
        if not all(name in lines for name in outputs):
            nodes.append(node)
            continue
        for name in outputs:
            steps, constants = _affine(name, *lines[name])
            nodes += steps
            model.graph.initializer.extend(constants)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _affine(
    name: str, start: npt.NDArray[Any], slope: npt.NDArray[Any]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and constants that give ``start + slope * batch`` the name ``name``."""
    if not slope.any():
        return [], [numpy_helper.from_array(start, name)]
    constants = [
        numpy_helper.from_array(start.astype(np.int64), f"{name}/start"),
        numpy_helper.from_array(slope.astype(np.int64), f"{name}/slope"),
    ]
    size, steps = BATCH, list[NodeProto]()
    if slope.ndim == 0:
        size = f"{name}/batch"
        steps.append(helper.make_node("Squeeze", [BATCH], [size]))
    steps += [
        helper.make_node("Mul", [size, f"{name}/slope"], [f"{name}/rows"]),
        helper.make_node("Add", [f"{name}/rows", f"{name}/start"], [f"{name}/sum"]),
        helper.make_node(
            "Cast", [f"{name}/sum"], [name], to=helper.np_dtype_to_tensor_dtype(start.dtype)
        ),
    ]
    return steps, constants


def _constant_targets(model: ModelProto, seen: Sequence[Probe]) -> None:
    """Give every Reshape whose result is open in one axis only a constant target."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] in constants:
            continue
        found = _shape_line(node.output[0], seen)
        if found is None:
            continue
        target = [-1 if b else a for a, b in zip(*found, strict=True)]
        if target.count(-1) > 1 or 0 in target:
            continue
        name = f"presplit/reshape_target_{number}"
        made = numpy_helper.from_array(np.array(target, np.int64), name)
        model.graph.initializer.append(made)
        node.input[1] = name


def _drop_unused(model: ModelProto) -> None:
    """Drop nodes and constants that no output needs."""
    wanted = {value.name for value in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(needs(node))
            kept.append(node)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    del model.graph.node[:]
    model.graph.node.extend(kept[::-1])
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)


def _declared(model: ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """The shapes that the file gives itself, where it gives every axis, and their types."""
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in model.graph.value_info:
        types[value.name] = value.type.tensor_type.elem_type
        axes = value.type.tensor_type.shape.dim
        if all(axis.HasField("dim_value") or axis.dim_param == symbol != "" for axis in axes):
            shapes[value.name] = tuple(axis.dim_value or None for axis in axes)
    return shapes, types


def _declare(model: ModelProto, seen: Sequence[Probe]) -> None:
    """Write the shapes that are told into ``model``, in place of what it declared."""
    made = {name for node in model.graph.node for name in node.output}
    outputs = {value.name: value for value in model.graph.output}
    del model.graph.value_info[:]
    for name in sorted(made & seen[0].types.keys()):
        found = _shape_line(name, seen)
        if found is None:
            continue
        axes = [_axis_name(a, b) for a, b in zip(*found, strict=True)]
        value = helper.make_tensor_value_info(name, seen[0].types[name], axes)
        if name in outputs:
            outputs[name].CopyFrom(value)
        else:
            model.graph.value_info.append(value)


def _axis_name(start: int, slope: int) -> int | str | None:
    if slope == 0:
        return start
    return "batch" if (start, slope) == (0, 1) else None
