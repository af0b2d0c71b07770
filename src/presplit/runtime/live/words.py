"""Why an answer was given, in words: what pages and terminals say for each of `WHYS`."""

from __future__ import annotations

from collections.abc import Mapping

EDGE: Mapping[str, str] = {
    "confident": "an exit was sure",
    "planned": "the edge, as planned",
    "server": "the server",
    "late": "no reply by the deadline",
    "no_time": "too little time to ask",
    "link_down": "no connection",
    "overloaded": "the server had no room",
    "refused": "the server does not take it",
    "bad_reply": "the reply was not usable",
    "failed": "an engine failed",
}
"""Of an edge's answers."""
SERVER: Mapping[str, str] = {
    **EDGE,
    "server": "answered in full",
    "late": "its time was over",
    "link_down": "whoever asked has gone",
    "overloaded": "no room: sent away",
}
"""Of what became of a server's requests."""
