"""A model that would do more than compute, or ask for too much, is refused by its bytes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from presplit.bundle.operators import CONTROL, DOMAINS, OPERATORS, check
from presplit.core.errors import BundleError
from presplit.graph.operators import COUNTED, FREE


def model(*nodes: Any, weights: tuple[Any, ...] = (), **more: Any) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **more)


def relu() -> onnx.ModelProto:
    w = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    return model(
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
        weights=(w,),
    )


def asking(kind: str, sizes: list[int], **attributes: Any) -> onnx.ModelProto:
    constant = numpy_helper.from_array(np.array(sizes, np.int64), "s")
    inputs = ["s"] if kind == "ConstantOfShape" else ["x", "s"]
    return model(helper.make_node(kind, inputs, ["y"], **attributes), weights=(constant,))


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    found = relu()
    change(found)
    return found


def body(depth: int) -> onnx.GraphProto:
    """A graph with so many conditions inside each other."""
    out = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Identity", ["x"], ["o"])]
    if depth:
        inner = body(depth - 1)
        nodes = [helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)]
    return helper.make_graph(nodes, "b", [], out)


def nested(depth: int) -> onnx.ModelProto:
    branch = body(depth)
    return model(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def outside(found: onnx.ModelProto) -> None:
    found.graph.initializer[0].data_location = TensorProto.EXTERNAL
    found.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def function(found: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    found.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], [node], found.opset_import)
    )


HOSTILE: dict[str, tuple[onnx.ModelProto, str]] = {
    "another domain": (
        changed(lambda m: setattr(m.graph.node[1], "domain", "my.ops")),
        "operators of 'my.ops'",
    ),
    "an unknown operator": (
        changed(lambda m: setattr(m.graph.node[1], "op_type", "PyOp")),
        "the operator 'PyOp' is not run here",
    ),
    "a domain that is imported": (
        changed(lambda m: m.opset_import.append(helper.make_opsetid("my.ops", 1))),
        "operators of 'my.ops'",
    ),
    "functions": (changed(function), "functions or training"),
    "weights elsewhere": (changed(outside), "weights in other files"),
    "a place in another file": (
        changed(lambda m: m.graph.initializer[0].external_data.add(key="location", value="w")),
        "weights in other files",
    ),
    "a weight without its values": (
        changed(lambda m: m.graph.initializer[0].dims.append(2**34)),
        "a tensor of 274877906944 elements in 64 bytes",
    ),
    "a negative size": (
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -1)),
        "sizes from 0 on",
    ),
    "an input of many gigabytes": (
        changed(
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**34)
        ),
        "a tensor of 17179869184 elements",
    ),
    "64 GiB in 65 bytes": (asking("ConstantOfShape", [2**34]), "ConstantOfShape asks for"),
    "a constant node that grows": (
        model(
            helper.make_node("Constant", [], ["s"], value_ints=[2**20, 2**20]),
            helper.make_node("Expand", ["x", "s"], ["y"]),
        ),
        "Expand asks for",
    ),
    "a tile": (asking("Tile", [2**15, 2**15]), "Tile asks for"),
    "random numbers": (
        model(helper.make_node("RandomNormal", [], ["y"], shape=[2**16, 2**16])),
        "a tensor of 4294967296 elements",
    ),
    "padding": (
        model(helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], pads=[2**30, 2**30])),
        "pads beyond 65536",
    ),
    "bodies inside each other": (nested(9), "bodies inside each other"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused(name: str) -> None:
    found, said = HOSTILE[name]
    with pytest.raises(BundleError, match=f"the engine does not take the model: .*{said}"):
        check(found.SerializeToString())


def test_an_honest_model_passes_and_a_body_only_where_its_maker_is_known() -> None:
    check(relu().SerializeToString(), strict=True)
    check(asking("Expand", [2**10, 4]).SerializeToString(), strict=True)
    check(nested(3).SerializeToString())
    with pytest.raises(BundleError, match="If is not run for strangers"):
        check(nested(0).SerializeToString(), strict=True)


def test_a_tensor_in_two_halves_is_not_taken_for_two() -> None:
    """Written twice, protobuf merges the halves: each is small, the whole is not."""
    half = TensorProto(data_type=TensorProto.FLOAT, dims=[2**20], raw_data=b"").SerializeToString()
    attribute = helper.make_attribute("value", 1.0)
    attribute.ClearField("f")
    raw = attribute.SerializeToString() + 2 * (b"\x2a" + bytes([len(half)]) + half)
    merged = onnx.AttributeProto.FromString(raw)
    assert list(merged.t.dims) == [2**20, 2**20]
    node = helper.make_node("Constant", [], ["y"]).SerializeToString()
    node += b"\x2a" + bytes([len(raw)]) + raw
    graph = b"\x0a" + bytes([len(node)]) + node
    with pytest.raises(BundleError, match="a tensor of 1048576 elements in|written twice"):
        check(b"\x3a" + bytes([len(graph)]) + graph)


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def field(number: int, raw: bytes, beyond: int = 0) -> bytes:
    """A field of bytes, of a tag with such bits more."""
    return varint(number << 3 | 2 | beyond) + varint(len(raw)) + raw


def sizes(kind: int, numbers: list[int], place: int) -> bytes:
    """A model that asks for a tensor as large as such a constant, its integers in one field."""
    packed = b"".join(varint(number % 2**64) for number in numbers)
    tensor = b"\x08" + varint(len(numbers)) + b"\x10" + varint(kind % 2**64)
    tensor += field(8, b"s") + field(place, packed)
    node = helper.make_node("ConstantOfShape", ["s"], ["y"]).SerializeToString()
    return field(7, field(1, node) + field(5, tensor))


def test_what_readers_of_protobuf_take_differently_is_refused() -> None:
    """Some drop the upper bits of a number that is too long, and so read what others pass over."""
    hidden = model(helper.make_node("PyOp", ["x"], ["y"])).graph.SerializeToString()
    node = helper.make_node("PyOp", ["x"], ["y"]).SerializeToString()
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]).SerializeToString()
    for raw, said in (
        (field(7, hidden), "operator 'PyOp' is not run"),
        (field(7, hidden, 1 << 32), "a field of a number that does not exist"),
        (field(7, hidden, 1 << 62), "a field of a number that does not exist"),
        (field(7, field(1, node, 1 << 33)), "a field of a number that does not exist"),
        (field(7, field(5, weight + field(13, b"", 1 << 32))), "of a number that does not exist"),
        (b"\xba\x00" + field(7, hidden)[1:], "a number that is longer than need be"),
        (b"\x3a" + b"\x82\x00" + b"\x12\x00", "a number that is longer than need be"),
        (b"\xa0\x06" + b"\xff" * 9 + b"\x7f", "a number of more than 64 bits"),
        (sizes(7, [2**17, 2**15], 7), "ConstantOfShape asks for a tensor of"),
        (sizes(7 + 2**32, [2**17, 2**15], 7), "an integer of 32 bits, got 4294967303"),
        (sizes(7 - 2**32, [2**17, 2**15], 7), "an integer of 32 bits, got -4294967289"),
        (sizes(6, [2**30 - 2**32], 5), "an integer of 32 bits, got -3221225472"),
    ):
        with pytest.raises(BundleError, match=said):
            check(raw)
    check(sizes(6, [2**10, -1], 5))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_pass_and_nothing_else(raw: bytes) -> None:
    try:
        check(raw)
    except BundleError:
        return


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_model_with_a_flipped_bit_is_refused_or_passes(place: int, bit: int) -> None:
    raw = bytearray(RAW)
    raw[place % len(raw)] ^= 1 << bit
    try:
        check(bytes(raw))
    except BundleError:
        return


RAW = relu().SerializeToString()


def test_a_model_of_more_fields_than_the_budget_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("presplit.bundle.protobuf.MOST_FIELDS", 100)
    check(b"\xa0\x06\x00" * 100)
    with pytest.raises(BundleError, match="more than 100 fields"):
        check(b"\xa0\x06\x00" * 101)
    packed = TensorProto(data_type=TensorProto.INT64, dims=[200], int64_data=[1] * 200)
    graph = onnx.GraphProto(initializer=[packed])
    with pytest.raises(BundleError, match="more than 100 fields|elements"):
        check(onnx.ModelProto(graph=graph).SerializeToString() + b"\xa0\x06\x00" * 99)


def test_every_operator_that_a_net_may_hold_is_listed() -> None:
    held = {*FREE, *COUNTED}
    plain = {name for name in held if "." not in name}
    assert plain <= OPERATORS | CONTROL
    for name in held - plain:
        domain, _, operator = name.rpartition(".")
        assert operator in DOMAINS[domain], name
    assert not OPERATORS & CONTROL


def test_a_thousand_trees_are_looked_at_without_multiplying_their_nodes() -> None:
    """Numbers of nodes are no sizes: the product of so many would be a number of 300,000 digits."""
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["", "y"],
        domain="ai.onnx.ml",
        nodes_nodeids=list(range(2, 60_000)),
    )
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([trees], "trees", [], [value])
    check(helper.make_model(graph).SerializeToString())
