"""Walking over the nodes of ONNX graphs, the bodies of If, Loop and Scan included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from onnx import GraphProto, NodeProto, helper

Rename = Callable[[str], str]


def operator(node: NodeProto) -> str:
    """What ``node`` computes: its operator, after its domain unless that is ONNX's own.

    >>> operator(helper.make_node("QGemm", ["x"], ["y"], domain="com.microsoft"))
    'com.microsoft.QGemm'
    """
    return node.op_type if is_own(node) else f"{node.domain}.{node.op_type}"


def is_own(node: NodeProto) -> bool:
    """True if the operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute of ``node``, or ``default`` if it is not given."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def bodies(node: NodeProto) -> list[GraphProto]:
    """The graphs inside ``node``."""
    found: list[GraphProto] = []
    for each in node.attribute:
        found += [each.g] if each.HasField("g") else list(each.graphs)
    return found


def every(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Each of ``nodes`` and, after it, all that its bodies hold."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from every(body.node)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """``graph`` and the bodies of all its nodes."""
    yield graph
    for node in every(graph.node):
        yield from bodies(node)


def needs(node: NodeProto) -> list[str]:
    """Names of the tensors that ``node`` reads, those of its subgraphs' outer scope included."""
    names = [name for name in node.input if name]
    for body in bodies(node):
        inner = {name for step in body.node for name in step.output}
        inner |= {value.name for value in body.input}
        inner |= {tensor.name for tensor in body.initializer}
        names += [name for step in body.node for name in needs(step) if name not in inner]
        names += [value.name for value in body.output if value.name not in inner]
    return names


def rename(node: NodeProto, name_of: Rename) -> None:
    """Rename all tensors of ``node``, those of its subgraphs included; "" stays."""
    for names in (node.input, node.output):
        for place, name in enumerate(list(names)):
            names[place] = name and name_of(name)
    for body in bodies(node):
        rename_body(body, name_of)


def rename_body(body: GraphProto, name_of: Rename) -> None:
    """Rename all tensors of ``body``."""
    for step in body.node:
        rename(step, name_of)
    for value in (*body.input, *body.output, *body.initializer, *body.value_info):
        value.name = name_of(value.name)
