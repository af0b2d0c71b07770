"""Who comes in and what shows: every kind of caller against everything that a server answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from grpc.aio import _server as aio_server

from benchmarks._faults import ONE_THREAD, Row, Server, good_request, running
from benchmarks._faults_nets import INPUT, small_bundle
from presplit.bundle import Bundle
from presplit.core.errors import ServerError
from presplit.core.private import NewFiles
from presplit.runtime.authority import Authority, add_token
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire import messages
from presplit.runtime.wire.credentials import ClientCredentials, client_credentials, token_in
from presplit.runtime.wire.server import Listener

OLD = "old-Token_0123456789abcdef"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
SHUT = (401, 405, 501)
"""Statuses of HTTP for those who are refused; a connection that is closed on them is no answer."""
MANY = 70
"""More than the connections that REST has at once: each must have been given back."""
VALUE = 0.7318264
"""What a secret tensor is full of."""


def admitted(quick: bool) -> Iterator[Row]:
    """Callers by certificate, callers by token, REST, and where a server listens at all."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours, theirs = _keys(place / "ours"), _keys(place / "theirs")
        bundle = small_bundle(place / "b.bundle")
        methods = [*methods_of(bundle), "/none.Such/Call", "/grpc.channelz.v1.Channelz/GetServers"]
        yield from _by_certificate(bundle, ours, theirs, methods)
        yield from _by_token(bundle, ours, theirs, methods)
        yield _open_to_others(bundle, ours)


def methods_of(bundle: Bundle) -> list[str]:
    """Every call that a server answers, from what it tells gRPC."""
    found: list[str] = []
    adding = aio_server.Server.add_generic_rpc_handlers

    def told(server: Any, handlers: Any) -> None:
        found.extend(name for each in handlers for name in each._method_handlers)
        adding(server, handlers)

    aio_server.Server.add_generic_rpc_handlers = told
    hosted = hosting(bundle)
    try:
        asyncio.run(_listener(hosted))
    finally:
        aio_server.Server.add_generic_rpc_handlers = adding
        hosted.close()
    return found


async def _listener(hosted: Any) -> None:
    """One that is made, on a loop as gRPC needs it, and no more."""
    Listener(hosted, name="p", version="0")


def _keys(folder: Path) -> Path:
    with NewFiles(folder) as new:
        authority = Authority.found(new)
        authority.server(["127.0.0.1"])
        for name in ("cam", "gone"):
            authority.edge(name)
            add_token(new, name)
    with (folder / "tokens.txt").open("a") as file:
        file.write(f"old {OLD} {datetime.date(2020, 1, 1)}\n")
    return folder


def _status(address: str, found: ClientCredentials | None, method: str, raw: bytes) -> str:
    """What comes of a call."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if found is None:
        channel, words = grpc.insecure_channel(address, options=options), ()
    else:
        channel, words = grpc.secure_channel(address, found.channel, options=options), found.words
    with channel:
        try:
            channel.unary_unary(method)(raw, timeout=5, metadata=words)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


def _matrix(
    address: str,
    callers: dict[str, ClientCredentials | None],
    methods: list[str],
    bundle: Bundle,
) -> tuple[list[str], int]:
    """Which of ``callers`` come in anywhere or are told something, in how many calls."""
    request = good_request(bundle.manifest.model_name(1, "float32")).SerializeToString()
    through, tried = list[str](), 0
    for who, found in callers.items():
        for method in methods:
            raw = request if method.endswith("ModelInfer") else b""
            said = _status(address, found, method, raw)
            shut = said.startswith("UNAVAILABLE") or said in (
                "UNAUTHENTICATED: not admitted",
                "PERMISSION_DENIED: not admitted",
            )
            tried += 1
            if not shut:
                through.append(f"{who} {method.rpartition('/')[2]}: {said[:60]}")
    return through, tried


def _right(
    address: str, found: ClientCredentials, methods: list[str], bundle: Bundle
) -> tuple[bool, str]:
    """Whether who belongs comes in: the good request, and no method refuses to know him."""
    request = good_request(bundle.manifest.model_name(1, "float32")).SerializeToString()
    said = _status(address, found, messages.path("ModelInfer"), request)
    others = [_status(address, found, method, b"") for method in methods]
    kept = [each for each in others if "not admitted" in each or each.startswith("UNAVAIL")]
    return said == "OK" and not kept, said


def _by_certificate(bundle: Bundle, ours: Path, theirs: Path, methods: list[str]) -> Iterator[Row]:
    """Mutual TLS: a private authority and a list of names."""
    ca = ours / "ca.pem"
    with NewFiles(ours) as new:
        Authority.of(new).edge("expired", days=-1)
    (ours / "allowed.txt").write_text("cam\ngone\nexpired\n")

    def by(folder: Path, name: str) -> ClientCredentials:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        raw = cert.read_bytes(), key.read_bytes()
        made = grpc.ssl_channel_credentials(ca.read_bytes(), raw[1], raw[0])
        return ClientCredentials(made)

    words = [*_tls(ours), "--tls-ca", str(ca), "--allow", str(ours / "allowed.txt")]
    with running("presplit", "serve", str(bundle.path), *words, bundle=bundle) as server:
        was_in = _right(server.address, by(ours, "edge-gone"), methods, bundle)[0]
        (ours / "allowed.txt").write_text("cam\nexpired\n")
        callers = {
            "plaintext": None,
            "no certificate": client_credentials(ca=ca),
            "another authority": by(theirs, "edge-cam"),
            "a server's certificate": by(ours, "server"),
            "expired": by(ours, "edge-expired"),
            "revoked": by(ours, "edge-gone"),
        }
        through, tried = _matrix(server.address, callers, methods, bundle)
        ok, said = _right(server.address, by(ours, "edge-cam"), methods, bundle)
        yield Row(
            18,
            f"{', '.join(callers)} x {len(methods)} calls",
            f"came in: {'; '.join(through[:3]) or 'none'}",
            tried,
            not through,
        )
        yield Row(18, "by certificate the right one comes in", said, len(methods), ok and was_in)
        listens = _ports(server)
        yield Row(18, "one open port", f"{len(listens)}: {listens}", 1, len(listens) == 1)


def _tls(folder: Path) -> list[str]:
    return ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]


def _ports(server: Server) -> list[str]:
    """Where the process listens."""
    found = psutil.Process(server.process.pid).net_connections("inet")
    return sorted({str(each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN})


def _by_token(bundle: Bundle, ours: Path, theirs: Path, methods: list[str]) -> Iterator[Row]:
    """Tokens over TLS, and over REST on loopback."""
    ca = ours / "ca.pem"
    with psutil_port() as port:
        words = [*_tls(ours), "--tokens", str(ours / "tokens.txt"), "--http", str(port)]
    right = token_in(ours / "edge-cam.token")
    gone = token_in(ours / "edge-gone.token")
    listed = (ours / "tokens.txt").read_text().splitlines(keepends=True)
    with running("presplit", "serve", str(bundle.path), *words, bundle=bundle) as server:
        (ours / "tokens.txt").write_text("".join(x for x in listed if not x.startswith("gone")))
        tokens = {
            "no token": None,
            "a bad one": right[:-1] + ("A" if right[-1] != "A" else "B"),
            "another server's": token_in(theirs / "edge-cam.token"),
            "expired": OLD,
            "revoked": gone,
        }
        callers: dict[str, ClientCredentials | None] = {
            who: client_credentials(ca=ca, token=token) for who, token in tokens.items()
        }
        callers["plaintext"] = None
        through, tried = _matrix(server.address, callers, methods, bundle)
        known = client_credentials(ca=ca, token=right)
        ok, said = _right(server.address, known, methods, bundle)
        yield Row(
            18,
            f"{', '.join(callers)} x {len(methods)} calls",
            f"came in: {'; '.join(through[:3]) or 'none'}",
            tried,
            not through,
        )
        yield Row(18, "by token the right one comes in", said, len(methods), ok)
        yield from _by_rest(port, bundle, tokens, right)


@contextlib.contextmanager
def psutil_port() -> Iterator[int]:
    """A port that is free."""
    from presplit.lab.processes import free_port

    yield free_port()


def _by_rest(port: int, bundle: Bundle, tokens: dict[str, str | None], right: str) -> Iterator[Row]:
    """Every path and method over HTTP."""
    model = bundle.manifest.model_name(1, "float32")
    paths = ["/", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready", "/none"]
    paths += ["/v2/repository/index", f"/v2/models/{model}", f"/v2/models/{model}/versions/1/ready"]
    paths += [f"/v2/models/{model}/{word}" for word in ("ready", "config", "infer")]
    through, tried = list[str](), 0
    for who, token in tokens.items():
        for path in paths:
            for method in METHODS:
                status, said = _http(port, method, path, token)
                tried += 1
                told = status == 401 and method != "HEAD" and b"not admitted" not in said
                if status not in SHUT or told:
                    through.append(f"{who} {method} {path}: {status}")
    for method in (*METHODS, "CONNECT"):
        silent = sum(_http(port, method, "/v2", right)[0] == 0 for _ in range(MANY))
        tried += MANY
        if silent:
            through.append(f"{method} {MANY} times: {silent} without a reply")
    known = [_http(port, "GET", path, right)[0] for path in ("/metrics", "/v2/health/ready")]
    words = f"REST without a token that holds: {len(paths)} paths x {len(METHODS)} methods"
    words += f"; with one: {MANY} of each method are answered"
    yield Row(18, words, f"came in or unanswered: {through[:3] or 'none'}", tried, not through)
    yield Row(18, "REST with the right token", f"{known}", len(known), known == [200, 200])


def _http(port: int, method: str, path: str, token: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (ConnectionError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _open_to_others(bundle: Bundle, ours: Path) -> Row:
    """Starts beyond this machine that are refused: without TLS, without a gate."""
    started: list[str] = []
    tried = {"openly": [], "with TLS alone": _tls(ours)}
    for how, words in tried.items():
        for host in ("0.0.0.0", "::"):
            command = ["presplit", "serve", str(bundle.path), "--host", host, *words]
            try:
                with running(*command, bundle=bundle):
                    started.append(f"{how} on {host}")
            except ServerError:
                continue
    seen = f"started: {', '.join(started) or 'none'}"
    return Row(18, "beyond this machine openly, or with TLS alone", seen, 4, not started)


def leaks(quick: bool) -> Iterator[Row]:
    """A token, a key and a tensor's values, looked for wherever something is written."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours = _keys(place / "keys")
        bundle = small_bundle(place / "b.bundle")
        np.save(place / "x.npy", np.full((20, INPUT), VALUE, np.float32))
        right = token_in(ours / "edge-cam.token")
        wrong = "wrong-" + right[::-1]
        needles = _needles(ours, right, wrong)
        written = _written(place, ours, bundle, wrong)
        hits = [
            f"{what} in {where}"
            for where, raw in written.items()
            for what, needle in needles.items()
            if needle in raw
        ]
        control = [what for what, needle in needles.items() if needle in b"".join(needles.values())]
        assert len(control) == len(needles)
        seen = f"{'; '.join(hits) or 'none'} in {', '.join(written)}"
        n = len(needles) * len(written)
        yield Row(19, f"{', '.join(needles)}: where they show", seen, n, not hits)


def _needles(ours: Path, right: str, wrong: str) -> dict[str, bytes]:
    """What must not show, in each form that it might."""
    value = np.float32(VALUE)
    keys = {
        f"the key of {name}": (ours / f"{name}.key").read_bytes().splitlines()[1]
        for name in ("server", "edge-cam", "ca")
    }
    return {
        "a token": right.encode(),
        "a wrong token": wrong.encode(),
        **keys,
        "values": value.tobytes() * 2,
        "values in figures": f"{VALUE:.5f}".encode(),
        "values in base64": base64.b64encode(value.tobytes() * 6)[4:16],
        "values in hex": value.tobytes().hex().encode(),
    }


def _written(place: Path, ours: Path, bundle: Bundle, wrong: str) -> dict[str, bytes]:
    """Whatever a server and edges write and show while good and bad calls come."""
    ca, model = ours / "ca.pem", bundle.manifest.model_name(1, "float32")
    from presplit.lab.processes import free_port

    port = free_port()
    words = [*_tls(ours), "--tokens", str(ours / "tokens.txt"), "--http", str(port)]
    replies: list[str] = []
    with running(
        "presplit", "serve", str(bundle.path), *words, "--log", "json", bundle=bundle
    ) as server:
        run = [sys.executable, "-m", "presplit", "run", str(bundle.path), str(place / "x.npy")]
        run += ["--server", f"grpcs://{server.address}", "--tls-ca", str(ca), "--split", "1"]
        run += ["--rate", "20"]
        environment = {**os.environ, **ONE_THREAD}
        good = subprocess.Popen(
            [*run, "--token-file", str(ours / "edge-cam.token")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        time.sleep(0.3)
        shown = _command_lines(server.process.pid, good.pid)
        out = good.communicate(timeout=60)[0]
        bad = subprocess.run(
            run, capture_output=True, env={**environment, "PRESPLIT_TOKEN": wrong}, timeout=60
        )
        known = client_credentials(ca=ca, token=token_in(ours / "edge-cam.token"))
        for raw in _malformed(model):
            replies.append(_status(server.address, known, messages.path("ModelInfer"), raw))
        stranger = client_credentials(ca=ca, token=wrong)
        replies.append(_status(server.address, stranger, messages.path("ModelInfer"), b"x"))
        metrics = _http(port, "GET", "/metrics", token_in(ours / "edge-cam.token"))[1]
        replies.append(str(_http(port, "GET", "/metrics", wrong)))
        server.process.terminate()
        server.process.wait(20)
        log = server.log().encode()
    scores = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    assert any(each["why"] == "server" for each in scores), out[-300:]
    return {
        "command lines": shown,
        "the server's log": log,
        "an edge's output": out,
        "a refused edge's output": bad.stdout + bad.stderr,
        "metrics": metrics,
        "errors": "\n".join(replies).encode(),
        "the bundle": b"".join(file.read_bytes() for file in bundle.path.iterdir()),
        "tokens.txt": (ours / "tokens.txt").read_bytes(),
    }


def _malformed(model: str) -> Iterator[bytes]:
    """Requests full of the secret values that are refused, each for another reason."""
    values = np.full((1, 48), VALUE, np.float32)
    changes: list[Callable[[Any], Any]] = [
        lambda r: setattr(r, "model_name", f"{VALUE}"[:3]),
        lambda r: r.inputs[0].shape.append(3),
        lambda r: setattr(r.inputs[0], "datatype", "FP64"),
        lambda r: r.raw_input_contents.append(values.tobytes()),
        lambda r: r.raw_input_contents.__setitem__(0, values.tobytes()[:-4]),
        lambda r: r.raw_input_contents.__setitem__(0, values.tobytes()[:-4] + b"\0\0\xc0\x7f"),
    ]
    for change in changes:
        request = good_request(model)
        request.raw_input_contents[0] = values.tobytes()
        change(request)
        yield request.SerializeToString()
    yield values.tobytes()


def _command_lines(*pids: int) -> bytes:
    """What everybody on the machine sees of the processes."""
    found = b""
    for pid in pids:
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/cmdline").read_bytes()
    assert found
    return found
