"""Processes of the product are started, found and ended, and one that cannot start says why."""

from __future__ import annotations

import socket

import pytest

from presplit.core.errors import ServerError
from presplit.lab.processes import free_port, running


def test_a_process_is_reached_where_it_says_and_gone_afterwards() -> None:
    with running("presplit.lab.shaper", "--target", f"127.0.0.1:{free_port()}") as (
        address,
        process,
    ):
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    assert process.returncode is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_process_that_ends_before_it_listens_says_why() -> None:
    with (
        pytest.raises(ServerError, match="shaper --target nowhere ended: target must be HOST:PORT"),
        running("presplit.lab.shaper", "--target", "nowhere"),
    ):
        pass
