"""What ``presplit serve`` may be told, by flags or in a file of TOML: strict, and checked once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec import Meta

from presplit.core.errors import SpecError, context
from presplit.core.value import NonNegative, Positive, Value
from presplit.runtime.serving.batching import MOST_JOINED
from presplit.runtime.trusted import Reader, reader

Port = Annotated[int, Meta(ge=0, le=65535)]
Whole = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Log = Literal["text", "json", "none"]
ServeEngine = Literal["own", "ray"]
CHOICES: dict[str, Any] = {"log": Log, "engine": ServeEngine}
"""The keys whose values are one of a few words."""


class Secure(Value, frozen=True):
    """Who may call, and how what is sent is kept secret: paths, as ``presplit keys`` makes them."""

    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    allow: str | None = None
    tokens: str | None = None

    @property
    def paths(self) -> dict[str, Path | None]:
        """The same by the names that `presplit.runtime.wire.credentials.secured` takes."""
        fields = self.__struct_fields__
        given: dict[str, str | None] = {name: getattr(self, name) for name in fields}
        return {
            name.removeprefix("tls_"): None if path is None else Path(path)
            for name, path in given.items()
        }


class Forward(Value, frozen=True):
    """How a gateway reaches the next server over TLS: paths, as ``presplit keys`` makes them."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token_file: str | None = None

    @property
    def paths(self) -> dict[str, Path | None]:
        """The same as `presplit.runtime.wire.credentials.reaching` takes them."""
        fields = self.__struct_fields__
        given: dict[str, str | None] = {name: getattr(self, name) for name in fields}
        return {name: None if path is None else Path(path) for name, path in given.items()}


class Config(Value, frozen=True):
    """How a server serves; each field is a flag of ``presplit serve`` and a key of its file."""

    bundles: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: Port = 8443
    http: Port | None = None
    threads: Whole = 1
    workers: Whole | None = None
    places: Whole | None = None
    batch: Whole = MOST_JOINED
    batch_wait_s: NonNegative = 0.0
    keep_mb: Positive | None = None
    most_mb: Positive | None = None
    forward_to: str | None = None
    engine: ServeEngine = "own"
    replicas: Whole = 2
    ray_port: Port | None = None
    watch_s: NonNegative = 2.0
    moment_s: NonNegative = 0.2
    drain_s: NonNegative = 9.0
    log: Log = "text"
    insecure: bool = False
    trust_keys: tuple[str, ...] = ()
    untrusted: bool = False
    secure: Secure = Secure()
    forward: Forward = Forward()

    @property
    def keep_bytes(self) -> float | None:
        """``keep_mb`` in bytes."""
        return None if self.keep_mb is None else self.keep_mb * 10**6

    def reader(self) -> Reader:
        """What reads bundles, as far as they are trusted; raises `SpecError`."""
        return reader(self.trust_keys, untrusted=self.untrusted)


TEMPLATE = """\
# presplit serve --config FILE: what is not written here is as shown. Flags win over this file.

bundles = []            # bundles, or folders of bundles: ["/srv/bundles"]
host = "127.0.0.1"      # another address needs [secure], or insecure = true
port = 8443             # 0: any free one
#http = 8080            # REST and /metrics on this port of 127.0.0.1; off unless it is given

threads = 1             # of one engine
#workers = 2            # engines that run at once; default: processors / threads
#places = 128           # requests inside at once, waiting or computed; default: 64 a worker
batch = 32              # samples computed together where that pays; 1: each request alone
batch_wait_s = 0.0      # wait so long for others to compute with, if deadlines allow it
#keep_mb = 64           # models kept ready; default: four times the net, 64 at least
#most_mb = 64           # the longest request; default: what the bundles take at most

#forward_to = "HOST:8443"  # be a gateway to that server

engine = "own"          # ray: replicas on Ray Serve compute, of the cluster RAY_ADDRESS or here
replicas = 2            # with ray: as many as this for each bundle, as the load wants
#ray_port = 9000        # with ray: its own gRPC ingress too, open on every address

watch_s = 2.0           # look so often for bundles that are new or changed; 0: on SIGHUP alone
moment_s = 0.2          # after SIGTERM: not ready, but still taking requests, for so long
drain_s = 9.0           # then whoever is inside is answered, all within so long
log = "text"            # text, json or none, on standard error

insecure = false        # allow an address that others can reach without TLS and authentication

#trust_keys = ["signing.pub"]  # take only bundles signed by one of these, and none that is older
untrusted = false       # the bundles are strangers': fewer operators, and tried in a small process

[secure]                # presplit keys makes these files
#tls_cert = "server.pem"
#tls_key = "server.key"
#tls_ca = "ca.pem"      # edges must show a certificate that it signed ..
#allow = "edges.txt"    # .. with a name that stands in this file
#tokens = "tokens.txt"  # calls must carry a token of this file

[forward]               # a gateway's way to the next server, over TLS
#ca = "ca.pem"
#cert = "edge-gateway.pem"
#key = "edge-gateway.key"
#token_file = "edge-gateway.token"
"""
"""The file with everything at its default."""


def read_config(path: str | Path, over: Mapping[str, object]) -> Config:
    """The configuration in the TOML file ``path``, with ``over`` laid over it.

    Raises `SpecError` that begins with the file's name, and names the key.
    """
    with context(str(path)):
        try:
            table = tomllib.loads(Path(path).read_bytes().decode())
        except OSError as error:
            raise SpecError(f"cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise SpecError(f"not TOML: {error}") from error
        found = config_from(table)
    for name, part in (("secure", found.secure), ("forward", found.forward)):
        changed = over.get(name)
        if isinstance(changed, Mapping):
            kept = {key: value for key, value in msgspec.structs.asdict(part).items() if value}
            over = {**over, name: {**kept, **cast("Mapping[str, object]", changed)}}
    return config_from({**table, **over})


def config_from(table: Mapping[str, object]) -> Config:
    """The configuration in ``table``; raises `SpecError` naming the key.

    >>> config_from({"port": 0, "secure": {"tokens": "tokens.toml"}}).secure.tokens
    'tokens.toml'
    >>> config_from({"prot": 1})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: unknown key 'prot' (nearest: port)
    >>> config_from({"threads": 0})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: threads: expected `int` >= 1, got 0
    """
    _refuse_strange(table, Config.__struct_fields__, "")
    secure = table.get("secure", {})
    if isinstance(secure, Mapping):
        keys = cast("Mapping[str, object]", secure)
        _refuse_strange(keys, Secure.__struct_fields__, "secure.")
    try:
        return msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        key = where.rstrip("`") or "the file"
        got = _at(table, key)
        if problem.startswith("Invalid enum value"):
            problem = f"expected one of {', '.join(get_args(CHOICES[key]))}"
        expected = problem[:1].lower() + problem[1:].partition(", got")[0]
        raise SpecError(f"{key}: {expected.replace(' | null', '')}, got {got!r}") from error
    except SpecError as error:
        raise SpecError(str(error).removeprefix("Config.").removeprefix("Secure.")) from error


def _at(table: Mapping[str, object], key: str) -> object:
    """What stands at the dotted ``key``, as far as tables go."""
    found: Any = table
    for part in key.split("."):
        name = part.partition("[")[0]
        found = found.get(name, found) if hasattr(found, "get") else found
    return found


def _refuse_strange(table: Mapping[str, object], known: tuple[str, ...], prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"nearest: {near[0]}" if near else f"there are: {', '.join(known)}"
            raise SpecError(f"unknown key '{prefix}{key}' ({hint})")
