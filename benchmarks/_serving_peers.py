"""Servers that do the same: take an array of bytes, give ten zeros. Run as ``FILE KIND``.

It prints the port once it listens, and runs until it is killed. It imports nothing of this project
but for the kind ``presplit``, so that it runs in a Python that has only the peer's library.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 64
"""Bytes in a row of the array."""
REPLY = np.zeros(10, np.float32)
RAY_FAST = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""Ray Serve's fast mode: what its guide to performance names, and its ingress by HAProxy."""


def answer(body: bytes) -> bytes:
    """What every server here does."""
    np.frombuffer(body, np.int8)
    return REPLY.tobytes()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def say_when_open(port: int) -> None:
    """Print the port when somebody listens there."""

    def wait() -> None:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
                continue
            print(port, flush=True)
            return

    threading.Thread(target=wait, daemon=True).start()


async def grpc_echo() -> None:
    """A bare unary call of grpc.aio that gives back what it got, and one that gives ten zeros."""
    import grpc

    async def echo(raw: bytes, context: Any) -> bytes:
        return raw

    async def zeros(raw: bytes, context: Any) -> bytes:
        return answer(raw)

    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Zeros": grpc.unary_unary_rpc_method_handler(zeros),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def presplit() -> None:
    """The project's own server, in front of a tail that does nothing."""
    from concurrent.futures import Future

    from presplit.runtime.hosted import Contract, Form
    from presplit.runtime.wire.server import Listener

    taken = Form("boundary", "int8", (BLOCK,), max_batch=1 << 14)
    contract = Contract("no-op", taken, Form("logits", "float32", (10,)))
    done: Future[Any] = Future()
    done.set_result(REPLY[np.newaxis])

    class NoOp:
        most_bytes = taken.nbytes * taken.max_batch

        def contract(self, name: str) -> Contract:
            return contract

        def warm(self, name: str) -> Future[Any]:
            return done

        def run(self, name: str, array: Any, *, until: Any, client: str = "") -> Future[Any]:
            return done

        def close(self) -> None:
            pass

    listener = Listener(NoOp(), name="presplit", version="benchmark")
    address = await listener.start("127.0.0.1", 0)
    print(address.rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


def fastapi() -> None:
    """FastAPI behind uvicorn with uvloop and httptools."""
    import uvicorn
    from fastapi import FastAPI, Request, Response

    app = FastAPI()

    async def infer(request: Request) -> Response:
        return Response(answer(await request.body()), media_type="application/octet-stream")

    infer.__annotations__ = {"request": Request, "return": Response}
    app.post("/infer", response_model=None)(infer)
    port = free_port()
    say_when_open(port)
    uvicorn.run(app, port=port, log_level="error", access_log=False)


LIT = """
import sys
from typing import Annotated
import litserve
import numpy as np
from fastapi import Body, Response

Octets = Annotated[bytes, Body(media_type="application/octet-stream")]

class Api(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request: Octets):
        return request

    def predict(self, x):
        np.frombuffer(x, np.int8)
        return np.zeros(10, np.float32).tobytes()

    def encode_response(self, output):
        return Response(output, media_type="application/octet-stream")

if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/infer"), accelerator="cpu", workers_per_device=1)
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)
"""


def litserve() -> None:
    """LitServe with one worker, which is a process and so wants a file of its own."""
    file = Path(tempfile.mkdtemp()) / "lit.py"
    file.write_text(LIT, encoding="utf-8")
    port = free_port()
    say_when_open(port)
    subprocess.run([sys.executable, str(file), str(port)], check=True)


BENTO = """
import bentoml
import numpy as np
from fastapi import FastAPI, Request, Response

app = FastAPI()

@app.post("/infer")
async def infer(request: Request) -> Response:
    np.frombuffer(await request.body(), np.int8)
    return Response(np.zeros(10, np.float32).tobytes(), media_type="application/octet-stream")

@bentoml.service(workers=1)
@bentoml.asgi_app(app)
class Zeros:
    pass
"""


def bentoml() -> None:
    """BentoML with one worker; a body of bytes is taken by an app that it mounts."""
    folder = Path(tempfile.mkdtemp())
    (folder / "service.py").write_text(BENTO, encoding="utf-8")
    port = free_port()
    os.chdir(folder)
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    words = ["serve", "service:Zeros", "--host", "127.0.0.1", "--port", str(port)]
    say_when_open(port)
    from bentoml_cli.cli import cli

    cli(words, standalone_mode=False)


def ray() -> None:
    """Ray Serve with one replica, in its fast mode."""
    os.environ.update(RAY_FAST)
    import ray as library
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    library.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    port = free_port()

    @serve.deployment(max_ongoing_requests=100)
    class Zeros:
        async def __call__(self, request: Request) -> Response:
            np.frombuffer(await request.body(), np.int8)
            return Response(REPLY.tobytes(), media_type="application/octet-stream")

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    serve.run(Zeros.bind(), route_prefix="/infer")
    say_when_open(port)
    ended.wait()
    # Its ingress is a process that would stay, with its ports.
    serve.shutdown()
    library.shutdown()


KINDS: dict[str, Any] = {
    "bare gRPC": grpc_echo,
    "presplit": presplit,
    "FastAPI": fastapi,
    "LitServe": litserve,
    "BentoML": bentoml,
    "Ray Serve": ray,
}

if __name__ == "__main__":
    made = KINDS[sys.argv[1]]()
    if made is not None:
        asyncio.run(made)
