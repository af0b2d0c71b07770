"""The int8 form: pieces of one quantised net, codes that nobody rounds twice, measured ways."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from presplit.bundle import Bundle, write_plan
from presplit.codecs import CODECS
from presplit.core.errors import BundleError, InputError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.packing import pack
from presplit.runtime import Edge, Local
from presplit.runtime.engines.onnxruntime import Engine
from presplit.runtime.serving.server import hosting
from presplit.runtime.serving.tail import Tails
from presplit.runtime.upstream import InProcess

FORMS = ("float32", "int8")
HEAD = '<ir_version: 8, opset_import: ["": 17]>'
PLACES = "pads=[1,1,1,1], kernel_shape=[3,3]"
RESIDUAL = f"""net (float[N,3,8,8] x) => (float[N,4] early, float[N,4] y) {{
  a = Conv<{PLACES}>(x, W1, B1) b = Relu(a)
  p = GlobalAveragePool(b) q = Flatten(p) early = Gemm<transB=1>(q, W2)
  moved = Gather<axis=1>(b, order)
  c = Conv<{PLACES}, group=4>(moved, W3, B3) d = Relu(c)
  e = Conv<{PLACES}>(d, W4) n = BatchNormalization(e, S, T, M, V)
  f = Add(n, b) g = Relu(f) h = MaxPool<kernel_shape=[2,2], strides=[2,2]>(g)
  i = Conv<{PLACES}>(h, W4, B3) j = Relu(i)
  k = GlobalAveragePool(j) l = Flatten(k) y = Gemm<transB=1>(l, W5, B5) }}"""
WEIGHTS = {
    **{"W1": (16, 3, 3, 3), "B1": (16,), "W2": (4, 16), "W3": (16, 4, 3, 3), "B3": (16,)},
    **{"W4": (16, 16, 3, 3), "S": (16,), "T": (16,), "M": (16,), "W5": (4, 16), "B5": (4,)},
}


def model(text: str, weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A net with seeded weights, as wide as its fan-in asks for."""
    made = onnx.parser.parse_model(f"{HEAD} {text}")
    random = np.random.default_rng(1)
    values = {
        name: random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        for name, shape in weights.items()
    }
    values |= {"V": np.full(16, 2.0)} if "V" in text else {}
    for name, array in values.items():
        made.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    if "order" in text:
        order = random.permutation(16).astype(np.int64)
        made.graph.initializer.append(numpy_helper.from_array(order, "order"))
    return made


def answers(bundle: Bundle, x: np.ndarray, form: str = "float32") -> np.ndarray:
    """The logits of the whole net in one piece, in ``form``."""
    return Engine(bundle.runnable(0, bundle.net.last, form=form).onnx).run({"boundary": x})[
        "logits"
    ]


def packed(net: onnx.ModelProto, path: Path, x: np.ndarray) -> Bundle:
    """``net`` with both forms; its own answers are the labels."""
    output = net.graph.output[-1].name
    input_name = net.graph.input[0].name
    y = Engine(net.SerializeToString()).run({input_name: x})[output].argmax(1)
    return pack(net, path, samples=x, labels=y, forms=FORMS)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, x: np.ndarray) -> Bundle:
    return packed(model(RESIDUAL, WEIGHTS), tmp_path_factory.mktemp("form") / "net.bundle", x)


def head_values(bundle: Bundle, split: int, x: np.ndarray, form: str) -> np.ndarray:
    """What leaves the head, in float32."""
    if split == 0:
        return x
    head = bundle.runnable(0, split, form=form)
    return Engine(head.onnx).run({head.input: x})[head.boundary or ""]


def carried(bundle: Bundle, way: tuple[int, str, str, str], x: np.ndarray) -> np.ndarray:
    """The logits where a boundary really travels so.

    It is decoded by the tail's own graph, or in front of it where only a server can.
    """
    split, codec, form, server_form = way
    values = head_values(bundle, split, x, form)
    encoding = bundle.encoding(split, codec)
    if codec not in bundle.manifest.ports[split].entry:
        shape, rows = values.shape[1:], [values[k : k + 1] for k in range(len(values))]
        codes = [CODECS[codec].encode(row, encoding) for row in rows]
        values = np.concatenate(
            [CODECS[codec].decode(each, encoding, shape) for each in codes if each is not None]
        )
        codec, codes = "float32", values
    else:
        codes = CODECS[codec].encode(values, encoding)
    tail = bundle.runnable(split, bundle.net.last, codec=codec, form=server_form)
    return Engine(tail.onnx).run({tail.input: codes})["logits"]


def test_an_int8_boundary_is_not_quantised_twice(bundle: Bundle, x: np.ndarray) -> None:
    whole = answers(bundle, x, "int8")
    assert bundle.forms == FORMS
    assert np.abs(whole - answers(bundle, x)).max() > 0  # it is another net
    assert all(bundle.manifest.forms["int8"].enter[:-1])  # every boundary of this net has codes
    for split, codec in itertools.product(range(bundle.net.last), ("float32", "int8")):
        found = carried(bundle, (split, codec, "int8", "int8"), x)
        assert np.array_equal(found, whole), (split, codec)


def test_exits_in_int8_say_the_same_alone_and_on_the_way(bundle: Bundle, x: np.ndarray) -> None:
    at = bundle.net.exits[0].after
    on_the_way = bundle.runnable(0, bundle.net.last, exits=["early"], form="int8")
    found = Engine(on_the_way.onnx).run({on_the_way.input: x})[on_the_way.logits["early"]]
    alone = bundle.runnable(at, at, exits=["early"], form="int8")
    values = head_values(bundle, at, x, "int8")
    again = Engine(alone.onnx).run({alone.input: values})[alone.logits["early"]]
    assert np.array_equal(found, again)
    scores, _ = bundle.evidence("int8")
    assert scores.shape == bundle.evidence()[0].shape
    assert not np.array_equal(scores, bundle.evidence()[0])


def test_what_each_way_is_worth_is_what_comes_out_of_it(bundle: Bundle, x: np.ndarray) -> None:
    right = answers(bundle, x).argmax(1)
    held = bundle.manifest.validation
    assert held is not None and held.judged == len(x)
    ways = [(way.boundary, way.codec, way.form, way.server_form) for way in held.ways]
    assert {way[2:] for way in ways} == {(a, b) for a in FORMS for b in FORMS}
    assert not any(way[0] == 0 and way[2] == "int8" for way in ways)  # nothing runs before it
    for way in ways:
        whole = bundle.evidence(way[2] if way[2] == way[3] else "float32")[1][-1]
        hits = carried(bundle, way, x).argmax(1) == right
        assert np.array_equal(bundle.worth(*way), np.minimum(whole, hits)), way


def test_a_joined_stretch_in_int8_has_no_float32_between_its_ends(
    bundle: Bundle, tmp_path: Path
) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4  # it warns that the file is for this processor
    runnable = bundle.runnable(0, bundle.net.last, form="int8")
    ort.InferenceSession(runnable.onnx, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert kinds.count("QuantizeLinear") == 1 and kinds.count("QLinearConv") == 4
    assert not {"Conv", "Relu", "Add", "Gemm", "BatchNormalization", "Gather"} & set(kinds)
    assert kinds.count("DequantizeLinear") <= 1  # logits may leave as codes of no other tensor


def test_an_edge_and_a_server_run_the_forms_that_a_plan_names(
    bundle: Bundle, x: np.ndarray
) -> None:
    whole, split = answers(bundle, x, "int8"), 2
    local = Local(bundle, Plan(bundle.net.last, form="int8")).answer(x)
    assert np.array_equal(local.scores, whole)
    plan = Plan(split, codec="int8", form="int8", server_form="int8")
    with (
        contextlib.closing(hosting(bundle)) as hosted,
        Edge.open(bundle, upstream=InProcess(hosted), plan=plan) as edge,
    ):
        found = [edge.answer(image, deadline_s=30) for image in x[:4]]
    assert {answer.why for answer in found} == {"server"}
    assert np.array_equal([answer.scores for answer in found], whole[:4])
    tails, manifest = Tails(bundle), bundle.manifest
    codes = CODECS["int8"].encode(
        head_values(bundle, split, x, "int8"), bundle.encoding(split, "int8")
    )
    assert codes is not None
    name = manifest.model_name(split, "int8", "int8")
    assert name == manifest.model_name(split, "int8") + ".in-int8"
    assert np.array_equal(tails.run(name, codes, until=None), whole)
    assert not np.array_equal(
        tails.run(manifest.model_name(split, "int8"), codes, until=None), whole
    )


TRANSFORMER = """net (float[N,6,8] x) => (float[N,4] y) {
  a = MatMul(x, W1) b = LayerNormalization<axis=-1>(a, S, T) c = MatMul(b, W2) d = Softmax(c)
  e = MatMul(d, W3) f = Add(a, e) g = MatMul(f, W4) r = Relu(g) h = MatMul(r, W5) k = Add(f, h)
  m = ReduceMean<axes=[1], keepdims=0>(k) y = Gemm(m, W6, B) }"""
TRANSFORMER_WEIGHTS = {
    **{"W1": (8, 8), "S": (8,), "T": (8,), "W2": (8, 8), "W3": (8, 8), "W4": (8, 16)},
    **{"W5": (16, 8), "W6": (8, 4), "B": (4,)},
}


def test_a_transformer_keeps_its_residual_stream_in_float32(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 6, 8)).astype(np.float32)
    bundle = packed(model(TRANSFORMER, TRANSFORMER_WEIGHTS), tmp_path / "net.bundle", x)
    assert bundle.forms == FORMS
    made = onnx.load_from_string(bundle.runnable(0, bundle.net.last, form="int8").onnx)
    decoded = {node.output[0] for node in made.graph.node if node.op_type == "DequantizeLinear"}
    stream = [node for node in made.graph.node if node.op_type in ("LayerNormalization", "Add")]
    assert len(stream) == 3 and not decoded & {name for node in stream for name in node.input}
    weights = [tensor.data_type for tensor in made.graph.initializer if len(tensor.dims) == 2]
    assert weights == [TensorProto.INT8] * 6
    whole = answers(bundle, x, "int8")
    for split in range(bundle.net.last):
        assert np.array_equal(carried(bundle, (split, "float32", "int8", "int8"), x), whole)


def test_sound_in_one_dimension_has_an_int8_form(tmp_path: Path) -> None:
    text = """net (float[N,1,32] x) => (float[N,4] y) {
      a = Conv<kernel_shape=[5], pads=[2,2], strides=[2]>(x, W1, B1) b = Relu(a)
      c = Conv<kernel_shape=[3], pads=[1,1]>(b, W2) d = Relu(c)
      e = GlobalAveragePool(d) f = Flatten(e) y = Gemm<transB=1>(f, W3) }"""
    weights = {"W1": (8, 1, 5), "B1": (8,), "W2": (8, 8, 3), "W3": (4, 8)}
    x = np.random.default_rng(0).standard_normal((40, 1, 32)).astype(np.float32)
    bundle = packed(model(text, weights), tmp_path / "net.bundle", x)
    assert np.array_equal(
        carried(bundle, (1, "int8", "int8", "int8"), x), answers(bundle, x, "int8")
    )


def test_a_net_that_cannot_be_quantised_keeps_float32_and_says_why(tmp_path: Path) -> None:
    text = "net (float[N,8] x) => (float[N,8] y) { a = Softmax(x) y = Mul(a, x) }"
    x = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    bundle = pack(model(text, {}), tmp_path / "net.bundle", samples=x, forms=FORMS)
    assert bundle.forms == ("float32",)
    assert "none of its operators can be quantised" in bundle.manifest.refused_forms["int8"]
    with pytest.raises(SpecError, match="no form 'int8'; there are: float32; it was refused: none"):
        bundle.runnable(0, bundle.net.last, form="int8")


def test_a_form_that_changes_too_many_answers_is_refused_with_the_reason(tmp_path: Path) -> None:
    # Two classes that differ by far less than a step of the codes: int8 cannot tell them apart.
    net = model("net (float[N,8] x) => (float[N,2] y) { a = MatMul(x, W1) y = MatMul(a, W2) }", {})
    random = np.random.default_rng(0)
    first = np.diag([100.0] + [1e-3] * 7).astype(np.float32)
    last = np.stack([np.ones(8), np.append(1, random.standard_normal(7))], 1).astype(np.float32)
    for name, array in (("W1", first), ("W2", last)):
        net.graph.initializer.append(numpy_helper.from_array(array, name))
    x = random.standard_normal((40, 8)).astype(np.float32)
    bundle = packed(net, tmp_path / "net.bundle", x)
    assert bundle.forms == ("float32",)
    reason = bundle.manifest.refused_forms["int8"]
    assert reason.startswith("it changes the answers to ") and "of 40 held-out samples" in reason


def test_forms_that_cannot_be_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    net, path = model(RESIDUAL, WEIGHTS), tmp_path / "net.bundle"
    with pytest.raises(InputError, match="int8 needs samples"):
        pack(net, path, forms=FORMS)
    for forms in (("int8",), ("float32", "int4"), ()):
        with pytest.raises(SpecError, match="forms: expected float32, which is always there"):
            pack(net, path, forms=forms)
    with pytest.raises(SpecError, match="no form 'int4'; there are: float32, int8"):
        bundle.runnable(0, 1, form="int4")
    for field in ("form", "server_form"):
        plan = Plan(1, **{field: "int4"})
        with pytest.raises(PlanError, match="no form 'int4'; there are: float32, int8"):
            Edge.open(bundle, plan=plan)
        with pytest.raises(BundleError, match=f"{field}: no 'int4' here; there are: float32, int8"):
            write_plan(bundle, plan)
    with pytest.raises(BundleError, match="no scores in form 'int4'"):
        bundle.evidence("int4")
    with pytest.raises(BundleError, match="at boundary 0 from int8 to float32 was not measured"):
        bundle.worth(0, "int8", "int8", "float32")
