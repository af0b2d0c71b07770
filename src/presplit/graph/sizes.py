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

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from presplit.graph.probe import Probe, probed_at
from presplit.graph.walk import needs

Shape = tuple[int | None, ...]

BATCH = "presplit/batch"
"""The tensor that holds the size of the batch, int64 ``(1,)``."""
PROBES = (9973, 7919, 3001)
"""Sizes of a batch to infer shapes with: primes that no other size of a net is likely to be.

Two give the line ``a + b * batch``, the third shows that it is one.
"""


class Sizes(NamedTuple):
    """Shapes and types of all tensors of a model.

    None in a shape is the batch. An axis that holds several rows for each sample has their number.
    A shape that cannot be told is left out.
    """

    shapes: dict[str, Shape]
    types: dict[str, int]


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
    seen = [probed_at(model, batch) for batch in PROBES]
    declared, declared_types = _declared(model)
    shapes = _told(seen)
    _rewrite(model, seen)
    _constant_targets(model, seen)
    _drop_unused(model)
    _declare(model, seen)
    return Sizes({**declared, **shapes}, {**declared_types, **seen[0].types})


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
    del model.graph.node[:]
    model.graph.node.extend(kept[::-1])
    for place in reversed(range(len(model.graph.initializer))):  # what stays is not copied: weights
        if model.graph.initializer[place].name not in wanted:
            del model.graph.initializer[place]


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
