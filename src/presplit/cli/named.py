"""Which code the user has named on this machine's command line.

A run's own word never runs code. But whoever trained a net of his own by naming its code need not
name it again for each further verb: what was named once is kept, outside of all runs, in
``$XDG_STATE_HOME/presplit/named-code`` or ``~/.local/state/presplit/named-code``. A run of somebody
else names other code, so it is refused until its user names that code himself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILE = "named-code"


def remember(code: str) -> None:
    """Keep that the user has named ``code``.

    Where nothing can be kept, it will be asked for anew.
    """
    place = _place()
    if place is None or code in _kept(place):
        return
    with contextlib.suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with place.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{code}\n")


def is_remembered(code: str) -> bool:
    """True if the user has named ``code`` before."""
    place = _place()
    return place is not None and code in _kept(place)


def _place() -> Path | None:
    """Where it is kept; None for a user without a home."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named) / "presplit" / FILE
    try:
        return Path.home() / ".local" / "state" / "presplit" / FILE
    except RuntimeError:
        return None


def _kept(place: Path) -> frozenset[str]:
    try:
        text = place.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return frozenset()
    return frozenset(text.splitlines())
