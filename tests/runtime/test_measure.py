"""Measured costs have the shape of the net, and the watts of the device."""

from __future__ import annotations

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.costs import Device
from presplit.core.errors import SpecError
from presplit.core.times import NOTHING
from presplit.runtime import measure, seconds_of


def test_every_head_tail_and_exit_has_its_time(bundle: Bundle) -> None:
    costs = measure(bundle, repeats=20)
    parts = costs.forms["float32"]
    assert (costs.device, costs.how, costs.power_w) == ("this machine", "measured", 0)
    assert (len(parts.head_s), len(parts.tail_s), len(parts.exit_s)) == (4, 4, 3)
    assert all(each.mean_s > 0 for each in (*parts.head_s[1:], *parts.tail_s[:-1]))
    assert all(each.mean_s > 0 for each in parts.exit_s[:-1])
    assert parts.head_s[0] == parts.tail_s[-1] == parts.exit_s[-1] == NOTHING


def test_a_device_gives_its_name_and_its_watts(bundle: Bundle) -> None:
    costs = measure(
        bundle, repeats=3, device=Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    )
    assert (costs.device, costs.power_w) == ("pi", 4.0)


def test_no_rounds_are_refused(bundle: Bundle) -> None:
    with pytest.raises(SpecError, match="repeats must be a whole number from 1 on, got 0"):
        measure(bundle, repeats=0)


def test_a_model_alone_has_its_time_and_no_rounds_are_refused(bundle: Bundle) -> None:
    model = bundle.runnable(0, 1)
    x = {model.input: np.zeros((1, *bundle.net.boundaries[0].shape), np.float32)}
    assert seconds_of(model.onnx, x, repeats=3) > 0
    with pytest.raises(SpecError, match="repeats must be a whole number from 1 on, got 0"):
        seconds_of(model.onnx, x, repeats=0)
