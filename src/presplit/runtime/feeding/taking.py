"""What a user has, brought to what the net of a bundle takes: files, bytes, frames, arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, as_input
from presplit.bundle.photo import prepared, prepared_frame
from presplit.bundle.samples import checked_array, read_samples
from presplit.core.errors import InputError, context
from presplit.core.preparation import Preparation
from presplit.core.sound import fitted, resampled, wav
from presplit.core.types import Floats
from presplit.runtime.feeding.scale import other_scale, reach

MOST_FILE_BYTES = 2**28
"""No image or sound is a larger file."""
NUMPY = b"\x93NUMPY"


class Taking:
    """Makes samples, float32 of the net's input shape, by what the bundle says of its input.

    Every method raises `InputError`, or another `PresplitError` of the same kind, for what cannot
    become a sample.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.shape = bundle.net.boundaries[0].shape
        self._whole = bundle.manifest.whole_input
        self._how = bundle.manifest.preparation
        data = (bundle.manifest.spec or {}).get("data", {})
        self._rate: int | None = data.get("rate")
        self._reach = reach(bundle)
        self.doubts: list[str] = []
        """Sentences on files of samples that are probably not what the net was made for."""

    def check(self, ending: str) -> None:
        """Raise `InputError` if no file of this ending can be a sample, whatever is in it."""
        if ending == ".wav":
            self._sound_rate()
        elif ending != ".npy":
            self._preparation()

    def file(self, path: Path) -> Floats:
        """The one sample in an image or sound file, or in a .npy file."""
        raw, ending = read_file(path), path.suffix.lower()
        if ending == ".wav":
            return self.sound(raw)
        return self.raw(raw) if ending == ".npy" else self.image(raw)

    def raw(self, raw: bytes) -> Floats:
        """The one sample in the bytes of an image, a sound, or an array as ``.npy`` has it."""
        if raw.startswith(NUMPY):
            rows = self.rows(checked_array(io.BytesIO(raw), "one sample"))
            if len(rows) != 1:
                raise InputError(f"expected one sample of shape {self.shape}, got {len(rows)}")
            return self.row(rows[0])
        is_sound = raw[:4] == b"RIFF" and raw[8:12] == b"WAVE"
        return self.sound(raw) if is_sound else self.image(raw)

    def image(self, raw: bytes) -> Floats:
        """The sample that an image file holds."""
        return prepared(raw, self._preparation())

    def frame(self, frame: npt.NDArray[np.uint8]) -> Floats:
        """The sample that a camera's frame is, uint8 ``(height, width, 3)``, RGB."""
        return prepared_frame(frame, self._preparation())

    def sound(self, raw: bytes) -> Floats:
        """The sample that a ``.wav`` file holds, at the bundle's rate and of its length."""
        rate = self._sound_rate()
        sound, own_rate = wav(raw)
        return fitted(resampled(sound, own_rate, rate), self.shape[1])[None]

    def rows(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``array`` as ``(n, *shape)`` with n >= 1, of its own type; it may be one sample alone."""
        if array.shape == self.shape:
            return array[None]
        if array.ndim < 1 or array.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise InputError(f"expected samples of shape (n, {wanted}), got {array.shape}")
        if not len(array):
            raise InputError(f"expected at least one sample, got an array of shape {array.shape}")
        as_input(array[:1], whole=self._whole)
        return array

    def look(self, path: Path, rows: npt.NDArray[Any]) -> None:
        """Note it, once, if the samples of a file are of another scale than the net's."""
        found = "" if self._whole or self.doubts else other_scale(rows, self._reach)
        if found:
            self.doubts.append(f"{path}: {found}")

    def row(self, row: npt.NDArray[Any]) -> Floats:
        """One sample of `rows`."""
        return as_input(row, whole=self._whole)

    def numbers(self, values: object) -> Floats:
        """Nested lists of numbers of the net's shape, or one list of as many."""
        try:
            x = np.asarray(values, np.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"expected lists of numbers of shape {self.shape}") from error
        is_flat = x.ndim == 1 and x.size == int(np.prod(self.shape))
        if x.shape != self.shape and not is_flat:
            raise InputError(f"expected numbers of shape {self.shape}, got {x.shape}")
        return x.reshape(self.shape)

    def _sound_rate(self) -> int:
        if len(self.shape) != 2 or self.shape[0] != 1 or not self._rate:
            raise InputError(
                f"expected samples for a net that takes {self.shape} and does not say the rate of "
                "its sounds, got a .wav file; give a .npy file, or a bundle of a run trained on "
                "sounds"
            )
        return self._rate

    def _preparation(self) -> Preparation:
        if self._how is None:
            raise InputError(
                f"the bundle does not say how an image becomes a sample of shape {self.shape}; "
                "give prepared arrays as .npy, or export it with --prepare"
            )
        return self._how


def read_file(path: Path) -> bytes:
    """The contents of a file of at most `MOST_FILE_BYTES`; raises `InputError`."""
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            problem = "not a file" if path.exists() else "no such file"
            raise InputError(problem)
        size = path.stat().st_size
        if size > MOST_FILE_BYTES:
            raise InputError(f"expected at most {MOST_FILE_BYTES:,} bytes, got {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # a name with a zero byte in it
        raise InputError(f"not the name of a file ({error})") from error


def read_rows(path: Path, taking: Taking) -> npt.NDArray[Any]:
    """The samples in a ``.npy`` file, of their own type; raises `InputError` that names it."""
    array = read_samples(path, axes=1)
    with context(str(path)):
        rows = taking.rows(array)
    taking.look(path, rows)
    return rows
