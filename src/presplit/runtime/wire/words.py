"""What edge and server tell each other besides the protocol.

It is metadata at the end of a call, or a parameter of a reply. A status of gRPC is given by
servers, by proxies, and by gRPC itself on either side; these words are given by our server alone.
"""

from __future__ import annotations

WHY_KEY = "presplit-why"
"""With a request that failed: what that means for an answer (`presplit.core.types.WHYS`)."""
SERVER_S_KEY = "presplit-server-s"
"""A parameter of a reply: the seconds from a request's arrival until it was answered."""
MOST_KEY = "presplit-most-bytes"
"""With ModelReady: the bytes of the largest request that the server takes."""
