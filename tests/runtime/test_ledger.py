"""A ledger keeps what it said it kept, bounded, once for each sample."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from presplit.core.errors import InputError
from presplit.runtime.feeding.ledger import Ledger


def test_a_sample_has_one_row_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    with Ledger(path, most=3) as ledger:
        for number in range(5):
            assert ledger.put(f"{number}.jpg", {"label": number}, mark="a")
            assert ledger.put(f"{number}.jpg", {"label": 10 + number}, mark="a")
        assert (len(ledger), ledger.gone) == (3, 2)
        assert [row["label"] for row in ledger.answers()] == [12, 13, 14]
        assert ledger.answered("4.jpg", "a") and not ledger.answered("4.jpg", "b")
        assert not ledger.answered("0.jpg", "a")
        ledger.put("bad.jpg", {"error": "no image"}, is_answer=False)
        assert not ledger.answered("bad.jpg")
        with Ledger(path, most=3) as other:  # a second process, or one that was started again
            other.put("other.jpg", {})
            assert other.gone == ledger.gone == 4
        ledger.put("own.jpg", {})
        assert len(ledger) == 3 and ledger.gone == 5
    with Ledger(path, most=1) as ledger:
        ledger.put("last.jpg", {})
        assert len(ledger) == 1
    assert not Path(f"{path}-wal").exists()


def test_several_threads_may_write(tmp_path: Path) -> None:
    with Ledger(tmp_path / "answers.db") as ledger:

        def write(start: int) -> None:
            for number in range(start, start + 10):
                ledger.put(str(number), {})

        threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ledger) == 30 and ledger.missed == 0


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(InputError, match="text: cannot be a ledger .*; name another file"):
        Ledger(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table answers (a)")
    other.close()
    with pytest.raises(InputError, match="other.db: cannot be a ledger .it holds the tables of an"):
        Ledger(tmp_path / "other.db")
    with Ledger(tmp_path / "damaged") as ledger:
        assert ledger.put_all([(str(k), {"text": "x" * 500}, "", True) for k in range(60)])
    raw = bytearray((tmp_path / "damaged").read_bytes())
    raw[5000:25000] = bytes(range(250)) * 80
    (tmp_path / "damaged").write_bytes(raw)
    with pytest.raises(
        InputError, match="damaged: cannot be a ledger .*name another file, or move"
    ):
        Ledger(tmp_path / "damaged")
    with pytest.raises(InputError, match="nowhere/x: cannot be a ledger"):
        Ledger(tmp_path / "nowhere" / "x")
    with pytest.raises(InputError, match="at least 1 answer, got most = 0"):
        Ledger(tmp_path / "x", most=0)


FULL = """
import sys
from presplit.runtime.feeding.ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    said = [ledger.put(str(number), {"text": "x" * 2000}) for number in range(60)]
    print(said[0], said[-1], ledger.missed > 0, len(ledger) == sum(said), flush=True)
"""


def test_a_full_disk_costs_rows_and_nothing_else(tmp_path: Path) -> None:
    """A limit of the file's size stands for the disk: SQLite is refused the same way."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    command = [sys.executable, "-c", FULL, str(tmp_path / "answers.db")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    said = (done.returncode, done.stdout.split())
    assert said == (0, ["True", "False", "True", "True"]), done.stderr
    with Ledger(tmp_path / "answers.db") as ledger:
        assert len(ledger) > 0 and ledger.put("later", {})
