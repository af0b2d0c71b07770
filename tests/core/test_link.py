"""The time of a request over a link: rates, windows, lateness and losses, as TCP has them."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from presplit.core.link import LEAST_STALL_S, PACKET_BYTES, Link, piece_bytes
from presplit.core.times import Times

PLAIN = Link("plain", up_bps=8e6, down_bps=16e6, rtt_s=0.04)


def changed(**changes: object) -> Link:
    return msgspec.structs.replace(PLAIN, **changes)


def test_a_link_without_chance_has_one_draw_that_is_bytes_over_rates_and_the_round_trip() -> None:
    assert PLAIN.time(10_000, 1_000).draws_s == (pytest.approx(0.01 + 0.0005 + 0.04),)


def test_draws_are_the_same_each_time_evenly_spaced() -> None:
    link = changed(jitter_s=0.01, loss=0.01)
    assert link.time(5_000, 200) == link.time(5_000, 200)
    assert len(link.time(5_000, 200).draws_s) == 2048


def test_lateness_of_one_piece_each_way_is_the_sum_of_two_uniform_ones() -> None:
    late = changed(jitter_s=0.01).time(100, 100).array - PLAIN.time(100, 100).array
    assert late.mean() == pytest.approx(0.01, rel=0.002)
    assert late.std() == pytest.approx(0.01 / math.sqrt(6), rel=0.01)
    assert 0 <= late.min() < late.max() <= 0.02


def test_a_stream_is_as_late_as_the_latest_of_its_pieces() -> None:
    # Simulated as the shaped link does it: every piece late by itself, none overtakes another.
    link = changed(jitter_s=0.01)
    random, pieces = np.random.default_rng(0), 40
    size = piece_bytes(link.up_bps)
    sent = np.arange(1, pieces + 1) * 8 * size / link.up_bps
    up = (sent + random.uniform(0, 0.01, (20_000, pieces))).max(axis=1)
    seen = up + 0.04 + random.uniform(0, 0.01, 20_000)
    found = link.time(size * pieces, 0)
    for q in (0.1, 0.5, 0.9, 0.98):
        assert found.quantile(q) == pytest.approx(np.quantile(seen, q), abs=3e-4)


def test_a_small_window_waits_a_round_trip_for_each_doubling_until_it_fills_the_link() -> None:
    window = 4_000  # takes 4 ms, so a wait is 36 ms, then 8 and 32, 16 and 24, 32 and 8
    link = changed(window_bytes=window)
    for sent, waits in ((4_000, 0), (4_001, 36), (12_001, 68), (28_001, 92), (60_001, 100)):
        more = link.time(sent, 0).draws_s[0] - PLAIN.time(sent, 0).draws_s[0]
        assert more == pytest.approx(waits / 1000), sent
    assert link.time(10**6, 0).draws_s[0] - PLAIN.time(10**6, 0).draws_s[0] == pytest.approx(0.1)


def test_a_window_wider_than_the_link_changes_nothing() -> None:
    assert changed(window_bytes=80_000).time(10**6, 10**6) == PLAIN.time(10**6, 10**6)


def test_each_lost_packet_stalls_for_the_retransmission_timeout() -> None:
    packets, loss = 20, 0.01
    link = changed(loss=loss)
    found = link.time(packets * PACKET_BYTES, 0)
    plain_s = PLAIN.time(packets * PACKET_BYTES, 0).draws_s[0]
    stalls = np.round((found.array - plain_s) / LEAST_STALL_S)
    assert np.allclose(found.array, plain_s + stalls * LEAST_STALL_S)
    assert (stalls > 0).mean() == pytest.approx(1 - (1 - loss) ** packets, abs=0.01)
    slow = changed(loss=1 - 1e-9, rtt_s=0.5).time(1, 0).draws_s
    assert set(np.round(slow, 4)) == {0.5 + 1.0}


def test_round_trips_that_were_seen_take_the_place_of_the_model() -> None:
    seen = Times.of([0.03, 0.05])
    found = changed(rtt_draws=seen).time(8_000, 0)
    assert found.draws_s == (pytest.approx(0.038), pytest.approx(0.058))
    assert msgspec.json.decode(msgspec.json.encode(changed(rtt_draws=seen)), type=Link) == changed(
        rtt_draws=seen
    )
