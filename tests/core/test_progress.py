"""Progress: who works says how far he is, and what is drawn of it suits where it is drawn."""

from __future__ import annotations

import io
import sys
import time

import pytest

from presplit.core import bar
from presplit.core.progress import Task, about, advance, doing, is_listened, subject, tell, track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_of_hours_has_few_lines_and_the_last_is_near_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = bar.Lines()
    task = Task("training cats", 4 * 3600, "samples", began=0.0)
    lines.began(task)
    for second in range(4 * 3600):
        now = float(second)
        task.done = second
        lines.moved(task)
    lines.ended(task)
    said = capsys.readouterr().err.splitlines()
    assert 10 < len(said) < 25
    assert said[0] == "training cats: 0 %, 1 samples/s, 3 h 59 min left"
    assert int(said[-1].split()[2]) > 60


def test_what_is_quick_is_not_told_and_what_is_worth_keeping_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bar.drawn():
        assert list(track("abc", "reading")) == ["a", "b", "c"]
        with doing("training", 2, "samples"):
            advance()
        tell("the teacher is right in 9 of 10")
    assert capsys.readouterr().err == "the teacher is right in 9 of 10\n"
    assert not is_listened()


def test_a_bar_names_what_is_trained_and_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(bar, "LATE_S", 0.0)
    monkeypatch.setattr(bar, "PER_S", 100)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with bar.shown(None), about("dense parent (teacher)"), doing(subject("training"), 4, "samples"):
        assert sys.stderr is not screen, "what is printed meanwhile goes above the bar"
        advance(2, note="epoch 1 of 2")
        print("a warning", file=sys.stderr)
        time.sleep(0.1)  # so that it is drawn at least once more
    drawn = screen.getvalue()
    assert "dense parent (teacher)" in drawn and "50 %" in drawn and "epoch 1 of 2" in drawn
    assert "a warning" in drawn
    assert "\x1b[2K" in drawn[-20:], "the line is wiped"
    assert sys.stderr is screen


def test_progress_is_drawn_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, wanted, rank, expected in (
        (io.StringIO(), None, "0", False),
        (io.StringIO(), True, "0", True),
        (Terminal(), None, "0", True),
        (Terminal(), None, "1", False),
        (Terminal(), False, "0", False),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("TERM", "xterm")
        with bar.shown(wanted):
            assert is_listened() is expected
