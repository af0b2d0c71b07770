"""Reading an ONNX classifier into a value that can be counted and cut.

One input, its first axis the batch; one output per exit, the net's own logits last. Functions are
inlined, shapes are inferred, a batch that the file fixes is opened (see `presplit.graph.batch`),
and a Reshape whose target is computed from the batch size alone gets the constant ``[-1, ...]``
instead, so that no path carries the batch size around a boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper, shape_inference

from presplit.core.errors import GraphError
from presplit.graph.batch import fixed_batch, opened

_onnx: Any = onnx  # some of its signatures name a bare PathLike, which strict typing does not know

Shape = tuple[int | None, ...]

PROBE = 9973
"""A batch size to infer shapes with: a prime that no other size of a net is likely to be."""
BROADCASTING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "And", "Or", "Not", "Cast", "Min", "Max"}
)
"""Operators that repeat an operand along the batch by themselves."""


@dataclass(frozen=True)
class Graph:
    """An ONNX classifier with what is needed to cut it.

    ``shapes`` maps float32 tensors to their shape with None for the batch, or for what cannot be
    told; an axis that holds several rows for each sample has their number. ``outputs`` are the
    exits in order, the net's own logits last; ``nodes`` are in the order in which they run.
    """

    model: ModelProto
    input: str
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """All nodes, each after the nodes that it needs."""
        return tuple(self.model.graph.node)

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Constant tensors by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def producer(self) -> dict[str, NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def live(self) -> frozenset[str]:
        """Tensors that depend on the input."""
        found = {self.input}
        for node in self.nodes:
            if any(name in found for name in needs(node)):
                found.update(node.output)
        return frozenset(found - {""})

    def ancestors(self, tensor: str) -> frozenset[str]:
        """Every tensor, constants included, that ``tensor`` is computed from, itself included."""
        seen: set[str] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                if name in self.producer:
                    waiting.extend(needs(self.producer[name]))
        return frozenset(seen)

    def batch_first(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of one sample, or None if ``tensor`` does not have the batch in front.

        It must be float32 with the batch as its only open axis.
        """
        shape = self.shapes.get(tensor, ())
        sample = tuple(size for size in shape[1:] if size is not None)
        fixed = (
            len(shape) >= 2 and len(sample) == len(shape) - 1 and all(size > 0 for size in sample)
        )
        return sample if fixed and shape[:1] == (None,) else None


def needs(node: NodeProto) -> list[str]:
    """Names of the tensors that ``node`` reads, those of its subgraphs' outer scope included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            inner = {name for step in body.node for name in step.output} | {
                value.name for value in body.input
            }
            inner |= {tensor.name for tensor in body.initializer}
            names += [name for step in body.node for name in needs(step) if name not in inner]
            names += [value.name for value in body.output if value.name not in inner]
    return names


def read(source: str | Path | bytes | ModelProto) -> Graph:
    """Read an ONNX classifier from a file, its bytes or a model.

    Raises `GraphError` if it is not one.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'''
    >>> read(parser.parse_model(text)).shapes["y"]
    (None, 4)
    """
    model, where = _parse(source)
    try:
        _onnx.checker.check_model(model)
        model = inliner.inline_local_functions(model) if model.functions else model
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        fixed = fixed_batch(model)
        model = model if fixed is None else _with_open_batch(model, fixed, where)
        model = _without_batch_arithmetic(model)
        shapes = _shapes_of_one_sample(model)
    except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise GraphError(
            f"{where}: not a valid ONNX model: {str(error).strip().splitlines()[0]}"
        ) from error
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise GraphError(
            f"{where}: a classifier with one input is expected, got "
            f"{[value.name for value in inputs]}"
        )
    graph = Graph(model, inputs[0].name, tuple(value.name for value in model.graph.output), shapes)
    if graph.batch_first(graph.input) is None:
        raise GraphError(
            f"{where}: input {graph.input!r} must be float32 with an open batch first and all "
            "other sizes fixed, "
            f"got {list(graph.shapes.get(graph.input, ()))}"
        )
    for name in graph.outputs:
        if (
            len(graph.shapes.get(name, ())) != 2
            or graph.shapes[name][1] is None
            or name not in graph.live
        ):
            raise GraphError(
                f"{where}: output {name!r} must be float32 logits (batch, classes) of the input"
            )
    return graph


def load(source: str | Path | bytes | ModelProto) -> ModelProto:
    """The model as it is, a copy, with weights that lie outside its file.

    Raises `GraphError` if it is not one.
    """
    return _parse(source)[0]


def _with_open_batch(model: ModelProto, batch: int, where: str) -> ModelProto:
    """``model`` for any batch; raises `GraphError` if its outputs do not open with its input."""
    held = f"{where}: its batch is fixed to {batch}, and it cannot be opened because"
    try:
        result = shape_inference.infer_shapes(
            opened(model, batch), strict_mode=True, data_prop=True
        )
    except shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[0]
        raise GraphError(
            f"{held} nodes inside hold it too ({reason}); export the net with a dynamic batch"
        ) from error
    shapes = _shapes(result)
    for value in result.graph.output:
        if shapes.get(value.name, (None,))[:1] != (None,):
            raise GraphError(
                f"{held} output {value.name!r} holds it too; export the net with a dynamic batch"
            )
    return result


def _parse(source: str | Path | bytes | ModelProto) -> tuple[ModelProto, str]:
    """The model (a copy, external weights loaded) and how to call it in messages."""
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)
        return model, "model"
    try:
        if isinstance(source, bytes):
            return onnx.load_from_string(source), "model"
        return _onnx.load(str(source), format="protobuf"), str(source)
    except FileNotFoundError as error:
        raise GraphError(f"{source}: no such file") from error
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise GraphError(
            f"{'model' if isinstance(source, bytes) else source}: not an ONNX file"
        ) from error


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes of all float32 tensors that inference could tell."""
    shapes: dict[str, Shape] = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == TensorProto.FLOAT and tensor.HasField("shape"):
            shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
            )
    return shapes


def _shapes_of_one_sample(model: ModelProto) -> dict[str, Shape]:
    """`_shapes` with what is open told apart.

    The batch itself stays None, a multiple of it becomes the factor.
    """
    probed = ModelProto()
    probed.CopyFrom(model)
    for value in probed.graph.input:
        for axis in value.type.tensor_type.shape.dim[:1]:
            axis.dim_value = PROBE
    for value in probed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del probed.graph.value_info[:]
    found = _shapes(shape_inference.infer_shapes(probed, data_prop=True))

    def told(size: int | None, seen: int | None) -> int | None:
        if size is not None or seen is None or seen == PROBE:
            return size
        return seen // PROBE if seen % PROBE == 0 else seen

    shapes = _shapes(model)
    same_rank = {
        name for name, shape in shapes.items() if name in found and len(found[name]) == len(shape)
    }
    return {
        name: tuple(map(told, shape, found[name])) if name in same_rank else shape
        for name, shape in shapes.items()
    }


def _without_batch_arithmetic(model: ModelProto) -> ModelProto:
    """Give every Reshape whose result is open only in the batch a constant target.

    What is then unused is dropped.
    """
    shapes = _shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    for number, node in enumerate(model.graph.node):
        shape = shapes.get(node.output[0], ())
        if (
            node.op_type != "Reshape"
            or node.input[1] in constants
            or len(shape) < 1
            or None in shape[1:]
        ):
            continue
        if shape[0] is None:
            name = f"reshape_target_{number}"
            target = np.array([-1, *shape[1:]], dtype=np.int64)
            model.graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name
    _let_constants_broadcast(model)
    return _without_unused(model)


def _let_constants_broadcast(model: ModelProto) -> None:
    """Expand a constant to a batch of 1 if all that read it broadcast it anyway.

    A mask of attention is such a constant.
    """
    users: dict[str, list[NodeProto]] = {}
    of_samples = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type != "Shape" and any(name in of_samples for name in needs(node)):
            of_samples.update(node.output)
        for name in needs(node):
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    sizes = {
        value.name: [
            axis.dim_value if axis.HasField("dim_value") else None
            for axis in value.type.tensor_type.shape.dim
        ]
        for value in model.graph.value_info
    }

    def is_broadcast(name: str) -> bool:
        return name not in outputs and all(
            user.op_type in BROADCASTING
            and (any(other in of_samples for other in user.input) or is_broadcast(user.output[0]))
            for user in users.get(name, [])
        )

    for number, node in enumerate(model.graph.node):
        size = sizes.get(node.output[0], [])
        if (
            node.op_type != "Expand"
            or node.input[0] in of_samples
            or None in size[1:]
            or size[:1] != [None]
        ):
            continue
        if is_broadcast(node.output[0]):
            name = f"expand_target_{number}"
            model.graph.initializer.append(
                numpy_helper.from_array(np.array([1, *size[1:]], dtype=np.int64), name)
            )
            node.input[1] = name


def _without_unused(model: ModelProto) -> ModelProto:
    """``model`` without nodes and constants that no output needs."""
    wanted = {value.name for value in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(needs(node))
            kept.append(node)
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    graph = helper.make_graph(
        kept[::-1],
        model.graph.name,
        list(model.graph.input),
        list(model.graph.output),
        initializers,
        value_info=list(model.graph.value_info),
    )
    result = ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(graph)
    return result
