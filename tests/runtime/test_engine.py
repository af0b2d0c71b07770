"""The engine: what goes in comes out as ONNX Runtime computes it.

What is wrong gives one clear error, and no noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import BundleError, EngineError, GraphError, InputError, MissingLibrary
from presplit.packing.session import Session
from presplit.runtime.engines.onnxruntime import Engine

ONES = np.ones((1, 16), np.float32)


def test_outputs_come_by_name(bundle: Bundle) -> None:
    found = Engine(bundle.runnable(0, 2, exits=["early"]).onnx).run({"boundary": ONES})
    assert {name: array.shape for name, array in found.items()} == {
        "boundary_02": (1, 8),
        "logits.early": (1, 4),
    }


@pytest.mark.parametrize("split", [0, 1, 2])
def test_head_and_tail_together_are_the_whole_net(bundle: Bundle, split: int) -> None:
    whole = Engine(bundle.runnable(0, 3).onnx).run({"boundary": ONES})["logits"]
    values = (
        Engine(bundle.runnable(0, split).onnx).run({"boundary": ONES})[f"boundary_{split:02d}"]
        if split
        else ONES
    )
    np.testing.assert_array_equal(
        Engine(bundle.runnable(split, 3).onnx).run({"boundary": values})["logits"], whole
    )


@pytest.mark.parametrize("model", [b"", b"not a model", bytes(1000)])
def test_bytes_that_are_no_model_are_refused(model: bytes) -> None:
    with pytest.raises(BundleError, match="does not take the model"):
        Engine(model)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_model_cut_short_is_refused(bundle: Bundle, share: float) -> None:
    model = bundle.runnable(0, 3).onnx
    with pytest.raises(BundleError, match="does not take the model"):
        Engine(model[: int(share * len(model))])


@pytest.mark.parametrize(
    "inputs",
    [
        {"boundary": np.ones((1, 15), np.float32)},
        {"boundary": np.ones((1, 16), np.float64)},
        {"boundary": np.ones(16, np.float32)},
        {"other": ONES},
        {},
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(
    bundle: Bundle, inputs: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InputError, match="the model does not take"):
        Engine(bundle.runnable(0, 3).onnx).run(inputs)


def gathering() -> onnx.ModelProto:
    """A net that reads the rows of a table whose numbers it is given."""
    net = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[N,1] x) => (float[N,4] y)
        { a = Cast<to=7>(x)  b = Squeeze(a, one)  y = Gather(table, b) }"""
    )
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((5, 4), "f4"), "table"))
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    return net


def test_values_that_a_model_cannot_take_are_the_callers_fault() -> None:
    engine = Engine(gathering().SerializeToString())
    assert engine.run({"x": np.zeros((2, 1), np.float32)})["y"].shape == (2, 4)
    with pytest.raises(InputError, match="out of data bounds"):
        engine.run({"x": np.full((2, 1), 9, np.float32)})


def test_what_the_engine_cannot_do_is_its_own_fault() -> None:
    """No memory for a result, and no kernel for a model that is right."""
    huge = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[N,4] x) => (float[K,M,1,4] y)
        { t = Expand(x, some)  y = Expand(t, more) }"""
    )
    for name, shape in (("some", [2**20, 1, 4]), ("more", [2**28, 1, 1, 1])):
        huge.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    with pytest.raises(EngineError, match="ONNX Runtime failed: .*"):
        Engine(huge.SerializeToString()).run({"x": np.ones((1, 4), np.float32)})
    rare = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (double[N,4,4,4] x) => (double[N,4,2,2] y)
        { y = Conv(x, w) }"""
    )
    rare.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4, 3, 3)), "w"))
    with pytest.raises(EngineError, match="cannot run the model here: .*implementation for Conv"):
        Engine(rare.SerializeToString())


def test_refusals_print_nothing(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    model = bundle.runnable(0, 3).onnx
    for wrong in (b"junk", model[:500], model.replace(b"Gemm", b"Gemn")):
        with pytest.raises(BundleError):
            Engine(wrong)
    with pytest.raises(InputError):
        Engine(model).run({"boundary": np.ones((1, 3), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    told = "^running a bundle needs onnxruntime: .*pip install .*\\[edge\\]'$"
    with pytest.raises(MissingLibrary, match=told):
        Engine(b"")


def test_weights_in_a_file_of_the_working_directory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[N,4] x) => (float[N,4] y)
        { y = MatMul(x, w) }"""
    )
    outside = onnx.TensorProto(name="w", data_type=1, dims=[4, 4], data_location=1)
    outside.external_data.add(key="location", value="secret.bin")
    net.graph.initializer.append(outside)
    (tmp_path / "secret.bin").write_bytes(np.ones(16, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="does not take the model"):
        Engine(net.SerializeToString())
    with pytest.raises(GraphError, match="does not take the graph"):
        Session(net.SerializeToString())
