"""NAME+zstd and NAME+lz4: the codes of another codec, compressed without loss.

It is native: no standard operator decompresses. How long the decompressed codes are is known from
the boundary, and no more than that is ever allocated.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from presplit.codecs.native import alone, nbytes, payload, raw
from presplit.core.encoding import Affine, AffineChannels, Cast, Compressed, Encoding, Seen
from presplit.core.protocols import Codec
from presplit.core.types import Boundary, Floats


class Compressor(Protocol):
    """A library that compresses bytes."""

    @property
    def name(self) -> Literal["zstd", "lz4"]:
        """What codecs are called by."""
        ...

    def needed(self) -> None:
        """Raise `MissingLibrary` if it is not installed."""
        ...

    def compress(self, data: bytes) -> bytes:
        """``data``, usually shorter."""
        ...

    def decompress(self, data: bytes, size: int) -> bytes:
        """``size`` bytes of ``data``; raises `InputError` if it holds anything else."""
        ...


class Smaller:
    """The codes of ``inner`` through a compressor; the accuracy is that of ``inner``."""

    def __init__(self, inner: Codec, compressor: Compressor) -> None:
        self.inner = inner
        self.name = f"{inner.name}+{compressor.name}"
        self._compressor = compressor

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Compressed | None:
        """As ``inner`` does."""
        codes = self.inner.calibrate(seen, shape)
        if not isinstance(codes, Cast | Affine | AffineChannels):
            return None
        self._compressor.needed()
        return Compressed(codes, self._compressor.name)

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any] | None:
        """The codes of ``inner``, compressed."""
        assert isinstance(encoding, Compressed), "this codec calibrates no other"
        codes = self.inner.encode(alone(values), encoding.codes)
        if codes is None:
            return None
        return payload(
            self._compressor.compress(codes.astype(codes.dtype.newbyteorder("<")).tobytes())
        )

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """What ``inner`` decodes."""
        assert isinstance(encoding, Compressed), "this codec calibrates no other"
        inner = encoding.codes
        form = inner.shape(Boundary("payload", shape))
        found = self._compressor.decompress(raw(codes), nbytes(inner.dtype, form))
        array = np.frombuffer(found, np.dtype(inner.dtype).newbyteorder("<")).reshape(1, *form)
        return self.inner.decode(array, inner, shape)

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> None:
        """It is native."""

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """That of ``inner``."""
        assert isinstance(encoding, Compressed), "this codec calibrates no other"
        return self.inner.error(values, encoding.codes)
