"""A server says whether it is ready, to whoever keeps it running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from presplit.cli.main import main
from presplit.lab.processes import free_port, running

small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server behind TLS and tokens with REST beside it, and where each is found."""
    folder = tmp_path_factory.mktemp("health")
    bundle = small["small_bundle"](folder / "n.bundle", seed=1).path
    keys, http = folder / "keys", free_port()
    assert main(["keys", str(keys), "--server", "127.0.0.1", "--edge", "cam", "--by", "both"]) == 0
    secure = ["--tls-cert", f"{keys}/server.pem", "--tls-key", f"{keys}/server.key"]
    secure += ["--tls-ca", f"{keys}/ca.pem", "--allow", f"{keys}/allowed.txt"]
    secure += ["--tokens", f"{keys}/tokens.txt"]
    words = ["serve", str(bundle), *secure, "--http", str(http), "--port", "0", "--json"]
    with running("presplit", *words) as (address, _):
        cam = ["--tls-cert", f"{keys}/edge-cam.pem", "--tls-key", f"{keys}/edge-cam.key"]
        cam += ["--token-file", f"{keys}/edge-cam.token"]
        yield {"grpc": address, "http": http, "keys": keys, "cam": cam}


def test_a_ready_server_is_told_over_both_its_doors_by_who_may_come_in(
    places: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    secure, ca = f"grpcs://{places['grpc']}", ["--tls-ca", f"{places['keys']}/ca.pem"]
    rest = f"http://127.0.0.1:{places['http']}"
    assert main(["health", rest, *places["cam"][-2:]]) == 0
    assert capsys.readouterr().out == f"{rest} is ready\n"
    assert main(["health", rest]) == 1
    assert "it wants a token that it knows" in capsys.readouterr().out
    assert main(["health", secure, *ca, *places["cam"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"address": secure, "ready": True, "problem": ""}
    assert main(["health", secure, *ca]) == 1
    assert "shows no certificate that it admits" in capsys.readouterr().out


def test_who_is_not_there_is_not_ready_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["health", f"127.0.0.1:{port}", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["ready"] and "nobody listens there" in said["problem"]
    assert main(["health", f"http://127.0.0.1:{port}/"]) == 1
    assert "Connection refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["https://example.org"], "HTTP is for this machine alone"),
        (["http://127.0.0.1"], r"expected http://127.0.0.1:PORT"),
        (["nowhere"], "server must be HOST:PORT"),
        (["127.0.0.1:1", "--within", "0s"], "--within: expected a time above 0"),
        (["127.0.0.1:1", "--within", "soon"], "--within"),
    ],
)
def test_an_address_or_a_time_of_another_form_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["health", *words]) == 2
    assert said in capsys.readouterr().err
