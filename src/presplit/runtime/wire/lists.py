"""Who may come in: names of certificates and tokens, in files that may change while they are used.

Taking a line away shuts its owner out at once, without a restart. A file that cannot be read or
understood any more admits nobody until it can.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from presplit.core.errors import SpecError
from presplit.runtime.wire.pem import contents, secret

T = TypeVar("T")

HASHED = "sha256:"
"""How a token begins of which only the hash is kept."""
LEAST_TOKEN = 22
"""Characters of a token: 22 of base64 hold 128 bits."""
LEAST_KINDS = 8
"""Different characters in a token; made by chance, fewer hardly ever occur."""
_NAME = re.compile(r"[A-Za-z0-9_.:/@*-]{1,255}")
_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Token:
    """One line of a file of tokens: whose it is, the SHA-256 of it, and when it ends, if ever."""

    name: str
    digest: bytes
    end: datetime.datetime | None

    @property
    def holds(self) -> bool:
        """Whether its time is not over."""
        return self.end is None or datetime.datetime.now(datetime.UTC) < self.end


class Listed(Generic[T]):
    """What the file ``path`` says, ``understood`` from its lines; read again when it changed.

    Raises `SpecError` if it is wrong when this is made.
    """

    def __init__(self, path: Path, understood: Callable[[list[str], Path], T]) -> None:
        self._path, self._understood = path, understood
        self._mark: object = self._seen()
        self._value: T | None = understood(_lines(path), path)

    def now(self) -> T | None:
        """What it says; None while it cannot be read or understood."""
        mark = self._seen()
        if mark != self._mark:
            self._mark = mark
            try:
                self._value = self._understood(_lines(self._path), self._path)
            except SpecError as error:
                self._value = None
                logging.getLogger("presplit").error("%s; nobody is admitted until then", error)
        return self._value

    def _seen(self) -> object:
        """What differs when the file was written or replaced."""
        try:
            found = self._path.stat()
        except OSError as error:
            return error.errno
        return found.st_mtime_ns, found.st_size, found.st_ino


def names(path: Path) -> Listed[frozenset[str]]:
    """The names in the file ``path``, one a line; what follows a # is for people."""
    return Listed(path, _names)


def tokens(path: Path) -> Listed[tuple[Token, ...]]:
    """The tokens in the file ``path``, a line each: ``NAME TOKEN [END]``.

    ``TOKEN`` is the token, or ``sha256:`` and its hash in hex; ``END`` is a day or a time in UTC as
    in ``2027-01-31`` or ``2027-01-31T12:00``, from which on it admits nobody.
    """
    secret(path)
    return Listed(path, _tokens)


def holding(presented: str, listed: tuple[Token, ...]) -> Token | None:
    """Which token was ``presented``; None if none, or if its time is over.

    All are compared, each in the same time however much of it is right.
    """
    given = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
    found: Token | None = None
    for token in listed:
        if hmac.compare_digest(token.digest, given):
            found = token
    return found if found is not None and found.holds else None


def check_token(token: str, where: str) -> str:
    """``token`` if it can be one that nobody guesses; raises `SpecError` that does not show it."""
    if not _TOKEN.fullmatch(token) or len(token) < LEAST_TOKEN or len(set(token)) < LEAST_KINDS:
        raise SpecError(
            f"{where}: expected a token of at least {LEAST_TOKEN} characters made by chance "
            f"(letters, digits and -_.~+/=), got one of {len(token)}; make one with presplit keys "
            "--by token"
        )
    return token


def _lines(path: Path) -> list[str]:
    try:
        return contents(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: expected lines of text in UTF-8") from error


def _names(lines: list[str], path: Path) -> frozenset[str]:
    found: set[str] = set()
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if name and not _NAME.fullmatch(name):
            raise SpecError(f"{path}: line {number}: expected one name, got {name[:64]!r}")
        if name:
            found.add(name)
    return frozenset(found)


def _tokens(lines: list[str], path: Path) -> tuple[Token, ...]:
    found: list[Token] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        where = f"{path}: line {number}"
        if not words:
            continue
        if not 2 <= len(words) <= 3 or not _NAME.fullmatch(words[0]):
            raise SpecError(f"{where}: expected NAME TOKEN [END], got {len(words)} words")
        end = _end(words[2], where) if len(words) == 3 else None
        found.append(Token(words[0], _digest(words[1], where), end))
    return tuple(found)


def _digest(word: str, where: str) -> bytes:
    """The SHA-256 of a token, which ``word`` is or is the hash of."""
    if not word.startswith(HASHED):
        return hashlib.sha256(check_token(word, where).encode()).digest()
    if not _DIGEST.fullmatch(word.removeprefix(HASHED)):
        raise SpecError(f"{where}: expected 64 hexadecimal digits after {HASHED}")
    return bytes.fromhex(word.removeprefix(HASHED))


def _end(word: str, where: str) -> datetime.datetime:
    try:
        end = datetime.datetime.fromisoformat(word)
    except ValueError as error:
        raise SpecError(f"{where}: expected its end as in 2027-01-31, got {word[:64]!r}") from error
    return end if end.tzinfo else end.replace(tzinfo=datetime.UTC)
