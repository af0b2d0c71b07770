"""What the command prints, on consoles that cannot show every character.

A service often has an ASCII console, and Windows one of its country's old encoding; a file's name
may be bytes that are no text at all. None of this may end a verb that has done its work, so what a
console lacks is printed as characters that every console has.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
import unicodedata
from collections.abc import Generator, Sequence

LOOKS_LIKE = {
    "µ": "u",
    "\N{GREEK SMALL LETTER MU}": "u",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "≈": "~",
    "±": "+-",
    "×": "x",
    "·": ".",
    "→": "->",
    "…": "...",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
"""Characters that mean something in numbers and sentences, in ASCII."""

SHOWN = 10
"""Files, or other lines of a list, that the console shows."""
HANDLER = "presplit.readable"
"""The name by which Python's codecs know `readable`."""


def readable(character: str) -> str:
    r"""``character`` in ASCII: what it looks like, its letter without accents, or its number.

    A byte that is no text (Python keeps it as a lone surrogate) is written as that byte.

    >>> [readable(one) for one in ("µ", "≥", "é", "東", "\udcff")]
    ['u', '>=', 'e', '\\u6771', '\\xff']
    """
    if character in LOOKS_LIKE:
        return LOOKS_LIKE[character]
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


def shortened(lines: Sequence[str]) -> list[str]:
    """The first ten ``lines`` of a list, and how many more there are.

    >>> shortened(["a"] * 12)[9:]
    ['a', 'and 2 more']
    """
    more = [f"and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Python's codecs ask this what to print for what they cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(readable(character) for character in missing), error.end


@contextlib.contextmanager
def every_character_printable() -> Generator[None]:
    """Within it, printing raises no `UnicodeEncodeError`, whatever the console's encoding is."""
    codecs.register_error(HANDLER, _replace)
    # A stream that a caller put in their place, such as io.StringIO, encodes nothing.
    streams = [one for one in (sys.stdout, sys.stderr) if isinstance(one, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            # What is left in a pipe that nobody reads any more cannot be written.
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)
