"""Who does not belong does not come in, and who belongs is known by a name."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc.aio import _server as aio_server

from presplit.bundle import Bundle
from presplit.core.errors import ServerError, SpecError
from presplit.core.plans import Plan
from presplit.core.private import NewFiles
from presplit.runtime import Edge
from presplit.runtime.authority import Authority, add_token
from presplit.runtime.hosted import Layer
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire import lists
from presplit.runtime.wire.credentials import (
    Secured,
    check_reach,
    client_credentials,
    secured,
    token_in,
)
from presplit.runtime.wire.gate import REFUSED, Gate
from presplit.runtime.wire.messages import SERVICE
from presplit.runtime.wire.server import Listener

IMAGE = np.random.default_rng(0).random(16, dtype=np.float32)


@contextlib.contextmanager
def methods_of_servers() -> Iterator[list[str]]:
    """Every call that servers made meanwhile answer, as they are told of it."""
    found: list[str] = []
    adding = aio_server.Server.add_generic_rpc_handlers

    def told(server: Any, handlers: Any) -> None:
        found.extend(name for each in handlers for name in each._method_handlers)
        adding(server, handlers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aio_server.Server, "add_generic_rpc_handlers", told)
        yield found


class Seen(Layer):
    """Keeps by which names requests came in."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.clients: list[str] = []

    def run(self, name: str, array: Any, **told: Any) -> Any:
        self.clients.append(told.get("client", ""))
        return super().run(name, array, **told)


class Kept:
    """A secured server on a thread, its folder of keys and the calls that it has."""

    def __init__(self, bundle: Bundle, folder: Path, *, by: str) -> None:
        self.folder, self.hosted = folder, Seen(hosting(bundle))
        given: dict[str, Path] = {}
        if "certificate" in by:
            given |= {"ca": folder / "ca.pem", "allow": folder / "allowed.txt"}
        if "token" in by:
            given |= {"tokens": folder / "tokens.txt"}
        found = secured(cert=folder / "server.pem", key=folder / "server.key", **given)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.listener, self.address = self._there(self._listen(found))

    async def _listen(self, found: Secured) -> tuple[Listener, str]:
        with methods_of_servers() as self.methods:
            made = Listener(
                self.hosted, name="p", version="t", credentials=found.credentials, gate=found.gate
            )
        return made, await made.start("127.0.0.1", 0)

    def _there(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self._there(self.listener.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.hosted.close()


def keys(folder: Path) -> Path:
    with NewFiles(folder) as new:
        authority = Authority.found(new)
        authority.server(["127.0.0.1"])
        for name in ("cam-1", "cam-2"):
            authority.edge(name)
        add_token(new, "cam-1")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two authorities that do not know each other, each with a server and two edges."""
    place = tmp_path_factory.mktemp("keys")
    return keys(place / "ours"), keys(place / "theirs")


@pytest.fixture
def ours(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy, for tests that change it."""
    return Path(shutil.copytree(folders[0], tmp_path / "keys"))


def test_a_token_for_a_day_holds_a_day(tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    with NewFiles(tmp_path) as new:
        add_token(new, "cam", days=1)
    (made,) = lists.tokens(tmp_path / "tokens.txt").now() or ()
    assert made.end is not None
    assert before + day <= made.end <= datetime.datetime.now(datetime.UTC) + day


def serving(bundle: Bundle, folder: Path, by: str) -> Iterator[Kept]:
    kept = Kept(bundle, folder, by=by)
    yield kept
    kept.close()


@pytest.fixture
def by_certificate(bundle: Bundle, ours: Path) -> Iterator[Kept]:
    yield from serving(bundle, ours, "certificate")


@pytest.fixture
def by_both(bundle: Bundle, ours: Path) -> Iterator[Kept]:
    yield from serving(bundle, ours, "certificate and token")


@pytest.fixture
def by_token(bundle: Bundle, ours: Path) -> Iterator[Kept]:
    yield from serving(bundle, ours, "token")


def credentials(folder: Path, name: str = "cam-1", **more: Any) -> Any:
    own = {"cert": folder / f"edge-{name}.pem", "key": folder / f"edge-{name}.key"}
    return client_credentials(**{"ca": folder / "ca.pem", **own, **more})


def code(address: str, found: Any, method: str = f"/{SERVICE}/ServerLive") -> str:
    """What comes of a call: OK, or the status; ``found`` is None for a call in the clear."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    if found is None:
        channel, words = grpc.insecure_channel(address, options=options), ()
    else:
        channel, words = grpc.secure_channel(address, found.channel, options=options), found.words
    with channel:
        try:
            channel.unary_unary(method)(b"", timeout=5, metadata=words)
        except grpc.RpcError as error:
            assert error.code() is not grpc.StatusCode.UNAUTHENTICATED or error.details() == REFUSED
            assert error.code() is not grpc.StatusCode.PERMISSION_DENIED or (
                error.details() == REFUSED
            )
            return error.code().name
    return "OK"


def test_a_call_without_a_listed_certificate_never_comes_in(
    by_certificate: Kept, folders: tuple[Path, Path]
) -> None:
    """Whatever it calls: the methods are the server's own, and two that nobody has."""
    theirs, ca = folders[1], by_certificate.folder / "ca.pem"
    (by_certificate.folder / "allowed.txt").write_text("cam-1 # the door\n")
    methods = [*by_certificate.methods, "/grpc.health.v1.Health/Watch", "/none.Such/Call"]
    assert len(methods) >= 8
    refused = {
        "plaintext": None,
        "no certificate": client_credentials(ca=ca),
        "another authority": credentials(theirs, ca=ca),
        "the server's own": client_credentials(
            ca=ca, cert=ca.with_name("server.pem"), key=ca.with_name("server.key")
        ),
        "not listed": credentials(by_certificate.folder, "cam-2"),
    }
    for what, found in refused.items():
        for method in methods if what == "not listed" else methods[:2]:
            said = code(by_certificate.address, found, method)
            expected = "PERMISSION_DENIED" if what == "not listed" else "UNAVAILABLE"
            assert said == expected, (what, method)
    assert code(by_certificate.address, credentials(by_certificate.folder)) == "OK"
    unknown = code(by_certificate.address, credentials(by_certificate.folder), "/none.Such/Call")
    assert unknown == "UNIMPLEMENTED"


def test_a_call_without_a_token_that_holds_never_comes_in(
    by_token: Kept, folders: tuple[Path, Path]
) -> None:
    ca, tokens = by_token.folder / "ca.pem", by_token.folder / "tokens.txt"
    right, old = token_in(by_token.folder / "edge-cam-1.token"), "x1y2z3-w4v5" * 3
    with tokens.open("a") as file:
        file.write(f"cam-2 {old} {datetime.datetime.now(datetime.UTC):%Y-%m-%d}  # is over\n")
    wrong = {"none": None, "another": token_in(folders[1] / "edge-cam-1.token"), "expired": old}
    for what, token in wrong.items():
        for method in (*by_token.methods, "/none.Such/Call"):
            said = code(by_token.address, client_credentials(ca=ca, token=token), method)
            assert said == "UNAUTHENTICATED", (what, method)
    assert code(by_token.address, client_credentials(ca=ca, token=right)) == "OK"


def test_an_edge_answers_through_the_gate_by_its_name_until_its_line_is_taken_away(
    bundle: Bundle, by_certificate: Kept
) -> None:
    plan, folder = Plan(1, deadline_s=5), by_certificate.folder
    server = f"grpcs://{by_certificate.address}"

    def edge() -> Edge:
        return Edge.open(bundle, server=server, credentials=credentials(folder), plan=plan)

    with edge() as one:
        assert one.answer(IMAGE).why == "server"
        assert set(by_certificate.hosted.clients) == {"cam-1"}
        (folder / "allowed.txt").write_text("cam-2\n")
        assert one.answer(IMAGE).why == "refused"
    (folder / "allowed.txt").write_text("cam-1\ncam-2\n")
    with edge() as one:
        assert one.answer(IMAGE).why == "server"
        (folder / "allowed.txt").unlink()
        assert one.answer(IMAGE).why == "refused"


@pytest.mark.parametrize("left", ["", "cam-1 another-token-of-the-same-name-0123456789\n"])
def test_the_fast_way_on_one_machine_is_shut_as_soon_as_the_gate_is(
    bundle: Bundle, by_token: Kept, left: str
) -> None:
    """Requests that pass beside gRPC come from those whom the gate would let in now."""
    folder, plan = by_token.folder, Plan(1, deadline_s=5)
    known = client_credentials(ca=folder / "ca.pem", token=token_in(folder / "edge-cam-1.token"))
    lanes = by_token.listener._lanes
    with Edge.open(bundle, server=by_token.address, credentials=known, plan=plan) as edge:
        until = time.monotonic() + 5
        while not any(lane._client for lane in lanes.open) and time.monotonic() < until:
            assert edge.answer(IMAGE).why == "server"
        assert [lane._client for lane in lanes.open] == ["cam-1"]
        assert edge.answer(IMAGE).why == "server"
        (folder / "tokens.txt").write_text(left)
        whys = [edge.answer(IMAGE).why for _ in range(3)]
    assert set(whys) <= {"refused", "link_down"}
    assert whys[-1] == "refused"
    assert set(by_token.hosted.clients) == {"cam-1"}


def test_where_both_are_wanted_one_alone_does_not_do(by_both: Kept) -> None:
    folder = by_both.folder
    token = token_in(folder / "edge-cam-1.token")
    assert code(by_both.address, credentials(folder)) == "UNAUTHENTICATED"
    only = client_credentials(ca=folder / "ca.pem", token=token)
    assert code(by_both.address, only) == "UNAVAILABLE"
    assert code(by_both.address, credentials(folder, token=token)) == "OK"
    assert code(by_both.address, credentials(folder, "cam-2", token=token)) == "OK"
    (folder / "allowed.txt").write_text("cam-1\n")
    second = credentials(folder, "cam-2", token=token)
    assert code(by_both.address, second) == "PERMISSION_DENIED"


def test_no_good_call_fails_while_one_authority_takes_over_from_another(
    by_certificate: Kept, folders: tuple[Path, Path]
) -> None:
    """Both trust both, then the server changes its certificate, then the edge, then one is left."""
    folder, theirs = by_certificate.folder, folders[1]
    both = folder / "both.pem"
    both.write_bytes((folder / "ca.pem").read_bytes() + (theirs / "ca.pem").read_bytes())

    def replace(name: str, by: Path) -> None:
        shutil.copy(by, folder / ".new")
        os.replace(folder / ".new", folder / name)

    old, new = credentials(folder, ca=both), credentials(theirs, "cam-2", ca=both)
    assert code(by_certificate.address, old) == "OK"
    assert code(by_certificate.address, new) == "UNAVAILABLE"
    replace("ca.pem", both)
    assert [code(by_certificate.address, each) for each in (old, new)] == ["OK", "OK"]
    replace("server.pem", theirs / "server.pem")  # half of a pair: the pair before is used
    assert [code(by_certificate.address, each) for each in (old, new)] == ["OK", "OK"]
    replace("server.key", theirs / "server.key")
    assert [code(by_certificate.address, each) for each in (old, new)] == ["OK", "OK"]
    only_new = credentials(theirs, "cam-2")
    assert code(by_certificate.address, only_new) == "OK"
    replace("ca.pem", theirs / "ca.pem")
    assert [code(by_certificate.address, each) for each in (old, only_new)] == ["UNAVAILABLE", "OK"]


def test_a_stream_ends_when_its_sender_is_shut_out(tmp_path: Path) -> None:
    """The gate looks at each message of a stream, not only at its beginning."""
    token, listed = "a1b2c3d4" * 4, tmp_path / "tokens"
    listed.write_text(f"cam sha256:{hashlib.sha256(token.encode()).hexdigest()}\n")
    listed.chmod(0o600)

    async def doubled(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request * 2

    async def talk() -> list[Any]:
        server = grpc.aio.server(interceptors=[Gate(tokens_file=listed)])
        calls = {"Say": grpc.stream_stream_rpc_method_handler(doubled)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", calls)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream("/a.B/Say")(
                metadata=(("authorization", f"Bearer {token}"),), timeout=5
            )
            await call.write(b"x")
            first = await call.read()
            listed.write_text("")
            await call.write(b"y")
            said = [first, await call.code()]
        await server.stop(0)
        return said

    first, status = asyncio.run(talk())
    assert first == b"xx"
    assert status is grpc.StatusCode.PERMISSION_DENIED


def test_a_server_that_others_reach_needs_encryption_and_a_gate(ours: Path) -> None:
    pair = {"cert": ours / "server.pem", "key": ours / "server.key"}
    whole = secured(**pair, ca=ours / "ca.pem", allow=ours / "allowed.txt")
    for found, lacks in ((Secured(), "TLS .* and a gate"), (secured(**pair), "lacks a gate")):
        with pytest.raises(ServerError, match=f"no loopback address.*{lacks}.*--insecure"):
            check_reach("0.0.0.0", found, insecure=False)
        check_reach("127.0.0.1", found, insecure=False)
        check_reach("0.0.0.0", found, insecure=True)
    check_reach("0.0.0.0", whole, insecure=False)
    check_reach("::", secured(**pair, tokens=ours / "tokens.txt"), insecure=False)


def test_what_is_wrong_with_a_file_is_said_before_anybody_connects(
    ours: Path, folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair, theirs = {"cert": ours / "server.pem", "key": ours / "server.key"}, folders[1]
    junk = tmp_path / "junk"
    junk.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    old = tmp_path / "old"
    with NewFiles(old) as new:
        Authority.found(new).server(["localhost"], days=-1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"cert": ours / "none.pem"}, "none.pem: cannot be read .No such file"),
        ({"cert": junk}, "junk: holds a certificate that cannot be read"),
        ({"cert": ours / "server.key"}, "server.key: holds no certificate in PEM"),
        ({"key": theirs / "server.key"}, "server.key: is not the key of the certificate"),
        ({"key": ours / "server.pem"}, "server.pem: holds no private key in PEM"),
        ({"cert": old / "server.pem", "key": old / "server.key"}, r"server.pem: expired on \d{4}-"),
        ({"key": None}, "a certificate and its key go together"),
        ({"ca": ours / "ca.pem"}, "the list of admitted names .allow.: give both"),
        ({"cert": None, "key": None, "tokens": ours / "tokens.txt"}, "work only over TLS"),
        ({"tokens": ours / "edge-cam-1.token"}, "line 1: expected NAME TOKEN"),
    ]
    for changes, said in wrong:
        with pytest.raises(SpecError, match=said):
            secured(**{**pair, **changes})
    with pytest.raises(SpecError, match="junk: holds a certificate that cannot"):
        client_credentials(ca=junk)
    caplog.clear()
    secured(**pair)
    assert not caplog.records
    pair["key"].chmod(0o640)
    secured(**pair)
    assert "server.key: others may read it (mode 640); chmod 600" in caplog.text
    caplog.clear()
    if os.geteuid() == 0:  # a cluster's volume: root's files, this process's by its group
        os.chown(pair["key"], 1, -1)
        secured(**pair)
        assert not caplog.records


def test_a_token_that_could_be_guessed_or_a_line_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    good = "Zk3_wq0-81hJd7aBcD9eFg"
    for line, said in (
        (f"cam {good[:21]}", "at least 22 characters"),
        (f"cam {'ab' * 20}", "made by chance"),
        (f"cam {good} soon", "expected its end as in 2027-01-31"),
        (f"cam {good} 2027-01-31 more", "got 4 words"),
        ("cam sha256:12", "64 hexadecimal digits"),
        (f"c\xe4m {good}", "expected NAME TOKEN"),
    ):
        file.write_text(f"# mine\n{line}\n")
        with pytest.raises(SpecError, match=f"line 2: .*{said}") as told:
            lists.tokens(file)
        assert good not in str(told.value)
    file.write_text(f"cam {good} 2999-01-01\n")
    found = lists.holding(good, lists.tokens(file).now() or ())
    assert found is not None and found.name == "cam"
    assert lists.holding(good + "x", lists.tokens(file).now() or ()) is None


def test_nothing_secret_shows_in_what_is_printed(ours: Path) -> None:
    token = token_in(ours / "edge-cam-1.token")
    found = credentials(ours, token=token)
    assert token not in repr(found)
    assert token not in (ours / "tokens.txt").read_text()
    with pytest.raises(SpecError) as told:
        client_credentials(token=token[:20])
    assert token[:20] not in str(told.value)


def test_an_authority_writes_nothing_over_and_keeps_its_keys_to_its_owner(ours: Path) -> None:
    before = {entry.name: entry.read_bytes() for entry in ours.iterdir()}
    new = NewFiles(ours)
    for again in (
        lambda: Authority.found(new),
        lambda: Authority.of(new).server(["localhost"]),
        lambda: Authority.of(new).edge("cam-1"),
        lambda: add_token(new, "cam-1"),
    ):
        with pytest.raises(SpecError, match="is there already, and nothing is written over"):
            again()
    with pytest.raises(SpecError, match="expected a name of an edge"):
        Authority.of(new).edge("../up")
    assert {entry.name: entry.read_bytes() for entry in ours.iterdir()} == before
    private = {*ours.glob("*.key"), *ours.glob("*.token"), ours / "tokens.txt"}
    assert {entry.stat().st_mode & 0o777 for entry in private} == {0o600}
    with NewFiles(ours) as later:
        Authority.of(later).edge("cam-3")
    assert (ours / "allowed.txt").read_text() == "cam-1\ncam-2\ncam-3\n"


def test_credentials_and_an_address_that_contradict_each_other_are_refused(
    bundle: Bundle, ours: Path
) -> None:
    with pytest.raises(SpecError, match="grpc:// uses none; say grpcs://"):
        Edge.open(bundle, server="grpc://127.0.0.1:1", credentials=credentials(ours), plan=Plan(1))
