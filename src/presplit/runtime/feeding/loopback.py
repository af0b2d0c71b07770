"""Samples over HTTP, from programs on this very machine: POST an image, get the answer as JSON.

It listens on 127.0.0.1 only and has no encryption and no passwords: whoever may run programs here
may ask, and no page of the web that a browser here shows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from presplit.runtime.beside import in_thread
from presplit.runtime.http import Http, Refused, Request, Response
from presplit.runtime.page import HERE, OnThread

MOST_BODY_BYTES = 2**26
MOST_S = 30.0
"""What is being answered when the end comes has so long."""

Ask = Callable[[bytes, str | None], tuple[int, Mapping[str, object]]]
"""The status and the answer for a body, and for the id that the request has, if any."""


class Loopback:
    """An HTTP server on ``port`` of this machine, 0 for any free one, until `close`.

    ``ask`` is called on a thread for each request. Raises `ServerError` if the port is taken.
    """

    def __init__(self, port: int, ask: Ask) -> None:
        self._ask, self._ended = ask, threading.Event()
        self._server = OnThread(Http(self._answer, most_bytes=MOST_BODY_BYTES), port)
        self.address = f"http://{HERE}:{self._server.port}"

    def run(self) -> None:
        """Answer until another thread calls `close`, or an exception such as Ctrl-C ends it."""
        self._ended.wait()

    def close(self) -> None:
        """Take no more requests; those that are being answered are answered."""
        self._server.close(MOST_S)
        self._ended.set()

    async def _answer(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            told = {"ready": True, "post": "an image, a .wav or a .npy file of one sample"}
            return _said(200, told)
        if request.method != "POST":
            raise Refused(405, f"expected POST, got {request.method[:20]}")
        if request.headers.get("content-type", "").startswith("multipart/"):
            problem = "expected the file itself as the body, as curl --data-binary @x.jpg sends it"
            raise Refused(415, problem)
        named = parse_qs(request.query).get("id", [None])[0]
        id_ = request.headers.get("x-sample-id") or named
        return _said(*await in_thread(lambda: self._ask(request.body, id_)))


def _said(status: int, answer: Mapping[str, object]) -> Response:
    return Response(status, json.dumps(answer).encode() + b"\n")
