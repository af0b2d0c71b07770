"""The command that comes next, true for the very files at hand."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from presplit.core.errors import BundleError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.plans import Plan
    from presplit.runtime.serving.config import Secure

SAMPLES = "SAMPLES"
"""What stands for images or other samples where none are known."""
WILD = ("0.0.0.0", "::", "[::]")
"""Addresses on which a server listens, and by which nobody reaches it."""


def samples_of(bundle: Bundle) -> str:
    """The folder that the bundle's net was tested on, if it is still there, or ``SAMPLES``."""
    spec: Mapping[str, Any] = bundle.manifest.spec or {}
    named = str((spec.get("data") or {}).get("name") or "")
    folder = Path(named)
    if not named or not folder.is_dir():
        return SAMPLES
    return quote(str(folder / "test" if (folder / "test").is_dir() else folder))


def running(bundle: Bundle, *options: str) -> str:
    """``presplit run`` of the bundle on what it was tested on, with more ``options``."""
    return " ".join(["presplit run", quote(str(bundle.path)), samples_of(bundle), *options])


def using(bundle: Bundle, plan: Plan) -> str:
    """The commands that put a plan to work; what serves says itself how it is asked."""
    if plan.split == bundle.net.last:
        return running(bundle)
    path = quote(str(bundle.path))
    words = f"presplit serve {path}"
    if plan.gateway is not None and plan.gateway.split < bundle.net.last:
        words += f", and presplit serve {path} --forward-to HOST:PORT on the gateway"
    return words


def after_run(run: Path, *, is_new: bool = False) -> str:
    """What comes after a run: its export, unless its bundle carries a plan or a signature already.

    What such a bundle needs is told then, and how it is replaced; ``is_new``: the run has just been
    trained, so that a bundle there is of another net.
    """
    from presplit.bundle import read
    from presplit.bundle.files import SIGNATURE
    from presplit.runtime.head import own_plan

    export = f"presplit export {quote(str(run))}"
    for path in sorted(run.glob("*.bundle")):
        try:
            found = read(path)
        except BundleError:
            continue
        if found.plan is None and not (path / SIGNATURE).exists():
            continue
        replacing = f"{export} --force"
        if is_new:
            return f"{replacing}, which replaces {path} of the net before"
        plan = found.plan or own_plan(found)
        return f"{using(found, plan)}; {replacing} makes the bundle anew, without its plan"
    return export


def reaching(address: str, secure: Secure) -> list[str]:
    """The options by which an edge reaches a server that listens on ``address``.

    Where it listens on every address, this machine's own is told, or the first one that its
    certificate names. What an edge shows is looked for beside the server's certificate, where
    ``presplit keys`` puts it.
    """
    host, _, port = address.rpartition(":")
    if host in WILD:
        host = _named(secure.tls_cert) or _own_address()
    if secure.tls_cert is None:
        return ["--server", f"{host}:{port}"]
    folder = Path(secure.tls_cert).parent
    options = ["--server", f"grpcs://{host}:{port}"]
    if (folder / "ca.pem").is_file():
        options += ["--tls-ca", quote(str(folder / "ca.pem"))]
    if secure.tls_ca is not None:
        cert = _first(folder, "edge-*.pem") or folder / "EDGE.pem"
        options += ["--tls-cert", quote(str(cert))]
        options += ["--tls-key", quote(str(cert.with_suffix(".key")))]
    if secure.tokens is not None:
        token = _first(folder, "edge-*.token") or folder / "EDGE.token"
        options += ["--token-file", quote(str(token))]
    return options


def again(given: list[str], *more: str) -> str:
    """The command that was given, with ``more`` words.

    >>> again(["plan", "my net.bundle"], "--save")
    "presplit plan 'my net.bundle' --save"
    """
    return shlex.join(["presplit", *given, *more])


def _first(folder: Path, pattern: str) -> Path | None:
    """The first file of that pattern, if there is one."""
    return min(folder.glob(pattern), default=None)


def _named(cert: str | None) -> str | None:
    """The first address or name in the certificate, as it stands before a port."""
    if cert is None:
        return None
    from presplit.runtime.address import joined
    from presplit.runtime.authority import hosts_of

    hosts = hosts_of(Path(cert))
    return joined(hosts[0], 0).removesuffix(":0") if hosts else None


def _own_address() -> str:
    """The address by which other machines most likely reach this one; its name where none is."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect(("192.0.2.1", 9))  # nothing is sent: only the way is looked up
            return str(asked.getsockname()[0])
    except OSError:
        return socket.gethostname()
