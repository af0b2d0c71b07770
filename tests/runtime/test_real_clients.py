"""Clients that others made, against our server; and tails of ours, hosted as others host them.

The client is Triton's. What it gets is compared with the repositories that are written for other
servers, file by file in plain ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from google.protobuf import text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.errors import GraphError, SpecError
from presplit.packing.targets import write_target
from presplit.packing.targets.tails import Checking, model_of, portable

SAMPLES = 3


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Any]:
    with triton.InferenceServerClient(server) as found:
        yield found


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_target(bundle, "triton", tmp_path_factory.mktemp("triton") / "small").path


def codes_of(bundle: Bundle, split: int, codec: str) -> np.ndarray:
    """Samples at a boundary as an edge sends them."""
    shape = bundle.net.boundaries[split].shape
    values = np.random.default_rng(split).normal(size=(SAMPLES, *shape)).astype(np.float32)
    codes = CODECS[codec].encode(values, bundle.encoding(split, codec))
    assert codes is not None
    return codes


def asked(client: Any, model: str, codes: np.ndarray, *, datatype: str = "") -> Any:
    names = {"float32": "FP32", "float16": "FP16", "int8": "INT8", "uint8": "UINT8"}
    tensor = triton.InferInput("boundary", list(codes.shape), datatype or names[str(codes.dtype)])
    tensor.set_data_from_numpy(codes)
    wanted = [triton.InferRequestedOutput("logits")]
    return client.infer(model, [tensor], outputs=wanted, request_id="7", client_timeout=5)


def refusal(client: Any, model: str, codes: np.ndarray) -> str:
    with pytest.raises(InferenceServerException) as refused:
        asked(client, model, codes)
    return refused.value.status()


def test_tritons_client_finds_a_server_that_is_live_ready_and_says_what_it_hosts(
    client: Any, bundle: Bundle
) -> None:
    model = bundle.manifest.model_name(1, "int8")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    said = client.get_server_metadata(as_json=True)
    assert (said["name"], said["version"]) == ("presplit", "test")
    said = client.get_model_metadata(model, as_json=True)
    assert said["platform"] == "onnxruntime_onnx"
    assert said["inputs"] == [{"name": "boundary", "datatype": "INT8", "shape": ["-1", "12"]}]
    assert said["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = client.get_model_config(model).config
    assert (config.name, config.platform) == (model, "onnxruntime_onnx")
    assert (list(config.input[0].dims), config.input[0].data_type) == ([12], 6)


def test_a_tool_that_knows_nothing_calls_by_reflection(server: str, bundle: Bundle) -> None:
    """As grpcurl does: list, look up, build the messages from what is told, and call."""
    with grpc.insecure_channel(server) as channel:
        told = ProtoReflectionDescriptorDatabase(channel)
        services = told.get_services()
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} < set(services)
        pool = DescriptorPool(told)
        listed = [
            method.full_name
            for service in services
            for method in pool.FindServiceByName(service).methods
        ]
        assert "grpc.health.v1.Health.Watch" in listed
        assert {name for name in listed if name.startswith("inference.")} >= {
            f"inference.GRPCInferenceService.{call}" for call in ("ModelInfer", "ModelConfig")
        }
        (method,) = [
            each
            for each in pool.FindServiceByName("inference.GRPCInferenceService").methods
            if each.name == "ModelMetadata"
        ]
        asked = GetMessageClass(method.input_type)(name=bundle.manifest.model_name(1, "int8"))
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        raw = call(asked.SerializeToString(), timeout=5)
        assert GetMessageClass(method.output_type).FromString(raw).inputs[0].name == "boundary"
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName("inference.NoSuchMessage")
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as damaged:
            next(ask(iter([b"\xff"]), timeout=5))
        assert damaged.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_tritons_client_sees_the_statuses_that_it_knows(client: Any, bundle: Bundle) -> None:
    model = bundle.manifest.model_name(1, "int8")
    good = codes_of(bundle, 1, "int8")
    assert refusal(client, "no-such-model", good) == "StatusCode.NOT_FOUND"
    assert refusal(client, model, good[:, :5]) == "StatusCode.INVALID_ARGUMENT"
    assert refusal(client, model, good.astype(np.float32)) == "StatusCode.INVALID_ARGUMENT"
    reply = asked(client, model, good)
    assert reply.get_response().id == "7"


def test_every_tail_gives_the_same_bits_here_and_in_plain_onnx_runtime(
    client: Any, bundle: Bundle, repository: Path
) -> None:
    """As Triton would load it: each folder's file, by the names and shapes that its config says."""
    models = sorted((repository / "models").iterdir())
    offered = [
        bundle.manifest.model_name(split, codec)
        for split, port in enumerate(bundle.manifest.ports[: bundle.net.last])
        for codec in port.entry
    ]
    assert [model.name for model in models] == sorted(offered)
    for model in models:
        said = text_format.Parse(
            (model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        assert said.name == model.name
        split, _, codec = model.name.rpartition("from-")[2].partition("-")
        codes = codes_of(bundle, int(split), codec or "float32")
        (taken,), (given,) = said.input, said.output
        assert tuple(taken.dims) == codes.shape[1:]
        session = onnxruntime.InferenceSession(model / "1" / "model.onnx")
        assert [each.name for each in session.get_inputs()] == [taken.name]
        (logits,) = session.run([given.name], {taken.name: codes})
        assert logits.shape[1:] == tuple(given.dims)
        np.testing.assert_array_equal(logits, asked(client, model.name, codes).as_numpy("logits"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # OpenVINO's own
def test_openvino_computes_the_tails_that_its_model_server_is_given(
    client: Any, bundle: Bundle, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: presplit[bench]")
    ovms = write_target(bundle, "ovms", tmp_path / "ovms")
    core = openvino.Core()
    for listed in json.loads((ovms.path / "config.json").read_text())["model_config_list"]:
        config = listed["config"]
        file = ovms.path / config["base_path"] / "1" / "model.onnx"
        model = core.compile_model(str(file), "CPU", config["plugin_config"])
        split, _, codec = config["name"].rpartition("from-")[2].partition("-")
        codes = codes_of(bundle, int(split), codec or "float32")
        expected = asked(client, config["name"], codes).as_numpy("logits")
        np.testing.assert_allclose(model({"boundary": codes})["logits"], expected, atol=1e-4)


def test_the_other_repositories_name_the_same_models(bundle: Bundle, tmp_path: Path) -> None:
    name = bundle.manifest.model_name(1, "int8")
    ovms = write_target(bundle, "ovms", tmp_path / "ovms", splits=[1], codecs=["int8"])
    said = json.loads((ovms.path / "config.json").read_text())
    (listed,) = [each["config"] for each in said["model_config_list"]]
    assert listed["name"] == name
    assert (ovms.path / listed["base_path"] / "1" / "model.onnx").is_file()
    assert listed["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    kserve = write_target(bundle, "kserve", tmp_path / "kserve", splits=[1], codecs=["int8"])
    service = (kserve.path / "inference-service.yaml").read_text()
    assert "runtime: kserve-tritonserver\n" in service
    label = service.partition("  name: ")[2].splitlines()[0]
    assert label.startswith("presplit-small-")
    assert len(label) + len("-predictor") <= 63
    assert (kserve.path / "models" / name / "config.pbtxt").is_file()
    for written in (ovms, kserve):
        assert "--server 127.0.0.1:9000" in (written.path / "README.md").read_text()


def test_a_repository_replaces_its_like_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    first = write_target(bundle, "ovms", tmp_path / "out")
    again = write_target(bundle, "ovms", tmp_path / "out", splits=[2])
    assert 0 < len(again.models) < len(first.models)
    assert {folder.name for folder in (again.path / "models").iterdir()} == set(again.models)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(SpecError, match="is no repository that presplit wrote"):
        write_target(bundle, "ovms", tmp_path / "mine")
    with pytest.raises(SpecError, match=r"starts at a boundary in 0\.\.2, got 3"):
        write_target(bundle, "ovms", tmp_path / "new", splits=[3])
    with pytest.raises(SpecError, match="no codec 'png' that any server can host"):
        write_target(bundle, "ovms", tmp_path / "new", codecs=["png"])
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_tail_that_computes_something_else_is_refused(
    bundle: Bundle, other_bundle: Bundle
) -> None:
    """The planted fault: the file of another net under this one's name."""
    (tail,) = portable(bundle, splits=[1], codecs=["int8"])
    checking = Checking(bundle)
    assert checking.check(tail, model_of(bundle, tail)) == 0
    with pytest.raises(GraphError, match="differs from the bundle's own tail"):
        checking.check(tail, model_of(other_bundle, tail))
