"""What the server said later of answers that this device gave at once, as lines of their own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from presplit.cli.answering import Printer

if TYPE_CHECKING:
    from presplit.core.types import Answer
    from presplit.runtime.feeding.lines import Made

REMEMBERED = 1024
"""Answers that may still be corrected; no more than 16 of an edge wait for it."""
WAIT_S = 5.0
NAMED = ("id", "file", "frame", "line")
"""What a line says of where its sample came from."""


class Corrections:
    """Prints a line with ``"correction": true`` where the server contradicts an answer.

    It stands behind the line that it corrects.
    """

    def __init__(self, printer: Printer, labels: tuple[str, ...]) -> None:
        self.count = 0
        self._printer, self._labels = printer, labels
        self._given = OrderedDict[int, "tuple[Answer, Made]"]()
        self._changed = threading.Condition()

    def note(self, answer: Answer, made: Made) -> None:
        """Remember which line has this answer."""
        with self._changed:
            self._given[id(answer)] = (answer, made)
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)
            self._changed.notify_all()

    def __call__(self, given: Answer, better: Answer) -> None:
        """Print what the server said, if it is another class."""
        if given.label == better.label:
            return
        with self._changed:
            if not self._changed.wait_for(lambda: id(given) in self._given, WAIT_S):
                return
            _, made = self._given.pop(id(given))
        self.count += 1
        where = {key: made.line[key] for key in ("sample", *NAMED) if key in made.line}
        named = {}
        if better.label < len(self._labels):
            named = {"class": self._labels[better.label]}
        line = {**where, "correction": True, **named, **better.to_builtins()}
        if self._printer.waits_for(int(str(made.line["sample"])), WAIT_S):
            self._printer(line)
