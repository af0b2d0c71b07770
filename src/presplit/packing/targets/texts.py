"""What stands beside the models: each server's configuration, and how to start it.

Sources: Triton's ``model_config.proto`` and "Model Configuration"; OpenVINO Model Server's "Model
Server Parameters" (a path may be relative to the configuration); KServe's ``InferenceService``
v1beta1 with the runtime ``kserve-tritonserver``, whose gRPC port is 9000.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from presplit.packing.targets.tails import MAX_BATCH, Tail

QUEUE = 256
"""Requests that wait for one model in Triton, at most: more are refused at once."""
QUEUE_US = 1_000_000
"""What none waits longer than: an edge has answered by itself by then."""
TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
}
"""Triton's words for the types in which boundaries travel."""


def config_pbtxt(tail: Tail) -> str:
    """Triton's ``config.pbtxt`` for one tail.

    The batch is not among ``dims``. Requests that wait are computed together, and none is held back
    for others to come. No instance group: Triton takes a GPU where there is one.
    """
    return f"""name: "{tail.name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
input [
  {{
    name: "boundary"
    data_type: {TYPES[tail.dtype]}
    dims: [ {", ".join(map(str, tail.shape))} ]
  }}
]
output [
  {{
    name: "{tail.output}"
    data_type: TYPE_FP32
    dims: [ {tail.classes} ]
  }}
]
dynamic_batching {{
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {QUEUE_US}
    allow_timeout_override: true
    max_queue_size: {QUEUE}
  }}
}}
"""


def config_json(tails: Sequence[Tail]) -> str:
    """OpenVINO Model Server's ``config.json`` for all tails.

    Without the hint it computes in bfloat16 on processors that are faster so, and then its answers
    are others than those by which plans were made.
    """
    models = [
        {
            "config": {
                "name": tail.name,
                "base_path": f"models/{tail.name}",
                "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"},
            }
        }
        for tail in tails
    ]
    return json.dumps({"model_config_list": models}, indent=2) + "\n"


def inference_service(name: str, nbytes: int) -> str:
    """KServe's ``InferenceService`` for a repository of Triton's with ``nbytes`` of models."""
    gib = 2 + 2 * nbytes // 2**30
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    scaleMetric: concurrency
    scaleTarget: 8
    model:
      modelFormat:
        name: triton
        version: "2"
      runtime: kserve-tritonserver
      protocolVersion: grpc-v2
      storageUri: pvc://presplit/{name}
      ports:
        - name: h2c
          containerPort: 9000
          protocol: TCP
      resources:
        requests:
          cpu: "1"
          memory: {gib}Gi
        limits:
          cpu: "1"
          memory: {gib}Gi
"""


TRITON = """With Docker, on this machine's own address only:

    docker run --rm -p 127.0.0.1:8001:8001 -v "$PWD/models:/models:ro" \\
        nvcr.io/nvidia/tritonserver:25.08-py3 \\
        tritonserver --model-repository=/models --allow-http=false --allow-metrics=false

An edge then asks it with:

    presplit run {bundle} SAMPLES --server 127.0.0.1:8001
"""
OVMS = """In this folder, with the binary or with Docker, on this machine's own address only:

    ovms --config_path config.json --grpc_bind_address 127.0.0.1 --port 9000

    docker run --rm -p 127.0.0.1:9000:9000 -v "$PWD:/repository:ro" \\
        openvino/model_server:latest --config_path /repository/config.json --port 9000

An edge then asks it with:

    presplit run {bundle} SAMPLES --server 127.0.0.1:9000
"""
KSERVE = """`storageUri` names where the cluster finds what is in `models/`: copy it to the folder
`{name}` of a volume that is claimed as `presplit`, or to any store that KServe reads (`s3://`,
`gs://`), and write that there. Then:

    kubectl apply -f inference-service.yaml
    kubectl get inferenceservice {name}

It listens on port 9000 of its pod, by gRPC without TLS. From outside of the cluster:

    kubectl port-forward deployment/{name}-predictor 9000:9000
    presplit run {bundle} SAMPLES --server 127.0.0.1:9000
"""
STARTS = {"triton": TRITON, "ovms": OVMS, "kserve": KSERVE}
TITLES = {
    "triton": "Triton Inference Server",
    "ovms": "OpenVINO Model Server",
    "kserve": "KServe",
}


def readme(
    target: str, tails: Sequence[Tail], *, bundle: str, name: str, native: Sequence[str]
) -> str:
    """How to start the server, which models there are, and what it cannot do.

    ``native`` are codecs of the bundle that only our own server decodes.
    """
    rows = "\n".join(
        f"| `{tail.name}` | {tail.split} | {tail.codec} | {tail.form} | {tail.dtype} "
        f"{('batch', *tail.shape)} |".replace("'", "")
        for tail in tails
    )
    left_out = ""
    if native:
        left_out = (
            f"\nThe bundle's codecs {', '.join(native)} are decoded by `presplit serve` alone and "
            "are not here: an edge whose plan sends one of them is refused.\n"
        )
    return f"""# {name}, for {TITLES[target]}

{STARTS[target].format(bundle=bundle, name=name)}
None of this is encrypted, and nobody is asked who they are: let others reach it only behind a
proxy that does both.

| model | boundary | codec | form | input `boundary` |
|---|---|---|---|---|
{rows}

The output of each is `{tails[0].output}`, float32 (batch, {tails[0].classes}). Every file was
run in plain ONNX Runtime and gave what `presplit serve` gives.
{left_out}"""
