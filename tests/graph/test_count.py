"""Every operator is counted, free, or refused by name; quantised nets count as float ones."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

from presplit import graph
from presplit.core.errors import GraphError
from presplit.graph.operators import COUNTED, FREE

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
pieces = run_path(str(Path(__file__).with_name("pieces.py")))
run, logits, samples = pieces["run"], pieces["logits"], pieces["samples"]

CLOSE = 1e-5
"""Relative to the largest logit: float32 sums in the same order."""


def counted(net: onnx.ModelProto | Path) -> tuple[int, int]:
    read = graph.read(net)
    return graph.count_macs(read, read.nodes), graph.count_weights(read, read.nodes)


COUNTS = {
    "an Einsum over a weight: 4 tokens, 6 features in, 2 heads of 3 out": (
        """net (float[N, 4, 6] x) => (float[N, 24] y) <float[6, 2, 3] w>
        { h = Einsum <equation = "nsd,dhe->nhse"> (x, w) y = Flatten(h) }""",
        4 * 6 * 6,
        36,
    ),
    "an Einsum with an ellipsis and a result that it does not spell": (
        """net (float[N, 4, 6] x) => (float[N, 20] y) <float[6, 5] w>
        { h = Einsum <equation = "...d,de"> (x, w) y = Flatten(h) }""",
        4 * 6 * 5,
        30,
    ),
    "an Einsum of three runs from left to right: 6 x 2, then 2 x 5": (
        """net (float[N, 6] x) => (float[N, 5] y) <float[6, 2] a, float[2, 5] b>
        { y = Einsum <equation = "nd,dr,re->ne"> (x, a, b) }""",
        6 * 2 + 2 * 5,
        22,
    ),
    "attention: 4 x 4 scores of 2 heads, 3 numbers each, twice": (
        """net (float[N, 4, 6] x) => (float[N, 24] y)
        { h = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x) y = Flatten(h) }""",
        2 * 4 * 4 * 6,
        0,
    ),
    "a deformable convolution: a plain one, its offsets made elsewhere": (
        """net (float[N, 2, 4, 4] x) => (float[N, 5] y)
        <float[5, 2, 3, 3] k, float[18, 2, 3, 3] o>
        { f = Conv(x, o) d = DeformConv(x, k, f) p = GlobalAveragePool(d) y = Flatten(p) }""",
        18 * 4 * 18 + 5 * 4 * 18,
        18 * 18 + 90,
    ),
    "whole numbers: a product of 8-bit operands": (
        """net (float[N, 4] x) => (float[N, 3] y) <int8[4, 3] w>
        { q, scale, zero = DynamicQuantizeLinear(x) h = MatMulInteger(q, w, zero)
          f = Cast <to = 1> (h) y = Mul(f, scale) }""",
        12,
        12,
    ),
    "a weight of 8 bits behind its scales, turned": (
        """net (float[N, 4] x) => (float[N, 3] y) <int8[3, 4] w, float[3] s, int8[3] z>
        { d = DequantizeLinear <axis = 0> (w, s, z) t = Transpose <perm = [1, 0]> (d)
          y = MatMul(x, t) }""",
        12,
        12,
    ),
    "a fused product with the second operand transposed": (
        """net (float[N, 4, 6] x) => (float[N, 16] y)
        { h = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (x, x) y = Flatten(h) }""",
        4 * 4 * 6,
        0,
    ),
    "picking one of the features is no embedding": (
        """net (float[N, 4, 6] x) => (float[N, 6] y) <int64 place = {1}, float[4, 6] b>
        { a = Add(x, b) y = Gather <axis = 1> (a, place) }""",
        0,
        0,
    ),
    "an If costs its dearer branch and stores both": (
        """net (float[N, 4] x) => (float[N, 4] y) <float zero = {0.0}, float[4, 4] w, float[4, 1] v>
        { total = ReduceSum <keepdims = 0> (x) sure = Greater(total, zero)
          b = If (sure) <
            then_branch = pos () => (float[N, 4] p) { p = MatMul(x, w) },
            else_branch = neg () => (float[N, 4] n) { c = MatMul(x, v) n = Add(c, x) }>
          y = Relu(b) }""",
        16,
        20,
    ),
    "a Scan costs its body once a step: 5 steps": (
        """net (float[N, 5, 4] x) => (float[N, 4] y) <float[4, 4] w, int64[1] first = {0}>
        { t = Transpose <perm = [1, 0, 2]> (x) s = ReduceMean <keepdims = 0> (t, first)
          y, all = Scan <num_scan_inputs = 1, body = one (float[N, 4] a, float[N, 4] b) =>
            (float[N, 4] c, float[N, 4] d) { m = MatMul(a, w) c = Add(m, b) d = Identity(c) }>
            (s, t) }""",
        5 * 16,
        16,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_operators_cost_what_is_counted_by_hand(name: str) -> None:
    text, macs, weights = COUNTS[name]
    assert counted(model(text, opset=23)) == (macs, weights)


LOOP = """net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, TRIPS bool yes = {1}>
    { MADE b = Loop (trips, yes, x) <body = one (int64 i, bool c, float[N, 4] s) =>
        (bool d, float[N, 4] o) { d = Identity(c) m = MatMul(s, w) o = Tanh(m) }>
      y = Relu(b) }"""


def test_a_loop_costs_its_body_once_a_trip_and_needs_a_constant_number_of_trips() -> None:
    constant = LOOP.replace("TRIPS", "int64 trips = {3},").replace("MADE", "")
    by_value = LOOP.replace("TRIPS", "").replace(
        "MADE", "most = ReduceMax <keepdims = 0> (x) trips = Cast <to = 7> (most)"
    )
    nets = [model(constant), model(by_value)]
    for net in nets:
        net.graph.value_info.append(helper.make_tensor_value_info("b", 1, ["N", 4]))
    assert counted(nets[0]) == (48, 16)
    with pytest.raises(
        GraphError, match="Loop .* computes a number of times that its input decide"
    ):
        counted(nets[1])


def test_an_operator_on_no_list_is_refused_by_name() -> None:
    net = model("""net (float[N, 8, 1] x) => (float[N, 16] y) <int64 axis = {1}>
        { h = DFT(x, , axis) y = Flatten(h) }""")
    with pytest.raises(GraphError, match=r"operator DFT \(it makes 'h'\) is not known, so what it"):
        graph.row(graph.read(net))


def test_no_operator_is_on_both_lists() -> None:
    assert not FREE & COUNTED.keys()


def test_a_quantised_net_counts_and_computes_as_the_float_net_it_was_made_of(
    tmp_path: Path,
) -> None:
    """In all forms that ONNX Runtime writes; static ones are cut inside, 8-bit places included."""
    net = model(
        """net (float[N, 3, 8, 8] x) => (float[N, 4] y)
        <float[8, 3, 3, 3] a, float[6, 8, 3, 3] b, float[4, 6] w>
        { c = Conv <pads = [1, 1, 1, 1]> (x, a) r = Relu(c)
          d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, b) s = Relu(d)
          p = GlobalAveragePool(s) f = Flatten(p) y = Gemm <transB = 1> (f, w) }""",
        opset=17,
        ir=8,
    )
    expected = (8 * 64 * 27 + 6 * 16 * 72 + 24, 8 * 27 + 6 * 72 + 24)
    assert counted(net) == expected
    file, made = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(net, file)
    x = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        reader = SimpleNamespace(get_next=iter([{"x": x}, None]).__next__)
        quantize_static(file, made, reader, form, weight_type=QuantType.QInt8)
        assert counted(made) == expected
        row = graph.row(graph.read(made))
        assert len(row.tensors) >= 4
        np.testing.assert_allclose(
            logits(row, x), run(made.read_bytes(), {"x": x})[0], rtol=CLOSE, atol=CLOSE
        )
    quantize_dynamic(file, made)
    assert counted(made) == expected
