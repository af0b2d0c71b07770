"""A request as the protocol's message, and its reply, of which nothing is believed unchecked."""

from __future__ import annotations

import functools
import math
import struct
import time
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from presplit.core.errors import InputError
from presplit.core.types import Floats
from presplit.runtime.hosted import Early, Form, Reply
from presplit.runtime.upstream import Failure, Request, check_early
from presplit.runtime.wire import messages, templates
from presplit.runtime.wire.tensors import Sent, read
from presplit.runtime.wire.words import EXIT_KEY, SERVER_S_KEY, WHY_KEY

REPLY_ROOM_BYTES = 64 * 1024
"""What a reply may hold besides its logits; more than any honest server sends."""


def packed(request: Request, request_id: str) -> bytes:
    """``request`` as the protocol's message, called ``request_id``."""
    return templates.request(request.model, request_id, "boundary", request.codes)


class Expected:
    """The reply to ``request``, which goes out now as ``request_id``.

    ``server_s`` is what the server says it took, once a reply was read that says so.
    """

    def __init__(self, request: Request, request_id: str) -> None:
        self._request, self._id = request, request_id
        self._began = time.monotonic()
        self.server_s: float | None = None

    def prepare(self) -> None:
        """Do before the reply is there what can be done: then nobody waits for it."""
        self._logits = _logits(self._request.classes)
        self._usual = templates.usual_reply(self._request.model, self._logits)

    def read(self, raw: bytes) -> Reply | Failure:
        """The logits in ``raw``, or why it cannot be used; after `prepare`."""
        waited_s = time.monotonic() - self._began
        try:
            return self._read(raw, waited_s)
        except (DecodeError, InputError) as error:
            return Failure("bad_reply", str(error))

    def _read(self, raw: bytes, waited_s: float) -> Reply:
        """The logits in a reply that was there after ``waited_s`` seconds, at most.

        Raises `InputError` unless it is the reply to this request, of this model and form.
        """
        most = self._logits.nbytes + REPLY_ROOM_BYTES
        if len(raw) > most:
            raise InputError(f"expected a reply of at most {most} bytes, got {len(raw)}")
        parts = self._usual.parts(raw)
        if parts is not None and parts[0] == self._id:
            return self._values(raw, parts[1], waited_s)
        reply = messages.ModelInferResponse.FromString(raw)
        if reply.id != self._id:
            raise InputError(f"expected request id {self._id!r}, got {reply.id[:64]!r}")
        if reply.model_name != self._request.model:
            got = reply.model_name[:64]
            raise InputError(f"expected model {self._request.model!r}, got {got!r}")
        if reply.model_version not in ("", templates.VERSION):
            got = reply.model_version[:64]
            raise InputError(f"expected model version {templates.VERSION!r}, got {got!r}")
        if len(reply.outputs) != 1 or len(reply.raw_output_contents) != 1:
            counts = f"{len(reply.outputs)} and {len(reply.raw_output_contents)}"
            raise InputError(f"expected one output with raw contents, got {counts}")
        output = reply.outputs[0]
        tensor = Sent(
            output.name, output.datatype, tuple(output.shape), reply.raw_output_contents[0]
        )
        logits = read(tensor, self._logits)
        self._logits.check(logits)
        if SERVER_S_KEY in reply.parameters:
            said = reply.parameters[SERVER_S_KEY]
            if said.HasField("double_param"):
                self._believe(said.double_param, waited_s)
        return self._whose(logits.astype(np.float32, copy=False), reply.parameters)

    def _values(self, raw: bytes, at: int, waited_s: float) -> Floats:
        """The logits in a usual reply, values from ``at`` on; raises as `_read`."""
        logits = np.frombuffer(raw, "<f4", offset=at)
        # As doubles no sum of finite numbers leaves their range.
        if not math.isfinite(np.add.reduce(logits, dtype=np.float64)):
            raise InputError(f"{self._logits.name!r} must be finite, got NaN or infinity")
        (said_s,) = struct.unpack_from("<d", raw, len(self._usual.start))
        self._believe(said_s, waited_s)
        return logits.reshape(1, -1)

    def _believe(self, said_s: float, waited_s: float) -> None:
        """Keep what the server says it took of ``waited_s``, unless that cannot be."""
        # A number that is none compares as false.
        if 0 <= said_s <= waited_s:
            self.server_s = said_s

    def _whose(self, logits: Floats, told: Any) -> Reply:
        """The logits with the exit that gave them; raises `InputError` for one that cannot."""
        if EXIT_KEY not in told:
            return logits
        why: Any = told[WHY_KEY].string_param if WHY_KEY in told else ""
        early = Early(logits, told[EXIT_KEY].string_param, why)
        check_early(early, self._request.exits)
        return early


@functools.lru_cache(64)
def _logits(classes: int) -> Form:
    """What a reply must hold."""
    return Form("logits", "float32", (classes,))
