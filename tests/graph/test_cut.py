"""Every run of pieces is a valid model that computes what the graph does, at the cost it says."""

from __future__ import annotations

import itertools
from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from presplit import graph
from presplit.codecs import CODECS
from presplit.core.encoding import Seen, Step

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
reference = run_path(str(Path(__file__).with_name("reference.py")))

CLOSE = 1e-6
"""Relative: the reference evaluator computes the same operators one by one on both sides."""

NETS = {
    "perceptron with two exits": """
        net (float[N, 6] x) => (float[N, 3] one, float[N, 3] two, float[N, 3] y)
        <float[6, 5] a, float[5] ab, float[5, 4] b, float[4, 3] c, float[5, 3] d, float[4, 3] e>
        { h = Gemm(x, a, ab) r = Relu(h) one = MatMul(r, d) s = MatMul(r, b)
          t = Tanh(s) two = MatMul(t, e) y = MatMul(t, c) }""",
    "one constant in two segments and an exit": """
        net (float[N, 4] x) => (float[N, 4] early, float[N, 4] y)
        <float[4, 4] w, float[4] bias>
        { h = Gemm(x, w, bias) r = Relu(h) early = Gemm(r, w, bias)
          s = Gemm(r, w, bias) t = Tanh(s) y = Gemm(t, w, bias) }""",
    "a constant that is computed": """net (float[N, 4] x) => (float[N, 4] y)
        <float[4, 4] w, float[4, 4] u>
        { v = Transpose <perm = [1, 0]> (w) q = Add(v, u) h = MatMul(x, q)
          r = Relu(h) s = MatMul(r, q) t = Tanh(s) y = MatMul(t, u) }""",
    "images with a skip": """net (float[N, 2, 4, 4] x) => (float[N, 3] early, float[N, 3] y)
        <float[2, 2, 3, 3] k, float[2, 1, 3, 3] g, float[32, 3] e, float[32, 3] w>
        { c = Conv <pads = [1, 1, 1, 1]> (x, k) r = Relu(c) fe = Flatten(r) early = MatMul(fe, e)
          d = Conv <pads = [1, 1, 1, 1], group = 2> (r, g) j = Add(d, r)
          f = Flatten(j) y = MatMul(f, w) }""",
    "a branch by value": """net (float[N, 4] x) => (float[N, 4] y)
        <float[4, 4] w, float zero = {0.0}>
        { h = MatMul(x, w) total = ReduceSum <keepdims = 0> (h) sure = Greater(total, zero)
          b = If (sure) <then_branch = pos () => (float[N, 4] p) { p = MatMul(h, w) },
                         else_branch = neg () => (float[N, 4] n) { m = Neg(h) n = MatMul(m, w) }>
          z = Relu(b) y = MatMul(z, w) }""",
    "an exit whose logits are the place itself": """
        net (float[N, 4] x) => (float[N, 4] h, float[N, 4] y)
        <float[4, 4] w, float[4, 4] v> { h = MatMul(x, w) y = MatMul(h, v) }""",
}


Way = tuple[str, tuple[Step, ...], tuple[int, ...] | None]
"""The dtype in which a boundary arrives, the steps that decode it, and the shape of its codes."""
PLAIN: Way = ("float32", (), None)
INTS = ("int8", "int8-channel", "int4", "int4-channel", "int2")
PORTABLE = ("float32", "float16", "integers", *INTS)


def row(name: str) -> graph.Row:
    return graph.row(graph.read(model(NETS[name])))


def joined(found: graph.Row, start: int, stop: int, exits: list[str], way: Way) -> onnx.ModelProto:
    """Boundaries ``start`` to ``stop`` with ``exits`` as one model, by joining bytes."""
    pieces, boundaries, last = graph.cut(found), found.net.boundaries, found.net.last
    dtype, steps, shape = way
    enter = graph.entry(start, boundaries[start], dtype, steps, last=last, shape=shape)
    parts = [pieces.header, enter]
    parts += [piece.onnx for piece in pieces.segments[start:stop]]
    parts += [pieces.exits[name].onnx for name in exits]
    parts += [graph.leave(stop, boundaries[stop], last=last)] if stop > start else []
    return onnx.load_from_string(b"".join(parts))


@pytest.mark.parametrize("name", NETS)
def test_every_run_of_pieces_is_valid_and_computes_what_the_whole_does(name: str) -> None:
    found = row(name)
    net, last = found.net, found.net.last
    shape = net.boundaries[0].shape
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    values = reference["run"](found.graph, x, [*found.tensors[1:], *found.logits])
    values[found.graph.input] = x
    early = list(zip(net.exits[:-1], found.logits, strict=False))
    for start, stop in itertools.combinations_with_replacement(range(last + 1), 2):
        inside = [(exit_, logits) for exit_, logits in early if start <= exit_.after <= stop]
        if start == stop and not inside:
            continue
        joint = joined(found, start, stop, [exit_.name for exit_, _ in inside], PLAIN)
        onnx.checker.check_model(joint, full_check=True)
        given = {"boundary": values[found.tensors[start]]}
        outputs = dict(
            zip(
                [o.name for o in joint.graph.output],
                ReferenceEvaluator(joint).run(None, given),
                strict=True,
            )
        )
        expected = {f"logits.{exit_.name}": values[logits] for exit_, logits in inside}
        if stop > start:
            expected["logits" if stop == last else f"boundary_{stop:02d}"] = values[
                found.tensors[stop]
            ]
        assert sorted(outputs) == sorted(expected)
        for output, array in expected.items():
            np.testing.assert_allclose(outputs[output], array, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("codec", PORTABLE)
@pytest.mark.parametrize("name", ["perceptron with two exits", "images with a skip"])
def test_every_tail_begins_by_decoding(name: str, codec: str) -> None:
    found = row(name)
    for start in range(found.net.last):
        values = (
            np.random.default_rng(1)
            .normal(size=(2, *found.net.boundaries[start].shape))
            .astype(np.float32)
        )
        values = np.rint(values) if codec == "integers" else values
        shape = values.shape[1:]
        encoding = CODECS[codec].calibrate(Seen.of(values), shape)
        if encoding is None:  # a row of numbers has no channels
            continue
        codes = CODECS[codec].encode(values, encoding)
        way = (
            encoding.dtype,
            CODECS[codec].decoder(encoding, shape),
            encoding.shape(found.net.boundaries[start]),
        )
        tail = joined(found, start, found.net.last, [], way)
        onnx.checker.check_model(tail, full_check=True)
        plain = joined(found, start, found.net.last, [], PLAIN)
        decoded = CODECS[codec].decode(codes, encoding, shape)
        np.testing.assert_allclose(
            ReferenceEvaluator(tail).run(None, {"boundary": codes})[0],
            ReferenceEvaluator(plain).run(None, {"boundary": decoded})[0],
            rtol=CLOSE,
            atol=CLOSE,
        )


@pytest.mark.parametrize("name", NETS)
def test_cutting_is_the_same_each_time_and_leaves_the_graph_alone(name: str) -> None:
    found = row(name)
    before = found.graph.model.SerializeToString(deterministic=True)
    assert graph.cut(found) == graph.cut(found)
    assert found.graph.model.SerializeToString(deterministic=True) == before


def test_what_the_pieces_cost_adds_up_to_the_whole() -> None:
    found = row("images with a skip")
    pieces = graph.cut(found)
    parts = [*pieces.segments, *pieces.exits.values()]
    assert sum(piece.macs for piece in parts) == graph.count_macs(found.graph, found.graph.nodes)
    assert sum(piece.weights for piece in parts) == graph.count_weights(
        found.graph, found.graph.nodes
    )


def test_a_constant_that_two_pieces_use_is_stored_in_both() -> None:
    pieces = graph.cut(row("one constant in two segments and an exit"))
    assert [piece.weights for piece in (*pieces.segments, *pieces.exits.values())] == [
        16,
        16,
        16,
        16,
    ]


COUNTED = {
    "a convolution: 3 x 3 x 2 for each of 5 x 6 x 6 outputs": (
        "net (float[N, 2, 8, 8] x) => (float[N, 5] y) <float[5, 2, 3, 3] k> "
        "{ c = Conv(x, k) p = GlobalAveragePool(c) y = Flatten(p) }",
        5 * 6 * 6 * 2 * 3 * 3,
        90,
    ),
    "a strided, padded, dilated one: 4 x 4 places": (
        "net (float[N, 2, 8, 8] x) => (float[N, 5] y) <float[5, 2, 3, 3] k> "
        "{ c = Conv <strides = [2, 2], pads = [2, 2, 2, 2], dilations = [2, 2]> (x, k) "
        "p = GlobalAveragePool(c) y = Flatten(p) }",
        5 * 4 * 4 * 2 * 3 * 3,
        90,
    ),
    "a grouped one reads its own group": (
        "net (float[N, 4, 8, 8] x) => (float[N, 6] y) <float[6, 2, 1, 1] k> "
        "{ c = Conv <group = 2> (x, k) p = GlobalAveragePool(c) y = Flatten(p) }",
        6 * 8 * 8 * 2,
        12,
    ),
    "a transposed one: each of 4 x 3 x 3 inputs feeds 5 x 2 x 2 outputs": (
        "net (float[N, 4, 3, 3] x) => (float[N, 5] y) <float[4, 5, 2, 2] k> "
        "{ c = ConvTranspose <strides = [2, 2]> (x, k) p = GlobalAveragePool(c) y = Flatten(p) }",
        4 * 3 * 3 * 5 * 2 * 2,
        80,
    ),
    "Gemm, its bias free": (
        "net (float[N, 7] x) => (float[N, 3] y) <float[7, 3] w, float[3] b> { y = Gemm(x, w, b) }",
        21,
        21,
    ),
    "Gemm with the weight transposed": (
        "net (float[N, 7] x) => (float[N, 3] y) <float[3, 7] w> { y = Gemm <transB = 1> (x, w) }",
        21,
        21,
    ),
    "a batched MatMul: 4 tiles of 5 x 2": (
        "net (float[N, 4, 1, 5] x) => (float[N, 8] y) <float[4, 5, 2] w> "
        "{ h = MatMul(x, w) y = Flatten(h) }",
        4 * 5 * 2,
        40,
    ),
    "a weight used twice counts once, its products twice": (
        "net (float[N, 3] x) => (float[N, 3] y) <float[3, 3] w> "
        "{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }",
        18,
        9,
    ),
    "two rows for each sample, folded into the batch, count both": (
        "net (float[N, 4] x) => (float[N, 6] y) <float[2, 3] w, int64[2] s = {-1, 2}, int64[2] t = "
        "{-1, 6}> "
        "{ r = Reshape(x, s) h = MatMul(r, w) y = Reshape(h, t) }",
        12,
        6,
    ),
    "a recurrent layer multiplies both weights once a step: 5 steps, 3 inputs, 2 states, 4 gates": (
        "net (float[N, 5, 3] x) => (float[N, 2] y) <float[1, 8, 3] w, float[1, 8, 2] r> "
        "{ t = Transpose <perm = [1, 0, 2]> (x) h, last, c = LSTM <hidden_size = 2> (t, w, r) "
        "s = Transpose <perm = [1, 0, 2]> (last) y = Flatten(s) }",
        5 * (8 * 3 + 8 * 2),
        8 * 3 + 8 * 2,
    ),
    "elementwise work and pooling are free": (
        "net (float[N, 3] x) => (float[N, 3] y) <float[3] b> "
        "{ h = Add(x, b) r = Relu(h) y = Softmax(r) }",
        0,
        0,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_accumulates_and_weights_are_those_counted_by_hand(name: str) -> None:
    text, macs, weights = COUNTED[name]
    read = graph.read(model(text))
    assert (graph.count_macs(read, read.nodes), graph.count_weights(read, read.nodes)) == (
        macs,
        weights,
    )


def test_a_shape_that_is_declared_and_cannot_be_inferred_is_taken_as_it_is() -> None:
    """Exporters declare scalars that shape inference does not find again."""
    net = model("net (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    net.graph.value_info.append(
        onnx.helper.make_tensor_value_info("scalar", onnx.TensorProto.FLOAT, [])
    )
    assert graph.read(net).shapes["scalar"] == ()
