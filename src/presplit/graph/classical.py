"""Operators of classical machine learning (``ai.onnx.ml``) in ONNX's own, where there are such.

Scaling, normalising and linear classifiers are products and sums: so they can be cut, counted and
quantised as any others. Trees stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from presplit.graph.outputs import ML
from presplit.graph.walk import attribute

FLOOR = 1e-4
"""A probability below this counts as this where logits are made of it."""
TAKEN = ("Scaler", "Normalizer", "LinearClassifier", "TreeEnsembleClassifier")
"""What can be cut, counted and run."""
OPSET = 17
"""Of ONNX's own operators, where a file holds none of them yet."""


def plain(model: ModelProto) -> None:
    """Rewrite ``model`` itself, as far as it goes."""
    graph = model.graph
    if all(node.domain != ML for node in graph.node):
        return
    if all(each.domain for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    steps = _Steps(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += steps.instead(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(steps.constants)


def unknown(model: ModelProto) -> str:
    """The first of ``model``'s operators that is of this kind and is not taken, or nothing."""
    for node in model.graph.node:
        if node.domain == ML and node.op_type not in TAKEN:
            return node.op_type
    return ""


def drop_last_identity(graph: GraphProto) -> None:
    """Let a node give an output itself where only an Identity comes between."""
    outputs = {value.name for value in graph.output}
    made = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        if node.op_type != "Identity" or node.domain or node.output[0] not in outputs:
            continue
        inner = node.input[0]
        if inner in outputs or inner not in made:
            continue
        name = node.output[0]
        graph.node.remove(node)
        for other in graph.node:
            for names in (other.input, other.output):
                for place, each in enumerate(names):
                    names[place] = name if each == inner else each


def give_logarithms(graph: GraphProto, names: Sequence[str]) -> None:
    """Let the outputs ``names``, probabilities, be their logarithms.

    A softmax of these gives the probabilities again.
    """
    if not names:
        return
    floor = numpy_helper.from_array(np.array([[FLOOR]], np.float32), "presplit/floor")
    graph.initializer.append(floor)
    for name in names:
        inner = f"{name}/probability"
        for node in graph.node:
            for part in (node.input, node.output):
                for place, each in enumerate(part):
                    part[place] = inner if each == name else each
        held = f"{name}/held"
        graph.node.append(helper.make_node("Max", [inner, floor.name], [held]))
        graph.node.append(helper.make_node("Log", [held], [name]))


class _Steps:
    """What the operators of one graph become, and the constants that they need."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants: list[TensorProto] = []
        self._read = {name for node in graph.node for name in node.input}
        self._read |= {value.name for value in graph.output}
        given = graph.input[0] if graph.input else None
        self._floats: set[str] = set()
        if given is not None and given.type.tensor_type.elem_type == TensorProto.FLOAT:
            self._floats.add(given.name)

    def instead(self, node: NodeProto) -> list[NodeProto]:
        """The nodes in its place; itself where there are none."""
        if node.domain != ML:
            return [node]
        if node.op_type == "Scaler":
            return self._scaled(node)
        if node.op_type == "Normalizer":
            return self._normalised(node)
        if node.op_type == "LinearClassifier":
            return self._linear(node)
        return [node]

    def _scaled(self, node: NodeProto) -> list[NodeProto]:
        name = node.output[0]
        nodes, read = self._float(node.input[0], name)
        for operator, key in (("Sub", "offset"), ("Mul", "scale")):
            values = attribute(node, key, None)
            if values:
                constant = self._constant(f"{name}/{key}", np.array([values], np.float32))
                nodes.append(helper.make_node(operator, [read, constant], [f"{name}/{operator}"]))
                read = nodes[-1].output[0]
        return self._named(nodes, read, name)

    def _normalised(self, node: NodeProto) -> list[NodeProto]:
        power = {b"L1": 1, b"L2": 2}.get(attribute(node, "norm", b"MAX"))
        if power is None:
            return [node]
        name = node.output[0]
        nodes, read = self._float(node.input[0], name)
        self._floats.add(name)
        return [*nodes, helper.make_node("LpNormalization", [read], [name], axis=1, p=power)]

    def _linear(self, node: NodeProto) -> list[NodeProto]:
        """The scores; only where nobody reads the label, and each class has its coefficients."""
        labels = attribute(node, "classlabels_strings", None) or attribute(
            node, "classlabels_ints", []
        )
        after = {b"NONE": "", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}.get(
            attribute(node, "post_transform", b"NONE")
        )
        offsets = attribute(node, "intercepts", None) or [0.0] * len(labels)
        values = np.array(attribute(node, "coefficients", []), np.float32)
        is_read = bool(node.output[0]) and node.output[0] in self._read
        if after is None or is_read or len(offsets) != len(labels) or len(labels) < 2:
            return [node]
        name = node.output[1]
        nodes, read = self._float(node.input[0], name)
        weight = self._constant(f"{name}/coefficients", values.reshape(len(labels), -1))
        bias = self._constant(f"{name}/intercepts", np.array(offsets, np.float32))
        inner = f"{name}/scores"
        nodes.append(helper.make_node("Gemm", [read, weight, bias], [inner], transB=1))
        if after == "Softmax":
            nodes.append(helper.make_node("Softmax", [inner], [f"{name}/after"], axis=1))
        elif after:
            nodes.append(helper.make_node(after, [inner], [f"{name}/after"]))
        return self._named(nodes, nodes[-1].output[0], name)

    def _float(self, read: str, name: str) -> tuple[list[NodeProto], str]:
        """Nodes that give what is read as float32, and what it is then called."""
        if read in self._floats:
            return [], read
        cast = f"{name}/float"
        return [helper.make_node("Cast", [read], [cast], to=TensorProto.FLOAT)], cast

    def _named(self, nodes: list[NodeProto], last: str, name: str) -> list[NodeProto]:
        """``nodes``, the result of the last of which is called ``name``."""
        self._floats.add(name)
        if not nodes:
            return [helper.make_node("Identity", [last], [name])]
        nodes[-1].output[0] = name
        return nodes

    def _constant(self, name: str, values: npt.NDArray[np.float32]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name
