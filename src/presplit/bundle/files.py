"""A bundle's folder: which names stand in it, and the bytes of its plain files.

Every file is opened once, by its name in the folder that was opened first, never through a link,
and what is read from it is what is checked and what is used: nothing can change in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from pathlib import Path

from presplit.core.errors import BundleError
from presplit.core.files import is_litter

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
"""The name of the signature's file, where a bundle has one."""
UNFINISHED = f".{MANIFEST}."
"""How the name of a manifest begins that is being written, or never was to its end."""
MOST_NAMES = 20_000
"""Entries of a folder that are looked at."""
MOST_BYTES = 8 * 2**30
"""Bytes of all files of a bundle."""


class Folder:
    """An open folder; see `opened`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle

    def names(self) -> set[str]:
        """What stands in it and may belong to the bundle; raises `BundleError` for too much."""
        found: set[str] = set()
        with os.scandir(self._handle) as entries:
            for seen, entry in enumerate(entries):
                if seen >= MOST_NAMES:
                    raise BundleError(f"{self.path}: expected at most {MOST_NAMES} files, got more")
                if not is_litter(entry.name) and not entry.name.startswith(UNFINISHED):
                    found.add(entry.name)
        return found

    def read(self, name: str, *, most: int, exactly: int | None = None) -> bytes:
        """The bytes of the plain file ``name``, ``most`` and one more at most.

        One that is not of ``exactly`` so many bytes is not read, and gives none.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        where = self.path / name
        try:
            handle = os.open(name, flags, dir_fd=self._handle)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in _LINKS:
                raise _not_plain(where) from error
            raise BundleError(f"{where}: cannot be read ({error.strerror})") from error
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise _not_plain(where)
            if exactly is not None and state.st_size != exactly:
                return b""
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(most + 1)
        except OSError as error:
            raise BundleError(f"{where}: cannot be read ({error.strerror})") from error
        finally:
            os.close(handle)

    def hard_links(self, name: str) -> int:
        """Under how many names the file ``name`` exists, here and elsewhere."""
        return os.stat(name, dir_fd=self._handle, follow_symlinks=False).st_nlink


@contextlib.contextmanager
def opened(path: Path) -> Generator[Folder]:
    """The folder at ``path``; raises `BundleError` if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path}: no such bundle (a bundle is a directory with a {MANIFEST})"
        ) from error
    try:
        yield Folder(path, handle)
    finally:
        os.close(handle)


_LINKS = (errno.ELOOP, errno.ENXIO)
"""What opening a link, or a socket, gives."""


def _not_plain(where: Path) -> BundleError:
    return BundleError(f"{where}: missing, or not a plain file; copy or export the bundle again")
