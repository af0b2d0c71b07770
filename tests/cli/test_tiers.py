"""Three tiers on the command line: planned, saved, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from presplit.bundle import read
from presplit.cli.options import gateway_with
from presplit.core.errors import SpecError
from presplit.core.plans import Gateway, Plan

Said = tuple[int, str, str]
GATEWAY = ("--gateway", "macs=1G,memory=1GB,power=3", "--uplink", "up=300k,rtt=60ms")


def test_a_plan_with_a_gateway_is_saved_and_says_how_it_is_put_to_work(
    command: Callable[..., Said], bundle: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(bundle, tmp_path / "own.bundle")
    device = "macs=1M,memory=1GB,power=3"
    words = ("plan", path, "--device", device, *GATEWAY, "--confidence", "none", "--save")
    code, out, said = command(*words, "--json")
    assert code == 0, said
    found = json.loads(out)
    assert "all-gateway" in found["baselines"]
    saved = read(path).plan
    assert saved is not None and saved.gateway is not None
    assert found["plan"]["gateway"]["split"] == saved.gateway.split
    on = saved.gateway.split < read(path).net.last
    assert on == ("--forward-to HOST:PORT on the gateway" in said)
    code, out, _ = command(*words)
    assert code == 0 and "gateway" in out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("plan", *GATEWAY[:2]), "give both the gateway and the uplink"),
        (("plan", *GATEWAY[2:]), "give both the gateway and the uplink"),
        (("plan", *GATEWAY, "--table"), "--table is of plans with one split"),
        (("plan", "--gateway", "moon", *GATEWAY[2:]), "no device named 'moon'"),
        (("serve", "--split", 1), "give --forward-to HOST:PORT"),
        (("serve", "--forward-to", "127.0.0.1:1"), "carries no plan for a gateway; give its split"),
        (("serve", "--forward-to", "127.0.0.1:1", "--codec", "int8"), "give its --split too"),
        (("serve", "--forward-to", "nowhere", "--split", 1), "must be HOST:PORT"),
        (("serve", "--forward-to", "localhost:8443", "--split", 1), "is this gateway itself"),
        (("serve", "--forward-to", "127.0.0.1:1", "--split", 99), "gateway.split must be in 0.."),
        (("serve", "--forward-to", "127.0.0.1:1", "--split", 1, "--spare", "x"), "--spare"),
    ],
)
def test_what_makes_no_sense_of_a_gateway_is_one_sentence(
    command: Callable[..., Said], bundle: Path, words: tuple[object, ...], text: str
) -> None:
    verb, *more = words
    code, out, said = command(verb, bundle, *more)
    assert (code, out) == (2, "")
    assert text in said and "Traceback" not in said and len(said.strip().splitlines()) == 1


def test_the_command_line_changes_what_the_plan_has_a_gateway_do(bundle: Path) -> None:
    found, nothing = read(bundle), {"split": None, "codec": None, "threshold": [], "spare": None}
    assert gateway_with(found, **nothing) is None
    given = nothing | {"split": 1, "codec": "int8", "threshold": ["block1=0.5"], "spare": "5ms"}
    assert gateway_with(found, **given) == Gateway(1, {"block1": 0.5}, "int8", spare_s=0.005)
    planned = Plan(0, gateway=Gateway(1, {"block1": 0.9}, "int8"))
    with pytest.raises(SpecError, match="give its --split too"):
        gateway_with(found, **(nothing | {"codec": "int8"}))
    carries = dataclasses.replace(
        found, manifest=msgspec.structs.replace(found.manifest, plan=planned)
    )
    slower = gateway_with(carries, **(nothing | {"spare": "40ms"}))
    assert slower == Gateway(1, {"block1": 0.9}, "int8", spare_s=0.04)
