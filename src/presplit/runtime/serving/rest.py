"""The Open Inference Protocol over HTTP, and ``/metrics``: for this machine alone.

Source: KServe v2's REST, with the extension for binary tensors that Triton's client speaks
(``Inference-Header-Content-Length``). Requests go the same way as those over gRPC: the same
contracts, checks, places and batches.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
from msgspec import Struct

from presplit.core.errors import InputError
from presplit.core.types import Floats
from presplit.runtime.hosted import (
    Contract,
    Early,
    Form,
    Hosted,
    Overloaded,
    Stopping,
    TooLate,
    UnknownModel,
)
from presplit.runtime.http import Refused, Request, Response
from presplit.runtime.wire.readiness import Readiness
from presplit.runtime.wire.tensors import Sent, datatype_of, read

JSON_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration")
STATUSES: dict[type[Exception], int] = {
    InputError: 400,
    UnknownModel: 404,
    Overloaded: 429,
    Stopping: 503,
    TooLate: 504,
}
"""How each refusal is told; all else is the server's own fault."""
BESIDE_BYTES = 256 * 1024
"""A body beyond that is read on a thread of its own, so that nobody else waits for it."""
MOST_ID = 128


class Input(Struct):
    """One tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class Output(Struct):
    """One tensor that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Infer(Struct):
    """The part of a request that is JSON."""

    inputs: list[Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Output] = []


@dataclass(frozen=True)
class Rest:
    """Answers requests in front of ``hosted``.

    ``admits`` gives who an ``Authorization`` header belongs to, or None for nobody; ``metrics``
    the text that Prometheus reads.
    """

    hosted: Hosted
    readiness: Readiness
    names: Callable[[], Iterable[str]]
    metrics: Callable[[], tuple[bytes, str]]
    refused: Callable[[], None]
    admits: Callable[[str | None], str | None]
    version: str

    async def __call__(self, request: Request) -> Response:
        """The response; raises `Refused`."""
        client = self.admits(request.headers.get("authorization"))
        if client is None:
            raise Refused(401, "not admitted")
        try:
            return await self._answer(request, client)
        except tuple(STATUSES) as error:
            raise self._refusal(error) from error

    async def _answer(self, request: Request, client: str) -> Response:
        """The response to who was admitted as ``client``."""
        asks = request.method in ("GET", "HEAD")
        match [unquote(part) for part in request.path.strip("/").split("/")]:
            case ["metrics"] if asks:
                text, kind = self.metrics()
                return Response(200, text, kind)
            case ["v2"] if asks:
                return _json(name="presplit", version=self.version, extensions=EXTENSIONS)
            case ["v2", "health", "live"] if asks:
                return _json(live=True)
            case ["v2", "health", "ready"] if asks:
                return self._is_ready()
            case ["v2", "repository", "index"] if request.method == "POST":
                return Response(200, json.dumps(self._index()).encode())
            case ["v2", "models", name, *more]:
                return await self._model(request, client, name, more)
            case _:
                raise Refused(404, "no such path; there are /v2, /v2/models/NAME and /metrics")

    async def _model(self, request: Request, client: str, name: str, more: list[str]) -> Response:
        """What is asked of the model ``name``."""
        if more[:1] == ["versions"]:
            if more[1:2] != ["1"]:
                raise UnknownModel(f"model {name[:128]!r} has version 1 alone")
            more = more[2:]
        contract = self.hosted.contract(name)
        match more, request.method:
            case [], "GET":
                return _metadata(contract)
            case ["config"], "GET":
                return _config(contract)
            case ["ready"], "GET":
                await asyncio.wrap_future(self.hosted.warm(name))
                return self._is_ready()
            case ["infer"], "POST":
                return await self._infer(request, client, contract)
            case _:
                raise Refused(404, "of a model there are ready, config and infer")

    async def _infer(self, request: Request, client: str, contract: Contract) -> Response:
        """The logits for a request."""
        if len(request.body) > BESIDE_BYTES:
            asked, array = await asyncio.to_thread(parsed, request, contract.input)
        else:
            asked, array = parsed(request, contract.input)
        for output in asked.outputs:
            if output.name != contract.output.name:
                raise InputError(
                    f"the only output is {contract.output.name!r}, got {output.name[:64]!r}"
                )
        until = _until(asked)
        reply = await asyncio.wrap_future(
            self.hosted.run(contract.name, array, until=until, client=client)
        )
        return _answered(asked, contract, reply)

    def _is_ready(self) -> Response:
        """Whether the server is."""
        ready = self.readiness.ready
        return Response(200 if ready else 503, json.dumps({"ready": ready}).encode())

    def _index(self) -> list[dict[str, str]]:
        """Every model."""
        state = "READY" if self.readiness.ready else "UNAVAILABLE"
        return [{"name": name, "version": "1", "state": state} for name in self.names()]

    def _refusal(self, error: Exception) -> Refused:
        """How ``error`` is told."""
        if isinstance(error, InputError | UnknownModel):
            self.refused()
        status = next(code for kind, code in STATUSES.items() if isinstance(error, kind))
        if isinstance(error, Overloaded):
            return Refused(status, str(error), ("retry-after", str(math.ceil(error.again_s))))
        return Refused(status, str(error))


def parsed(request: Request, form: Form) -> tuple[Infer, Any]:
    """The request's JSON and its one array, of ``form``; raises `InputError`."""
    split = len(request.body)
    if JSON_LENGTH in request.headers:
        said = request.headers[JSON_LENGTH]
        if not (said.isascii() and said.isdigit() and len(said) < 12) or int(said) > split:
            raise InputError(f"{JSON_LENGTH} must be in 0..{split}, got {said[:32]!r}")
        split = int(said)
    try:
        asked = msgspec.json.decode(request.body[:split], type=Infer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"the request is not the protocol's JSON: {why[:200]}") from error
    if len(asked.id) > MOST_ID:
        raise InputError(f"id must have at most {MOST_ID} characters, got {len(asked.id)}")
    if len(asked.inputs) != 1:
        raise InputError(f"expected one input, got {len(asked.inputs)}")
    [given] = asked.inputs
    raw = request.body[split:]
    size = given.parameters.get("binary_data_size")
    if given.data is None:
        if size != len(raw) or isinstance(size, bool):
            raise InputError(
                f"binary_data_size must be the {len(raw)} bytes after the JSON, got {size!r:.32}"
            )
    elif raw or size is not None:
        raise InputError("expected the values in data or after the JSON, got both")
    else:
        raw = _packed(given, form)
    return asked, read(Sent(given.name, given.datatype, tuple(given.shape), raw), form)


def _packed(given: Input, form: Form) -> bytes:
    """The numbers in ``given.data`` as they would travel; raises `InputError`."""
    if given.datatype != datatype_of(form.dtype):
        return b""  # which is refused for the datatype
    try:
        values = np.array(given.data)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{form.name!r}: data must be one array of numbers") from error
    dtype = np.dtype(form.dtype)
    wanted = "iu" if dtype.kind in "iu" else "iuf"
    if values.dtype.kind not in wanted:
        kind = "whole numbers" if wanted == "iu" else "numbers"
        raise InputError(f"{form.name!r}: data must be {kind}, got {values.dtype}")
    if dtype.kind in "iu" and values.size:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if values.min() < least or values.max() > most:
            raise InputError(f"{form.name!r}: data must be in {least}..{most}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return values.astype(dtype.newbyteorder("<")).tobytes()


def _until(asked: Infer) -> float | None:
    """When the reply is worthless, by the parameter ``timeout`` in microseconds."""
    told = asked.parameters.get("timeout")
    if told is None:
        return None
    if isinstance(told, bool) or not isinstance(told, int) or not 0 < told < 2**53:
        raise InputError(f"timeout must be a whole number of microseconds, got {told!r:.32}")
    return time.monotonic() + told / 1e6


def _answered(asked: Infer, contract: Contract, reply: Floats | Early) -> Response:
    """The response with the logits, as numbers or as bytes after the JSON."""
    logits = reply.logits if isinstance(reply, Early) else reply
    logits = np.ascontiguousarray(logits, "<f4")
    output: dict[str, Any] = {
        "name": contract.output.name,
        "datatype": datatype_of(contract.output.dtype),
        "shape": list(logits.shape),
    }
    binary = asked.parameters.get("binary_data_output", False)
    for wanted in asked.outputs:
        binary = wanted.parameters.get("binary_data", binary)
    if binary is True:
        output["parameters"] = {"binary_data_size": logits.nbytes}
    else:
        output["data"] = logits.ravel().tolist()
    said: dict[str, Any] = {
        "model_name": contract.name,
        "model_version": "1",
        "id": asked.id,
        "outputs": [output],
    }
    if isinstance(reply, Early):
        said["parameters"] = {"presplit-exit": reply.exit, "presplit-why": reply.why}
    text = json.dumps(said).encode()
    if binary is not True:
        return Response(200, text)
    length = (("inference-header-content-length", str(len(text))),)
    return Response(200, text + logits.tobytes(), "application/octet-stream", length)


def _metadata(contract: Contract) -> Response:
    """What a model takes and gives."""
    taken, given = (
        {
            "name": form.name,
            "datatype": datatype_of(form.dtype),
            "shape": [-1, -1] if form.varies else [-1, *form.shape],
        }
        for form in (contract.input, contract.output)
    )
    return _json(
        name=contract.name,
        versions=["1"],
        platform="onnxruntime_onnx",
        inputs=[taken],
        outputs=[given],
    )


def _config(contract: Contract) -> Response:
    """The same as Triton's clients want it."""
    taken, given = contract.input, contract.output
    return _json(
        name=contract.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        max_batch_size=0 if taken.varies else taken.max_batch,
        input=[_port(taken, [1, -1] if taken.varies else list(taken.shape))],
        output=[_port(given, [1, *given.shape] if taken.varies else list(given.shape))],
    )


def _port(form: Form, dims: list[int]) -> dict[str, Any]:
    """A tensor in Triton's words."""
    return {"name": form.name, "data_type": f"TYPE_{datatype_of(form.dtype)}", "dims": dims}


def _json(**fields: Any) -> Response:
    """A response that says ``fields``."""
    return Response(200, json.dumps(fields).encode())
