"""What a machine says of itself is read from its files, and missing ones are not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from presplit.bundle import Bundle
from presplit.core.processor import processor
from presplit.runtime.measuring.machine import clock_state, joules, peak_bytes, watts


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_arm_board_is_named_with_its_cores(tmp_path: Path) -> None:
    core = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"
    write(tmp_path, "proc/cpuinfo", "".join(core.format(k) for k in range(4)))
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    assert processor(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4, Cortex-A72, 4 processors"


def test_an_x86_processor_is_named_by_its_maker(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Fast CPU @ 3.00GHz\nflags: a\n")
    assert processor(tmp_path) == "Fast CPU @ 3.00GHz, 1 processors"
    assert processor(tmp_path / "none")


def test_the_clock_says_governor_frequency_load_heat_and_throttling(tmp_path: Path) -> None:
    assert clock_state(tmp_path) == "unknown"
    frequency = "sys/devices/system/cpu/cpu0/cpufreq/"
    write(tmp_path, frequency + "scaling_governor", "ondemand\n")
    write(tmp_path, frequency + "scaling_cur_freq", "1500000\n")
    write(tmp_path, "proc/loadavg", "0.42 0.3 0.2 1/100 999\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "61200\n")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "0x50000\n")
    said = "governor ondemand, 1.50 GHz, load 0.42, 61 °C, throttled (0x50000)"
    assert clock_state(tmp_path) == said


def test_watts_are_the_joules_of_all_packages_over_the_time_of_the_work(tmp_path: Path) -> None:
    zones = [f"sys/class/powercap/intel-rapl:{k}/energy_uj" for k in ("0", "1", "0:0")]
    for zone in zones:
        write(tmp_path, zone, "1000000\n")
    now = [0.0]

    def work() -> None:  # a tenth of a second at 20 W each; what is inside a package counts once
        now[0] += 0.1
        for zone in zones:
            write(tmp_path, zone, f"{1_000_000 + round(20e6 * now[0])}\n")

    assert joules(tmp_path) == 2.0
    assert watts(work, root=tmp_path, clock=lambda: now[0]) == pytest.approx(40)


def test_counters_that_cannot_be_read_or_begin_again_give_no_watts(tmp_path: Path) -> None:
    assert watts(lambda: None, seconds=0, root=tmp_path) is None
    zone = "sys/class/powercap/intel-rapl:0/energy_uj"
    write(tmp_path, zone, "9000000\n")
    assert watts(lambda: write(tmp_path, zone, "5\n"), seconds=1e-9, root=tmp_path) is None


def test_a_process_of_its_own_tells_the_most_memory_of_the_whole_net(
    bundle: Bundle, tmp_path: Path
) -> None:
    found = peak_bytes(bundle.path)
    assert found is None or 10e6 < found < 1e9
    assert peak_bytes(tmp_path / "none") is None
