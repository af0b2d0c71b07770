"""Devices and links as words: numbers with units, names with changes, files; strict."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from presplit.core.costs import Costs, Device, Parts
from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.core.times import NOTHING, Times
from presplit.profiles import DEVICES, LINKS, device_from, link_from


def test_a_name_is_the_profile_itself() -> None:
    assert link_from("lte") is LINKS["lte"]
    assert device_from("raspberry-pi-4") is DEVICES["raspberry-pi-4"]


def test_numbers_alone_are_a_link_and_a_device() -> None:
    text = "up=3Mbit,down=0.5Gbps,rtt=40ms,jitter=5000us,loss=1%,power=900mW,window=14.5kB"
    link = link_from(text)
    assert (link.name, link.up_bps, link.down_bps) == (text, 3e6, 0.5e9)
    assert (link.rtt_s, link.jitter_s, link.loss) == pytest.approx((0.04, 0.005, 0.01))
    assert (link.power_w, link.window_bytes) == (0.9, 14_500)
    device = device_from("macs=2e9,memory=1GB")
    assert (device.macs_per_s, device.memory_bytes, device.power_w) == (2e9, 1e9, 0)


def test_a_name_with_changes_keeps_the_rest_and_says_so() -> None:
    link = link_from("wifi,up=3M")
    assert (link.up_bps, link.down_bps, link.rtt_s) == (3e6, 40e6, 0.004)
    assert (link.name, link.source[:15]) == ("wifi,up=3M", "wifi with up=3M")


def test_a_file_of_a_link_and_changes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "link.json"
    link = Link("seen", up_bps=1e6, down_bps=2e6, rtt_s=0.1, rtt_draws=Times.of([0.1, 0.2]))
    path.write_bytes(msgspec.json.encode(link))
    assert link_from(str(path)) == link
    assert link_from(f"{path},up=5M").rtt_draws == link.rtt_draws
    # Another round trip was not the one that was seen.
    assert link_from(f"{path},rtt=5ms").rtt_draws is None
    pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    (tmp_path / "pi.json").write_bytes(msgspec.json.encode(pi))
    assert device_from(str(tmp_path / "pi.json")) == pi


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wify", r"no link named 'wify' \(nearest: wifi"),
        ("up=3M", "expected at least up and rtt, rtt is missing"),
        ("wifi,rate=3M", "no key 'rate'; there are: up, down, rtt"),
        ("wifi,3M", "expected KEY=NUMBER with one of up, down"),
        ("wifi,up=fast", "up: expected bits per second, as in 3M, got 'fast'"),
        ("wifi,rtt=5min", "rtt: expected a time, as in 40ms, got '5min'"),
        ("wifi,rtt=1.2.3s", "rtt: expected a time"),
        ("wifi,up=0", "Link.up_bps: expected `float` > 0.0, got 0"),
        ("wifi,loss=120%", "Link.loss: expected `float` < 1.0"),
        ("nowhere.json", r"nowhere.json: cannot be read \(No such file"),
    ],
)
def test_what_is_no_link_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        link_from(text)


def test_a_file_of_something_else_says_what_would_be_right(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    parts = Parts((NOTHING, Times.of(1)), (Times.of(1), NOTHING), (NOTHING,))
    costs = Costs("pi", {"float32": parts}, how="measured", when="2026-01-01")
    path.write_bytes(msgspec.json.encode(costs))
    with pytest.raises(SpecError, match="measured costs: pass them as --edge-costs"):
        device_from(str(path))
    with pytest.raises(SpecError, match="expected a link .* presplit measure --link writes one"):
        link_from(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="x.json: expected a device"):
        device_from(str(path))
