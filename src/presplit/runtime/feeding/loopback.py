"""Samples over HTTP, from programs on this very machine: POST an image, get the answer as JSON.

It listens on 127.0.0.1 only and has no encryption and no passwords: whoever may run programs here
may ask, and no page of the web that a browser here shows. Every connection carries one request and
is closed after `MOST_S`, whatever it has sent.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from presplit.core.errors import ServerError
from presplit.runtime.address import is_here

HERE = "127.0.0.1"
MOST_BODY_BYTES = 2**26
MOST_S = 30.0
"""A connection is closed after so long."""
MOST_CONNECTIONS = 32
BUSY = (
    b"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json\r\n\r\n"
    b'{"error": "too many connections at once; try again in a second"}\n'
)

Ask = Callable[[bytes, str | None], tuple[int, Mapping[str, object]]]
"""The status and the answer for a body, and for the id that the request has, if any."""


class Loopback:
    """An HTTP server on ``port`` of this machine, 0 for any free one, until `close`.

    ``ask`` is called on a thread for each request. Raises `ServerError` if the port is taken.
    """

    def __init__(self, port: int, ask: Ask) -> None:
        try:
            self._server = _Server((HERE, port), ask)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ServerError(
                f"--http {port}: cannot listen on {HERE}:{port} ({reason}); 0 takes any free port"
            ) from error
        self.address = f"http://{HERE}:{self._server.server_address[1]}"

    def run(self) -> None:
        """Answer until another thread calls `close`, or an exception such as Ctrl-C ends it."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Take no more requests; those that are being answered are answered."""
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # what is being answered is answered, for `MOST_S` at most
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], ask: Ask) -> None:
        self.ask = ask
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self._send_away(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        closing = threading.Timer(MOST_S, _shut, (request,))
        closing.daemon = True
        closing.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            closing.cancel()
            self._room.release()

    def _send_away(self, request: socket.socket) -> None:
        """Tell one too many so, without waiting for whoever should read it."""
        try:
            request.setblocking(False)
            request.send(BUSY)
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "presplit", ""
    protocol_version = "HTTP/1.1"  # of which curl's Expect: 100-continue is; still one request each
    timeout = MOST_S

    def handle_expect_100(self) -> bool:
        """Refuse a body before it is sent."""
        problem = self._refused()
        if problem is None:
            return super().handle_expect_100()
        self._say(*problem)
        return False

    def do_GET(self) -> None:
        """Say what can be asked."""
        self._say(200, {"ready": True, "post": "an image, a .wav or a .npy file of one sample"})

    def do_POST(self) -> None:
        """Answer the body."""
        problem = self._refused()
        if problem is not None:
            self._say(*problem)
            return
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # it went away, or took too long
        query = parse_qs(urlsplit(self.path).query)
        id_ = self.headers.get("X-Sample-Id") or next(iter(query.get("id", [])), None)
        self._say(*cast("_Server", self.server).ask(body, id_))

    def _refused(self) -> tuple[int, Mapping[str, object]] | None:
        """The status and reason for a request that is not read."""
        host, origin = self.headers.get("Host") or HERE, self.headers.get("Origin")
        try:
            here = is_here(host, origin)
        except ValueError:
            return 400, {"error": "expected Host and Origin to be addresses"}
        if not here:
            came = f"to {host[:100]!r} from {(origin or 'a program')[:100]!r}"
            return 403, {"error": f"expected a request to {HERE} from this machine, got one {came}"}
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return 411, {"error": "expected a body with its Content-Length"}
        if self.headers.get("Content-Type", "").startswith("multipart/"):
            problem = "expected the file itself as the body, as curl --data-binary @x.jpg sends it"
            return 415, {"error": problem}
        if len(length) > 12 or int(length) > MOST_BODY_BYTES:
            return 413, {"error": f"expected at most {MOST_BODY_BYTES:,} bytes, got {length[:30]}"}
        return None

    def _say(self, status: int, answer: Mapping[str, object]) -> None:
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is wrong with a request that cannot be read at all, as JSON too."""
        self._say(code, {"error": message or explain or "a request that cannot be read"})

    def log_message(self, format: str, *args: Any) -> None:
        """Answers are told on standard output, by whoever serves."""


def _shut(request: socket.socket) -> None:
    """End a connection from another thread: whoever reads from it sees its end."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
