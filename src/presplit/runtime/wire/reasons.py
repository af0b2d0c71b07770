"""Why a call over gRPC failed, in the words of an answer: by codes and by what our server says.

gRPC's own sentences are for people and change; nothing here reads them.
"""

from __future__ import annotations

from typing import Any

import grpc

from presplit.core.types import Why
from presplit.runtime.upstream import Failure
from presplit.runtime.wire.words import PUSHBACK_KEY, WHY_KEY, pushed_back_s

USUAL_MOST_BYTES = 4 * 2**20
"""The largest message that a server of gRPC takes unless it was told otherwise."""
STATUS_WHYS: dict[grpc.StatusCode, Why] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "late",
    grpc.StatusCode.UNAVAILABLE: "link_down",
    # What gRPC says where a server turns a call away before looking at it, because too many wait.
    grpc.StatusCode.CANCELLED: "overloaded",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.INVALID_ARGUMENT: "refused",
    grpc.StatusCode.NOT_FOUND: "refused",
    grpc.StatusCode.FAILED_PRECONDITION: "refused",
    grpc.StatusCode.OUT_OF_RANGE: "refused",
    grpc.StatusCode.UNIMPLEMENTED: "refused",
    grpc.StatusCode.PERMISSION_DENIED: "refused",
    grpc.StatusCode.UNAUTHENTICATED: "refused",
    grpc.StatusCode.INTERNAL: "failed",
    grpc.StatusCode.UNKNOWN: "failed",
    grpc.StatusCode.ABORTED: "failed",
}
"""What each status means for an answer where the server itself says no more.

A status that is not listed is not what a tail sends: ``bad_reply``.
"""


SAID: dict[str, Why] = {
    "late": "late",
    "overloaded": "overloaded",
    "refused": "refused",
    "failed": "failed",
}
"""What a server may say of a request that failed; nothing else is believed."""


def failure_of(call: Any, *, exhausted: Why) -> Failure:
    """What the end of a ``call`` that failed means.

    ``exhausted`` is what RESOURCE_EXHAUSTED means if the server says no more.
    """
    code = call.code()
    told = trailers(call)
    why = SAID.get(told.get(WHY_KEY, ""))
    if why is None and code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        why = exhausted
    if why is None:
        why = STATUS_WHYS.get(code)
    again_s = pushed_back_s(told.get(PUSHBACK_KEY, ""))
    return Failure(why or "bad_reply", f"{code.name}: {call.details() or ''}", again_s)


def exhausted(*, known: bool, sent_bytes: int) -> Why:
    """What RESOURCE_EXHAUSTED means where no server of ours says why.

    Such a server is ``known`` by its greeting and says why when it sheds a request, so it was the
    reply that was too large. Of others only a request beyond the usual limit is told apart.
    """
    if known:
        return "bad_reply"
    return "refused" if sent_bytes > USUAL_MOST_BYTES else "overloaded"


def trailers(call: Any) -> dict[str, str]:
    """What the server says at the end of ``call`` besides its status; binary values left out."""
    pairs = call.trailing_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}
