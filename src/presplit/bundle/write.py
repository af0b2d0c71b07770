"""Writing a bundle so that a crash or a full disk leaves the old one whole.

Everything goes into a temporary directory beside the target, is synced to the disk, and takes the
target's place by renaming: on Linux in one atomic exchange. A new plan replaces only the manifest,
in one atomic step.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from presplit.bundle.files import MANIFEST, SIGNATURE, UNFINISHED
from presplit.bundle.fits import all_fit
from presplit.bundle.manifest import File, Manifest
from presplit.bundle.read import (
    Bundle,
    read,
    read_manifest,
)
from presplit.bundle.sealed import parse_manifest
from presplit.bundle.sign import Statement, signed, statement_of
from presplit.core.errors import BundleError, SpecError
from presplit.core.plans import Plan, PlanTable
from presplit.core.types import canonical_json


def digest(contents: Mapping[str, bytes]) -> dict[str, File]:
    """The manifest's list of files for ``contents`` (name to bytes).

    >>> digest({"a.onnx": b""})["a.onnx"].bytes
    0
    """
    return {name: File(len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in contents.items()}


def write(path: str | Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Bundle:
    """Write the bundle to directory ``path``, replacing a bundle that is there, and read it back.

    Raises `BundleError`, with ``path`` unchanged, if it holds something that is not a bundle, if it
    cannot be written, or if manifest and contents do not make a bundle that can be read.
    """
    named, path = Path(path), real_path(path)
    sealed = canonical_json(manifest.sealed())
    _refuse_unreadable(path, manifest, sealed, contents)
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(f"{named}: exists and is not a bundle; choose another path or remove it")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary.chmod(0o755)
        for name, raw in (*contents.items(), (MANIFEST, sealed)):
            _write_file(temporary / name, raw)
        _sync(temporary)
        _take_place(temporary, path)
    except OSError as error:
        raise BundleError(
            f"{named}: cannot be written ({error.strerror}); what was there is unchanged"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return read(named)


def real_path(path: str | Path) -> Path:
    """Where ``path`` leads if it is a link: what is renamed must be on the link's other side.

    Raises `BundleError` for links that lead in a circle.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{path}: cannot be followed, its links lead in a circle") from error


def write_plan(
    bundle: Bundle | str | Path, plan: Plan | None, *, table: PlanTable | None = None
) -> Bundle:
    """Put ``plan`` and ``table`` into the bundle (or its path) on disk; give what carries them.

    They take the place of those that are there: without a table, the bundle has none afterwards.
    The model's hash stays, a signature does not: sign it again. Raises `BundleError` if a plan does
    not fit.
    """
    bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
    try:
        all_fit(plan, table, bundle.manifest)
    except SpecError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
    if read_manifest(bundle.path).model_hash != bundle.manifest.model_hash:
        raise BundleError(
            f"{bundle.path}: holds another model since it was read; read it again and plan for "
            "that one"
        )
    manifest = msgspec.structs.replace(bundle.manifest, plan=plan, table=table).sealed()
    folder = real_path(bundle.path)
    # Inside the bundle, so that it is on the same file system; readers take no notice of the name.
    temporary = folder / f"{UNFINISHED}{os.getpid()}"
    try:
        _write_file(temporary, canonical_json(manifest))
        os.replace(temporary, folder / MANIFEST)
        # Who signed the bundle did not sign this plan.
        (folder / SIGNATURE).unlink(missing_ok=True)
        _sync(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BundleError(
            f"{bundle.path}: the plan cannot be written ({error.strerror}); the bundle is unchanged"
        ) from error
    return dataclasses.replace(bundle, manifest=manifest)


def sign_bundle(path: str | Path, key: bytes, *, serial: int | None = None) -> Statement:
    """Sign the bundle at ``path`` by the private ``key`` (`presplit.bundle.sign.private_key_in`).

    ``serial`` only grows: devices refuse a lower one than they have taken; it is the seconds since
    1970, if None. A signature that is there is replaced. Raises `BundleError`.
    """
    bundle = read(path)
    folder = real_path(path)
    raw = canonical_json(bundle.manifest)
    signature = signed(raw, bundle.manifest.name, key, serial=serial)
    temporary = folder / f"{UNFINISHED}{os.getpid()}"
    try:
        _write_file(temporary, signature)
        os.replace(temporary, folder / SIGNATURE)
        _sync(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BundleError(f"{path}: cannot be signed ({error.strerror})") from error
    return statement_of(signature)


def _refuse_unreadable(
    path: Path, manifest: Manifest, sealed: bytes, contents: Mapping[str, bytes]
) -> None:
    """Raise `BundleError` unless ``sealed`` and ``contents`` can be read back.

    ``sealed`` is the manifest's bytes.
    """
    if digest(contents) != manifest.files:
        raise BundleError(
            f"{path}: the manifest lists {sorted(manifest.files)}, the contents are "
            f"{sorted(contents)}"
        )
    try:
        msgspec.json.decode(sealed, type=Manifest)
    except (msgspec.MsgspecError, SpecError) as error:
        raise BundleError(f"{path}: not a manifest that can be read: {error}") from error
    parse_manifest(sealed, path / MANIFEST)


def _write_file(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_place(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; a bundle that is there changes places with it in one step.

    Where the system has no such step, the old one is moved aside first and comes back if the second
    step fails.
    """
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = new.with_name(f"{new.name}.old")
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories atomically (renameat2 of Linux); False where that cannot be done."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        return (
            ctypes.CDLL(None).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)
            == 0
        )
    except (AttributeError, OSError):
        return False
