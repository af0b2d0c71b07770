"""Addresses: this machine's own in every spelling, and what is printed is what is accepted."""

from __future__ import annotations

import pytest

from presplit.core.errors import SpecError
from presplit.runtime.address import address_of, is_loopback, joined

OWN = ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "0:0:0:0:0:0:0:1", "[::1%lo]", "localhost")
OTHERS = ("0.0.0.0", "::", "[::]", "192.0.2.1", "fe80::1%eth0", "::ffff:192.0.2.1", "example.com")


@pytest.mark.parametrize("host", [*OWN, "LocalHost", "localhost.", "::ffff:127.0.0.1"])
def test_an_own_address_is_known(host: str) -> None:
    assert is_loopback(host)
    assert address_of(joined(host, 8443)) == joined(host, 8443)


@pytest.mark.parametrize("host", [*OTHERS, "", "[::1", "localhost.example.com", "\x00"])
def test_no_other_address_is_taken_for_an_own_one(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "server", ["::1", "[::1]", "host", "host:0", "host:65536", "http://a:1", "a:1/b", "[::g]:1", ""]
)
def test_another_form_is_refused(server: str) -> None:
    with pytest.raises(SpecError, match="server must be HOST:PORT"):
        address_of(server)


def test_brackets_that_are_missing_are_the_cure() -> None:
    with pytest.raises(SpecError, match=r"stands in brackets, as in \[::1\]:8443"):
        address_of("::1:8443")
