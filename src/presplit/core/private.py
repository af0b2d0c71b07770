"""Keys, tokens and what goes with them: new files of one folder, which all come to be or none."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path

from presplit.core.errors import SpecError


class NewFiles:
    """New files of ``folder``, and new lines of its lists, kept in memory until `write`.

    Nothing that is there is written over. As a context it writes at its end, unless something in
    it failed. Raises `SpecError`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, tuple[bytes, bool]] = {}
        self._lists: dict[str, tuple[list[str], bool]] = {}

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.write()

    def add(self, name: str, raw: bytes, *, private: bool = False) -> None:
        """A file of bytes; what is private can be read by its owner alone from the start."""
        if name in self._files or os.path.lexists(self.folder / name):
            raise SpecError(
                f"{self.folder / name}: is there already, and nothing is written over; move it "
                "away first, or use another folder"
            )
        self._files[name] = raw, private

    def add_line(self, name: str, line: str, *, private: bool = False) -> None:
        """A line at the end of a list, which is made if it is not there."""
        self._lists.setdefault(name, ([], private))[0].append(line)

    def write(self) -> None:
        """Write all; if one of them cannot be written, take away those that were."""
        written: list[Path] = []
        folders = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        try:
            self._write(written)
        except BaseException as error:
            for path in written:
                path.unlink(missing_ok=True)
            for folder in folders:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError):
                named = error.filename or (written[-1] if written else self.folder)
                raise SpecError(f"{named}: cannot be written ({error.strerror})") from error
            raise

    def _write(self, written: list[Path]) -> None:
        """Write the files, then put each list into its place in one step: it may be in use."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, (raw, private) in self._files.items():
            _write_new(self.folder / name, raw, written, private=private)
        places: list[tuple[Path, Path]] = []
        for name, (lines, private) in self._lists.items():
            place = self.folder / name
            before = place.read_bytes() if place.exists() else b""
            if before and not before.endswith(b"\n"):
                before += b"\n"
            temporary = place.with_name(f".{name}.{os.getpid()}")
            raw = before + "".join(f"{line}\n" for line in lines).encode()
            _write_new(temporary, raw, written, private=private)
            places.append((temporary, place))
        for temporary, place in places:
            os.replace(temporary, place)


def warn_if_open(path: Path) -> None:
    """Log a warning if others than its owner may read the file ``path``, which holds a secret.

    A file of another owner's may be this process's by its group alone: so a cluster hands out keys.
    """
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    others = 0o077 if found.st_uid == os.geteuid() else 0o037
    if mode & others:
        logging.getLogger("presplit").warning(
            "%s: others may read it (mode %o); chmod 600 %s", path, mode, path
        )


def _write_new(path: Path, raw: bytes, written: list[Path], *, private: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    written.append(path)
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
