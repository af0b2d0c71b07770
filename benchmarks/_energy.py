"""The energy model of trainings: multiplications times what one costs on a named processor."""

from __future__ import annotations

from presplit.profiles import DEVICES

ENERGY_OF = "server-cpu"
"""The profile whose power and speed say what a multiplication costs."""


def training_joules(macs: float, samples: int, epochs: int, *, teacher: float = 0.0) -> float:
    """What a training costs: forward and two products backward, and the teacher's forward.

    ``macs`` and ``teacher``: multiplications of one sample. What else a step does is left out.
    """
    device = DEVICES.find(ENERGY_OF)
    return (3 * macs + teacher) * samples * epochs * device.power_w / device.macs_per_s
