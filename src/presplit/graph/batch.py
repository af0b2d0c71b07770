"""Opening a batch that a file fixes.

Many exporters write the batch of their example, mostly 1, into the graph. The input's first axis is
opened, and with it what holds the batch in places that are known:

- a Reshape or Expand to a shape that begins with the batch, alone or folded with heads or windows,
- the sizes of a Resize,
- a constant that is joined to every sample, such as a class token, and the first state of a
  recurrent layer, which are taken to be the same for all samples.

Nothing else is touched: where other nodes hold the batch, the outputs stay fixed, and
`presplit.graph.read` says so; where the batch does not come first, as in attention over ``(tokens,
batch, features)``, the graph computes something else, which `presplit export` finds by comparing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from presplit.graph.probe import probed_at
from presplit.graph.sizes import BATCH, batch_nodes
from presplit.graph.walk import attribute, graphs, needs

BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "And", "Or", "Min", "Max"})
"""Operators that repeat an operand along the batch by themselves."""
STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
"""The operands of recurrent layers that hold a first state ``(directions, batch, width)``."""


def fixed_batch(model: ModelProto) -> int | None:
    """The batch to which the one input of ``model`` is fixed.

    None if it is open or there are several inputs.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[BATCH, 4] x) => (float[BATCH, 4] y) { y = Relu(x) }'''
    >>> [fixed_batch(parser.parse_model(text.replace("BATCH", batch))) for batch in ("2", "N")]
    [2, None]
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    axes = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else ()
    return axes[0].dim_value if len(axes) > 1 and axes[0].HasField("dim_value") else None


def opened(model: ModelProto, batch: int) -> ModelProto:
    """A copy of ``model``, which is tidy, with its batch open and all other shapes forgotten."""
    result = ModelProto()
    result.CopyFrom(model)
    nodes, first = batch_nodes(model.graph.input[0].name)
    result.graph.initializer.append(first)
    opening = _Opening(model, batch)
    for node in result.graph.node:
        nodes += opening.steps_before(node)
        nodes.append(node)
    result.graph.initializer.extend(opening.constants)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    result.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    for graph in graphs(result.graph):
        del graph.value_info[:]
    return result


class _Opening:
    """What is known of a model of a fixed batch, and the constants that opening it adds."""

    def __init__(self, model: ModelProto, batch: int) -> None:
        self.batch = batch
        self.constants: list[TensorProto] = []
        self.fixed = {tensor.name: tensor for tensor in model.graph.initializer}
        self.live = {model.graph.input[0].name}
        self.sizes = {name: list(sizes) for name, sizes in probed_at(model, batch).shapes.items()}

    def steps_before(self, node: NodeProto) -> Iterator[NodeProto]:
        """Open what ``node`` holds, and give the nodes that it needs for that."""
        if node.op_type in ("Shape", "Size") or self.live.isdisjoint(needs(node)):
            return
        self.live.update(node.output)
        if node.op_type in ("Reshape", "Expand") and node.input[0] in self.live:
            self._open_target(node)
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in self.fixed:
            sizes = numpy_helper.to_array(self.fixed[node.input[3]]).tolist()
            if sizes[:1] == [self.batch]:
                yield self._shape(f"{node.output[0]}/sizes", sizes, 0)
                node.input[3] = f"{node.output[0]}/sizes"
        elif node.op_type == "Concat" and attribute(node, "axis", 0) > 0:
            for place in range(len(node.input)):
                yield from self._repeated(node, place, axis=0)
        elif node.op_type in BROADCASTING and self.batch > 1:
            for place in range(len(node.input)):
                yield from self._narrowed(node, place)
        else:
            for place in STATES.get(node.op_type, ()):
                if place < len(node.input):
                    yield from self._repeated(node, place, axis=1)

    def _open_target(self, node: NodeProto) -> None:
        before, after = self.sizes.get(node.input[0], []), self.sizes.get(node.output[0], [])
        if not before or not after or 0 in after:
            return
        if before[0] % self.batch or after[0] % self.batch:
            return
        first = -1 if node.op_type == "Reshape" else 1  # an Expand keeps an axis where it says 1
        if node.op_type == "Expand" and before[0] != after[0]:
            return
        name = f"{node.output[0]}/opened"
        target = np.array([first, *after[1:]], dtype=np.int64)
        self.constants.append(numpy_helper.from_array(target, name))
        node.input[1] = name

    def _repeated(self, node: NodeProto, place: int, *, axis: int) -> Iterator[NodeProto]:
        """Repeat a constant operand, which holds the same for every sample, along ``axis``."""
        if not self._is_the_same(node.input[place], axis):
            return
        operand, sizes = node.input[place], self.sizes[node.input[place]]
        name = f"{node.output[0]}/operand_{place}"
        if self.batch > 1:
            yield self._first(operand, f"{name}/one", axis)
            operand = f"{name}/one"
        yield self._shape(f"{name}/shape", sizes, axis)
        yield helper.make_node("Expand", [operand, f"{name}/shape"], [name])
        node.input[place] = name

    def _narrowed(self, node: NodeProto, place: int) -> Iterator[NodeProto]:
        """Hold a constant operand that ``node`` repeats by itself once for all samples."""
        operand = node.input[place]
        rank = len(self.sizes.get(node.output[0], []))
        if len(self.sizes.get(operand, [])) != rank or not self._is_the_same(operand, 0):
            return
        name = f"{node.output[0]}/operand_{place}"
        yield self._first(operand, name, 0)
        node.input[place] = name

    def _is_the_same(self, operand: str, axis: int) -> bool:
        """True for a constant as long as the batch along ``axis``, unless its values differ."""
        sizes = self.sizes.get(operand, [])
        if operand in self.live or len(sizes) <= axis or sizes[axis] != self.batch or 0 in sizes:
            return False
        if operand not in self.fixed:
            return True  # a constant that is computed, mostly by repeating another
        values = numpy_helper.to_array(self.fixed[operand])
        return bool(np.array_equal(values, np.repeat(values.take([0], axis), self.batch, axis)))

    def _first(self, operand: str, name: str, axis: int) -> NodeProto:
        """A node that gives what ``operand`` holds for the first sample."""
        first = numpy_helper.from_array(np.zeros(1, np.int64), f"{name}/first")
        self.constants.append(first)
        return helper.make_node("Gather", [operand, first.name], [name], axis=axis)

    def _shape(self, name: str, sizes: list[int], axis: int) -> NodeProto:
        """A node that gives ``sizes`` with the batch at ``axis``."""
        parts: list[str] = []
        for part, held in (("before", sizes[:axis]), ("after", sizes[axis + 1 :])):
            if held:
                parts.append(f"{name}/{part}")
                made = numpy_helper.from_array(np.array(held, np.int64), parts[-1])
                self.constants.append(made)
            if part == "before":
                parts.append(BATCH)
        return helper.make_node("Concat", parts, [name], axis=0)
