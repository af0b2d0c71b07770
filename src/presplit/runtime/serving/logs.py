"""What the server says of itself, a line each: text for people, or JSON for machines.

A line never holds what was sent: no tensor, no token. Whoever logs waits for nobody: lines go
through a bounded queue, and what does not fit is counted and left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TextIO

ALL = logging.getLogger("presplit")
LOGGER = logging.getLogger("presplit.server")
ROOM = 1024
"""Lines that wait for a slow reader, at most."""
CLOSING_S = 1.0
"""How long the end waits for the last lines to be read."""


def tell(event: str, text: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log that ``event`` happened: ``text`` for people, ``fields`` for machines."""
    LOGGER.log(level, "%s", text, extra={"event": event, "fields": fields})


class _Lines(logging.Handler):
    """Writes each record as a line, on a thread of its own."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        super().__init__()
        self._out, self._as_json = out, as_json
        self._lines: queue.Queue[str | None] = queue.Queue(ROOM)
        self.missed = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over one line; returns at once."""
        line = _json(record) if self._as_json else _text(record)
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.missed += 1

    def finish(self) -> None:
        """Let the last lines be written, for `CLOSING_S` at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CLOSING_S)
            self._thread.join(CLOSING_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._out.write(f"{line}\n")
                self._out.flush()
            except (OSError, ValueError):  # nobody reads it any more: the server goes on
                self.missed += 1


@contextlib.contextmanager
def logging_to(out: TextIO | None, *, as_json: bool) -> Generator[Callable[[], int]]:
    """Write what is logged inside to ``out``, if any; gives what counts the lines left out."""
    if out is None:
        yield lambda: 0
        return
    lines, level = _Lines(out, as_json=as_json), ALL.level
    ALL.addHandler(lines)
    ALL.setLevel(logging.INFO)
    try:
        yield lambda: lines.missed
    finally:
        ALL.removeHandler(lines)
        ALL.setLevel(level)
        lines.finish()


def stream_for(log: str) -> TextIO | None:
    """Where what is logged goes: standard error, or nowhere for "none"."""
    return None if log == "none" else sys.stderr


def _stamp(record: logging.LogRecord) -> str:
    """When it happened, in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _json(record: logging.LogRecord) -> str:
    """One line of JSON."""
    line: dict[str, object] = {
        "time": _stamp(record),
        "level": record.levelname.lower(),
        "event": getattr(record, "event", "log"),
        "text": record.getMessage(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        line["trace"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(line, default=str)


def _text(record: logging.LogRecord) -> str:
    """One line of text, and the traceback of what failed in the server itself."""
    line = f"{_stamp(record)} {record.levelname.lower()}: {record.getMessage()}"
    if record.exc_info:
        line += "\n" + logging.Formatter().formatException(record.exc_info)
    return line
