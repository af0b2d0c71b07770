"""Frames of a camera or a video file, by OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from presplit.core.errors import InputError, context, library
from presplit.runtime.feeding.sample import Sample, mark_of
from presplit.runtime.feeding.taking import Taking

CAMERA = "camera:"


def open_frames(word: str, taking: Taking) -> Iterator[Sample]:
    """The frames of ``word``: ``camera:0``, ``camera:/dev/video0``, ``camera:URL``, or a video.

    Raises `InputError` if it cannot be opened or gives no frame, and, after the last one, if it
    is a camera, which has no end of its own.
    """
    is_camera = word.startswith(CAMERA)
    name = word.removeprefix(CAMERA)
    if not is_camera and not Path(word).is_file():
        raise InputError(f"{word}: no such file or folder")
    with context(word):
        taking.check("")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # it would say on its own what is wrong
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2: Any = library("cv2", need="reading a camera or a video", extra="camera")
    capture = cv2.VideoCapture(int(name) if is_camera and name.isdecimal() else name)
    ok, first = capture.read()
    if not ok:
        kind = "camera" if is_camera else "video"
        raise InputError(f"{word}: not a {kind} that can be opened, or it gives no frame")
    return _frames(word, taking, (cv2, capture), first, is_camera)


def _frames(
    word: str, taking: Taking, source: tuple[Any, Any], first: Any, is_camera: bool
) -> Iterator[Sample]:
    cv2, capture = source
    mark = "" if is_camera else mark_of(Path(word))
    number, ok, frame = 0, True, first
    try:
        while ok:
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            id_ = f"{word}@{time.time_ns()}" if is_camera else f"{word}#{number}"
            named = {"file": word, "frame": number}
            yield Sample(id_, named, lambda rgb=rgb: taking.frame(rgb), mark)
            number += 1
            ok, frame = capture.read()
    finally:
        capture.release()
    if is_camera:
        raise InputError(f"{word}: gives no more frames after {number:,}; is it still connected?")
