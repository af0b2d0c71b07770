"""``presplit top``, and the options of the live page."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from presplit.cli.top_view import line, screen
from presplit.runtime.live.page import showing
from presplit.runtime.live.server import ServerLive
from presplit.runtime.page import Page
from presplit.runtime.serving.served import Served

EDGE = {
    "kind": "edge",
    "name": "digits",
    "process": 7,
    "at": 0.0,
    "up_s": 12.0,
    "answers": 120,
    "per_s": 10.0,
    "deadline_s": 0.1,
    "degraded": {"recent": 1, "whole": 2},
    "missed": {"recent": 0, "whole": 3},
    "times": {
        "recent": {"p50_s": 0.002, "p99_s": 0.03},
        "whole": {"p50_s": 0.002, "p99_s": 0.04, "longest_s": 0.1},
    },
    "exits": [{"name": "final, server", "recent": 3, "whole": 9}],
    "whys": [
        {"name": "server", "words": "the server", "recent": 3, "whole": 9},
        {"name": "link_down", "words": "no connection", "recent": 1, "whole": 1},
    ],
    "seconds": 60 * [[10.0, 5.0, 0.0, 0.002, 0.03]],
    "boundaries": [],
    "plans": [
        {
            "split": 4,
            "at": "bottleneck",
            "codec": "int4",
            "bytes": 64.0,
            "recent": 4,
            "whole": 10,
            "current": True,
        }
    ],
    "link": {
        "up_bps": 2e6,
        "rtt_s": 0.02,
        "server_factor": 1.0,
        "device_factor": 1.0,
        "heard": True,
    },
    "sent": {"recent_bytes": 48.0, "whole_bytes": 40.0},
    "servers": [
        {"address": "127.0.0.1:1", "asked": False, "why": "Connection refused", "silent_s": 12.0}
    ],
    "counts": {},
    "said": {},
    "energy": {"total_j": 1.0, "mean_j": 0.002},
    "picture": None,
}


def test_a_screen_and_a_line_say_what_matters(capsys: pytest.CaptureFixture[str]):
    from presplit.cli.top import screen_once

    screen_once(screen(EDGE, ""))
    shown = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    for words in ("answers/s: 10.0", "p99 now: 30 ms", "over 100 ms: 3", "75.0 %", "bottleneck"):
        assert words in shown
    assert "127.0.0.1:1 is not asked for 12 s now:\n  Connection refused" in shown
    assert "no connection" in shown and "link_down" not in shown and "sent, now: 48 B" in shown
    assert 10 * "█" + "\n" in shown and max(map(len, shown.splitlines())) <= 80
    unseen = {**EDGE, "link": {**EDGE["link"], "heard": None, "rtt_s": 59.8}}
    screen_once(screen(unseen, ""))
    shown = capsys.readouterr().out
    assert "link as seen: not known yet" in shown and "59.8 s" not in shown + line(unseen)
    said = line(EDGE)
    assert "75% the server, 25% no connection" in said and "cut at 4 (bottleneck)" in said
    assert "\n" not in said and "link 2 Mbit/s, 20 ms" in said


def test_top_shows_a_server_that_it_finds_by_itself(command):
    live = ServerLive()
    live(Served("net-1.from-2", "127.0.0.1", "server", 0.004, 1, 64, 16))
    with showing(0, live.now, files={}) as address:
        port = address.rpartition(":")[2]
        for words in ((), (address,), (port,), (f"127.0.0.1:{port}",)):
            code, out, problem = command("top", "--once", *words)
            assert (code, problem) == (0, "") and "net-1.from-2" in out
        code, out, _ = command("top", "--json")
        assert code == 0 and json.loads(out)["kind"] == "server"
        with showing(0, live.now, files={}) as other:
            code, _, problem = command("top")
            assert (
                code == 2 and f"\n  {address} (server starting)\n" in problem and other in problem
            )


def test_top_says_what_to_start_and_what_is_no_live_page(command):
    code, _, problem = command("top")
    assert code == 2 and "presplit serve ... --live 0" in problem
    page = Page(0, files={}, gets={"now": lambda _: 3})
    code, _, problem = command("top", page.address)
    page.close()
    assert code == 2 and "expected a live page of presplit" in problem
    code, _, problem = command("top", page.address)
    assert code == 2 and "no live page answers" in problem


def test_a_run_shows_itself_on_a_page_that_must_be_free(command, tmp_path: Path):
    small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))
    bundle, images = tmp_path / "small.bundle", tmp_path / "images.npy"
    small["small_bundle"](bundle, seed=1)
    np.save(images, np.zeros((20, 16), np.float32))
    code, out, problem = command("run", bundle, images, "--live", 0)
    assert code == 0 and "Live: http://127.0.0.1:" in problem and len(out.splitlines()) == 20
    with showing(0, dict, files={}) as address:
        port = address.rpartition(":")[2]
        code, out, problem = command("run", bundle, images, "--live", port)
    assert (code, out) == (2, "") and "another port for --live, or 0 for a free one" in problem
    code, _, problem = command("run", bundle, images, "--show-images")
    assert code == 2 and "--live PORT: give that too" in problem


def test_who_interrupts_a_program_s_command_leaves_it_one_object():
    """Somebody listens and never answers; the signal is a real one."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from presplit.cli.main import main; sys.exit(main())"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        port = str(silent.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-c", code, "top", port, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        asking, _ = silent.accept()
        with asking:
            asking.recv(1)
            process.send_signal(signal.SIGINT)
            out, problem = process.communicate(timeout=20)
    assert (process.returncode, problem) == (130, "")
    assert json.loads(out) == {"error": "interrupted", "kind": "Interrupted", "exit_code": 130}
