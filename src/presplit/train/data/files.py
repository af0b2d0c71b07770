"""Finding data files on disk, and fetching them with a checksum where they are missing.

Searched, in this order: the folder in the environment variable ``PRESPLIT_DATA`` or, without it,
``../shared/data`` beside the working folder; then the cache, ``$XDG_CACHE_HOME/presplit`` or
``~/.cache/presplit``, where fetched files are put.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path

from presplit.core.errors import DataError

MOST_BYTES = 2**28
"""No file that is read here is larger."""
WAIT_S = 10.0


def folders() -> list[Path]:
    """Where data sets are searched, the most special first."""
    own, kept = os.environ.get("PRESPLIT_DATA"), cache()
    return [Path(own or "../shared/data"), *([kept] if kept else [])]


def cache() -> Path | None:
    """Where fetched files are kept; None for a user without a home who names no other place."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "presplit"
    try:
        return Path.home() / ".cache" / "presplit"
    except RuntimeError:  # a container may run as a user whom no list of users knows
        return None


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file that may be seen; a folder that may not be entered holds none."""
    return os.path.isfile(path)


def obtain(
    folder: str, name: str, *, sha256: str, mirrors: Sequence[str], packing: str = ".gz"
) -> bytes:
    """The uncompressed contents of ``folder/name`` (or ``name.gz``), found or fetched.

    They are checked against ``sha256``.

    With ``packing`` "", the file is taken as it is and fetched under its own name. Raises
    `DataError` naming the file if it is damaged, or all places that were tried if it is nowhere.
    """
    for place in folders():
        for path in (place / folder / name, place / folder / f"{name}{packing}"):
            if is_file(path):
                raw = _bytes(path)
                return _checked(_unpacked(raw, str(path)) if packing else raw, sha256, str(path))
    return _fetched(folder, name, sha256, mirrors, packing)


def checked_file(path: Path, sha256: str) -> bytes:
    """The contents of a file as it lies there; raises `DataError` if they are others."""
    return _checked(_bytes(path), sha256, str(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _fetched(folder: str, name: str, sha256: str, mirrors: Sequence[str], packing: str) -> bytes:
    """Download from the first mirror that has the right file, and keep that in the cache."""
    reasons: list[str] = []
    for mirror in mirrors:
        url = f"{mirror}{name}{packing}"
        try:
            with urllib.request.urlopen(url, timeout=WAIT_S) as reply:
                packed = reply.read(MOST_BYTES)
            contents = _checked(_unpacked(packed, url) if packing else packed, sha256, url)
        except DataError as error:
            reasons.append(str(error))
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', error)}")
        else:
            kept = cache()
            if kept is not None:
                _keep(packed, kept / folder / f"{name}{packing}")
            return contents
    tried = ", ".join(str(place / folder) for place in folders())
    wanted = f"{folder}/" if folder else f"{name}{packing}"
    raise DataError(
        f"{name} is neither in {tried} nor could it be fetched ({'; '.join(reasons)}); "
        f"put {name}{packing} into {folders()[0] / folder}, or set PRESPLIT_DATA to the folder "
        f"that holds {wanted}"
    )


def _keep(packed: bytes, target: Path) -> None:
    """Put ``packed`` at ``target``.

    A cache that cannot be written costs a download the next time, and no more.
    """
    temporary = target.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(packed)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _unpacked(raw: bytes, where: str) -> bytes:
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: damaged gzip file ({error}); delete it and try again") from error


def _checked(contents: bytes, sha256: str, where: str) -> bytes:
    found = hashlib.sha256(contents).hexdigest()
    if found != sha256:
        raise DataError(
            f"{where}: SHA-256 of the contents is {found}, expected {sha256}; delete it and try "
            "again"
        )
    return contents
