"""What a net computes from the size of its batch is no path: boundaries before it stay."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from onnx import helper

from presplit import graph
from presplit.core.errors import GraphError

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
pieces = run_path(str(Path(__file__).with_name("pieces.py")))
run, logits, samples = pieces["run"], pieces["logits"], pieces["samples"]

CLOSE = 1e-5
"""Relative to the largest logit: float32 sums in the same order."""

FIRST = "first = Constant <value_ints = [0]> ()"
OPEN = {
    "a class token that is repeated for each sample": (
        "r",
        f"""net (float[N, 4, 6] x) => (float[N, 3] y)
        <float[6, 6] w, float[1, 1, 6] token, float[6, 3] v>
        {{ h = MatMul(x, w) r = Relu(h) {FIRST} s = Shape(x) n = Gather(s, first)
          rest = Constant <value_ints = [-1, -1]> () all = Concat <axis = 0> (n, rest)
          minus = Constant <value_int = -1> () open = Equal(all, minus)
          one = Constant <value_ints = [1, 1, 1]> () target = Where(open, one, all)
          t = Expand(token, target) c = Concat <axis = 1> (t, r) m = MatMul(c, w) q = Relu(m)
          zero = Constant <value_int = 0> () g = Gather <axis = 1> (q, zero) y = MatMul(g, v) }}""",
    ),
    "a first state of zeros": (
        "r",
        f"""net (float[N, 5, 3] x) => (float[N, 3] y)
        <float[3, 3] i, float[1, 8, 3] w, float[1, 8, 2] u, float[2, 3] v>
        {{ h = MatMul(x, i) r = Relu(h) {FIRST} s = Shape(x) n = Gather(s, first)
          one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
          size = Concat <axis = 0> (one, n, two) z = ConstantOfShape(size)
          t = Transpose <perm = [1, 0, 2]> (r)
          o, last, c = LSTM <hidden_size = 2> (t, w, u, , , z, z)
          f = Squeeze(last, first) y = MatMul(f, v) }}""",
    ),
    "rows that are divided by their norm": (
        "d",
        """net (float[N, 6] x) => (float[N, 3] y) <float[6, 6] w, float[6, 3] v>
        { h = MatMul(x, w) r = Relu(h) axis = Constant <value_ints = [1]> ()
          norm = ReduceL2 <keepdims = 1> (r, axis) least = Constant <value_float = 1.0e-12> ()
          n = Max(norm, least) s = Shape(r) e = Expand(n, s) d = Div(r, e) m = MatMul(d, w)
          q = Relu(m) y = MatMul(q, v) }""",
    ),
    "the shape of an earlier tensor": (
        "r",
        """net (float[N, 6] x) => (float[N, 3] y) <float[6, 6] w, float[6, 3] v>
        { h = MatMul(x, w) r = Relu(h) s = Shape(x) m = MatMul(r, w) q = Relu(m)
          f = Reshape(q, s) y = MatMul(f, v) }""",
    ),
    "heads whose width is divided out": (
        "d",
        f"""net (float[N, 4, 6] x) => (float[N, 3] y)
        <float[6, 6] w, float[24, 3] v>
        {{ h = MatMul(x, w) r = Relu(h) {FIRST} last = Constant <value_ints = [2]> () s = Shape(r)
          n = Gather(s, first) width = Gather(s, last) heads = Constant <value_ints = [2]> ()
          each = Div(width, heads) any = Constant <value_ints = [-1]> ()
          target = Concat <axis = 0> (n, any, heads, each) a = Reshape(r, target)
          b = Transpose <perm = [0, 2, 1, 3]> (a) flat = Concat <axis = 0> (n, any)
          c = Reshape(b, flat) d = Relu(c) y = MatMul(d, v) }}""",
    ),
    "the number of samples as one number": (
        "r",
        """net (float[N, 6] x) => (float[N, 3] y) <float[6, 6] w, float[6, 3] v>
        { h = MatMul(x, w) r = Relu(h) s = Shape(x) zero = Constant <value_int = 0> ()
          n = Gather(s, zero) one = Constant <value_int = 1> () rows = Range(zero, n, one)
          q = Gather(r, rows) m = MatMul(q, w) k = Relu(m) y = MatMul(k, v) }""",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_places_before_a_size_of_the_batch_stay_boundaries_and_any_batch_runs(name: str) -> None:
    place, text = OPEN[name]
    net = model(text)
    row = graph.row(graph.read(net))
    assert place in row.tensors
    for count in (1, 4):
        x = samples(row, count)
        expected = run(net.SerializeToString(), {"x": x})[0]
        np.testing.assert_allclose(logits(row, x), expected, atol=CLOSE)


FIXED = {
    "a class token beside one sample": """net (float[1, 4, 6] x) => (float[1, 3] y)
        <float[6, 6] w, float[1, 1, 6] token, float[1, 5, 6] places, float[6, 3] v>
        { h = MatMul(x, w) c = Concat <axis = 1> (token, h) p = Add(c, places) r = Relu(p)
          zero = Constant <value_int = 0> () g = Gather <axis = 1> (r, zero) y = MatMul(g, v) }""",
    "a class token that is repeated for three samples": """
        net (float[3, 4, 6] x) => (float[3, 3] y)
        <float[6, 6] w, float[1, 1, 6] token, int64[3] size = {3, 1, 6}, float[6, 3] v,
         float[3, 1, 6] mask = {1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0,
         0.0, 1.0, 0.0, 1.0, 0.0}>
        { p = MatMul(x, w) h = Mul(p, mask) t = Expand(token, size)
          c = Concat <axis = 1> (t, h) r = Relu(c)
          zero = Constant <value_int = 0> () g = Gather <axis = 1> (r, zero) y = MatMul(g, v) }""",
    "a first state for one sample": """net (float[1, 5, 3] x) => (float[1, 3] y)
        <float[1, 8, 3] w, float[1, 8, 2] u, float[1, 1, 2] state, float[2, 3] v>
        { t = Transpose <perm = [1, 0, 2]> (x)
          o, last, c = LSTM <hidden_size = 2> (t, w, u, , , state, state)
          axis = Constant <value_ints = [0]> () f = Squeeze(last, axis) y = MatMul(f, v) }""",
    "the sizes of a larger picture": """net (float[1, 2, 4, 4] x) => (float[1, 3] y)
        <float[2, 2, 3, 3] k, float[2, 3] v, int64[4] size = {1, 2, 8, 8}>
        { c = Conv(x, k) h = Resize <mode = "nearest"> (c, , , size) p = GlobalAveragePool(h)
          f = Flatten(p) y = MatMul(f, v) }""",
    "the number of features as a number without an axis": """
        net (float[1, 8] x) => (float[1, 4] y) <float[8, 4] w, int64[0] none>
        { s = Shape(x) one = Constant <value_ints = [1]> () size = Gather(s, one)
          scalar = Reshape(size, none) number = Cast <to = 1> (scalar) z = Div(x, number)
          y = MatMul(z, w) }""",
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_batch_opens_beside(name: str) -> None:
    net = model(FIXED[name])
    row = graph.row(graph.read(net))
    batch = graph.fixed_batch(net) or 0
    x = samples(row, 3 * batch)
    parts = np.split(x, 3)
    alone = [run(net.SerializeToString(), {"x": part})[0] for part in parts]
    np.testing.assert_allclose(logits(row, x), np.concatenate(alone), atol=CLOSE)


def test_what_depends_on_the_batch_in_another_way_stays_a_path() -> None:
    """A square of the batch's size is no line; the place between is passed by, as it should be."""
    row = graph.row(
        graph.read(
            model(f"""net (float[N, 6] x) => (float[N, 3] y) <float[6, 6] w, float[6, 3] v>
        {{ h = MatMul(x, w) r = Relu(h) {FIRST} s = Shape(x) n = Gather(s, first)
          m = Mul(n, n) f = Cast <to = 1> (m) d = Div(r, f) k = MatMul(d, w) y = MatMul(k, v) }}""")
        )
    )
    assert "h" not in row.tensors and "r" not in row.tensors and "k" in row.tensors


def test_a_shape_that_cannot_be_told_is_refused_by_the_operator_that_gives_it() -> None:
    net = model(
        """net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float[4] b>
        { h = MatMul(x, w) z = Other(h, b) y = MatMul(z, w) }""".replace("Other", "Add")
    )
    net.graph.node[1].op_type, net.graph.node[1].domain = "Other", "own"
    net.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(GraphError, match=r"the shape that own.Other 'z' gives cannot be told"):
        graph.read(net)
