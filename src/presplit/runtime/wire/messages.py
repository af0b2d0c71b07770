"""The messages of the Open Inference Protocol, in a descriptor pool of our own.

A process has one default pool, and another client of the protocol (Triton's, KServe's) registers
the same names there; so nothing is registered in it here. Names and numbers of the fields are those
of the public specification (KServe v2, ``inference_grpc.md``), so that any of its servers and
clients can be met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as DecodeError

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

TABLE: dict[str, dict[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "1 bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "1 bool"},
    "ModelReadyRequest": {"name": "1 string", "version": "2 string"},
    "ModelReadyResponse": {"ready": "1 bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {
        "name": "1 string",
        "version": "2 string",
        "extensions": "3 string*",
    },
    "ModelMetadataRequest": {"name": "1 string", "version": "2 string"},
    "ModelMetadataResponse": {
        "name": "1 string",
        "versions": "2 string*",
        "platform": "3 string",
        "inputs": "4 ModelMetadataResponse.TensorMetadata*",
        "outputs": "5 ModelMetadataResponse.TensorMetadata*",
    },
    "ModelMetadataResponse.TensorMetadata": {
        "name": "1 string",
        "datatype": "2 string",
        "shape": "3 int64*",
    },
    "ModelInferRequest": {
        "model_name": "1 string",
        "model_version": "2 string",
        "id": "3 string",
        "parameters": "4 InferParameter{}",
        "inputs": "5 ModelInferRequest.InferInputTensor*",
        "outputs": "6 ModelInferRequest.InferRequestedOutputTensor*",
        "raw_input_contents": "7 bytes*",
    },
    "ModelInferRequest.InferInputTensor": {
        "name": "1 string",
        "datatype": "2 string",
        "shape": "3 int64*",
        "parameters": "4 InferParameter{}",
        "contents": "5 InferTensorContents",
    },
    "ModelInferRequest.InferRequestedOutputTensor": {
        "name": "1 string",
        "parameters": "2 InferParameter{}",
    },
    "ModelInferResponse": {
        "model_name": "1 string",
        "model_version": "2 string",
        "id": "3 string",
        "parameters": "4 InferParameter{}",
        "outputs": "5 ModelInferResponse.InferOutputTensor*",
        "raw_output_contents": "6 bytes*",
    },
    "ModelInferResponse.InferOutputTensor": {
        "name": "1 string",
        "datatype": "2 string",
        "shape": "3 int64*",
        "parameters": "4 InferParameter{}",
        "contents": "5 InferTensorContents",
    },
    "InferParameter": {
        "bool_param": "1 bool|parameter_choice",
        "int64_param": "2 int64|parameter_choice",
        "string_param": "3 string|parameter_choice",
        "double_param": "4 double|parameter_choice",
        "uint64_param": "5 uint64|parameter_choice",
    },
    "ModelConfigRequest": {"name": "1 string", "version": "2 string"},
    "ModelConfigResponse": {"config": "1 ModelConfig"},
    "ModelConfig": {
        "name": "1 string",
        "platform": "2 string",
        "max_batch_size": "4 int32",
        "input": "5 ModelInput*",
        "output": "6 ModelOutput*",
        "backend": "17 string",
    },
    "ModelInput": {"name": "1 string", "data_type": "2 DataType=", "dims": "4 int64*"},
    "ModelOutput": {"name": "1 string", "data_type": "2 DataType=", "dims": "3 int64*"},
    "RepositoryIndexRequest": {"repository_name": "1 string", "ready": "2 bool"},
    "RepositoryIndexResponse": {"models": "1 RepositoryIndexResponse.ModelIndex*"},
    "RepositoryIndexResponse.ModelIndex": {
        "name": "1 string",
        "version": "2 string",
        "state": "3 string",
        "reason": "4 string",
    },
    "InferTensorContents": {
        "bool_contents": "1 bool*",
        "int_contents": "2 int32*",
        "int64_contents": "3 int64*",
        "uint_contents": "4 uint32*",
        "uint64_contents": "5 uint64*",
        "fp32_contents": "6 float*",
        "fp64_contents": "7 double*",
        "bytes_contents": "8 bytes*",
    },
}
"""Every message: its fields with number and type.

``*`` is repeated, ``{}`` a map from strings, ``|`` the choice that a field belongs to, ``=`` one of
`ENUMS`. Of Triton's ``model_config.proto`` there is what its clients read.
"""
ENUMS: dict[str, tuple[str, ...]] = {
    "DataType": (
        *("TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64"),
        *("TYPE_INT8", "TYPE_INT16", "TYPE_INT32", "TYPE_INT64"),
        *("TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16"),
    )
}
"""The names of numbers, from 0 on."""
HEALTH_PACKAGE = "grpc.health.v1"
HEALTH_SERVICE = f"{HEALTH_PACKAGE}.Health"
HEALTH: dict[str, dict[str, str]] = {
    "HealthCheckRequest": {"service": "1 string"},
    "HealthCheckResponse": {"status": "1 ServingStatus="},
}
"""The messages of gRPC's own health service."""
HEALTH_ENUMS = {"ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")}

# The protobuf library writes its own types' numbers in a namespace that ships no types.
_Field: Any = descriptor_pb2.FieldDescriptorProto


def path(call: str) -> str:
    """How gRPC names a call of the protocol.

    >>> path("ModelInfer")
    '/inference.GRPCInferenceService/ModelInfer'
    """
    return f"/{SERVICE}/{call}"


def file_of(
    table: Mapping[str, Mapping[str, str]],
    enums: Mapping[str, tuple[str, ...]] = ENUMS,
    *,
    name: str = "open_inference.proto",
    package: str = PACKAGE,
) -> Any:
    """A protocol's file as protobuf describes files: ``table`` in its words.

    Messages inside others follow those that hold them.
    """
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for enum, values in enums.items():
        added = file.enum_type.add(name=enum)
        for number, value in enumerate(values):
            added.value.add(name=value, number=number)
    made: dict[str, Any] = {}
    for full_name, fields in table.items():
        outer, _, name = full_name.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        message.name = name
        made[full_name] = message
        for field_name, text in fields.items():
            _add_field(message, f"{package}.{full_name}", field_name, text, package)
    return file


def _add_field(message: Any, full_name: str, name: str, text: str, package: str) -> None:
    """Add the field ``name`` to ``message``: ``text`` is as in `TABLE`."""
    number, kind = text.split(" ")
    kind, _, choice = kind.partition("|")
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.endswith("{}"):
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "", "key", "1 string", package)
        _add_field(entry, "", "value", f"2 {kind.removesuffix('{}')}", package)
        kind = f"{full_name.removeprefix(package + '.')}.{entry.name}*"
    if kind.endswith("*"):
        field.label, kind = _Field.LABEL_REPEATED, kind.removesuffix("*")
    if choice:
        if not message.oneof_decl:
            message.oneof_decl.add(name=choice)
        field.oneof_index = 0
    if kind.endswith("="):
        field.type, field.type_name = _Field.TYPE_ENUM, f".{package}.{kind.removesuffix('=')}"
    elif kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


_pool: Any = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(file_of(TABLE).SerializeToString())
_pool.AddSerializedFile(
    file_of(HEALTH, HEALTH_ENUMS, name="health.proto", package=HEALTH_PACKAGE).SerializeToString()
)


def _message(name: str, package: str = PACKAGE) -> Any:
    """The class of a message; its fields are known to protobuf alone, so it has no type here."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{package}.{name}"))


ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
InferParameter = _message("InferParameter")
InferTensorContents = _message("InferTensorContents")
ModelConfigRequest = _message("ModelConfigRequest")
ModelConfigResponse = _message("ModelConfigResponse")
ModelConfig = _message("ModelConfig")
ModelInput = _message("ModelInput")
ModelOutput = _message("ModelOutput")
RepositoryIndexRequest = _message("RepositoryIndexRequest")
RepositoryIndexResponse = _message("RepositoryIndexResponse")
HealthCheckRequest = _message("HealthCheckRequest", HEALTH_PACKAGE)
HealthCheckResponse = _message("HealthCheckResponse", HEALTH_PACKAGE)
