"""Boundaries are exactly the places that every path passes; exits hang on them.

What cannot be cut is refused.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from presplit import graph
from presplit.core.errors import GraphError

model = run_path(str(Path(__file__).with_name("texts.py")))["model"]
reference = run_path(str(Path(__file__).with_name("reference.py")))


def row(text: str, names: list[str] | None = None) -> graph.Row:
    return graph.row(graph.read(model(text)), names)


def test_a_chain_can_be_cut_after_every_multiplication() -> None:
    found = row("""net (float[N, 4] x) => (float[N, 2] y)
        <float[4, 3] a, float[3, 3] b, float[3, 2] c>
        { h = MatMul(x, a) r = Relu(h) s = MatMul(r, b) t = Tanh(s) y = MatMul(t, c) }""")
    assert found.tensors == ("x", "r", "t", "y")
    assert [boundary.shape for boundary in found.net.boundaries] == [(4,), (3,), (3,), (2,)]
    assert [boundary.name for boundary in found.net.boundaries] == ["x", "r", "t", "logits"]


def test_nothing_inside_a_skip_is_a_boundary() -> None:
    found = row("""net (float[N, 4] x) => (float[N, 2] y)
        <float[4, 4] a, float[4, 4] b, float[4, 2] c>
        { h = MatMul(x, a) s = MatMul(h, b) r = Relu(s) j = Add(r, h) y = MatMul(j, c) }""")
    assert found.tensors == ("x", "h", "j", "y")


def test_a_skip_from_the_input_to_the_logits_leaves_only_the_two() -> None:
    found = row("""net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] a>
        { h = MatMul(x, a) r = Relu(h) y = Add(r, x) }""")
    assert found.tensors == ("x", "y")
    assert found.net.last == 1


def test_a_tensor_that_is_read_twice_by_one_node_is_passed_once() -> None:
    found = row("""net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] a, float[4, 4] b>
        { h = MatMul(x, a) d = Mul(h, h) y = MatMul(d, b) }""")
    assert found.tensors == ("x", "d", "y")


def test_of_places_with_no_multiplication_between_them_the_smallest_is_kept() -> None:
    found = row("""net (float[N, 1, 4, 4] x) => (float[N, 3] y) <float[2, 1, 1, 1] k, float[8, 3] w>
        { c = Conv(x, k) r = Relu(c) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
          f = Flatten(p) y = MatMul(f, w) }""")
    assert found.tensors == ("x", "p", "y")
    assert found.net.boundaries[1].shape == (2, 2, 2)


def test_the_place_that_an_exit_hangs_on_is_kept_beside_the_smallest() -> None:
    found = row("""net (float[N, 1, 4, 4] x) => (float[N, 3] early, float[N, 3] y)
        <float[2, 1, 1, 1] k, float[32, 3] e, float[8, 3] w>
        { c = Conv(x, k) r = Relu(c) g = Flatten(r) early = MatMul(g, e)
          p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
          f = Flatten(p) y = MatMul(f, w) }""")
    assert found.tensors[1] == "r" and len(found.tensors) == 4
    assert [(e.name, e.after, e.classes) for e in found.net.exits] == [
        ("early", 1, 3),
        ("final", 3, 3),
    ]


TWO_EXITS = """net (float[N, 4] x) => (float[N, 2] one, float[N, 2] two, float[N, 2] y)
    <float[4, 4] a, float[4, 4] b, float[4, 2] c, float[4, 2] d, float[4, 2] e>
    { h = MatMul(x, a) s = MatMul(h, b) OUTPUTS y = MatMul(s, c) }"""


def test_exits_are_sorted_by_where_they_hang_and_keep_their_names() -> None:
    text = TWO_EXITS.replace("OUTPUTS", "one = MatMul(s, d) two = MatMul(h, e)")
    found = row(text, ["late", "soon", "own"])
    assert [(e.name, e.after, e.classes) for e in found.net.exits] == [
        ("soon", 1, 2),
        ("late", 2, 2),
        ("own", 3, 2),
    ]
    assert found.logits == ("two", "one", "y")


def test_an_exit_that_looks_at_two_boundaries_hangs_on_the_first_of_them() -> None:
    text = TWO_EXITS.replace("OUTPUTS", "one = MatMul(s, d) j = Add(s, h) two = MatMul(j, e)")
    assert [(e.name, e.after) for e in row(text).net.exits] == [
        ("two", 1),
        ("one", 2),
        ("final", 3),
    ]


def test_an_exit_that_hangs_on_the_input_is_refused() -> None:
    text = TWO_EXITS.replace("OUTPUTS", "one = MatMul(x, d) two = MatMul(h, e)")
    with pytest.raises(
        GraphError, match="exit 'one' does not hang on one boundary of the net: tap a place that no"
    ):
        row(text)


def test_an_exit_that_looks_at_the_input_and_a_hidden_place_is_refused() -> None:
    text = TWO_EXITS.replace("OUTPUTS", "one = MatMul(h, d) j = Add(s, x) two = MatMul(j, e)")
    with pytest.raises(GraphError, match="exit 'two' does not hang on one boundary"):
        row(text)


def test_two_exits_on_one_boundary_are_refused() -> None:
    text = TWO_EXITS.replace("OUTPUTS", "one = MatMul(h, d) two = MatMul(h, e)")
    with pytest.raises(
        GraphError,
        match=r"exits \['a', 'b', 'c'\] must hang on different boundaries, got \[1, 1, 3\]",
    ):
        row(text, ["a", "b", "c"])


def test_exits_of_different_classes_are_refused_by_both_their_names() -> None:
    text = TWO_EXITS.replace("float[N, 2] one", "float[N, 3] one").replace("2] d", "3] d")
    with pytest.raises(
        GraphError, match="output 'one' has 3 classes and the net's own, 'y', has 2: all exits must"
    ):
        row(text.replace("OUTPUTS", "one = MatMul(s, d) two = MatMul(h, e)"))


def test_another_number_of_names_than_of_exits_is_refused() -> None:
    with pytest.raises(GraphError, match="the graph has 3 outputs, got 2 exit names"):
        row(TWO_EXITS.replace("OUTPUTS", "one = MatMul(h, d) two = MatMul(s, e)"), ["a", "b"])


def test_a_batch_that_is_folded_into_another_axis_is_no_boundary() -> None:
    """Two rows for each sample are no boundary.

    They would be sent and counted as if they were two samples.
    """
    found = row("""net (float[N, 4] x) => (float[N, 2] y)
        <float[2, 2] a, float[4, 2] b, int64[2] s = {-1, 2}, int64[2] t = {-1, 4}>
        { r = Reshape(x, s) h = MatMul(r, a) g = Reshape(h, t) y = MatMul(g, b) }""")
    assert found.tensors == ("x", "g", "y")


def test_the_batch_size_may_be_computed_for_a_reshape() -> None:
    """``x.view(x.size(0), -1)``: Shape, Gather and Concat go, and the boundary inside stays."""
    text = """net (float[N, 2, 2] x) => (float[N, 3] y)
        <float[2, 2] a, float[4, 3] b, int64[1] zero = {0}, int64[1] rest = {4}>
        { h = MatMul(x, a) shape = Shape(h) n = Gather(shape, zero)
          target = Concat <axis = 0> (n, rest) flat = Reshape(h, target) y = MatMul(flat, b) }"""
    found = row(text)
    assert found.tensors in [("x", "h", "y"), ("x", "flat", "y")]
    assert {node.op_type for node in found.graph.nodes} == {"MatMul", "Reshape"}
    x = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32)
    values = reference["run"](found.graph, x, ["y"])["y"]
    np.testing.assert_allclose(values, reference["run"](graph.read(model(text)), x, ["y"])["y"])


@settings(max_examples=40)
@given(data=st.data())
def test_boundaries_are_the_places_that_separate_input_and_logits(data: st.DataObject) -> None:
    """By brute force: without a boundary, no node still leads from the input to the logits."""
    count = data.draw(st.integers(1, 7))
    nodes, names = [], ["t0"]
    for number in range(1, count + 1):
        read = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        nodes.append(helper.make_node("MatMul", [read[0], "w"], [f"m{number}"]))
        nodes.append(helper.make_node("Sum", [f"m{number}", *read[1:]], [f"t{number}"]))
        names.append(f"t{number}")
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])
        for name in ("t0", names[-1])
    ]
    made = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])
    found = graph.row(
        graph.read(
            helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        )
    )

    def reaches(without: str) -> bool:
        seen = {"t0"} - {without}
        for node in nodes:
            if seen.intersection(node.input) and node.output[0] != without:
                seen.add(node.output[0])
        return names[-1] in seen

    assert all(not reaches(name) for name in found.tensors)
    assert {name for name in names if not reaches(name)} == set(found.tensors)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_that_the_file_fixes_is_opened(batch: int) -> None:
    """Heads that attention folds into the batch included."""
    text = """net (float[BATCH, 6, 4] x) => (float[BATCH, 3] y) <float[4, 4] w, float[24, 3] v,
        int64[4] heads = {BATCH, 6, 2, 2}, int64[3] folded = {FOLDED, 6, 2},
        int64[4] apart = {BATCH, 2, 6, 2}, int64[2] flat = {BATCH, -1}>
        { h = MatMul(x, w) a = Reshape(h, heads) b = Transpose <perm = [0, 2, 1, 3]> (a)
          c = Reshape(b, folded) d = Relu(c) e = Reshape(d, apart)
          f = Reshape(e, flat) y = MatMul(f, v) }"""
    fixed = model(text.replace("BATCH", str(batch)).replace("FOLDED", str(2 * batch)))
    found = graph.read(fixed)
    assert found.batch_first("x") == (6, 4) and found.batch_first("y") == (3,)
    x = np.random.default_rng(0).normal(size=(2 * batch, 6, 4)).astype(np.float32)
    halves = [reference["run_whole"](fixed, part)[0] for part in (x[:batch], x[batch:])]
    np.testing.assert_allclose(
        reference["run_whole"](found.model, x)[0], np.concatenate(halves), rtol=1e-6
    )


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "net (float[N, 4] x, float[N, 4] z) => (float[N, 4] y) { y = Add(x, z) }",
            r"one input .*, got \['x', 'z'\]",
        ),
        (
            "net (bool[N, 4] x) => (float[N, 4] y) { y = Cast <to = 1> (x) }",
            "input 'x' must hold numbers, got bool",
        ),
        (
            "net (float[N, M] x) => (float[N, M] y) { y = Relu(x) }",
            r"input 'x' must have the batch first and all other sizes fixed, got \[None, None\]",
        ),
        ("net (float[N] x) => (float[N] y) { y = Relu(x) }", "input 'x' must have the batch"),
        (
            "net (float[2, 4] x) => (float[2, 4] y) <float[2, 4] w> { y = Add(x, w) }",
            "its batch is fixed to 2, and it cannot be opened because Add 'y' holds it too; "
            "export the net with a",
        ),
        (
            "net (float[1, 4] x) => (float[1, 4] y) <float[1, 4] w> "
            "{ c = Concat <axis = 0> (x, w) r = ReduceMax <keepdims = 1> (c) y = Add(r, w) }",
            "its batch is fixed to 1, and it cannot be opened because Concat 'c' holds it too",
        ),
        (
            "net (float[N, 4] x) => (float[N, 1] y) <float[4, 1] w> { y = MatMul(x, w) }",
            "output 'y' gives one number for each sample, and .* needs two logits; join 0 and",
        ),
        (
            "net (float[N, 4] x) => (float[N] y) <float[4] w> { h = MatMul(x, w) y = Sigmoid(h) }",
            "output 'y' gives one number for each sample",
        ),
        (
            "net (float[N, 4] x) => (int64[N] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }",
            "output 'y' must be float",
        ),
        (
            "net (float[N, 4, 4] x) => (float[N, 4, 4] y) { y = Relu(x) }",
            "output 'y' must be float32 logits",
        ),
        (
            "net (float[N, 4] x) => (float[1, 4] y) <float[1, 4] w> {y = Relu(w)}",
            "output 'y' must be .*of the input",
        ),
        (
            "net (float[N, 4] x) => (float[N, 3] y) <float[5, 3] w> { y = MatMul(x, w) }",
            "not a valid ONNX model",
        ),
        ("net (float[N, 4] x) => (float[N, 4] y) { y = Relu(z) }", "not a valid ONNX model"),
        (
            "net (float[N, 4] x) => (float[N, 4] y) { y = NoSuchOperator(x) }",
            "not a valid ONNX model",
        ),
    ],
)
def test_a_model_that_is_no_classifier_is_refused_in_one_sentence(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(model(text).SerializeToString())
    with pytest.raises(GraphError, match=f"net.onnx: .*{message}") as caught:
        graph.row(graph.read(tmp_path / "net.onnx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.onnx", "net.json", "net.onnxtxt", "net.textproto"])
@pytest.mark.parametrize("raw", [b"", b"junk", b"\x08\x0a", b"{}", bytes(range(256))])
def test_a_file_that_is_no_model_is_refused_whatever_it_is_called(
    name: str, raw: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(
        GraphError, match=f"{name}: not (an ONNX file|a valid ONNX model)"
    ) as caught:
        graph.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_model_cut_short_is_refused(tmp_path: Path) -> None:
    raw = model(
        "net (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w> { y = MatMul(x, w) }"
    ).SerializeToString()
    for length in range(len(raw)):
        with pytest.raises(GraphError, match="model: not"):
            graph.read(raw[:length])


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"net.onnx: no such file"):
        graph.read(tmp_path / "net.onnx")
    with pytest.raises(GraphError, match="not an ONNX file, but a folder"):
        graph.read(tmp_path)


def test_weights_that_lie_outside_and_are_missing_are_refused(tmp_path: Path) -> None:
    made = model("net (float[N, 4] x) => (float[N, 300] y) <float[4, 300] w> { y = MatMul(x, w) }")
    onnx.save_model(
        made,
        tmp_path / "net.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    assert graph.read(tmp_path / "net.onnx").initializers["w"].raw_data
    (tmp_path / "weights").unlink()
    with pytest.raises(
        GraphError, match="net.onnx: weight 'w' lies in the file 'weights'.*missing"
    ):
        graph.read(tmp_path / "net.onnx")
    with pytest.raises(GraphError, match="model: its weights lie in the file 'weights' beside it"):
        graph.read((tmp_path / "net.onnx").read_bytes())
    (tmp_path / "weights").write_bytes(b"too short")
    with pytest.raises(GraphError, match="ends within weight 'w': expected 4800 bytes from 0 on"):
        graph.read(tmp_path / "net.onnx")
    (tmp_path / "inner").mkdir()
    shutil.move(tmp_path / "net.onnx", tmp_path / "inner" / "net.onnx")
    moved = onnx.load(tmp_path / "inner" / "net.onnx", load_external_data=False)
    moved.graph.initializer[0].external_data[0].value = "../weights"
    onnx.save(moved, tmp_path / "inner" / "net.onnx")
    with pytest.raises(GraphError, match="lies in '../weights', outside the model's folder"):
        graph.read(tmp_path / "inner" / "net.onnx")
