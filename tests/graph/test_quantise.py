"""A graph in int8: what its numbers are, on every processor, and which groups are joined."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from presplit.core.encoding import Seen
from presplit.core.errors import GraphError
from presplit.graph.quantise import CODES, WEIGHTS, Scale, quantised
from presplit.graph.regroup import regrouped

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
RANDOM = np.random.default_rng(3)


def run(net: ModelProto, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(net).run(None, {net.graph.input[0].name: x})[0]


@pytest.mark.parametrize(("low", "high"), [(-1.5, 2.0), (0.0, 6.0), (0.5, 1.0), (-3.0, -1.0)])
def test_a_scale_holds_zero_exactly_and_is_found_again_from_its_reach(
    low: float, high: float
) -> None:
    scale = Scale.of(Seen(low, high))
    assert Scale.of(scale.reach) == scale
    ends = np.array([min(low, 0), 0, max(high, 0)])
    codes = np.clip(np.rint(ends / scale.scale) + scale.zero_point, 0, CODES)
    back = (codes - scale.zero_point) * scale.scale
    assert back[1] == 0 and np.abs(back - ends).max() <= 0.51 * scale.scale
    assert Scale.of(Seen(0, 0)).scale == 1


def test_neighbouring_products_fit_into_sixteen_bits() -> None:
    text = "net (float[N,8] x) => (float[N,4] y) <float[8,4] W> { y = MatMul(x, W) }"
    made = quantised(model(text), {"x": Seen(-1, 1), "y": Seen(-9, 9)})
    (codes,) = (
        numpy_helper.to_array(each)
        for each in made.graph.initializer
        if each.data_type == TensorProto.INT8 and len(each.dims) == 2
    )
    assert np.abs(codes).max(0).tolist() == [WEIGHTS] * 4  # each channel uses all of its codes
    assert 2 * CODES * WEIGHTS < 2**15


def test_codes_lie_within_a_step_of_what_they_stand_for() -> None:
    text = """net (float[N,4,6,6] x) => (float[N,3] y)
      <float[8,4,3,3] W, float[8] B, float[8,3] V, float[3] C> {
      a = Conv<pads=[1,1,1,1]>(x, W, B) b = Relu(a) p = GlobalAveragePool(b) q = Flatten(p)
      y = Gemm(q, V, C) }"""
    net = model(text)
    x = RANDOM.standard_normal((20, 4, 6, 6)).astype(np.float32)
    shown = onnx.ModelProto()
    shown.CopyFrom(net)
    for name in "abpq":
        shown.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    found = ReferenceEvaluator(shown).run(None, {"x": x})
    seen = {n: Seen.of(v) for n, v in zip(["y", *"abpq", "x"], [*found, x], strict=True)}
    scales: dict[str, Scale] = {}
    made = quantised(net, seen, scales)
    onnx.checker.check_model(made, full_check=True)
    assert set(scales) == {"x", "b", "p", "q"}  # a convolution rounds behind its rectifier
    assert scales["q"] == scales["p"]  # what only moves keeps its scale
    assert np.abs(run(made, x) - found[0]).max() < 0.05 * np.abs(found[0]).max()


def test_a_bias_far_above_its_weights_is_kept() -> None:
    text = "net (float[N,4] x) => (float[N,2] y) <float[4,2] W> { y = Gemm(x, W, B) }"
    net = model(text)
    net.graph.initializer.append(numpy_helper.from_array(np.array([1e6, -3.0], np.float32), "B"))
    weight = next(each for each in net.graph.initializer if each.name == "W")
    weight.CopyFrom(numpy_helper.from_array(np.full((4, 2), 1e-6, np.float32), "W"))
    x = np.full((1, 4), 1e-3, np.float32)
    made = quantised(net, {"x": Seen(0, 1e-3), "y": Seen(-3, 1e6)})
    assert run(made, x) == pytest.approx(np.array([[1e6, -3.0]]), rel=0.01)


def test_old_files_and_nets_without_products_are_refused() -> None:
    text = "net (float[N,8] x) => (float[N,4] y) <float[8,4] W> { y = MatMul(x, W) }"
    with pytest.raises(GraphError, match="opset 11 and int8 needs 13 or later"):
        quantised(model(text, opset=11, ir=6), {"x": Seen(0, 1), "y": Seen(0, 1)})
    with pytest.raises(GraphError, match="none of its operators can be quantised"):
        quantised(model("net (float[N,8] x) => (float[N,8] y) { y = Softmax(x) }"), {})


@pytest.mark.parametrize(
    ("groups", "channels", "left"), [(4, 8, 1), (8, 8, 1), (8, 16, 4), (4, 64, 4), (16, 1, 16)]
)
def test_joined_groups_and_a_folded_permutation_compute_the_same(
    groups: int, channels: int, left: int
) -> None:
    width = groups * channels
    text = f"""net (float[N,{width},3,3] x) => (float[N,{width},3,3] y)
      <float[{width},{channels},1,1] W> {{
      m = Gather<axis=1>(x, order) y = Conv<group={groups}>(m, W) }}"""
    net = model(text)
    order = RANDOM.permutation(width).astype(np.int64)
    net.graph.initializer.append(numpy_helper.from_array(order, "order"))
    x = RANDOM.standard_normal((2, width, 3, 3)).astype(np.float32)
    expected = run(net, x)
    made = regrouped(net, {"x": width}, set())
    np.testing.assert_allclose(run(made, x), expected, rtol=1e-4, atol=1e-5)
    convolution = made.graph.node[-1]
    assert [each.i for each in convolution.attribute if each.name == "group"] == [left]
    assert ("Gather" in [node.op_type for node in made.graph.node]) == (left > 1)
