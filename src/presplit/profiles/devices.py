"""Devices by name, for planning before anything was measured.

Every number is a guess with a derivation: ``macs_per_s`` is the datasheet's float32 peak (cores x
clock x multiply-accumulates a cycle) times a sustained share that is ours, chosen low because one
sample at a time keeps no machine busy: 25 % on out-of-order CPUs, 12.5 % on in-order CPUs,
microcontrollers and on many cores at once, 10 % on GPUs. ``power_w`` is the whole board (the whole
card, the whole socket) under load, ``memory_bytes`` half of what is built in: the rest belongs to
the system.
``overhead_s`` is what each segment costs besides its multiplications. ``presplit measure`` replaces
all of this with measurements, and plans made from these numbers say "counted".
"""

from __future__ import annotations

from presplit.core import units
from presplit.core.costs import Device
from presplit.core.shelf import Shelf

_DATE = "2026-11-27"


def _device(
    name: str,
    chip: str,
    *,
    cores: int,
    hz: float,
    macs_per_cycle: int,
    share: float,
    memory_bytes: float,
    power_w: float,
    overhead_s: float,
) -> Device:
    """A device whose ``source`` states the multiplication that made its ``macs_per_s``."""
    return Device(
        name,
        macs_per_s=cores * hz * macs_per_cycle * share,
        memory_bytes=memory_bytes / 2,
        power_w=power_w,
        overhead_s=overhead_s,
        source=(
            f"{chip}; guess: {cores} cores x {hz / 1e9:g} GHz x {macs_per_cycle} MAC a cycle "
            f"(float32 peak) x {share:.1%} sustained; half of {units.data(memory_bytes)}; "
            f"{power_w:g} W under load"
        ),
        date=_DATE,
    )


# fmt: off
DEVICES: Shelf[Device] = Shelf(
    "device",
    {
        device.name: device
        for device in (
            _device(
                "esp32-s3",
                "Espressif ESP32-S3, Xtensa LX7 with an FPU of one FMA, 8 MB of "
                "PSRAM; one of its two cores",
                cores=1, hz=0.24e9, macs_per_cycle=1, share=0.125,
                memory_bytes=8e6, power_w=0.5, overhead_s=50e-6,
            ),
            _device(
                "cortex-m7",
                "STM32H7 class microcontroller, Arm Cortex-M7 (CMSIS-NN computes int8 about four "
                "times as fast: Lai et al. 2018, arXiv 1801.06601) with an FPU of one "
                "FMA, 1 MB of RAM",
                cores=1, hz=0.48e9, macs_per_cycle=1, share=0.125,
                memory_bytes=1e6, power_w=0.4, overhead_s=20e-6,
            ),
            _device(
                "raspberry-pi-zero-2",
                "RP3A0, Arm Cortex-A53 (in-order, one 128-bit FMA), LPDDR2",
                cores=4, hz=1.0e9, macs_per_cycle=4, share=0.125,
                memory_bytes=0.5e9, power_w=3.0, overhead_s=300e-6,
            ),
            _device(
                "raspberry-pi-3",
                "BCM2837B0, Arm Cortex-A53 (in-order, one 128-bit FMA), LPDDR2",
                cores=4, hz=1.4e9, macs_per_cycle=4, share=0.125,
                memory_bytes=1e9, power_w=5.0, overhead_s=200e-6,
            ),
            _device(
                "raspberry-pi-4",
                "BCM2711, Arm Cortex-A72 (one 128-bit FMA), the 2 GB board",
                cores=4, hz=1.5e9, macs_per_cycle=4, share=0.25,
                memory_bytes=2e9, power_w=6.0, overhead_s=100e-6,
            ),
            _device(
                "raspberry-pi-5",
                "BCM2712, Arm Cortex-A76 (two 128-bit FMA), the 4 GB board",
                cores=4, hz=2.4e9, macs_per_cycle=8, share=0.25,
                memory_bytes=4e9, power_w=9.0, overhead_s=50e-6,
            ),
            _device(
                "phone-small-cores",
                "a phone of the Cortex-A55 class (in-order, one 128-bit FMA), four "
                "small cores",
                cores=4, hz=1.8e9, macs_per_cycle=4, share=0.125,
                memory_bytes=4e9, power_w=1.0, overhead_s=100e-6,
            ),
            _device(
                "phone-cpu",
                "a phone of the Cortex-A76 class (two 128-bit FMA), two big cores, what its "
                "cooling bears",
                cores=2, hz=2.2e9, macs_per_cycle=8, share=0.25,
                memory_bytes=4e9, power_w=3.0, overhead_s=50e-6,
            ),
            _device(
                "laptop-cpu",
                "two x86-64 cores with AVX2 (two 256-bit FMA)",
                cores=2, hz=2.5e9, macs_per_cycle=16, share=0.25,
                memory_bytes=8e9, power_w=15.0, overhead_s=30e-6,
            ),
            _device(
                "mini-pc",
                "a mini PC of the NUC class, four x86-64 cores with AVX2 (two "
                "256-bit FMA)",
                cores=4, hz=3.0e9, macs_per_cycle=16, share=0.25,
                memory_bytes=16e9, power_w=35.0, overhead_s=30e-6,
            ),
            _device(
                "jetson-nano",
                "NVIDIA Jetson Nano 4 GB, Maxwell, 128 CUDA cores at 10 W",
                cores=128, hz=0.9216e9, macs_per_cycle=1, share=0.1,
                memory_bytes=4e9, power_w=10.0, overhead_s=200e-6,
            ),
            _device(
                "jetson-orin-nano",
                "NVIDIA Jetson Orin Nano 8 GB, Ampere, CUDA cores at 15 W, no tensor cores",
                cores=1024, hz=0.625e9, macs_per_cycle=1, share=0.10,
                memory_bytes=8e9, power_w=15.0, overhead_s=100e-6,
            ),
            _device(
                "server-cpu",
                "sixteen x86-64 cores with AVX2 (two 256-bit FMA)",
                cores=16, hz=2.5e9, macs_per_cycle=16, share=0.125,
                memory_bytes=64e9, power_w=200.0, overhead_s=50e-6,
            ),
            _device(
                "t4",
                "NVIDIA T4, Turing, CUDA cores, no tensor cores",
                cores=2560, hz=1.59e9, macs_per_cycle=1, share=0.1,
                memory_bytes=16e9, power_w=70.0, overhead_s=100e-6,
            ),
            _device(
                "a100",
                "NVIDIA A100 40 GB, Ampere, CUDA cores, no tensor cores",
                cores=6912, hz=1.41e9, macs_per_cycle=1, share=0.1,
                memory_bytes=40e9, power_w=400.0, overhead_s=100e-6,
            ),
            _device(
                "h100",
                "NVIDIA H100 SXM 80 GB, Hopper, CUDA cores, no tensor cores",
                cores=16896, hz=1.98e9, macs_per_cycle=1, share=0.1,
                memory_bytes=80e9, power_w=700.0, overhead_s=100e-6,
            ),
            _device(
                "rtx-4090",
                "NVIDIA GeForce RTX 4090, Ada, CUDA cores, no tensor cores",
                cores=16384, hz=2.52e9, macs_per_cycle=1, share=0.10,
                memory_bytes=24e9, power_w=450.0, overhead_s=100e-6,
            ),
        )
    },
)
# fmt: on
"""From the smallest to the largest machine."""
