"""What is opened in one process is not there in another that is forked from it later.

A fork copies memory and none of the threads that work on it: an engine or a connection that waits
for them would wait for ever. So what holds such things checks at its door whose they are.
"""

from __future__ import annotations

import os

from presplit.core.errors import InputError

_forks = 0
"""How many forks lie between the first process and this one.

Asking the system for the process takes several microseconds on some machines, for each answer.
"""


def _forked() -> None:
    """This is the child of a fork."""
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)


class Opened:
    """The process in which ``what`` was opened."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid, self._born = os.getpid(), _forks

    @property
    def here(self) -> bool:
        """False in a process that was forked since."""
        return _forks == self._born

    def check(self) -> None:
        """Raise `InputError` in a process that was forked since."""
        if not self.here:
            raise InputError(
                f"{self._what} was opened before a fork (process {self._pid}) and cannot be used "
                f"in the child (process {os.getpid()}); open it in the child"
            )
