"""A measured link is the one that lies there; real processes, a real shaped link."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import InputError, ServerError, SpecError
from presplit.core.link import Link
from presplit.lab.processes import free_port, running
from presplit.runtime.hosted import UnknownModel
from presplit.runtime.measuring.asking import Asking, echo_here
from presplit.runtime.measuring.measure_link import Found, _fitted, _stalled, measure_link
from presplit.runtime.serving.echo import BLOCK, MOST_BYTES, Nothing, echo_name, echoing
from presplit.runtime.serving.server import hosting

FLOOR_S = 0.001
"""What asking takes in what is made up here."""


def made_up(link: Link, *, seed: int = 0) -> Link:
    """What is fitted to round trips that are drawn from ``link``."""
    random = np.random.default_rng(seed)

    def trips(up_bytes: int, down_bytes: int, count: int) -> np.ndarray:
        return FLOOR_S + random.choice(link.time(up_bytes, down_bytes).array, count)

    small = trips(178, 157, 200)
    up = (500_000, trips(500_000 + 114, 157, 3))
    down = (200_000, trips(178, 200_000 + 157, 3))
    return _fitted("here", small - FLOOR_S, up, down, FLOOR_S)


@pytest.mark.parametrize(
    "link",
    [
        Link("slow", up_bps=1e6, down_bps=2e6, rtt_s=0.04),
        Link("shaky", up_bps=10e6, down_bps=20e6, rtt_s=0.04, jitter_s=0.01),
        Link("near", up_bps=1e6, down_bps=1e6, rtt_s=0.005, jitter_s=0.01),
    ],
    ids=lambda link: link.name,
)
def test_rates_round_trip_and_lateness_are_those_of_the_link(link: Link) -> None:
    found = made_up(link)
    assert (found.up_bps, found.down_bps) == pytest.approx((link.up_bps, link.down_bps), rel=0.05)
    assert found.rtt_s == pytest.approx(link.rtt_s, rel=0.05, abs=0.0005)
    assert found.jitter_s == pytest.approx(link.jitter_s, rel=0.1, abs=0.0002)
    for size in (200, 5_000, 100_000):
        expected = link.time(size, 205).quantile(0.5)
        assert found.time(size, 205).quantile(0.5) == pytest.approx(expected, rel=0.05)


def test_a_lost_packet_is_told_as_a_stall_and_not_as_lateness() -> None:
    link = Link("lossy", up_bps=10e6, down_bps=10e6, rtt_s=0.04, jitter_s=0.005, loss=0.02)
    found = made_up(link)
    assert found.jitter_s == pytest.approx(0.005, rel=0.2)
    assert found.rtt_draws is not None and max(found.rtt_draws.draws_s) < 0.06
    small = np.array([0.04, 0.041, 0.042, 0.245, 0.043])
    assert _stalled(small, found).tolist() == [False, False, False, True, False]


def test_a_shaped_link_before_a_server_is_measured_as_it_is(bundle: Bundle) -> None:
    shape = ("--up-bps", "10e6", "--down-bps", "10e6", "--rtt-s", "0.02")
    with (
        running("presplit", "serve", str(bundle.path), "--json") as (server, _),
        running("presplit.lab.shaper", "--target", server, *shape) as (address, _),
    ):
        found = measure_link(address, seconds=1.5)
    link = found.link
    assert (link.up_bps, link.down_bps) == pytest.approx((10e6, 10e6), rel=0.15)
    # A busy machine makes a round trip later, never sooner than the link lets it.
    assert 0.0185 < link.rtt_s + link.jitter_s < 0.04
    assert found.trips > 20 and link.source.startswith("measured: ")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Found) == found


def test_where_nobody_echoes_one_sentence_says_what_must_run_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("presplit.runtime.measuring.asking.PATIENCE_S", 1.2)
    with pytest.raises(ServerError, match=r"no echo \(.*measured against presplit serve"):
        Asking(f"127.0.0.1:{free_port()}")
    with pytest.raises(SpecError, match="server must be HOST:PORT"):
        Asking("nowhere")


def test_an_echo_stands_beside_the_models_and_takes_none_of_their_names(bundle: Bundle) -> None:
    hosted = echoing(hosting(bundle))
    try:
        own = bundle.manifest.model_name(0, "float32")
        assert hosted.contract(own).name == own
        hosted.warm(own).result(10)
        name = echo_name(5)
        hosted.warm(name).result(0)
        blocks = np.zeros((3, BLOCK), np.int8)
        done = hosted.run(name, blocks, until=None)
        assert isinstance(done, Future) and done.result(0).shape == (1, 5)
        with pytest.raises(InputError, match=f"shape .1..{MOST_BYTES // BLOCK}, {BLOCK}"):
            hosted.run(name, np.zeros((1, 3), np.int8), until=None)
        for none in ("presplit-echo.to-0", "presplit-echo.to-99999999", "presplit-echo.to-70000"):
            with pytest.raises(UnknownModel):
                hosted.contract(none)
    finally:
        hosted.close()


def test_an_echo_alone_hosts_nothing_else() -> None:
    alone = echoing(Nothing())
    assert alone.most_bytes == MOST_BYTES
    for ask in (alone.contract, alone.warm, lambda name: alone.run(name, np.zeros(1), until=None)):
        with pytest.raises(UnknownModel, match="this server only echoes"):
            ask("net.from-0")
    with echo_here() as address, Asking(address) as asking:
        assert 0 < asking.seconds(up_bytes=100_000, down_bytes=50_000) < 5
