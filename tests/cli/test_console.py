"""Consoles that are not UTF-8: every verb prints what it found, and ends with its own exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presplit.cli.console import LOOKS_LIKE, every_character_printable, readable
from presplit.cli.main import main

ENCODINGS = (
    "cp932",
    "latin-1",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("gbk", "ascii", "utf-8")),
)


class Console:
    """Standard output and error of one encoding, strict as Python's own are."""

    def __init__(self, encoding: str) -> None:
        self.out, self.err = (
            io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)
        )

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code and what was printed, of one verb."""
        with contextlib.redirect_stdout(self.out), contextlib.redirect_stderr(self.err):
            code = main([str(word) for word in words])
        return code, self._said(self.out), self._said(self.err)

    def _said(self, stream: io.TextIOWrapper) -> str:
        stream.flush()
        raw = stream.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode(stream.encoding)


@pytest.fixture(params=ENCODINGS)
def console(request: pytest.FixtureRequest) -> Iterator[Console]:
    """A console of each encoding; whatever it was given it holds, and it is strict again."""
    made = Console(request.param)
    yield made
    assert (made.out.errors, made.err.errors) == ("strict", "strict")


def test_times_of_microseconds_are_printed_on_every_console(console: Console, bundle: Path) -> None:
    code, out, _ = console.run("measure", bundle, "--seconds", 0.1)
    assert code == 0
    micro = "µ" if console.out.encoding in ("latin-1", "utf-8") else "u"
    assert f" {micro}s" in out


def test_every_other_verb_for_a_bundle_prints_too(console: Console, bundle: Path) -> None:
    for words in (("plan", bundle), ("inspect", bundle), ("--help",), ("plan", "--help")):
        code, out, problem = console.run(*words)
        assert (code, problem) == (0, "")
        assert out


def test_a_refusal_shows_a_name_that_the_console_cannot_show(console: Console) -> None:
    code, out, problem = console.run("inspect", "ä≥東\udcff.onnx")
    assert (code, out) == (2, "")
    assert problem.startswith("presplit: ") and problem.endswith("\\xff.onnx: no such file\n")


def test_json_is_the_same_on_every_console(console: Console, bundle: Path, tmp_path: Path) -> None:
    """A path of bytes that are no text is still the path, once the JSON is read."""
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xe6\x9d\xb1.bundle")
    shutil.copytree(bundle, folder)
    code, out, problem = console.run("inspect", folder, "--json")
    assert (code, problem) == (0, "")
    assert out.isascii() and json.loads(out)["name"] == "small"


@pytest.mark.parametrize("character", [*LOOKS_LIKE, "é", "東", "🚀", "\udc80", "\udcff", "\ud800"])
def test_what_stands_for_a_character_is_plain_ascii(character: str) -> None:
    assert readable(character) and readable(character).isascii()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(stream), every_character_printable():
        print(f"<{character}>")
    assert stream.buffer.getvalue().decode() == f"<{readable(character)}>\n"  # type: ignore[attr-defined]


def test_a_full_disk_behind_standard_output_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "presplit", "plan", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("presplit: nothing more can be written (No space left")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_a_closed_stream_is_no_traceback(closed: str) -> None:
    line = f"{sys.executable} -m presplit inspect nowhere.onnx {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
