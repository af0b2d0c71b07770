"""Whose bundles a device takes: signed by a pinned key, and never older than the last one.

The device remembers in a small file the highest serial number that it took of each bundle's name.
So an old bundle, rightly signed once and since withdrawn, does not come back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from presplit.bundle.files import MANIFEST, SIGNATURE, Folder
from presplit.bundle.manifest import Manifest
from presplit.bundle.sign import MOST_BYTES, Statement, verified
from presplit.core.errors import BundleError
from presplit.core.types import canonical_json

MOST_STATE_BYTES = 2**20


@dataclass(frozen=True)
class Trust:
    """Public ``keys`` of 32 bytes, any of which may sign, and the device's ``state`` file.

    Without a state, nothing is remembered, and a bundle that is older is taken.
    """

    keys: tuple[bytes, ...]
    state: Path | None = None

    def statement(self, folder: Folder, manifest: bytes) -> Statement:
        """What the folder's signature says of the bytes of its manifest, once it is sure.

        Raises `BundleError`.
        """
        file = folder.path / SIGNATURE
        if SIGNATURE not in folder.names():
            raise BundleError(
                f"{folder.path}: is not signed, and only signed bundles are taken here; its maker "
                "signs it by: presplit sign BUNDLE --key KEY"
            )
        found = verified(folder.read(SIGNATURE, most=MOST_BYTES), self.keys, file)
        if not hmac.compare_digest(hashlib.sha256(manifest).hexdigest(), found.manifest_sha256):
            raise BundleError(
                f"{folder.path / MANIFEST}: is not what was signed; get the bundle again, or have "
                "it signed again if its plan was changed"
            )
        return found

    def check(self, statement: Statement, manifest: Manifest, path: Path) -> None:
        """Raise `BundleError` for a bundle of another name, or older than one that was taken."""
        if statement.name != manifest.name:
            raise BundleError(f"{path}: was signed as {statement.name!r}, is {manifest.name!r}")
        if self.state is not None:
            _check_newest(statement, _known(self.state), self.state, path)

    def remember(self, statement: Statement, path: Path) -> None:
        """From now on the bundles of this name that are older than this one are refused.

        Raises `BundleError` if it is itself older than one that was taken.
        """
        if self.state is None:
            return
        with _alone(self.state):
            known = _known(self.state)
            _check_newest(statement, known, self.state, path)
            if statement.serial > known.get(statement.name, -1):
                _store(self.state, {**known, statement.name: statement.serial})


def _check_newest(statement: Statement, known: dict[str, int], state: Path, path: Path) -> None:
    last = known.get(statement.name, -1)
    if statement.serial < last:
        raise BundleError(
            f"{path}: is older than what this device has taken (serial {statement.serial}, and it "
            f"knows {last} in {state}); get the newest, or have it signed again"
        )


def _known(state: Path) -> dict[str, int]:
    """The serial numbers by names of bundles; a file that says nothing clear is no leave."""
    try:
        with state.open("rb") as file:
            raw = file.read(MOST_STATE_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BundleError(f"{state}: cannot be read ({error.strerror})") from error
    try:
        return msgspec.json.decode(raw, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"{state}: does not say any more which bundles this device took; remove it to begin "
            "anew with what is here now"
        ) from error


def _store(state: Path, known: dict[str, int]) -> None:
    """Replace the file in one step, and be sure that it is on the disk."""
    temporary = state.with_name(f".{state.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(canonical_json(known))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, state)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BundleError(f"{state}: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def _alone(state: Path) -> Generator[None]:
    """Nobody else reads and writes the file meanwhile."""
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(state.with_name(f".{state.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BundleError(f"{state}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
