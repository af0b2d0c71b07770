"""The processes of the demo, and what breaks them.

They are a tail server, a shaped link before it, and an edge.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from presplit.core.errors import PresplitError, ServerError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Link, Plan


class Stage(contextlib.AbstractContextManager["Stage"]):
    """A server and a shaped link before it, each a process.

    Every `answer` starts an edge process beside them.

    ``broken`` is when the server was killed and when it listened again, in seconds after the first
    answer.
    """

    def __init__(self, bundle: Bundle, link: Link, *, streams: int = 1) -> None:
        self.bundle, self.streams = bundle, streams
        self.broken = (0.0, 0.0)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self._server = self._serve()
        try:
            _address_of(self._server)
            options = {"--up-bps": link.up_bps, "--down-bps": link.down_bps, "--rtt-s": link.rtt_s}
            shaped = [str(part) for option in options.items() for part in option]
            self._link = _start(
                "presplit.lab.shaper", "--target", f"127.0.0.1:{self._port}", *shaped
            )
            self._address = _address_of(self._link)
        except BaseException:
            self._server.kill()
            raise

    def __exit__(self, *_: object) -> None:
        """End both processes."""
        for process in (self._link, self._server):
            process.kill()
            process.communicate()

    def answer(
        self, plan: Plan, images: Path, *, breaking: tuple[float, float, float] | None = None
    ) -> list[dict[str, Any]]:
        """What a fresh edge process says of each image in the file ``images`` under ``plan``.

        ``breaking`` is the images' rate a second, and when, in seconds after the first answer, the
        server is killed by SIGKILL and when it is started again. Raises `PresplitError` if that did
        not happen while images came.
        """
        options: list[object] = [
            "--split",
            plan.split,
            "--codec",
            plan.codec,
            "--deadline-s",
            plan.deadline_s,
        ]
        options += [
            part
            for name, least in plan.thresholds.items()
            for part in ("--threshold", f"{name}={least!r}")
        ]
        options += ["--streams", self.streams, "--server", self._address]
        options += ["--rate", breaking[0]] if breaking else []
        edge = _start("presplit", "run", str(self.bundle.path), str(images), *map(str, options))
        assert edge.stdout is not None
        lines = [edge.stdout.readline()]
        faults = self._break(*breaking[1:]) if breaking else iter(())
        for line in edge.stdout:
            lines.append(line)
            next(faults, None)
        problem = edge.communicate()[1].strip()
        if edge.returncode != 0 or "torch loaded: False" not in problem:
            raise PresplitError(f"the edge process failed, or loaded torch: {problem}")
        if breaking and self.broken == (0.0, 0.0):
            raise PresplitError(
                "the images were over before the server was killed and back: take more images"
            )
        return [json.loads(line) for line in lines if line.strip()]

    def _break(self, killed_s: float, restarted_s: float) -> Iterator[None]:
        """Kill the server and start it again, each at its time; asked between answers."""
        began = time.monotonic()
        while time.monotonic() - began < killed_s:
            yield
        self._server.kill()
        self._server.communicate()
        down_s = time.monotonic() - began
        while time.monotonic() - began < restarted_s:
            yield
        self._server = self._serve()
        while True:
            yield
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), timeout=0.2),
            ):
                self.broken = (down_s, time.monotonic() - began)
                return

    def _serve(self) -> subprocess.Popen[str]:
        return _start(
            "presplit", "serve", str(self.bundle.path), "--port", str(self._port), "--json"
        )


def _start(*arguments: str) -> subprocess.Popen[str]:
    """A module of this package in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _address_of(process: subprocess.Popen[str]) -> str:
    """The address that a process prints as one line of JSON when it is ready.

    Raises `ServerError` if it ends.
    """
    stdout: IO[str] | None = process.stdout
    assert stdout is not None
    line = stdout.readline()
    if not line:
        raise ServerError(
            f"{' '.join(map(str, process.args))} ended: {process.communicate()[1].strip()}"
        )
    return json.loads(line)["address"]
