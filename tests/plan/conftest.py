"""A small bundle that lives in memory: 3 segments, one early exit, 100 held-out samples."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from presplit.bundle import Bundle, Manifest
from presplit.bundle.manifest import FORMAT, Part, Port, Validation, Way
from presplit.codecs import CODECS
from presplit.core.encoding import Seen
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
    arrays = {"scores.npy": scores, "hits.npy": hits, "carried.npy": np.stack([hits[-1]] * 3)}
    files = {}
    for name, array in arrays.items():
        np.save(held := io.BytesIO(), array)
        files[name] = held.getvalue()
    parts = tuple(
        Part(f"s{k}.onnx", macs, 100_000)
        for k, macs in enumerate((10_000_000, 40_000_000, 40_000_000))
    )
    encodings = {name: CODECS[name].calibrate(Seen(0, 1), (2,)) for name in ("float32", "int8")}
    ports = (Port({}, b"", encodings),) * 4
    ways = tuple(Way(k, "int8") for k in range(3))
    held_out = Validation(
        "confidence", 100, "scores.npy", "hits.npy", carried="carried.npy", ways=ways, judged=100
    )
    exits = {"early": Part("e.onnx", 10_000, 1_000)}
    manifest = Manifest(
        FORMAT, "small", net, b"", parts, exits, ports, {}, {}, "2026-01-01", validation=held_out
    )
    return Bundle(Path("small.bundle"), manifest, files)
