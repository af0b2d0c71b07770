"""What edge and server tell each other besides the protocol.

It is metadata at the end of a call, or a parameter of a reply. A status of gRPC is given by
servers, by proxies, and by gRPC itself on either side; these words are given by our server alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from presplit.core.errors import SpecError

Words = Iterable[tuple[str, str]]
"""Keys and values that go with a call."""

WHY_KEY = "presplit-why"
"""With a request that failed: what that means for an answer (`presplit.core.types.WHYS`).

With a reply of another exit than the net's own classifier: why that one answers.
"""
EXIT_KEY = "presplit-exit"
"""A parameter of a reply: the exit that gave it, if that is not the net's own classifier."""
SERVER_S_KEY = "presplit-server-s"
"""A parameter of a reply: the seconds from a request's arrival until it was answered."""
MOST_KEY = "presplit-most-bytes"
"""With ModelReady: the bytes of the largest request that the server takes."""
LANE_KEY = "presplit-lane"
"""With ModelReady: how a lane is opened by an edge on the same machine.

It is the port that the server listens on, the lane's name and a ticket.
"""
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""With a request that was shed: milliseconds until there may be a place, gRPC's own word for it."""


def pushed_back_s(milliseconds: str) -> float:
    """How long a server asks to be left alone, by `PUSHBACK_KEY`; 0 for what is no number of it.

    >>> pushed_back_s("20"), pushed_back_s("-1"), pushed_back_s("")
    (0.02, 0.0, 0.0)
    """
    usual = re.fullmatch(r"[0-9]{1,9}", milliseconds, re.ASCII)
    return int(milliseconds) / 1000 if usual else 0.0


def carried(words: Words) -> tuple[tuple[str, str], ...]:
    """``words`` of a caller's own, as gRPC takes them.

    Raises `SpecError` for what it does not carry, and for keys of gRPC's and of ours.

    >>> carried([("application", "digits")])
    (('application', 'digits'),)
    >>> carried([("Application", "digits")])
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: metadata: expected a key of a-z, 0-9, - and _ and a value of \
printable ASCII, got 'Application' = 'digits'
    """
    found = tuple(words)
    for key, value in found:
        usual = re.fullmatch(r"[a-z0-9_-]{1,64}", key) and re.fullmatch(r"[ -~]{0,1024}", value)
        if not usual or key.endswith("-bin"):
            raise SpecError(
                "metadata: expected a key of a-z, 0-9, - and _ and a value of printable ASCII, got "
                f"{key!r} = {value!r}"
            )
        if key.startswith(("grpc-", "presplit-")) or key == "authorization":
            raise SpecError(f"metadata: the key {key!r} is not the caller's own to set")
    return found
