"""What the server says later of an answer is a line behind that answer's own."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from presplit.cli.answering import Printer
from presplit.cli.corrections import Corrections
from presplit.core.types import Answer
from presplit.runtime.feeding.lines import Lines
from presplit.runtime.feeding.sample import Sample


def answer(label: int, where: str = "edge") -> Answer:
    scores = np.eye(3, dtype=np.float32)[label]
    return Answer(label, scores, "final", where, "server", 0.1, 10, False, 1)  # type: ignore[arg-type]


def test_a_correction_stands_behind_what_it_corrects(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(strict=False)
    corrections = Corrections(printer, ("cat", "dog"))
    given = answer(0)
    lines = Lines(lambda x: given, labels=("cat", "dog"), note=corrections.note)
    threads = [
        threading.Thread(target=corrections, args=(given, better))
        for better in (answer(0, "server"), answer(1, "server"))
    ]
    for thread in threads:
        thread.start()  # the server is faster than the line
    made = lines.of(7, Sample("a.png", {"file": "a.png"}, lambda: given.scores))
    printer(made.line)
    for thread in threads:
        thread.join()
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["class"], first["sample"]) == ("cat", 7) and "correction" not in first
    assert (second["class"], second["sample"], second["file"]) == ("dog", 7, "a.png")
    assert second["correction"] is True and corrections.count == 1
