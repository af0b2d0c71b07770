"""1-D convolutions as images of height 1 give the same numbers under the same names."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from presplit import graph
from presplit.graph.height import as_images
from presplit.graph.walk import attribute

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
run_whole = run_path(str(Path(__file__).with_name("reference.py")))["run_whole"]

CLOSE = 1e-5
"""Relative to the largest value: float32 sums of a few dozen terms in another order."""
HEAD = "net (float[N, 4, 11] x) => (float[N, 4, M] y)"
KERNEL = "kernel_shape = [3]"
WAYS = {
    "a convolution alone": f"<float[4, 4, 3] k> {{ y = Conv <{KERNEL}> (x, k) }}",
    "strides, pads, dilations, groups and a bias": (
        f"""<float[4, 2, 3] k, float[4] b> {{ y = Conv
        <{KERNEL}, strides = [2], pads = [3, 1], dilations = [2], group = 2> (x, k, b) }}"""
    ),
    "two in a row with what keeps channels and places apart between": (
        f"""<float[4, 4, 3] k, float[4] s, int64[4] order> {{ h = Conv <{KERNEL}> (x, k)
        n = BatchNormalization (h, s, s, s, s) r = HardSwish (n) g = Gather <axis = 1> (r, order)
        p = MaxPool <kernel_shape = [2], strides = [2]> (g)
        y = Conv <{KERNEL}, pads = [1, 1]> (p, k) }}"""
    ),
    "a residual sum, a gate and a concatenation": (
        f"""<float[4, 4, 3] k, float[4, 8, 1] w> {{ h = Conv <{KERNEL}, pads = [1, 1]> (x, k)
        s = Sigmoid (h) g = Mul (h, s) i = Conv <{KERNEL}, pads = [1, 1]> (g, k) j = Add (g, i)
        c = Concat <axis = 1> (j, g) y = Conv <kernel_shape = [1]> (c, w) }}"""
    ),
    "one that reads the input again, a product over places and an average": (
        f"""<float[4, 4, 3] k, float[11, 11] m> {{ h = Conv <{KERNEL}, pads = [1, 1]> (x, k)
        a = Add (h, x) t = MatMul (a, m) i = Conv <{KERNEL}> (t, k)
        y = AveragePool <kernel_shape = [3], pads = [1, 1]> (i) }}"""
    ),
    "a kernel that is computed": (
        f"<float[4, 4, 3] k> {{ w = Neg (k) h = Conv <{KERNEL}> (x, w) y = Mul (h, h) }}"
    ),
}


def rank_changes(net: onnx.ModelProto) -> int:
    return sum(node.op_type in ("Squeeze", "Unsqueeze") for node in net.graph.node)


@pytest.mark.parametrize("way", WAYS)
def test_a_raised_graph_gives_the_numbers_of_the_plain_one(way: str) -> None:
    plain = model(f"{HEAD} {WAYS[way]}")
    for tensor in plain.graph.initializer:
        if tensor.name == "order":
            tensor.CopyFrom(numpy_helper.from_array(np.array([2, 0, 3, 1]), "order"))
        elif tensor.name == "s":  # a variance is positive
            tensor.CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), "s"))
    raised = as_images(onnx.ModelProto.FromString(plain.SerializeToString()))
    onnx.checker.check_model(raised, full_check=True)
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 4, 11)).astype(np.float32)
        (expected,), (found,) = run_whole(plain, x), run_whole(raised, x)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= CLOSE * np.abs(expected).max()
    kernels = [attribute(n, "kernel_shape", ()) for n in raised.graph.node if n.op_type == "Conv"]
    assert all(len(kernel) == 2 and kernel[0] == 1 for kernel in kernels)


def test_between_convolutions_nothing_changes_its_rank() -> None:
    for way in ("two in a row", "a residual sum"):
        (text,) = [text for name, text in WAYS.items() if name.startswith(way)]
        raised = as_images(model(f"{HEAD} {text}"))
        assert rank_changes(raised) == 2, "once at the input, once at the output"


def test_a_graph_without_1_d_convolutions_stays_as_it_is() -> None:
    plain = model("""net (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y) <float[3, 2, 1, 1] k>
        { r = Relu (x) y = Conv <kernel_shape = [1, 1]> (r, k) }""")
    before = plain.SerializeToString()
    assert as_images(plain).SerializeToString() == before


def test_boundaries_keep_their_names_and_multiplications_and_the_input_is_no_second_one() -> None:
    text = f"""net (float[N, 4, 11] x) => (float[N, 3] y)
        <float[4, 4, 3] k, float[4, 4, 3] l, float[36, 3] w>
        {{ h = Conv <{KERNEL}, pads = [1, 1]> (x, k) r = Relu (h) i = Conv <{KERNEL}> (r, l)
        t = Tanh (i) f = Flatten (t) y = MatMul (f, w) }}"""
    plain, raised = model(text), as_images(model(text))
    rows = [graph.row(graph.read(each)) for each in (plain, raised)]
    assert [b.name for b in rows[0].net.boundaries] == [b.name for b in rows[1].net.boundaries]
    assert [b.shape for b in rows[1].net.boundaries[:2]] == [(4, 11), (4, 1, 11)]
    macs = [[piece.macs for piece in graph.cut(each).segments] for each in rows]
    assert macs[0] == macs[1] == [4 * 4 * 3 * 11, 4 * 4 * 3 * 9, 36 * 3]
