"""Named devices and links: complete, sourced, and in the order of size that they claim."""

from __future__ import annotations

import datetime

import pytest

from presplit.profiles import DEVICES, LINKS


@pytest.mark.parametrize(
    "named", [*DEVICES.values(), *LINKS.values()], ids=lambda named: named.name
)
def test_every_number_has_a_source_and_a_date(named) -> None:
    assert len(named.source) > 20
    assert datetime.date.fromisoformat(named.date)


def test_there_are_devices_and_links_of_every_class() -> None:
    assert len(DEVICES) >= 14 and len(LINKS) >= 12
    assert all("guess" in named.source for named in DEVICES.values())


@pytest.mark.parametrize("shelf", [DEVICES, LINKS], ids=lambda shelf: shelf.kind)
def test_everything_stands_under_its_own_name(shelf) -> None:
    assert all(named.name == name for name, named in shelf.items())


def test_devices_stand_from_the_slowest_cpu_board_to_the_fastest() -> None:
    speeds = [
        DEVICES[name].macs_per_s
        for name in (
            "esp32-s3",
            "cortex-m7",
            "raspberry-pi-zero-2",
            "raspberry-pi-3",
            "raspberry-pi-4",
            "raspberry-pi-5",
        )
    ]
    assert speeds == sorted(speeds)
    assert max(DEVICES.values(), key=lambda d: d.macs_per_s).name == "rtx-4090"


def test_links_stand_from_the_slowest_to_the_fastest_but_for_the_demo_s() -> None:
    rates = [link.up_bps for name, link in LINKS.items() if name != "10mbit"]
    assert rates == sorted(rates)
    demo = LINKS["10mbit"]
    assert (demo.up_bps, demo.down_bps, demo.rtt_s, demo.jitter_s, demo.loss) == (
        10e6,
        10e6,
        0.02,
        0,
        0,
    )


def test_a_source_states_the_multiplication_that_made_the_number() -> None:
    pi = DEVICES["raspberry-pi-4"]
    assert "4 cores x 1.5 GHz x 4 MAC a cycle (float32 peak) x 25.0% sustained" in pi.source
    assert pi.macs_per_s == 4 * 1.5e9 * 4 * 0.25
