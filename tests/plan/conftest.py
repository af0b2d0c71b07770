"""A small bundle that lives in memory: 3 segments, one early exit, 100 held-out samples."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from presplit.bundle import Bundle, Manifest
from presplit.bundle.manifest import Part, Port, Validation
from presplit.codecs import CODECS
from presplit.core.types import Boundary, Exit, Net


@pytest.fixture
def bundle() -> Bundle:
    """The net's classifier is right 95 times in 100.

    The early exit is right on the 80 of which it is surest.
    """
    net = Net(
        tuple(Boundary(f"b{k}", (size,)) for k, size in enumerate((10_000, 1000, 500, 10))),
        (Exit("early", 1, 10), Exit("final", 3, 10)),
    )
    scores = np.stack([np.linspace(1, 0.1, 100), np.ones(100)]).astype(np.float32)
    hits = np.stack([np.arange(100) < 80, np.arange(100) < 95])
    files = {}
    for name, array in (("scores.npy", scores), ("hits.npy", hits)):
        np.save(held := io.BytesIO(), array)
        files[name] = held.getvalue()
    parts = tuple(
        Part(f"s{k}.onnx", macs, 100_000)
        for k, macs in enumerate((10_000_000, 40_000_000, 40_000_000))
    )
    ports = (Port({}, b"", {name: codec.calibrate(0, 1) for name, codec in CODECS.items()}),) * 4
    held_out = Validation("confidence", 100, "scores.npy", "hits.npy")
    exits = {"early": Part("e.onnx", 10_000, 1_000)}
    manifest = Manifest(
        1, "small", net, b"", parts, exits, ports, {}, {}, "2026-01-01", validation=held_out
    )
    return Bundle(Path("small.bundle"), manifest, files)
