"""The log-mel layer is what a Fourier transform gives, in torch and as plain ONNX."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import GraphError
from presplit.train.layers.log_mel import FLOOR, LogMel, mel_bands
from presplit.train.nets.to_onnx import to_onnx
from presplit.train.zoo import log_mel_cnn

EXACT = 2e-3
"""Of logarithms from 0 to 10, in float32, near the floor of the power."""


def reference(sound: np.ndarray, layer: LogMel) -> np.ndarray:
    """float64 ``(frames, bands)`` by NumPy's transform."""
    half = layer.window // 2
    padded = np.pad(sound.astype(np.float64), half)
    starts = range(0, len(padded) - layer.window + 1, layer.hop)
    hann = np.hanning(layer.window + 1)[:-1]
    frames = np.stack([padded[at : at + layer.window] * hann for at in starts])
    power = np.abs(np.fft.rfft(frames) / hann.sum()) ** 2
    return np.log1p(power @ layer.mel.double().numpy() / FLOOR)


@settings(max_examples=15)
@given(
    rate=st.sampled_from([4000, 8000, 11025, 16000]),
    bands=st.integers(8, 40),
    samples=st.integers(1, 3000),
    seed=st.integers(0, 9),
)
def test_it_is_the_logarithm_of_the_bands_of_the_fourier_transform(
    rate: int, bands: int, samples: int, seed: int
) -> None:
    layer = LogMel(rate, bands=bands)
    sound = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    found = layer(torch.from_numpy(sound)[None, None])
    assert found.shape == (1, 1, 1 + samples // layer.hop, bands)
    np.testing.assert_allclose(found[0, 0].numpy(), reference(sound, layer), atol=EXACT)


def test_silence_is_zero_and_a_tone_is_loudest_in_its_own_band() -> None:
    layer = LogMel(8000)
    assert not layer(torch.zeros(1, 1, 800)).any()
    centres = mel_bands(8000, layer.window, 40).argmax(0) * 8000 / layer.window
    for hz in (200, 1000, 3000):
        tone = torch.sin(2 * torch.pi * hz * torch.arange(8000) / 8000)[None, None]
        loudest = int(layer(tone)[0, 0, 30].argmax())
        assert abs(centres[loudest] - hz) < 100


def test_nothing_of_it_is_trained_or_saved() -> None:
    layer = LogMel(8000)
    assert not list(layer.parameters()) and not layer.state_dict()


def test_bands_that_would_be_empty_are_refused() -> None:
    with pytest.raises(GraphError, match="200 bands are too many for a window of 256 samples"):
        LogMel(8000, bands=200)


def test_a_net_behind_it_is_one_graph_of_plain_operators() -> None:
    graph = to_onnx(log_mel_cnn(rate=8000, width=8).eval(), torch.zeros(1, 1, 800)).graph
    kinds = {(node.domain, node.op_type) for node in graph.node}
    assert {("", "Conv"), ("", "MatMul"), ("", "Log")} <= kinds
    assert not {kind for _, kind in kinds} & {"STFT", "DFT", "MelWeightMatrix"}
    assert {domain for domain, _ in kinds} == {""}
