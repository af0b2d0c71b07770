"""Where the live pages of this user's processes are, so that nobody has to copy an address."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path


def _folder() -> Path:
    own = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) / "presplit" / "live"


@contextlib.contextmanager
def known_as(address: str) -> Generator[None]:
    """Let ``address`` be found by `known` while the context is open."""
    # Several pages of one process have a file each.
    file = _folder() / f"{os.getpid()}-{address.rpartition(':')[2]}"
    with contextlib.suppress(OSError):  # a read-only home has a page all the same
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(address)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def known() -> list[str]:
    """The addresses of the live pages of processes that still run; forgets those of others."""
    found = list[str]()
    with contextlib.suppress(OSError):
        for file in sorted(_folder().iterdir()):
            process = file.name.partition("-")[0]
            if process.isdigit() and _runs(int(process)):
                found.append(file.read_text())
            else:
                file.unlink(missing_ok=True)
    return found


def _runs(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
