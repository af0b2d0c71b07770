"""The last image and its answer, for whoever asks to see them: nothing is kept otherwise."""

from __future__ import annotations

import base64
import threading
import time

import numpy as np

from presplit.core.types import Answer, Floats

EVERY_S = 0.2
"""So often at most a new image is kept."""
MOST_PIXELS = 96
"""Along a side: larger images are shown with rows and columns left out."""


class Pictures:
    """Keeps the last image with its answer; ``labels`` are the classes' names."""

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self._labels = labels
        self._kept: tuple[Floats, Answer] | None = None
        self._at, self._number = -EVERY_S, 0
        self._lock = threading.Lock()

    def keep(self, x: Floats, answer: Answer) -> None:
        """Keep this one, unless one was kept just now; returns at once."""
        now = time.monotonic()
        with self._lock:
            self._number += 1
            if now - self._at >= EVERY_S:
                self._kept, self._at = (x, answer), now

    def now(self) -> dict[str, object] | None:
        """The image as grey or coloured bytes in base64, and what was answered; None before one."""
        with self._lock:
            kept = self._kept
        if kept is None:
            return None
        x, answer = kept
        named = answer.label < len(self._labels)
        found = answer.to_builtins()
        found["class"] = self._labels[answer.label] if named else str(answer.label)
        return {**found, **_pixels(x)}


def _pixels(x: Floats) -> dict[str, object]:
    """The size and bytes of an image; nothing of what is none."""
    if x.ndim == 2:
        x = x[np.newaxis]
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        return {}
    step = -(-max(x.shape[1:]) // MOST_PIXELS)
    x = x[:, ::step, ::step]
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) * (255 / max(high - low, 1e-9))
    raw = scaled.round().astype(np.uint8).transpose(1, 2, 0).tobytes()
    height, width = x.shape[1:]
    pixels = base64.b64encode(raw).decode()
    return {"width": width, "height": height, "channels": x.shape[0], "pixels": pixels}
