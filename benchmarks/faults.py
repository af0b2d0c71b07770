"""What each promise of reliability shows when its fault is really made to happen.

One row or more for each of the 22 promises of ``docs/reliability.md``, each with real processes
and sockets. A row says what was ``asked``, what was ``seen`` in ``n`` tries, and whether that is
``ok``; rows are told as they come. ``--only 4,15`` tries those promises alone. ``--quick`` tries
fewer cases for shorter.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks._faults import Row, Rows
from presplit.core.errors import PresplitError, SpecError

PROMISES = range(1, 23)


def run(quick: bool, *, only: str = "") -> dict[str, Any]:
    """Every row, and the checks that all of them hold and no promise is without."""
    wanted, parts = _wanted(only), _parts()
    began, rows = time.monotonic(), []
    for promise in wanted:
        for rows_of in parts.get(promise, ()):
            for row in _seen(promise, rows_of, quick):
                _tell(row, time.monotonic() - began)
                rows.append(dataclasses.asdict(row))
    shown = {row["promise"] for row in rows}
    missing = [promise for promise in wanted if promise not in shown]
    broken = sorted({row["promise"] for row in rows if not row["ok"]})
    checks = [
        _none("promises of which a row does not hold", broken),
        _none("promises without a row", missing),
    ]
    return {"rows": rows, "checks": checks}


def _seen(promise: int, rows_of: Rows, quick: bool) -> Iterator[Row]:
    """The rows; one that says so, if trying breaks off, which must not hide the others."""
    try:
        yield from rows_of(quick)
    except (PresplitError, OSError, RuntimeError, AssertionError, grpc.RpcError) as error:
        said = f"broke off: {type(error).__name__}: {str(error)[-300:]}"
        yield Row(promise, f"{rows_of.__module__}.{rows_of.__name__}", said, 0, False)


def _parts() -> dict[int, list[Rows]]:
    """What shows each promise: the ``PARTS`` of every ``_faults_*.py`` that has some."""
    found: dict[int, list[Rows]] = {}
    for file in sorted(Path(__file__).parent.glob("_faults_*.py")):
        module = importlib.import_module(f"benchmarks.{file.stem}")
        for promise, rows_of in getattr(module, "PARTS", {}).items():
            found.setdefault(promise, []).append(rows_of)
    return found


def _wanted(only: str) -> list[int]:
    """The promises to try; raises `SpecError` for one that does not exist."""
    if not only:
        return list(PROMISES)
    words = [word.strip() for word in only.split(",")]
    known = {str(promise): promise for promise in PROMISES}
    for word in words:
        if word not in known:
            raise SpecError(f"--only: promises are 1..{PROMISES[-1]}, as in 4,15; got {word!r}")
    return sorted({known[word] for word in words})


def _tell(row: Row, after_s: float) -> None:
    """One row, as it comes."""
    verdict = "ok  " if row.ok else "FAIL"
    text = f"{after_s:5.0f} s  {verdict} {row.promise:2}  {row.asked}: {row.seen} ({row.n})"
    print(text, file=sys.stderr, flush=True)


def _none(name: str, found: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "value": ", ".join(map(str, found)) or "none",
        "target": "none",
        "ok": not found,
    }
