"""A sample before it is made: where it comes from, and how it is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from presplit.core.errors import InputError, PresplitError
from presplit.core.types import Floats


@dataclass(frozen=True)
class Sample:
    """One sample before it is made.

    ``id`` is the same whenever it comes again; with the same ``mark`` it has the same contents.
    ``named`` is what an answer says of where it came from.
    """

    id: str
    named: Mapping[str, object]
    load: Callable[[], Floats]
    mark: str = ""


def broken(id: str, named: Mapping[str, object], problem: str | PresplitError) -> Sample:
    """A sample that cannot be made: what is wrong is raised when it is asked for."""
    error = InputError(problem) if isinstance(problem, str) else problem

    def load() -> NoReturn:
        raise error

    return Sample(id, named, load)


def mark_of(path: Path) -> str:
    """What changes when the contents of a file do; empty where it cannot be seen."""
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{seen.st_mtime_ns}:{seen.st_size}"
