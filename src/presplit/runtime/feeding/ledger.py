"""A ledger of answers that survives a crash: one file of SQLite, bounded by its rows.

An answer that was put into it is on the disk when `Ledger.put` returns (a write-ahead log, synced
at each commit), so whoever hands answers on only then never loses one that was handed on. A sample
has one row: an answer that comes again takes its place. When there are more rows than ``most``, the
oldest go, and are counted. A disk that is full costs rows, never answers.

It can be read meanwhile: ``sqlite3 FILE "select answer from answers order by number"``.
Source: SQLite, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from presplit.core.errors import InputError
from presplit.core.types import Answer

MOST = 100_000
"""Rows, if nobody says how many."""
OURS = 0x50_53_4C_47
"""SQLite's number for whose file it is, "PSLG"."""
BUSY_S = 5.0
Row = tuple[str, Mapping[str, object], str, bool]
"""An id, the answer, the mark, and whether it is an answer or an error in place of one."""
TABLES = """
create table if not exists answers (
    number integer primary key autoincrement,
    id text not null unique,
    mark text not null,
    at real not null,
    is_answer integer not null,
    answer text not null
);
create table if not exists gone (one integer primary key check (one = 1), count integer not null);
insert or ignore into gone values (1, 0);
"""


class Ledger:
    """The answers in the file ``path``, which is made if it is not there; safe for threads.

    ``most``: rows that it keeps. ``missed`` counts answers that could not be written, ``problem``
    says why the last of them could not. Raises `InputError` if the file is no ledger, or cannot be
    made. As a watcher of an `Edge` it keeps every answer, numbered.
    """

    def __init__(self, path: str | Path, *, most: int = MOST) -> None:
        if most < 1:
            raise InputError(f"a ledger keeps at least 1 answer, got most = {most}")
        self.path, self.most = Path(path), most
        self.missed, self.problem = 0, ""
        self._lock = threading.Lock()
        self._session, self._told = uuid.uuid4().hex[:12], 0
        try:
            self._store = self._opened()
            self._seen, self._rows = self._version(), self._count()
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: cannot be a ledger ({error}); name another file, or move it away"
            ) from error

    def answered(self, id: str, mark: str = "") -> bool:
        """Whether the sample ``id`` with these contents has an answer; an error is none."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            asked = "select 1 from answers where id = ? and mark = ? and is_answer = 1"
            return self._store.execute(asked, (id, mark)).fetchone() is not None
        return False

    def put(
        self, id: str, answer: Mapping[str, object], mark: str = "", is_answer: bool = True
    ) -> bool:
        """Write the answer of the sample ``id``; True when it is on the disk.

        ``is_answer`` is False for an error in its place.
        """
        is_kept = self.put_all([(id, answer, mark, is_answer)])
        with self._lock:
            self.missed += not is_kept
        return is_kept

    def put_all(self, rows: Iterable[Row]) -> bool:
        """Write several at one stroke: all of them are on the disk when it is True, else none."""
        with self._lock:
            try:
                with self._transaction():
                    for id_, answer, mark, is_answer in rows:
                        self._write((id_, mark, time.time(), int(is_answer), json.dumps(answer)))
            except sqlite3.Error as error:
                self.problem = str(error)
                return False
        return True

    @property
    def gone(self) -> int:
        """Rows that had to make room for newer ones, since the file was made."""
        with self._lock:
            return self._store.execute("select count from gone").fetchone()[0]

    def __len__(self) -> int:
        with self._lock:
            return self._count()

    def answers(self) -> Iterator[dict[str, object]]:
        """What it keeps, the oldest first."""
        with self._lock:
            rows = self._store.execute("select answer from answers order by number").fetchall()
        for (answer,) in rows:
            yield json.loads(answer)

    def __call__(self, answer: Answer) -> None:
        """Keep an answer of an `Edge` that it watches, under a number of its own."""
        with self._lock:
            self._told += 1
            number = self._told
        self.put(f"{self._session}-{number}", answer.to_builtins())

    def close(self) -> None:
        """Close the file; a log that is beside it goes."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> sqlite3.Connection:
        store = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            whose = store.execute("pragma application_id").fetchone()[0]
            tables = store.execute("select count(*) from sqlite_master").fetchone()[0]
            if tables and whose != OURS:
                raise sqlite3.DatabaseError("it holds the tables of another program")
            store.execute("pragma journal_mode = wal")
            store.execute("pragma synchronous = full")
            store.execute(f"pragma journal_size_limit = {2**22}")
            store.execute(f"pragma application_id = {OURS}")
            store.executescript(TABLES)
            damage = store.execute("pragma quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(f"it is damaged: {' '.join(damage.split())}")
        except BaseException:
            store.close()
            raise
        return store

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        """All that is written inside is there afterwards, or nothing of it."""
        self._store.execute("begin immediate")
        try:
            yield
            self._store.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._store.execute("rollback")
            self._seen = -1  # the number of rows is counted anew
            raise

    def _write(self, row: tuple[object, ...]) -> None:
        if self._version() != self._seen:
            self._seen, self._rows = self._version(), self._count()
        is_new = not self._store.execute("select 1 from answers where id = ?", row[:1]).fetchone()
        self._store.execute(
            "insert or replace into answers (id, mark, at, is_answer, answer) "
            "values (?, ?, ?, ?, ?)",
            row,
        )
        self._rows += is_new
        spare = self._rows - self.most
        if spare > 0:
            self._store.execute(
                "delete from answers where number in "
                "(select number from answers order by number limit ?)",
                (spare,),
            )
            self._store.execute("update gone set count = count + ?", (spare,))
            self._rows = self.most

    def _count(self) -> int:
        return self._store.execute("select count(*) from answers").fetchone()[0]

    def _version(self) -> int:
        """Changes whenever another process has written."""
        return self._store.execute("pragma data_version").fetchone()[0]
