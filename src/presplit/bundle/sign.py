"""Who made a bundle: a signature over its manifest, which holds the hashes of all its files.

``manifest.sig`` is 64 bytes of an Ed25519 signature (RFC 8032) and then what it signs: a statement
of the manifest's SHA-256, the bundle's name and a serial number. A device that pins the public key
takes no bundle without it, and by the serial none that is older than what it has taken before.
This is the only file of the room in which cryptography is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from presplit.bundle.files import SIGNATURE
from presplit.core.errors import BundleError, SpecError, library
from presplit.core.private import NewFiles, warn_if_open
from presplit.core.spec import Name
from presplit.core.types import canonical_json
from presplit.core.value import Value

MOST_BYTES = 4096
"""A signature's file is never longer."""
PURPOSE = "presplit bundle 1"
"""Signed along, so that the key's signature under anything else is none under a bundle."""
PRIVATE, PUBLIC = "signing.key", "signing.pub"
_LENGTH = 64
NEED = {"need": "signing and checking bundles", "extra": "edge"}
AS = "as presplit keys FOLDER --signing makes"


class Statement(Value, frozen=True):
    """What is signed: which manifest, of which bundle, and its number, which only grows."""

    purpose: str
    name: Name
    manifest_sha256: str
    serial: Annotated[int, Meta(ge=0, le=2**53)]


def make_keys(new: NewFiles) -> None:
    """``signing.key``, for its owner alone, and ``signing.pub``, for everybody, both in PEM."""
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    form: Any = library("cryptography.hazmat.primitives.serialization", **NEED)
    pem, key = form.Encoding.PEM, ed25519.Ed25519PrivateKey.generate()
    raw = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
    new.add(PRIVATE, raw, private=True)
    new.add(PUBLIC, key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))


def private_key_in(path: Path) -> bytes:
    """The 32 bytes of the private key in the PEM file ``path``, which signs.

    A file that others may read is warned of. Raises `SpecError`, also for a public key.
    """
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    form: Any = library("cryptography.hazmat.primitives.serialization", **NEED)
    raw = _pem_in(path)
    if b"PUBLIC KEY-----" in raw:
        raise SpecError(
            f"{path}: holds a public key, which signs nothing; give the private one ({PRIVATE})"
        )
    key: Any = None
    with contextlib.suppress(ValueError, TypeError, _unsupported()):
        key = form.load_pem_private_key(raw, None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SpecError(f"{path}: expected a private Ed25519 key in PEM without a passphrase, {AS}")
    warn_if_open(path)
    return key.private_bytes_raw()


def public_key_in(path: Path) -> bytes:
    """The 32 bytes of the public key in the PEM file ``path``, by which signatures are checked.

    Raises `SpecError`, also for a private key.
    """
    ed25519: Any = library("cryptography.hazmat.primitives.asymmetric.ed25519", **NEED)
    form: Any = library("cryptography.hazmat.primitives.serialization", **NEED)
    raw = _pem_in(path)
    if b"PRIVATE KEY-----" in raw:
        raise SpecError(
            f"{path}: holds a private key, which belongs only where bundles are signed; give the "
            f"public one ({PUBLIC})"
        )
    key: Any = None
    with contextlib.suppress(ValueError, _unsupported()):
        key = form.load_pem_public_key(raw)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SpecError(f"{path}: expected a public Ed25519 key in PEM, {AS}")
    return key.public_bytes_raw()


def _pem_in(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error


def _unsupported() -> Any:
    errors: Any = library("cryptography.exceptions", **NEED)
    return errors.UnsupportedAlgorithm


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
