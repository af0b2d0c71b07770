"""Sounds: the samples in a ``.wav`` file, another rate, another length.

Training reads sounds with this, and so does an edge that has no torch. A reader of our own, for the
standard library's `wave` knows neither floats nor, in Python 3.11, the extensible header that
recorders write. Source: Multimedia Programming Interface and Data Specifications 1.0 (Microsoft,
1991), and WAVE_FORMAT_EXTENSIBLE.
"""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
STREAMED = 0xFFFFFFFF
"""The size that a program writes which cannot go back to the file's head."""
CURE = "ffmpeg -i IN -c:a pcm_s16le OUT.wav makes one"
SIDE = 16
"""Zero crossings of the resampling filter to each side: a transition band of an eighth of it."""
BETA = 8.6
"""Of the filter's Kaiser window: what it stops is 86 dB down."""

Sound = npt.NDArray[np.float32]
"""Float32 ``(samples,)`` in -1..1."""


@dataclass(frozen=True)
class Wav:
    """What the head of a ``.wav`` file says: ``rate`` in Hz, and where its samples lie."""

    rate: int
    channels: int
    bits: int
    is_float: bool
    start: int
    samples: int

    def resampled(self, rate: int) -> int:
        """How many samples there are at ``rate``."""
        return -(-self.samples * rate // self.rate)


def wav_head(raw: bytes) -> Wav:
    """What ``raw``, the contents of a ``.wav`` file, holds.

    Raises `DataError` for what is none, is cut short, is empty, or is packed in a way other than
    PCM of 8, 16, 24 or 32 bits or floats of 32 or 64.
    """
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise DataError(f"not a .wav file: it begins with {raw[:4]!r}, expected b'RIFF'; {CURE}")
    at, form = 12, b""
    while at + 8 <= len(raw):
        name, size = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            return _head(form, raw, at, size)
        if name == b"fmt ":
            form = raw[at : at + size]
        at += size + size % 2  # chunks begin at even places
    raise DataError(f"not a readable .wav file: it has no samples (no chunk 'data'); {CURE}")


def wav(raw: bytes) -> tuple[Sound, int]:
    """The sound in ``raw``, the contents of a ``.wav`` file, and its rate in Hz.

    Several channels are mixed down to their mean. Raises `DataError` as `wav_head` does, and for
    floats that are not in -1..1.
    """
    head = wav_head(raw)
    count = head.samples * head.channels
    values = _scaled(raw, head, count).reshape(head.samples, head.channels)
    if not np.isfinite(values).all():
        raise DataError("expected samples in -1..1, got some that are not finite")
    peak = float(np.abs(values).max())
    if peak > 1:
        raise DataError(f"expected samples in -1..1, got {peak:.6g}; scale the sound down")
    return np.ascontiguousarray(values.mean(1, dtype=np.float32)), head.rate


def resampled(sound: Sound, rate: int, wanted: int) -> Sound:
    """``sound`` of ``rate`` at ``wanted`` Hz, by a windowed sinc; values stay in -1..1.

    What the new rate cannot hold is filtered out before. Source: J. O. Smith, "Digital Audio
    Resampling"; here the filter is computed once for each phase.

    >>> resampled(np.ones(100, np.float32), 100, 50)[20:25].round(3).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return sound
    filters = _filters(up, down)
    reach = filters.shape[1] // 2
    padded = np.pad(sound, (reach, reach + 1))
    places = np.arange(-(-len(sound) * up // down), dtype=np.int64) * down
    first, phase = places // up, places % up
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[1])
    out = np.empty(len(places), np.float32)
    for at in range(0, len(places), 4096):  # bounded memory, however long the sound is
        some = slice(at, at + 4096)
        out[some] = np.einsum("nk,nk->n", windows[first[some]], filters[phase[some]])
    return np.clip(out, -1, 1)


def fitted(sound: Sound, samples: int) -> Sound:
    """The middle of ``sound``, or ``sound`` in the middle of silence: ``samples`` values.

    >>> fitted(np.ones(2, np.float32), 5).tolist(), fitted(np.arange(5.0), 3).tolist()
    ([0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    """
    spare = samples - len(sound)
    if spare < 0:
        start = -spare // 2
        return sound[start : start + samples]
    return np.pad(sound, (spare // 2, spare - spare // 2))


def _head(form: bytes, raw: bytes, start: int, size: int) -> Wav:
    """The head whose chunk "fmt " is ``form``, of samples that are ``size`` bytes from ``start``.

    Raises `DataError` where they contradict each other.
    """
    if len(form) < 16:
        raise DataError(f"not a readable .wav file: it does not say its form ('fmt '); {CURE}")
    kind, channels, rate, _, step, bits = struct.unpack("<HHIIHH", form[:16])
    if kind == EXTENSIBLE and len(form) >= 26:
        kind = int.from_bytes(form[24:26], "little")
    known = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
    if bits not in known.get(kind, ()):
        raise DataError(
            "expected PCM of 8, 16, 24 or 32 bits or floats of 32 or 64, got format "
            f"{kind} of {bits} bits; {CURE}"
        )
    if not channels or not rate or step != channels * bits // 8:
        raise DataError(
            f"not a readable .wav file: {channels} channels of {bits} bits at {rate} Hz in steps "
            f"of {step} bytes"
        )
    there = len(raw) - start
    held = there - there % step if size == STREAMED else size
    if held > there or held % step or not held:
        raise DataError(
            f"not a readable .wav file: expected {held:,} bytes of samples of {step}, got {there:,}"
        )
    return Wav(rate, channels, bits, kind == FLOAT, start, held // step)


def _scaled(raw: bytes, head: Wav, count: int) -> Sound:
    """The ``count`` values as float32; whole numbers are divided by 2 ** (bits - 1)."""
    if head.is_float:
        values = np.frombuffer(raw, f"<f{head.bits // 8}", count, head.start)
        with np.errstate(over="ignore"):  # too large a value becomes infinite, and is refused
            return values.astype(np.float32)
    if head.bits == 8:  # the only one without a sign
        return np.frombuffer(raw, np.uint8, count, head.start).astype(np.float32) / np.float32(
            128
        ) - np.float32(1)
    if head.bits == 24:
        wide = np.zeros((count, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8, 3 * count, head.start).reshape(count, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    whole = np.frombuffer(raw, f"<i{head.bits // 8}", count, head.start)
    return whole.astype(np.float32) / np.float32(2 ** (head.bits - 1))


@functools.lru_cache(maxsize=8)
def _filters(up: int, down: int) -> Sound:
    """Float32 ``(phases, taps)``: what each phase of the output takes of the samples around it.

    The cut is at the lower of the two rates.
    """
    if up > 10_000:
        raise DataError(
            f"expected a rate that shares more with the file's own, got {up}:{down}; choose "
            "another data.rate"
        )
    cut = min(1.0, up / down)
    reach = math.ceil(SIDE / cut)
    taps = np.arange(-reach, reach + 1)
    away = taps[None, :] - np.arange(up)[:, None] / up
    edge = np.clip(away * cut / SIDE, -1, 1)
    window = np.i0(BETA * np.sqrt(1 - edge**2)) / np.i0(BETA)
    filters = np.sinc(away * cut) * window * (np.abs(away) * cut <= SIDE)
    # Each phase lets a constant pass as it is.
    return (filters / filters.sum(1, keepdims=True)).astype(np.float32)
