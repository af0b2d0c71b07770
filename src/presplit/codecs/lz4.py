"""lz4: matches alone, faster and longer than zstd. Source: LZ4's block format, by ``lz4``."""

from __future__ import annotations

from typing import Any, Literal

from presplit.codecs.native import same
from presplit.core.errors import InputError, library


class Lz4:
    """Blocks without a header."""

    name: Literal["lz4"] = "lz4"

    def needed(self) -> None:
        """Raise `MissingLibrary` unless it is there."""
        _block()

    def compress(self, data: bytes) -> bytes:
        """One block."""
        return _block().compress(data, store_size=False)

    def decompress(self, data: bytes, size: int) -> bytes:
        """What is in one block."""
        block = _block()
        try:
            found = block.decompress(data, uncompressed_size=size)
        except block.LZ4BlockError as error:
            raise InputError(f"payload: damaged lz4 ({error})") from error
        same("bytes", size, len(found))
        return found


def _block() -> Any:
    return library("lz4.block", need="a codec with lz4", extra="edge")
