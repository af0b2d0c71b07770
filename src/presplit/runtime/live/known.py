"""Where the live pages of this user's processes are, so that nobody has to copy an address.

Each page has a file of its own in this machine's folder: a home may be shared by several. Its name
says which process it is and when that began, for a number is given again to another process.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Generator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE_S = 1.0
"""So long a page of this machine may take to answer."""


@contextlib.contextmanager
def known_as(address: str) -> Generator[None]:
    """Let ``address`` be found by `known` while the context is open."""
    # Several pages of one process have a file each.
    file = _folder() / f"{os.getpid()}-{_began(os.getpid())}-{urlsplit(address).port}"
    with contextlib.suppress(OSError):  # a read-only home has a page all the same
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f".{file.name}")
        written.write_text(address)
        written.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def known() -> list[str]:
    """The addresses of the live pages on this machine; forgets those where nobody listens."""
    found = list[str]()
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for file in sorted(_folder().glob("[0-9]*-*-*")):
            with contextlib.suppress(OSError, HTTPException):
                address = file.read_text()
                process, began, _ = file.name.split("-", 2)
                if _answers(address, file) and _began(int(process)) == began:
                    found.append(address)
    return found


def _folder() -> Path:
    """Where those of this machine are."""
    own = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) / "presplit" / "live" / (platform.node() or "here")


def _began(process: int) -> str:
    """When the process of that number began, as the system counts; "" if there is none.

    Where the system has no ``/proc``, "0" for any.
    """
    if not Path("/proc/self/stat").exists():
        return "0"
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # The process' name, in brackets, may hold anything; the 20th word after it is the time.
    return told.rpartition(")")[2].split()[19]


def _answers(address: str, file: Path) -> bool:
    """Whether a page is at ``address``; ``file`` goes if nobody listens there."""
    asking = HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
    with contextlib.closing(asking):
        try:
            asking.request("HEAD", "/now")
            asking.getresponse().read()
        except ConnectionRefusedError:
            file.unlink()
            return False
    return True
