"""The static files of every page: plain HTML, CSS and JavaScript, one look for all.

They are read from where Presplit is installed, and need nothing from the network.
"""

from __future__ import annotations

from importlib.resources import files as installed

from presplit.core.errors import SpecError

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What a browser is told about a file, by the end of its name."""


def files(*names: str) -> dict[str, tuple[str, bytes]]:
    """The kind (its media type) and the bytes of each file.

    Raises `SpecError` for a name that is not there.

    >>> files("look.css")["look.css"][0]
    'text/css; charset=utf-8'
    """
    return {name: _file(name) for name in names}


def text(name: str) -> str:
    """One file as text; raises `SpecError` if it is not there."""
    return _file(name)[1].decode()


def _file(name: str) -> tuple[str, bytes]:
    ending = name.rpartition(".")[2]
    there = {each.name: each for each in installed(__name__).iterdir()}
    if ending not in KINDS or name not in there:
        known = sorted(each for each in there if each.rpartition(".")[2] in KINDS)
        raise SpecError(f"pages: expected one of {', '.join(known)}, got {name!r}")
    return KINDS[ending], there[name].read_bytes()
