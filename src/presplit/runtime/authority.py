"""A private certificate authority for a server and its edges, and tokens, in one folder.

Small on purpose: one authority that signs nothing but leaves, a key of its own for every end, ECDSA
over P-256, which every TLS library has. Certificates of a server serve only as that, those of edges
only as those. What is made comes to be all together (`presplit.core.private.NewFiles`), and nothing
that is there is ever written over.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presplit.core.errors import SpecError, library
from presplit.core.private import NewFiles, warn_if_open

NEED = {"need": "making certificates", "extra": "edge"}
CA_DAYS = 3650
"""How long an authority's own certificate holds."""
DAYS = 397
"""How long the others do; browsers' authorities give no more."""
TOKEN_BYTES = 32
ALLOWED = "allowed.txt"
TOKENS = "tokens.txt"
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
"""All that X.509 knows of what a key may be used for."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")


class Authority:
    """The authority in a folder, which adds to the ``new`` files of it; see `found` and `of`."""

    def __init__(self, new: NewFiles, key: Any, cert: Any) -> None:
        self._new, self._key, self._cert = new, key, cert

    @classmethod
    def found(cls, new: NewFiles) -> Authority:
        """A new authority: ``ca.pem`` and ``ca.key``.

        Raises `SpecError` if there is one already.
        """
        x509 = _x509()
        key, name = _key(), _called(f"presplit authority {secrets.token_hex(4)}")
        limits = x509.BasicConstraints(ca=True, path_length=0)
        usage = _usage(key_cert_sign=True, crl_sign=True)
        cert = _certificate(name, name, key.public_key(), CA_DAYS, [(limits, True), (usage, True)])
        made = cls(new, key, cert.sign(key, _sha256()))
        new.add("ca.key", _pem_of_key(key), private=True)
        new.add("ca.pem", _pem(made._cert))
        return made

    @classmethod
    def of(cls, new: NewFiles) -> Authority:
        """The authority that is in the folder already; raises `SpecError` if there is none."""
        x509, folder = _x509(), new.folder
        serialization = library("cryptography.hazmat.primitives.serialization", **NEED)
        try:
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            cert = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            warn_if_open(folder / "ca.key")
        except OSError as error:
            raise SpecError(
                f"{error.filename}: cannot be read ({error.strerror}); make an authority first: "
                f"presplit keys {folder} --server HOST"
            ) from error
        except (ValueError, TypeError) as error:
            raise SpecError(
                f"{folder}: ca.key or ca.pem is no PEM file that can be used"
            ) from error
        if cert.public_key() != key.public_key():
            raise SpecError(f"{folder}: ca.key is not the key of ca.pem")
        return cls(new, key, cert)

    def server(self, hosts: Sequence[str], *, days: int = DAYS) -> None:
        """``server.pem`` and ``server.key`` for a server that is reached as any of ``hosts``."""
        x509 = _x509()
        self._leaf("server", [_host(host) for host in hosts], x509.OID_SERVER_AUTH, days)

    def edge(self, name: str, *, days: int = DAYS) -> None:
        """``edge-NAME.pem`` and ``edge-NAME.key``, and a line with the name in ``allowed.txt``."""
        x509 = _x509()
        check_name(name)
        self._leaf(f"edge-{name}", [x509.DNSName(name)], x509.OID_CLIENT_AUTH, days)
        self._new.add_line(ALLOWED, name)

    def _leaf(self, file: str, names: list[Any], purpose: Any, days: int) -> None:
        """A key of its own and a certificate with ``names`` for one ``purpose``."""
        x509 = _x509()
        key = _key()
        marks = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([purpose]), False),
            (x509.SubjectAlternativeName(names), False),
        ]
        subject = _called(f"presplit {file}"[:64])
        cert = _certificate(subject, self._cert.subject, key.public_key(), days, marks)
        self._new.add(f"{file}.key", _pem_of_key(key), private=True)
        self._new.add(f"{file}.pem", _pem(cert.sign(self._key, _sha256())))


def hosts_of(cert: Path) -> list[str]:
    """The addresses and names in a certificate's file; none where it cannot be read."""
    x509 = _x509()
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return [str(name.value) for name in names]


def add_token(new: NewFiles, name: str, *, days: int = DAYS) -> None:
    """A new token for ``name``: alone in ``edge-NAME.token``, its hash and end in ``tokens.txt``.

    Raises `SpecError` if that file is there.
    """
    check_name(name)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    digest = hashlib.sha256(token.encode()).hexdigest()
    new.add(f"edge-{name}.token", f"{token}\n".encode(), private=True)
    new.add_line(TOKENS, f"{name} sha256:{digest} {end:%Y-%m-%dT%H:%M:%S}", private=True)


def check_name(name: str) -> None:
    """Raise `SpecError` unless ``name`` can be an edge's: as the names of hosts are."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"expected a name of an edge of up to 63 of a-z, 0-9, '-' and '.', got {name[:80]!r}"
        )


def _host(host: str) -> Any:
    """An address or a name of a server, as a certificate holds it."""
    x509 = _x509()
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
        raise SpecError(f"expected a server's address or name without a port, got {host[:80]!r}")
    return x509.DNSName(host)


def _certificate(
    subject: Any, issuer: Any, key: Any, days: int, marks: list[tuple[Any, bool]]
) -> Any:
    """A certificate that is not signed yet; it holds from yesterday on, for clocks that differ."""
    x509 = _x509()
    now = datetime.datetime.now(datetime.UTC)
    made: Any = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=days),
    )
    for mark, critical in marks:
        made = made.add_extension(mark, critical=critical)
    return made


def _usage(**may: bool) -> Any:
    return _x509().KeyUsage(**{name: may.get(name, False) for name in USAGES})


def _x509() -> Any:
    module: Any = library("cryptography.x509", **NEED)
    oids: Any = library("cryptography.x509.oid", **NEED)
    module.OID_SERVER_AUTH = oids.ExtendedKeyUsageOID.SERVER_AUTH
    module.OID_CLIENT_AUTH = oids.ExtendedKeyUsageOID.CLIENT_AUTH
    return module


def _called(name: str) -> Any:
    x509 = _x509()
    oids: Any = library("cryptography.x509.oid", **NEED)
    return x509.Name([x509.NameAttribute(oids.NameOID.COMMON_NAME, name)])


def _key() -> Any:
    curves: Any = library("cryptography.hazmat.primitives.asymmetric.ec", **NEED)
    return curves.generate_private_key(curves.SECP256R1())


def _sha256() -> Any:
    hashes: Any = library("cryptography.hazmat.primitives.hashes", **NEED)
    return hashes.SHA256()


def _pem(cert: Any) -> bytes:
    form: Any = library("cryptography.hazmat.primitives.serialization", **NEED)
    return cert.public_bytes(form.Encoding.PEM)


def _pem_of_key(key: Any) -> bytes:
    form: Any = library("cryptography.hazmat.primitives.serialization", **NEED)
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
