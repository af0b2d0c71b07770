"""What edge and server tell each other besides the protocol.

It is metadata at the end of a call, or a parameter of a reply. A status of gRPC is given by
servers, by proxies, and by gRPC itself on either side; these words are given by our server alone.
"""

from __future__ import annotations

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
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""With a request that was shed: milliseconds until there may be a place, gRPC's own word for it."""
