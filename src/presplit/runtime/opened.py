"""What is opened in one process is not there in another that is forked from it later.

A fork copies memory and none of the threads that work on it: an engine or a connection that waits
for them would wait for ever. So what holds such things checks at its door whose they are.
"""

from __future__ import annotations

import os

from presplit.core.errors import InputError


class Opened:
    """The process in which ``what`` was opened."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """False in a process that was forked since."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise `InputError` in a process that was forked since."""
        if not self.here:
            raise InputError(
                f"{self._what} was opened before a fork (process {self._pid}) and cannot be used "
                f"in the child (process {os.getpid()}); open it in the child"
            )
