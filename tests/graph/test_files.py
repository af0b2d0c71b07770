"""What files say in several ways is read as one thing, and computes what the file does."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from presplit import graph
from presplit.core.errors import GraphError

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
pieces = run_path(str(Path(__file__).with_name("pieces.py")))
run, logits, samples = pieces["run"], pieces["logits"], pieces["samples"]

CLOSE = 1e-5
"""Relative to the largest logit: float32 sums in the same order."""
HALF = 2.0**-10
"""A step of float16: ONNX Runtime computes it in float32 and leaves some roundings out."""


def cut(net: onnx.ModelProto) -> graph.Row:
    return graph.row(graph.read(net))


def test_weights_may_be_listed_among_the_inputs_as_files_of_ir_3_do() -> None:
    net = model(
        """net (float[1, 3, 6, 6] x) => (float[1, 4] y)
        <float[5, 3, 3, 3] k, float[5] b, float[4, 5] w, float[4] c>
        { a = Conv(x, k, b) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p)
          y = Gemm <transB = 1> (f, w, c) }""",
        opset=8,
        ir=3,
    )
    for tensor in net.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        net.graph.input.append(value)
    onnx.checker.check_model(net, full_check=True)
    assert graph.fixed_batch(net) == 1
    row = cut(net)
    assert [boundary.shape for boundary in row.net.boundaries] == [(3, 6, 6), (5, 1, 1), (4,)]
    assert graph.count_weights(row.graph, row.graph.nodes) == 5 * 27 + 20
    x = samples(row)
    alone = [run(net.SerializeToString(), {"x": one[None]})[0] for one in x]
    np.testing.assert_allclose(logits(row, x), np.concatenate(alone), atol=CLOSE)


def test_constants_may_be_nodes_sparse_or_single_numbers() -> None:
    """Each form is a weight of two layers, which are 12 numbers and 4."""
    full = np.zeros((4, 3), np.float32)
    full[1, 2], full[3, 0] = 0.5, -2.0
    values = numpy_helper.from_array(np.array([0.5, -2.0], np.float32), "w")
    flat = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([5, 9])), [4, 3])
    pairs = numpy_helper.from_array(np.array([[1, 2], [3, 0]]))
    text = """net (float[N, 4] x) => (float[N, 4] y) <int64[2] shape = {1, 4}>
        { CONSTANT h = MatMul(x, w) half = Constant <value_float = 0.5> () r = Mul(h, half)
          flat = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () row = Reshape(flat, shape)
          s = ReduceSum <keepdims = 1> (r, axis) y = MatMul(s, row) }""".replace(
        "int64[2] shape", "int64[1] axis = {1}, int64[2] shape"
    )
    plain = model(text.replace("CONSTANT", ""))
    plain.graph.initializer.append(numpy_helper.from_array(full, "w"))
    stored = model(text.replace("CONSTANT", ""))
    stored.graph.sparse_initializer.append(flat)
    node = model(text.replace("CONSTANT", ""))
    as_pairs = helper.make_sparse_tensor(values, pairs, [4, 3])
    node.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=as_pairs))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = run(plain.SerializeToString(), {"x": x})[0]
    for net in (plain, stored, node):
        row = cut(net)
        assert graph.count_weights(row.graph, row.graph.nodes) == 12 + 4
        np.testing.assert_allclose(logits(row, x), expected, atol=CLOSE)


@pytest.mark.parametrize(
    ("kind", "number"), [("float16", 10), ("double", 11), ("uint8", 2), ("int64", 7), ("int32", 6)]
)
def test_an_input_of_another_type_is_taken_as_float32(kind: str, number: int) -> None:
    net = model(f"""net ({kind}[N, 4] x) => (float[N, 3] y) <float[4, 5] a, float[5, 3] b>
        {{ f = Cast <to = 1> (x) h = MatMul(f, a) r = Relu(h) y = MatMul(r, b) }}""")
    row = cut(net)
    assert row.graph.input_type == kind
    x = samples(row)
    given = x.astype(helper.tensor_dtype_to_np_dtype(number))
    expected = run(net.SerializeToString(), {"x": given})[0]
    np.testing.assert_allclose(logits(row, given.astype(np.float32)), expected, atol=CLOSE)
    assert graph.load(net).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_token_ids_are_looked_up_in_a_table_that_counts_as_weights() -> None:
    net = model("""net (int64[N, 5] x) => (float[N, 3] y) <float[20, 6] table, float[30, 3] w>
        { e = Gather(table, x) f = Flatten(e) r = Relu(f) y = MatMul(r, w) }""")
    row = cut(net)
    first = graph.cut(row).segments[0]
    assert (first.macs, first.weights) == (0, 120)
    x = samples(row)
    expected = run(net.SerializeToString(), {"x": x.astype(np.int64)})[0]
    np.testing.assert_allclose(logits(row, x), expected, atol=CLOSE)


def test_a_net_in_float16_is_cut_inside_too() -> None:
    net = model("""net (float16[N, 4] x) => (float16[N, 3] y) <float16[4, 5] a, float16[5, 3] b>
        { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }""")
    row = cut(net)
    assert [boundary.shape for boundary in row.net.boundaries][-2:] == [(5,), (3,)]
    assert all(row.graph.is_float32(tensor) for tensor in row.tensors)
    x = samples(row)
    expected = run(net.SerializeToString(), {"x": x.astype(np.float16)})[0]
    np.testing.assert_allclose(logits(row, x), expected, rtol=HALF, atol=HALF)


def test_images_with_the_channels_last_are_cut_as_others_are() -> None:
    net = model(
        """net (float[N, 6, 6, 3] x) => (float[N, 4] y)
        <float[5, 3, 3, 3] k, float[5, 4] w>
        { t = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv(t, k) r = Relu(c)
          u = Transpose <perm = [0, 2, 3, 1]> (r) p = ReduceMean <keepdims = 0> (u, axes)
          y = MatMul(p, w) }""".replace("<float[5, 3", "<int64[2] axes = {1, 2}, float[5, 3")
    )
    row = cut(net)
    assert row.net.boundaries[0].shape == (6, 6, 3) and row.net.boundaries[-2].shape == (5,)
    x = samples(row)
    expected = run(net.SerializeToString(), {"x": x})[0]
    np.testing.assert_allclose(logits(row, x), expected, atol=CLOSE)


def test_a_softmax_at_the_end_is_left_out_and_a_sigmoid_is_not() -> None:
    text = """net (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w>
        { h = MatMul(x, w) y = END(h) }"""
    soft, sigmoid = model(text.replace("END", "Softmax")), model(text.replace("END", "Sigmoid"))
    row = cut(soft)
    x = samples(row)
    found = np.exp(logits(row, x))
    expected = run(soft.SerializeToString(), {"x": x})[0]
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), expected, atol=CLOSE)
    expected = run(sigmoid.SerializeToString(), {"x": x})[0]
    np.testing.assert_allclose(logits(cut(sigmoid), x), expected, atol=CLOSE)


def test_branches_may_use_the_same_names() -> None:
    net = model("""net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float zero = {0.0}>
        { h = MatMul(x, w) total = ReduceSum <keepdims = 0> (h) sure = Greater(total, zero)
          b = If (sure) <
            then_branch = pos () => (float[N, 4] p)
              { c = Constant <value_float = 2.0> () q = Mul(h, c) p = MatMul(q, w) },
            else_branch = neg () => (float[N, 4] p) { q = Neg(h) p = Identity(q) }>
          z = Relu(b) y = MatMul(z, w) }""")
    row = cut(net)
    for sign in (1, -1):
        x = sign * samples(row)
        expected = run(net.SerializeToString(), {"x": x})[0]
        np.testing.assert_allclose(logits(row, x), expected, atol=CLOSE)


def test_what_was_optimised_for_one_processor_is_refused_for_that_reason() -> None:
    net = model("net (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    net.graph.node[0].domain = "com.microsoft.nchwc"
    net.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(GraphError, match="optimised it for one kind of processor; give the file"):
        graph.read(net)
