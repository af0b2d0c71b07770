"""A shell is offered verbs, options and the values that are known."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

from presplit.cli import completing


def offered(line: str) -> list[str]:
    """What bash is offered at the end of ``line``."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    env = {**os.environ, **words, "_PRESPLIT_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "presplit"]
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout.split()


def test_values_are_offered_where_they_are_known() -> None:
    assert offered("presplit plan my.bundle --device cortex-") == ["cortex-m7"]
    assert "plan" in offered("presplit pl")


def test_whatever_is_offered_goes_on_from_what_was_typed() -> None:
    functions = [
        function
        for name, function in inspect.getmembers(completing, inspect.isfunction)
        if not name.startswith("_")
    ]
    assert len(functions) > 8
    for offer in functions:
        names = offer("")
        assert names and len(set(names)) == len(names), offer
        assert names[-1] in offer(names[-1][:2])
        assert offer("no-such-thing") == []
    assert "int8,lz4" not in completing.codecs("int8,l")
    assert completing.codecs("int8,png") == ["int8,png"]
