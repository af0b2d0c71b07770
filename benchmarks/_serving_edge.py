"""What an edge costs besides its net: to open, to hold, to answer. Measured in fresh processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _serving_nets as nets
from benchmarks._serving import Asked, Found

OPENING = """
import json, sys, time
began = time.perf_counter()
from presplit.core.plans import Plan
from presplit.runtime import Edge
edge = Edge.open(sys.argv[1], plan=Plan(int(sys.argv[2])))
took_s = time.perf_counter() - began
assert "torch" not in sys.modules
# What getrusage says may be what the process was before it was this program.
lines = open("/proc/self/status").read().splitlines()
rss = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
print(json.dumps({"open_s": took_s, "rss_mb": rss}))
"""
ANSWERING = """
import json, random, statistics, sys, time
import numpy as np
from presplit.bundle import read
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.engines import ENGINES
bundle, last = read(sys.argv[1]), int(sys.argv[2])
edge = Edge.open(bundle, plan=Plan(last))
whole = bundle.runnable(0, last)
engine = ENGINES["onnxruntime"](whole, 1)
session = engine._session
image = np.random.default_rng(0).random(bundle.net.boundaries[0].shape, dtype=np.float32)
feed = {whole.input: image[np.newaxis]}
(name,) = whole.logits.values()
assert edge.answer(image).label == int(session.run([name], feed)[0].argmax())
took = {"raw": [], "edge": []}
works = {"raw": lambda: session.run([name], feed), "edge": lambda: edge.answer(image)}
chance = random.Random(0)
for _ in range(int(sys.argv[3])):
    for who in chance.sample(list(works), 2):
        works[who]()
        for _ in range(5):
            began = time.perf_counter()
            works[who]()
            took[who].append(time.perf_counter() - began)
print(json.dumps({who: 1e6 * statistics.median(each) for who, each in took.items()}))
"""


def _said(program: str, *arguments: str) -> dict[str, float]:
    """What a program says at its end."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def edge(asked: Asked) -> Found:
    """Import and open, memory, and what an answer takes beyond the engine's own run."""
    found, times = Found(), 2 if asked.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        bundle = nets.perceptron(Path(folder) / "net.bundle", depth=2)
        words = str(bundle.path), str(bundle.net.last)
        small = nets.convolutions(Path(folder) / "small.bundle")
        opening = str(small.path), str(small.net.last)
        opened = [_said(OPENING, *opening) for _ in range(times)]
        answered = [_said(ANSWERING, *words, str(20 if asked.quick else 300)) for _ in range(times)]
    open_s = statistics.median(each["open_s"] for each in opened)
    rss_mb = statistics.median(each["rss_mb"] for each in opened)
    raw_us = statistics.median(each["raw"] for each in answered)
    over_us = statistics.median(each["edge"] - each["raw"] for each in answered)
    found.row("edge", "import and open, small CNN", "presplit", ms=1e3 * open_s)
    found.row("edge", "most memory, small CNN", "presplit", mb=rss_mb)
    found.row("edge", "all-edge answer, MLP", "raw ONNX Runtime", ms=raw_us / 1e3)
    found.row("edge", "all-edge answer, MLP", "presplit", ms=(raw_us + over_us) / 1e3)
    found.check("edge: import and open, s", open_s, 0.8, at_most=True)
    found.check("edge: memory, MB", rss_mb, 100, at_most=True)
    found.check("edge: an answer beyond the engine's run, us", over_us, 60, at_most=True)
    return found


PARTS = {"edge": edge}
