"""What a lane holds for who does not read, and for who has not shown that he may come in."""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from presplit.runtime.wire import lanes as lanes_file
from presplit.runtime.wire.frames import ASK, HEAD, HELLO, frame

lane_tests = run_path(str(Path(__file__).with_name("test_lane.py")))
Stage: Any = lane_tests["Stage"]
asking, eventually, frames = (lane_tests[name] for name in ("asking", "eventually", "frames"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lanes are Linux's")


@pytest.fixture
def stage() -> Iterator[Any]:
    found = Stage()
    yield found
    found.close()


def test_who_never_reads_is_gone_after_a_while(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = stage.listener._lanes
    with stage.raw() as lane:
        lane.setblocking(False)
        ask = 100 * frame(ASK, 1, b"no request", 5.0)

        def is_deaf() -> bool:
            with contextlib.suppress(BlockingIOError):
                lane.sendall(ask)
            return any(math.isfinite(each._deaf_since) for each in lanes.open)

        eventually(is_deaf)
        monkeypatch.setattr(lanes_file, "DEAF_S", 0.0)
        stage.look()
        eventually(lambda: not lanes.open)


def test_who_has_no_ticket_may_say_only_a_few_bytes(stage: Any) -> None:
    lanes = stage.listener._lanes
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(5)
        stranger.connect(f"\0{lanes._name}")
        stranger.sendall(HEAD.pack(lanes_file.MOST_TICKET_BYTES + 1, 0, HELLO, 0.0))
        assert list(frames(stranger)) == []


def test_half_requests_on_lanes_have_the_same_bound_as_those_over_grpc(stage: Any) -> None:
    lanes = stage.listener._lanes
    lanes.arriving._places = 1
    with stage.raw() as first, stage.raw() as second:
        first.sendall(asking(1)[:20])
        eventually(lambda: lanes.arriving._half)
        second.sendall(asking(2)[:20])
        assert list(frames(first)) == []
        second.sendall(asking(2)[20:])
        assert next(frames(second)).number == 2
        assert not lanes.arriving._half
