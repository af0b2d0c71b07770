"""The product's own processes: start one, read where it listens, end it.

The server and the shaped link say their address as one line of JSON when they are ready; whoever
starts them reads it here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from typing import cast

from presplit.core.errors import ServerError

Process = subprocess.Popen[str]


def start(*arguments: str) -> Process:
    """A module in a process of its own: ``start("presplit", "serve", "net.bundle", "--json")``.

    All three of its standard streams are pipes. What it prints that is no UTF-8 is replaced.
    """
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def address_of(process: Process) -> str:
    """The address that ``process`` says when it is ready, as ``HOST:PORT``.

    Raises `ServerError`, with what it printed last, if it ends instead.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        problem = process.communicate()[1].strip()
        command = cast("list[str]", process.args)  # `start` gave it as such
        raise ServerError(f"{' '.join(command)} ended: {problem}")
    return json.loads(line)["address"]


def end(process: Process) -> None:
    """Kill ``process``, as a power cut would, and wait until it is gone."""
    process.kill()
    process.communicate()


@contextlib.contextmanager
def running(*arguments: str) -> Generator[tuple[str, Process]]:
    """The address and the process that ``start(*arguments)`` gives; it is killed at the end."""
    process = start(*arguments)
    try:
        yield address_of(process), process
    finally:
        end(process)


def order(process: Process, what: Mapping[str, object]) -> None:
    """Tell ``process`` to do ``what``, as a line of JSON on its standard input."""
    assert process.stdin is not None, "it was started with a pipe"
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
