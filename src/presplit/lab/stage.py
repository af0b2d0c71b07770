"""The processes of the demo, and what breaks them.

They are a tail server, a shaped link before it, and an edge.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.core.errors import PresplitError
from presplit.lab.processes import Process, address_of, end, free_port, running, start

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.link import Link
    from presplit.core.plans import Plan


@dataclass(frozen=True)
class Breaking:
    """How a server is broken while images come at ``rate`` a second.

    It is killed by SIGKILL and started again, each so many seconds after the first answer.
    """

    rate: float
    killed_s: float
    restarted_s: float


class Stage(contextlib.AbstractContextManager["Stage"]):
    """A server and a shaped link before it, each a process.

    Every `answer` starts an edge process beside them: on this machine, made ``slow`` times as slow.

    ``broken`` is when the server was killed and when it listened again, in seconds after the first
    answer.
    """

    def __init__(self, bundle: Bundle, link: Link, *, streams: int = 1, slow: float = 1.0) -> None:
        self.bundle, self.streams, self.slow = bundle, streams, slow
        self.broken = (0.0, 0.0)
        self._port = free_port()
        self._server = self._serve()
        self._open = contextlib.ExitStack()
        self._open.callback(lambda: end(self._server))
        with contextlib.ExitStack() as opened:
            opened.push(self._open)
            address_of(self._server)
            self._address, _ = self._open.enter_context(running(*shaper_words(self._port, link)))
            opened.pop_all()

    def __exit__(self, *_: object) -> None:
        """End both processes."""
        self._open.close()

    def answer(
        self, plan: Plan, images: Path, *, breaking: Breaking | None = None
    ) -> list[dict[str, Any]]:
        """What a fresh edge process says of each image in the file ``images`` under ``plan``.

        Raises `PresplitError` if the server was to be broken, and that did not happen while images
        came.
        """
        words = [*_words(plan), "--streams", str(self.streams), "--server", self._address]
        words += ["--slow", str(self.slow), "--steady"]
        if breaking is not None:
            words += ["--rate", str(breaking.rate)]
        edge = start("presplit", "run", str(self.bundle.path), str(images), *words)
        assert edge.stdout is not None
        errors = list[str]()
        # Beside the answers: an edge that says much would stand still if nobody read it.
        draining = threading.Thread(target=_drain, args=(edge, errors), daemon=True)
        draining.start()
        lines = [edge.stdout.readline()]
        faults = self._break(breaking) if breaking is not None else iter(())
        for line in edge.stdout:
            lines.append(line)
            next(faults, None)
        draining.join()
        edge.communicate()
        problem = "".join(errors).strip()
        # 3: every answer was degraded, as where a link lets nothing through.
        if edge.returncode not in (0, 3) or "torch was loaded" in problem:
            raise PresplitError(f"the edge process failed, or loaded torch: {problem}")
        if breaking is not None and self.broken == (0.0, 0.0):
            raise PresplitError(
                "the images were over before the server was killed and back: take more images"
            )
        return [json.loads(line) for line in lines if line.strip()]

    def _break(self, breaking: Breaking) -> Iterator[None]:
        """Kill the server and start it again, each at its time; asked between answers."""
        began = time.monotonic()
        while time.monotonic() - began < breaking.killed_s:
            yield
        end(self._server)
        down_s = time.monotonic() - began
        while time.monotonic() - began < breaking.restarted_s:
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

    def _serve(self) -> Process:
        return start(
            "presplit", "serve", str(self.bundle.path), "--port", str(self._port), "--json"
        )


def _drain(process: Process, lines: list[str]) -> None:
    """Read what ``process`` says on standard error into ``lines`` until it ends."""
    assert process.stderr is not None
    lines.extend(process.stderr)


def _words(plan: Plan) -> list[str]:
    """``plan`` as options of ``presplit run``."""
    words = ["--split", str(plan.split), "--codec", plan.codec]
    words += ["--form", plan.form, "--server-form", plan.server_form]
    words += ["--deadline", str(plan.deadline_s)]
    for name, least in plan.thresholds.items():
        words += ["--threshold", f"{name}={least!r}"]
    return words


def shaper_words(port: int, link: Link) -> list[str]:
    """The module that shapes ``link`` before a ``port`` of this machine, and its options."""
    words = ["presplit.lab.shaper", "--target", f"127.0.0.1:{port}"]
    for name in ("up_bps", "down_bps", "rtt_s"):
        words += [f"--{name.replace('_', '-')}", str(getattr(link, name))]
    return words
