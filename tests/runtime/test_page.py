"""A page on this machine: files, values, actions and events, and none of it for strangers."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from presplit.core.errors import InputError, ServerError
from presplit.runtime.page import ROOM, STREAMS, Page

given = itertools.count()
taken: list[int] = []
let_go = threading.Event()


def twice(words: dict[str, str]) -> dict[str, Any]:
    if "n" not in words:
        raise InputError("n: expected a number, got none")
    return {"twice": 2 * int(words["n"]), "none": float("nan")}


def numbers() -> Iterator[int]:
    yield from range(3)


def failing() -> Iterator[int]:
    yield 1
    raise InputError("the source is gone")


def breaking() -> Iterator[int]:
    yield 1
    raise RuntimeError("dictionary changed size during iteration")


def endless() -> Iterator[str]:
    try:
        while True:
            taken.append(next(given))
            yield "x" * 50_000
            time.sleep(0.001)
    finally:
        let_go.set()


def calm() -> Iterator[int]:
    for number in itertools.count():
        yield number
        time.sleep(0.02)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    found = Page(
        0,
        files={"": ("text/html", b"<p>hello"), "look.css": ("text/css", b"p {}")},
        gets={"/twice": twice},
        posts={"add": lambda value: {"sum": sum(value)}},
        streams={"numbers": numbers, "failing": failing, "breaking": breaking, "endless": endless},
    )
    yield found
    found.close()


def asked(page: Page, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=5)
    connection.request(method, path, body or None, headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def test_files_values_and_actions_are_found_by_their_paths(page):
    assert asked(page, "GET", "/") == (200, "<p>hello")
    assert asked(page, "GET", "/look.css") == (200, "p {}")
    assert asked(page, "GET", "/twice?n=21") == (200, '{"twice":42,"none":null}')
    assert asked(page, "POST", "/add", b"[1, 2]") == (200, '{"sum":3}')


def test_what_cannot_be_given_is_told_in_a_sentence(page):
    told = [
        asked(page, "GET", "/twice"),
        asked(page, "GET", "/other"),
        asked(page, "GET", "/add"),
        asked(page, "POST", "/add", b"{"),
    ]
    assert [status for status, _ in told] == [400, 404, 405, 400]
    errors = [json.loads(text)["error"] for _, text in told]
    assert errors[0] == "n: expected a number, got none"
    assert "/look.css" in errors[1]


def test_a_page_of_another_origin_is_refused(page):
    assert asked(page, "GET", "/", Origin="https://example.com")[0] == 403
    assert asked(page, "POST", "/add", b"[1]", Host="example.com")[0] == 403
    assert asked(page, "POST", "/add", b"[1]", Origin="http://127.0.0.1:9")[0] == 403
    assert asked(page, "POST", "/add", b"[1]", Origin=page.address)[0] == 200


def test_another_page_reads_nothing_here_but_may_lead_here(page):
    """A browser names no origin when a page reads, but says where the page stands to us."""
    for site in ("cross-site", "same-site"):
        by = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "empty"}
        assert asked(page, "GET", "/numbers", **by)[0] == 403
        assert asked(page, "POST", "/add", b"[1]", **by)[0] == 403
        assert asked(page, "GET", "/", **(by | {"Sec-Fetch-Dest": "document"}))[0] == 200
    assert asked(page, "GET", "/numbers", **{"Sec-Fetch-Site": "same-origin"})[0] == 200


def test_a_browser_is_told_to_load_nothing_from_elsewhere(page):
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=5)
    connection.request("GET", "/")
    policy = connection.getresponse().headers["content-security-policy"]
    connection.close()
    assert policy.startswith("default-src 'self'")


def test_a_stream_gives_every_value_and_says_how_it_ended(page):
    over = "retry: 1000\n\ndata: 0\n\ndata: 1\n\ndata: 2\n\nevent: end\ndata: {}\n\n"
    assert asked(page, "GET", "/numbers") == (200, over)
    _, text = asked(page, "GET", "/failing")
    assert 'event: failed\ndata: {"error":"the source is gone"}' in text


def test_a_stream_that_breaks_ends_is_told_and_is_logged(page, caplog):
    _, text = asked(page, "GET", "/breaking")
    assert text.endswith('event: failed\ndata: {"error":"the server failed"}\n\n')
    assert "a stream failed: dictionary changed size" in caplog.text


def opened(page: Page, path: str) -> socket.socket:
    where = urlsplit(page.address)
    connection = socket.create_connection((where.hostname, where.port), timeout=5)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
    return connection


def test_a_slow_reader_loses_events_and_does_not_slow_their_source(page):
    """The source gives some hundred values, megabytes beyond what sockets hold, to nobody."""
    connection = opened(page, "/endless")
    before = len(taken)
    until = time.monotonic() + 5
    while len(taken) < before + 300 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(taken) >= before + 300
    assert ROOM < 300
    let_go.clear()
    connection.close()
    assert let_go.wait(5), "the source goes on after its reader has gone"


def test_streams_have_their_number_and_end_at_once_with_the_page(page):
    other = Page(0, streams={"calm": calm})
    readers = [opened(other, "/calm") for _ in range(STREAMS)]
    assert all(reader.recv(12) == b"HTTP/1.1 200" for reader in readers)
    assert asked(other, "GET", "/calm")[0] == 503
    began = time.monotonic()
    other.close()
    other.close()
    assert time.monotonic() - began < 1
    for reader in readers:
        reader.close()


def test_a_port_that_is_taken_is_refused_with_the_cure(page):
    port = urlsplit(page.address).port
    with pytest.raises(ServerError, match=r"another port for --live, or 0 for a free one"):
        Page(port, flag="--live")
