"""ModelInfer: a request's bytes in, the reply's bytes out, whatever brought them here."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from presplit.core.errors import InputError
from presplit.runtime.hosted import Array, Contract, Early, Hosted, UnknownModel
from presplit.runtime.wire import messages, templates
from presplit.runtime.wire.calls import Caller, Message
from presplit.runtime.wire.templates import VERSION, Usual
from presplit.runtime.wire.tensors import Sent, read

MAX_ID = 128
"""Characters of a request's id."""
MOST_USUAL = 256
"""So many beginnings of requests are known again."""


_Known = tuple[Usual, Contract, np.dtype[Any], tuple[int, ...]]
"""A good request, what it asked for, and the array that it held."""


class Inferring:
    """Answers requests by what is ``hosted``, each checked against its model's contract.

    A request that begins byte for byte like a good one before needs no second look: only its id and
    its values are new.
    """

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._usual: dict[bytes, _Known] = {}

    async def __call__(self, raw: bytes, caller: Caller) -> bytes:
        """The reply to the request in ``raw``.

        Raises `InputError` and `UnknownModel` for what is not of a contract, and whatever
        `presplit.runtime.hosted.Hosted.run` raises.
        """
        contract, request_id, array = self._known(raw) or self._read(raw)
        began = time.monotonic()
        future = self._hosted.run(contract.name, array, until=caller.until, client=caller.client)
        # What is over needs no turn of the loop.
        reply = future.result() if future.done() else await asyncio.wrap_future(future)
        server_s = time.monotonic() - began
        logits = reply.logits if isinstance(reply, Early) else reply
        told = templates.reply(contract.name, request_id, contract.output.name, logits, server_s)
        return told + templates.early(reply.exit, reply.why) if isinstance(reply, Early) else told

    def _known(self, raw: bytes) -> tuple[Contract, str, Array] | None:
        """What is asked by a request that begins like a good one; None if it has to be read."""
        name = raw[2 : 2 + raw[1]] if len(raw) > 1 else b""
        if name not in self._usual:
            return None
        usual, contract, dtype, shape = self._usual[name]
        parts = usual.parts(raw)
        # Another bundle may be behind the name by now.
        if parts is None or self._hosted.contract(contract.name) is not contract:
            return None
        request_id, at = parts
        return contract, request_id, np.frombuffer(raw, dtype, offset=at).reshape(shape)

    def _read(self, raw: bytes) -> tuple[Contract, str, Array]:
        """What is asked by the request in ``raw``."""
        try:
            request: Message = messages.ModelInferRequest.FromString(raw)
        except DecodeError as error:
            raise InputError("the request is not a ModelInferRequest") from error
        check_version(request.model_version)
        contract = self._hosted.contract(request.model_name)
        array = read(_only_input(request, contract), contract.input)
        if len(self._usual) < MOST_USUAL or contract.name.encode() in self._usual:
            usual = templates.usual_request(
                contract.name, contract.input.name, array.dtype, array.shape
            )
            self._usual[contract.name.encode()] = usual, contract, array.dtype, array.shape
        return contract, request.id, array


def _only_input(request: Message, contract: Contract) -> Sent:
    """The request's one tensor, not yet checked.

    Raises `InputError` if the request itself breaks the contract.
    """
    if len(request.id) > MAX_ID:
        raise InputError(f"id must have at most {MAX_ID} characters, got {len(request.id)}")
    if (
        len(request.inputs) != 1
        or len(request.raw_input_contents) != 1
        or request.inputs[0].HasField("contents")
    ):
        counts = f"{len(request.inputs)} and {len(request.raw_input_contents)}"
        raise InputError(
            f"expected one input and its values in raw_input_contents alone, got {counts}"
        )
    for output in request.outputs:
        if output.name != contract.output.name:
            raise InputError(
                f"the only output is {contract.output.name!r}, got {output.name[:64]!r}"
            )
    tensor = request.inputs[0]
    return Sent(tensor.name, tensor.datatype, tuple(tensor.shape), request.raw_input_contents[0])


def check_version(version: str) -> None:
    """Raise `UnknownModel` for a version that no model here has."""
    if version not in ("", VERSION):
        raise UnknownModel(f"every model here has version {VERSION}, got {version[:16]!r}")
