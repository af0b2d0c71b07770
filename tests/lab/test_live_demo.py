"""The demo to play with takes what is there, and plans for the whole range of its sliders."""

from __future__ import annotations

import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np

from presplit.core.types import Answer
from presplit.lab.demo_nets import DIGITS, sparse_bundle
from presplit.lab.live_demo import answering

small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))


def test_a_net_that_is_there_is_taken_and_not_trained_again(tmp_path: Path):
    made = small["small_bundle"](tmp_path / "digits.bundle", seed=1)
    images = np.random.default_rng(0).random((5, 16), np.float32)
    np.save(tmp_path / "test.npy", images)
    said: list[str] = []
    bundle, found = sparse_bundle(DIGITS, tmp_path, 0, said.append)
    assert bundle.manifest.model_hash == made.manifest.model_hash
    np.testing.assert_array_equal(found, images)
    assert len(said) == 1 and "is there" in said[0]


def test_images_come_as_fast_as_the_panel_says_until_the_end():
    kept: list[float] = []
    scores = np.zeros(4, np.float32)
    given = Answer(0, scores, "final", "edge", "planned", 0.0, 0, False, 1)
    edge, panel = SimpleNamespace(answer=lambda _: given), SimpleNamespace(rate=100.0)
    images = [np.zeros(2, np.float32), np.ones(2, np.float32)]
    with answering(edge, images, panel, lambda image, _: kept.append(float(image[0]))):
        time.sleep(0.1)
        panel.rate = 0.5
        time.sleep(0.05)
        before = len(kept)
    assert 2 <= before <= 12, "neither all at once nor none"
    assert kept[:2] == [0.0, 1.0]
    time.sleep(0.05)
    assert len(kept) == before, "no image is answered after the end"
