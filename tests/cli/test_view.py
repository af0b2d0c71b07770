"""presplit view at the command line: what it says before a browser looks, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from small import small_model

from presplit.cli.view import place_of
from presplit.core.plans import Plan, PlannedFor
from presplit.lab.view.opened import viewed
from presplit.packing import pack
from presplit.profiles import device_from, link_from

Said = tuple[int, str, str]


@pytest.mark.long
def test_json_prints_what_the_page_shows_of_the_net(
    command: Callable[..., Said], bundle: Path
) -> None:
    code, out, err = command("view", bundle, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["name"] == "small"
    assert all(segment["operators"] for segment in facts["segments"])
    assert [one["name"] for one in facts["exits"]] == ["block1"]


@pytest.mark.long
def test_the_page_is_served_until_it_is_interrupted(bundle: Path) -> None:
    words = ["view", str(bundle), "--no-open", "--device", "raspberry-pi-4", "--deadline", "50ms"]
    command = [sys.executable, "-m", "presplit", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/net") as reply:
            begin = json.load(reply)["begin"]
        process.terminate()
        assert process.wait(10) == 0
    assert (begin["device"], begin["deadline_s"]) == ("raspberry-pi-4", 0.05)


def test_what_cannot_be_looked_at_says_why(command: Callable[..., Said], tmp_path: Path) -> None:
    for words, problem in (
        (["none.onnx"], "none.onnx: expected an ONNX model or a bundle directory"),
        ([tmp_path], "manifest"),
        (["x.onnx", "--labels", "y.npy"], "--labels needs the samples"),
        (["x.onnx", "--port", "70000"], "less than or equal to 65535"),
    ):
        code, out, err = command("view", *words)
        assert (code, out) == (2, "")
        assert problem in err
    np.save(tmp_path / "array.npy", np.zeros(3))
    code, _, err = command("view", tmp_path / "array.npy")
    assert code == 2
    assert "not an ONNX file" in err


def test_a_device_that_does_not_exist_is_said_before_anything_is_timed(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    onnx.save(small_model(0), tmp_path / "net.onnx")
    code, _, err = command("view", tmp_path / "net.onnx", "--device", "pi")
    assert code == 2
    assert "no device named 'pi'" in err
    assert "timing" not in err


def test_the_page_begins_with_a_saved_plan_where_it_was_made_for(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 16)).astype(np.float32), random.integers(0, 4, 60)
    where = PlannedFor(device_from("cortex-m7"), link_from("lte"), device_from("mini-pc"))
    plan = Plan(2, {"middle": 0.5}, deadline_s=0.2, planned_for=where)
    bundle = pack(small_model(0), tmp_path / "net.bundle", samples=x, labels=y)
    net = viewed(bundle, "net.bundle")
    nothing = {"device": None, "server": None, "link": None}
    assert place_of(net, {}, {"link": "wifi"}, nothing).split == net.bundle.net.last
    planned = viewed(
        pack(small_model(0), tmp_path / "planned.bundle", samples=x, labels=y, plan=plan), ""
    )
    begin = place_of(planned, {}, {"link": "wifi"}, nothing)
    assert (begin.split, begin.exits, begin.deadline_s) == (2, {"middle": 0.5}, 0.2)
    assert (begin.device, begin.server, begin.link) == ("cortex-m7", "mini-pc", "lte")
    begin = place_of(planned, {}, {"link": "5g", "deadline_s": 0.1}, {**nothing, "link": "5g"})
    assert (begin.device, begin.link, begin.deadline_s) == ("cortex-m7", "5g", 0.1)
