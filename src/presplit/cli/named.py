"""Which code the user has named on this machine's command line.

A run's own word never runs code. But whoever trained a net of his own by naming its code need not
name it again for each further verb: what was named once is kept, outside of all runs, in
``$XDG_STATE_HOME/presplit/named-code`` or ``~/.local/state/presplit/named-code``. A run of somebody
else names other code, so it is refused until its user names that code himself.

A name alone says little, because another file may lie there later. So the SHA-256 of the module's
file is kept too, and of every module that it had imported from its own folder when it was named:
code that has changed is named again before it runs. What it imports from elsewhere, or only later,
is not compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

FILE = "named-code"


def remember(code: str, digests: Mapping[str, str]) -> None:
    """Keep that the user has named ``code``; ``digests`` has the `digest` of each module of it.

    Where nothing can be kept, it will be asked for anew.
    """
    place = _place()
    if place is None or remembered(code) == digests:
        return
    with contextlib.suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps([code, dict(digests)]) + "\n")


def remembered(code: str) -> dict[str, str]:
    """The digests of ``code`` when the user last named it; none if he never did."""
    place = _place()
    found: dict[str, str] = {}
    for line in [] if place is None else _lines(place):
        # a line that was cut short names nothing
        with contextlib.suppress(ValueError, TypeError):
            kept: Any = json.loads(line)
            name, digests = kept
            if name == code:
                found = dict(digests)
    return found


def digest(folder: Path | None, module: str) -> str:
    """The SHA-256 of the file that ``module`` is now, in hexadecimal; "" if it has none.

    It is looked for in ``folder``, or among what is installed where that is None. A package is its
    ``__init__.py``. Nothing is imported.
    """
    importlib.invalidate_caches()
    top, *inner = module.split(".")
    spec: ModuleSpec | None
    if folder is None:
        spec = importlib.util.find_spec(top)
    else:
        spec = PathFinder.find_spec(top, [str(folder)])
    for name in inner:
        if spec is None or spec.submodule_search_locations is None:
            return ""
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None:
        return ""
    try:
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    except OSError:
        return ""


def _place() -> Path | None:
    """Where it is kept; None for a user without a home."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named) / "presplit" / FILE
    try:
        return Path.home() / ".local" / "state" / "presplit" / FILE
    except RuntimeError:
        return None


def _lines(place: Path) -> list[str]:
    try:
        return place.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
