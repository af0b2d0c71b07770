"""From a file to an ONNX model: what is no model, or lacks a part, is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, external_data_helper, helper

from presplit.core.errors import GraphError
from presplit.graph.walk import every, graphs

_onnx: Any = onnx  # some of its signatures name a bare PathLike, which strict typing does not know

Source = str | Path | bytes | ModelProto


def parse(source: Source) -> tuple[ModelProto, str]:
    """The model (a copy), with weights that lie outside its file, and how to call it in messages.

    Raises `GraphError` if there is none, or if such a weight is missing.
    """
    if isinstance(source, ModelProto):
        model, where = ModelProto(), "model"
        model.CopyFrom(source)
    elif isinstance(source, bytes):
        model, where = _decoded(source, "model"), "model"
    else:
        model, where = _decoded(_contents(Path(source)), str(source)), str(source)
    outside = [
        tensor for tensor in _tensors(model) if external_data_helper.uses_external_data(tensor)
    ]
    if outside and not isinstance(source, str | Path):
        raise GraphError(
            f"{where}: its weights lie in the file {_location(outside[0])!r} beside it; give the "
            "path of the model's file instead"
        )
    if outside and isinstance(source, str | Path):
        _load_outside(outside, Path(source))
    return model, where


def in_one_piece(joined: bytes) -> bytes:
    """A model whose message was joined from several, as one message that ONNX itself has checked.

    The joined bytes are legal, but not every reader of ONNX files merges them as protobuf does.
    Raises `GraphError` for what is no model by ONNX's own checker.
    """
    model = _decoded(joined, "model")
    try:
        _onnx.checker.check_model(model)
    except _onnx.checker.ValidationError as error:
        first = str(error).splitlines()[0]
        raise GraphError(f"ONNX's own checker refuses the model: {first}") from error
    return model.SerializeToString(deterministic=True)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise GraphError(f"{path}: not an ONNX file, but a folder") from error
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror})") from error


def _decoded(raw: bytes, where: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(raw)
    except (DecodeError, ValueError) as error:
        raise GraphError(f"{where}: not an ONNX file") from error
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of ``model`` that may lie outside its file."""
    nodes = [*every(model.graph.node)]
    for function in model.functions:
        nodes += every(function.node)
    for graph in graphs(model.graph):
        yield from graph.initializer
    for node in nodes:
        for each in node.attribute:
            if each.HasField("t"):
                yield each.t
            yield from each.tensors


def _location(tensor: TensorProto) -> str:
    return next((each.value for each in tensor.external_data if each.key == "location"), "")


def _load_outside(tensors: Iterable[TensorProto], path: Path) -> None:
    """Give ``tensors`` their values from the files beside ``path``."""
    folder = path.parent.resolve()
    for tensor in tensors:
        location = _location(tensor)
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise GraphError(
                f"{path}: weight {tensor.name!r} lies in {location!r}, outside the model's folder; "
                "only files in that folder are read"
            )
        if not file.is_file():
            raise GraphError(
                f"{path}: weight {tensor.name!r} lies in the file {location!r} beside it, which is "
                "missing; copy it there too"
            )
        _load(tensor, file, path)


def _load(tensor: TensorProto, file: Path, path: Path) -> None:
    place = {each.key: each.value for each in tensor.external_data}
    try:
        offset = int(place.get("offset", 0))
        length = int(place.get("length", -1))
        with file.open("rb") as opened:
            opened.seek(offset)
            raw = opened.read(length)
        expected = _bytes_of(tensor)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(
            f"{path}: weight {tensor.name!r} cannot be read from {file.name!r} ({error})"
        ) from error
    if len(raw) < expected:
        raise GraphError(
            f"{path}: {file.name!r} ends within weight {tensor.name!r}: expected {expected} bytes "
            f"from {offset} on, got {len(raw)}; copy it again"
        )
    tensor.raw_data = raw[:expected]
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _bytes_of(tensor: TensorProto) -> int:
    """Bytes that the values of ``tensor`` take; two values of 4 bits share one."""
    count = 1
    for size in tensor.dims:
        count *= size
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return (count + 1) // 2
    return count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
