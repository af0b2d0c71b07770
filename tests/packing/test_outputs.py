"""Files with other outputs than logits: labels, dictionaries, probabilities, features.

They are such as scikit-learn's converter writes, made by hand here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from presplit.bundle import Bundle
from presplit.bundle.operators import check
from presplit.core.errors import BundleError, GraphError, InputError
from presplit.packing import pack
from presplit.policies import confidence
from presplit.runtime.engines.onnxruntime import Engine

NAMES = ["boot", "hat", "shoe"]
FEATURES = 4
x = np.random.default_rng(0).normal(size=(30, FEATURES)).astype(np.float32)
random = np.random.default_rng(1)


def ml(kind: str, read: list[str], give: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(kind, read, give, domain="ai.onnx.ml", **attributes)


def file(nodes: list[NodeProto], outputs: list[Any], **constants: Any) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])
    held = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "sk", [given], outputs, held)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


def tensor(name: str, kind: int, *sizes: int | None) -> Any:
    return helper.make_tensor_value_info(name, kind, list(sizes))


def zipped(name: str) -> Any:
    entry = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    return helper.make_value_info(name, helper.make_sequence_type_proto(entry))


def forest() -> onnx.ModelProto:
    """Two trees that each look at one feature, their names in text, shares behind a ZipMap."""
    leaf = {0: (0.5, 0.0, 0.0), 1: (0.0, 0.3, 0.2)}
    trees = ml(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "shares"],
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[0, 0, 0, 2, 0, 0],
        nodes_values=[0.1, 0.0, 0.0, -0.2, 0.0, 0.0],
        nodes_hitrates=[1.0] * 6,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_truenodeids=[1, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
        nodes_missing_value_tracks_true=[0] * 6,
        class_treeids=[0] * 6 + [1] * 6,
        class_nodeids=([1] * 3 + [2] * 3) * 2,
        class_ids=[0, 1, 2] * 4,
        class_weights=[*leaf[0], *leaf[1], *leaf[1], *leaf[0]],
        classlabels_strings=NAMES,
        post_transform="NONE",
    )
    names = ml("ZipMap", ["shares"], ["by_name"], classlabels_strings=NAMES)
    same = helper.make_node("Identity", ["label"], ["output_label"])
    outputs = [tensor("output_label", TensorProto.STRING, None), zipped("by_name")]
    return file([trees, same, names], outputs)


def linear(post: str = "SOFTMAX") -> onnx.ModelProto:
    """A scaler and a logistic regression, whose classes are the numbers 3, 5 and 9."""
    scaler = ml("Scaler", ["X"], ["scaled"], offset=[0.5] * FEATURES, scale=[2.0, 1.0, 0.5, 3.0])
    classes = ml(
        "LinearClassifier",
        ["scaled"],
        ["label", "scores"],
        coefficients=random.normal(size=12).tolist(),
        intercepts=[0.1, 0.0, -0.2],
        classlabels_ints=[3, 5, 9],
        post_transform=post,
    )
    shares = ml("Normalizer", ["scores"], ["shares"], norm="L1")
    outputs = [
        tensor("label", TensorProto.INT64, None),
        tensor("shares", TensorProto.FLOAT, None, 3),
    ]
    return file([scaler, classes, shares], outputs)


def perceptron(end: str) -> onnx.ModelProto:
    """A product, shares by ``end`` that the label is taken of, and a table of names."""
    nodes = [
        helper.make_node("MatMul", ["X", "w1"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["out"]),
    ]
    if end == "softmax":
        nodes.append(helper.make_node("Softmax", ["out"], ["all"], axis=1))
    else:
        nodes += [
            helper.make_node("Sigmoid", ["out"], ["yes"]),
            helper.make_node("Sub", ["one", "yes"], ["no"]),
            helper.make_node("Concat", ["no", "yes"], ["all"], axis=1),
        ]
    nodes += [
        helper.make_node("Identity", ["all"], ["shares"]),
        helper.make_node("ArgMax", ["all"], ["place"], axis=1),
        ml("ArrayFeatureExtractor", ["names", "place"], ["picked"]),
        helper.make_node("Reshape", ["picked", "flat"], ["label"]),
    ]
    count = 3 if end == "softmax" else 2
    more = {} if end == "softmax" else {"one": np.array([[1.0]], np.float32)}
    outputs = [
        tensor("label", TensorProto.STRING, None),
        tensor("shares", TensorProto.FLOAT, None, count),
    ]
    return file(
        nodes,
        outputs,
        w1=random.normal(size=(FEATURES, 6)).astype(np.float32),
        w2=random.normal(size=(6, 3 if end == "softmax" else 1)).astype(np.float32),
        **more,
        names=np.array(NAMES[:count], object),
        flat=np.array([-1]),
    )


FILES: dict[str, tuple[Callable[[], onnx.ModelProto], str, tuple[str, ...], int]] = {
    "trees": (forest, "by_name", tuple(NAMES), 1),
    "logistic": (linear, "shares", ("3", "5", "9"), 2),
    "one_against_rest": (lambda: linear("LOGISTIC"), "shares", ("3", "5", "9"), 2),
    "softmax": (lambda: perceptron("softmax"), "shares", tuple(NAMES), 2),
    "sigmoid": (lambda: perceptron("sigmoid"), "shares", tuple(NAMES[:2]), 2),
}


def answers(bundle: Bundle, split: int) -> np.ndarray:
    """The logits of ``x`` that head and tail give together."""
    last, here = bundle.net.last, x
    if split:
        name = "logits" if split == last else f"boundary_{split:02d}"
        here = Engine(bundle.segment(0, split, exits=[])).run({"boundary": x})[name]
    if split < last:
        here = Engine(bundle.segment(split, last, exits=[])).run({"boundary": here})["logits"]
    return here


@pytest.mark.parametrize("kind", FILES)
def test_a_classical_classifier_answers_as_its_file_does_wherever_it_is_split(
    kind: str, tmp_path: Path
) -> None:
    make, output, classes, boundaries = FILES[kind]
    model = make()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    labels, shares = session.run(None, {"X": x})
    if kind == "trees":
        shares = np.array([[row[name] for name in NAMES] for row in shares])
    bundle = pack(
        model, tmp_path / "b", name="b", outputs=[output], samples=x, labels=np.array(labels, str)
    )
    assert bundle.manifest.labels == classes and bundle.net.last == boundaries
    _, hits = bundle.evidence("float32")
    assert hits.all(), "the names in the labels are those of the file's classes"
    for split in range(boundaries + 1):
        logits = answers(bundle, split)
        assert [classes[place] for place in logits.argmax(1)] == [str(each) for each in labels]
        np.testing.assert_allclose(confidence(logits), shares.max(1), atol=3e-4)


def test_what_a_forest_costs_is_its_comparisons_and_votes(tmp_path: Path) -> None:
    bundle = pack(forest(), tmp_path / "b", name="b", outputs=["by_name"])
    (segment,) = bundle.manifest.segments
    assert (segment.macs, segment.weights) == (2 * 1 + 2 * 3, 6 + 12)
    model = bundle.segment(0, 1, exits=[])
    check(model)
    with pytest.raises(BundleError, match="TreeEnsembleClassifier is not run for strangers"):
        check(model, strict=True)


def test_outputs_that_are_no_logits_are_listed_with_the_cure(tmp_path: Path) -> None:
    features = file(
        [
            helper.make_node("MatMul", ["X", "w1"], ["features"]),
            helper.make_node("MatMul", ["features", "w2"], ["classes"]),
        ],
        [tensor(name, TensorProto.FLOAT, None, n) for name, n in (("features", 6), ("classes", 3))],
        w1=np.ones((FEATURES, 6), np.float32),
        w2=np.ones((6, 3), np.float32),
    )
    for model, outputs, message in (
        (forest(), (), r"output_label \(string\[batch\]\), by_name \(dictionaries\); name the one"),
        (
            linear(),
            (),
            r"label \(int64\[batch\]\), shares .*presplit export --from FILE --output shares",
        ),
        (linear(), ("prob",), "no output is called 'prob'; it has label"),
        (linear(), ("label",), "output 'label' must be float32 logits"),
        (
            features,
            (),
            r"presplit export --from FILE --output classes .* features \(6\), classes \(3\)",
        ),
    ):
        with pytest.raises(GraphError, match=message):
            pack(model, tmp_path / "b", name="b", outputs=outputs)
    assert pack(features, tmp_path / "b", name="b", outputs=["classes"]).net.exits[-1].classes == 3
    svm = file(
        [ml("SVMClassifier", ["X"], ["label", "s"], classlabels_ints=[0, 1])],
        [tensor("s", TensorProto.FLOAT, None, 2)],
    )
    with pytest.raises(GraphError, match="the operator SVMClassifier of ai.onnx.ml is not taken"):
        pack(svm, tmp_path / "b", name="b")
    with pytest.raises(InputError, match="names of the file's classes, 3, 5, 9, got '4'"):
        labels = np.full(len(x), 4)
        pack(linear(), tmp_path / "b", name="b", outputs=["shares"], samples=x, labels=labels)
