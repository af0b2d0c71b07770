"""Who made a bundle: a signature over its manifest, which holds the hashes of all its files.

``manifest.sig`` is 64 bytes of an Ed25519 signature (RFC 8032) and then what it signs: a statement
of the manifest's SHA-256, the bundle's name and a serial number. A device that pins the public key
takes no bundle without it, and by the serial none that is older than what it has taken before.
This is the only file of the room in which cryptography is imported.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from presplit.bundle.files import SIGNATURE
from presplit.core.errors import BundleError, SpecError, library
from presplit.core.spec import Name
from presplit.core.types import canonical_json
from presplit.core.value import Value

MOST_BYTES = 4096
"""A signature's file is never longer."""
PURPOSE = "presplit bundle 1"
"""Signed along, so that the key's signature under anything else is none under a bundle."""
_LENGTH = 64
NEED = {"need": "signing and checking bundles", "extra": "edge"}


class Statement(Value, frozen=True):
    """What is signed: which manifest, of which bundle, and its number, which only grows."""

    purpose: str
    name: Name
    manifest_sha256: str
    serial: Annotated[int, Meta(ge=0, le=2**53)]


def make_keys(folder: Path) -> None:
    """``signing.key``, for its owner alone, and ``signing.pub``, for everybody, in ``folder``.

    Raises `SpecError` if one of them is there.
    """
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    key = ed25519.Ed25519PrivateKey.generate()
    lines = {
        "signing.key": (base64.b64encode(key.private_bytes_raw()), 0o600),
        "signing.pub": (base64.b64encode(key.public_key().public_bytes_raw()), 0o644),
    }
    for name in lines:
        if (folder / name).exists():
            raise SpecError(f"{folder / name}: is there already, and nothing is written over")
    for name, (line, mode) in lines.items():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(line + b"\n")
        except OSError as error:
            raise SpecError(f"{folder / name}: cannot be written ({error.strerror})") from error


def key_in(path: Path) -> bytes:
    """The 32 bytes of the key in the file ``path``, public or private; raises `SpecError`."""
    try:
        raw = base64.b64decode(path.read_bytes()[:256].strip(), validate=True)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise SpecError(
            f"{path}: expected a key of 32 bytes in base64, as presplit keys FOLDER --signing makes"
        )
    return raw


def signed(manifest: bytes, name: str, key: bytes, *, serial: int | None = None) -> bytes:
    """What ``manifest.sig`` holds for the bytes of a ``manifest``, by a private ``key``.

    ``serial`` is the number of seconds since 1970 unless it is given.
    """
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    number = int(time.time()) if serial is None else serial
    statement = Statement(PURPOSE, name, hashlib.sha256(manifest).hexdigest(), number)
    raw = canonical_json(statement)
    return ed25519.Ed25519PrivateKey.from_private_bytes(key).sign(raw) + raw


def verified(signature: bytes, keys: tuple[bytes, ...], file: Path) -> Statement:
    """The statement in ``signature``, the bytes of ``file``, by one of the public ``keys``.

    Nothing of it is parsed before that is sure. Raises `BundleError`.
    """
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    errors: Any = library("cryptography.exceptions", **NEED)
    mark, raw = signature[:_LENGTH], signature[_LENGTH:]
    for key in keys:
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(mark, raw)
        except errors.InvalidSignature:
            continue
        return statement_of(signature, file)
    raise BundleError(
        f"{file}: is no signature by a key that is trusted here; get the bundle, and its maker's "
        "key, again"
    )


def statement_of(signature: bytes, file: Path = Path(SIGNATURE)) -> Statement:
    """What ``signature`` signs, whoever did; raises `BundleError` if that is no bundle."""
    raw = signature[_LENGTH:]
    try:
        found = msgspec.json.decode(raw, type=Statement)
    except (msgspec.MsgspecError, SpecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{file}: signs something else than a bundle") from error
    if found.purpose != PURPOSE:
        raise BundleError(f"{file}: signs something else than a bundle")
    return found
