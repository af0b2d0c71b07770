"""Certificates and keys in PEM files: what is wrong with them is said before gRPC meets them.

gRPC takes any bytes and then fails every handshake without a reason. So that the edge needs no
library for it, the standard one compares key and certificate, and the few fields that it does not
show (from when until when a certificate holds) are read here (RFC 5280, section 4.1).
"""

from __future__ import annotations

import datetime
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from presplit.core.errors import SpecError
from presplit.core.private import warn_if_open

MOST_BYTES = 2**20
"""A file of certificates or a key is never longer."""
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
_SEQUENCE, _VERSION, _SHORT_YEAR, _LONG_YEAR = 0x30, 0xA0, 0x17, 0x18


@dataclass(frozen=True)
class Holds:
    """From when until when a certificate holds, in UTC."""

    begin: datetime.datetime
    end: datetime.datetime


def contents(path: Path) -> bytes:
    """The bytes of a file of certificates, keys, names or tokens; raises `SpecError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > MOST_BYTES:
        raise SpecError(f"{path}: expected at most {MOST_BYTES} bytes, got more")
    return raw


def secret(path: Path) -> bytes:
    """As `contents`, for what only its owner may read: a file open to others is warned of."""
    raw = contents(path)
    warn_if_open(path)
    return raw


def certificates(path: Path) -> bytes:
    """The PEM file ``path`` of one or more certificates of which at least the first holds now.

    In a file of authorities any that holds is enough. Raises `SpecError` that says what is wrong.
    """
    raw = contents(path)
    held = validity(raw, path)
    now = datetime.datetime.now(datetime.UTC)
    if not any(each.begin <= now <= each.end for each in held):
        first = held[0]
        if now > first.end:
            raise SpecError(f"{path}: expired on {first.end:%Y-%m-%d %H:%M} UTC; make a new one")
        raise SpecError(
            f"{path}: holds only from {first.begin:%Y-%m-%d %H:%M} UTC on; is this machine's clock "
            f"right? It says {now:%Y-%m-%d %H:%M} UTC"
        )
    return raw


def pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """The certificate (with its chain) and the key of the two files, which belong together.

    Raises `SpecError`.
    """
    chain, own = certificates(cert), secret(key)
    first = validity(chain, cert)[0]
    if datetime.datetime.now(datetime.UTC) > first.end:
        raise SpecError(f"{cert}: expired on {first.end:%Y-%m-%d %H:%M} UTC; make a new one")

    def asked() -> str:
        raise SpecError(f"{key}: is locked by a passphrase, and nobody is here to give it")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=asked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SpecError(f"{key}: is not the key of the certificate {cert}") from error
        raise SpecError(f"{key}: holds no private key in PEM that can be used") from error
    return chain, own


def validity(raw: bytes, path: Path) -> list[Holds]:
    """From when until when each certificate in ``raw``, the bytes of ``path``, holds.

    Raises `SpecError` if there is none.
    """
    blocks = _BLOCK.findall(raw.decode("latin-1"))
    try:
        found = [_holds(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
    except (ValueError, IndexError) as error:
        raise SpecError(f"{path}: holds a certificate that cannot be read") from error
    if not found:
        raise SpecError(f"{path}: holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return found


def _holds(der: bytes) -> Holds:
    """What the certificate ``der`` says of its time."""
    fields = _fields(_fields(_fields(der)[0][1])[0][1])
    # A version may stand first; then come serial number, algorithm, issuer and the time.
    if fields[0][0] == _VERSION:
        fields = fields[1:]
    begin, end = _fields(fields[3][1])
    return Holds(_time(*begin), _time(*end))


def _time(tag: int, text: bytes) -> datetime.datetime:
    form = {_SHORT_YEAR: "%y%m%d%H%M%SZ", _LONG_YEAR: "%Y%m%d%H%M%SZ"}.get(tag, "")
    return datetime.datetime.strptime(text.decode("ascii"), form).replace(tzinfo=datetime.UTC)


def _fields(der: bytes) -> list[tuple[int, bytes]]:
    """The fields one after another in ``der``, each a tag with its contents."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[at : at + count])
            at += count
        if at + length > len(der):
            raise ValueError("a field is longer than what holds it")
        found.append((tag, der[at : at + length]))
        at += length
    return found
