"""A shelf: the readable list of everything that fills one seam.

Its entries are looked up by name and never imported by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from presplit.core.errors import SpecError

T = TypeVar("T")


class Shelf(Mapping[str, T], Generic[T]):
    """A frozen mapping from name to object.

    For a name that is not there, ``find`` names the nearest entries.

    >>> shelf = Shelf("codec", {"int8": 1, "float16": 2})
    >>> shelf.find("int8")
    1
    >>> shelf.find("int")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: no codec named 'int' (nearest: int8); there are: int8, float16
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> T:
        """The entry called ``name``; raises `SpecError` naming the nearest ones otherwise."""
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, list(self._entries), n=2)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        raise SpecError(
            f"no {self.kind} named {name!r}{hint}; there are: {', '.join(self._entries)}"
        )
