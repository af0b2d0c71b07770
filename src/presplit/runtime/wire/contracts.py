"""What a server says its models take and give, before anything is sent to them.

Two bundles may share a name and not their form, and only some servers look at what they are sent.
So the edge asks once when it greets. A server that has no such call, or says nothing that can be
read, is believed to fit: each reply is checked on its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from presplit.runtime.upstream import Request
from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import datatype_of
from presplit.runtime.wire.words import Words

WITHIN_S = 10.0
"""How long a server may take to say it; nobody waits for it."""
MOST_BYTES = 64 * 1024
"""What is longer is not read; a model has one input and one output."""


class Contracts:
    """What the server behind ``channel`` says of its models; ``words`` go with each question."""

    def __init__(self, channel: grpc.Channel, words: Words) -> None:
        self._call: Any = channel.unary_unary(messages.path("ModelMetadata"))
        self._words = words
        self._asked = dict[str, Any]()
        self._told = dict[str, Any]()

    def greeted(self, name: str, greeting: Any) -> None:
        """Ask for the contract of the model ``name`` once its ``greeting`` is over, and well."""
        if greeting.cancelled() or greeting.code() is not grpc.StatusCode.OK:
            return
        request = messages.ModelMetadataRequest(name=name).SerializeToString()
        try:
            call = self._call.future(request, timeout=WITHIN_S, metadata=self._words)
        except ValueError:  # how grpc says that the channel is closed
            return
        # It is kept because gRPC cancels a call that nobody holds.
        self._asked[name] = call
        call.add_done_callback(functools.partial(self._answered, name))

    def unlike(self, request: Request) -> str | None:
        """How ``request`` differs from what the server's model takes and gives; None if it fits.

        Once one fits, no other of that model is compared until the server is greeted again.
        """
        told = self._told.get(request.model) if self._told else None
        if told is None:
            return None
        found = _unlike(request, told)
        if found is None:
            self._told.pop(request.model, None)
        return found

    def _answered(self, name: str, call: Any) -> None:
        """Keep what the server says of the model ``name``."""
        told = None
        if not call.cancelled() and call.code() is grpc.StatusCode.OK:
            told = _read(call.result())
        if told is None:
            self._told.pop(name, None)
        else:
            self._told[name] = told


def _unlike(request: Request, told: Any) -> str | None:
    """How ``request`` differs from what was ``told``."""
    taken = "boundary", datatype_of(request.codes.dtype), request.codes.shape
    given = "logits", "FP32", (1, request.classes)
    found = _named(request.model, told.name)
    found = found or _differs("takes", taken, told.inputs)
    found = found or _differs("gives", given, told.outputs)
    return None if found is None else f"{found}; serve the bundle that the edge has"


def _read(raw: bytes) -> Any:
    """The message in ``raw``; None if it is none that can be used."""
    if len(raw) > MOST_BYTES:
        return None
    try:
        return messages.ModelMetadataResponse.FromString(raw)
    except DecodeError:
        return None


def _named(expected: str, got: str) -> str | None:
    """How the model's name differs."""
    return None if got in ("", expected) else f"expected the model {expected!r}, got {got[:64]!r}"


def _differs(
    does: str, expected: tuple[str, str, tuple[int, ...]], tensors: Iterable[Any]
) -> str | None:
    """How the tensor that is ``expected`` differs from its namesake among what is told.

    Who tells of none at all is believed to fit.
    """
    name, datatype, shape = expected
    told = {tensor.name: tensor for tensor in tensors}
    if not told:
        return None
    if name not in told:
        names = ", ".join(sorted(told))
        return f"expected a model that {does} {name!r}, got one that {does} {names[:64]!r}"
    got = told[name]
    if got.datatype == datatype and _fits(shape, got.shape):
        return None
    said = f"{got.datatype[:16]} {list(got.shape)[:8]}"
    return f"expected a model that {does} {name!r} as {datatype} {list(shape)}, got {said}"


def _fits(shape: Sequence[int], told: Sequence[int]) -> bool:
    """Whether an array of ``shape`` may be sent where ``told`` is taken; -1 is any size.

    >>> _fits((1, 12), (-1, 12)), _fits((1, 12), (-1, 8)), _fits((1, 12), (12,))
    (True, False, False)
    """
    if len(shape) != len(told):
        return False
    return all(one in (-1, size) for size, one in zip(shape, told, strict=True))
